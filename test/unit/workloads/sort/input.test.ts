import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  cutSplits,
  fillSplit,
  fillStretches,
  openInput,
  type SortInput,
  samplePositions,
  splitSizes,
} from "../../../../workloads/sort/input.js";
import { RECORD_BYTES } from "../../../../workloads/sort/records.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-input-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, records: number, firstRecord = 0): string {
  const path = join(folder, name);
  const bytes = Buffer.alloc(records * RECORD_BYTES);
  for (let i = 0; i < records; i += 1) bytes.writeUInt32BE(firstRecord + i, i * RECORD_BYTES);
  writeFileSync(path, bytes);
  return path;
}

const noGenerator = (): Promise<void> => Promise.reject(new Error("files are not generated"));

describe("openInput", () => {
  it("reads gen:N and gen:N,skew", async () => {
    expect(await openInput(["gen:1000"])).toEqual({ kind: "generated", records: 1000, skewed: false });
    expect(await openInput(["gen:0,skew"])).toEqual({ kind: "generated", records: 0, skewed: true });
  });

  it.each(["gen:", "gen:-1", "gen:1.5", "gen:1,Skew", "gen:99999999999999", "gen:1 "])(
    "refuses %s",
    async (word) => {
      await expect(openInput([word])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    },
  );

  it("refuses nothing, mixtures, and inputs of no kind", async () => {
    await expect(openInput([])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(openInput(["gen:1", "gen:2"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(openInput(["gen:1", "s3://bucket/x"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(openInput(["s3://"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(openInput(["s3:///key"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(openInput(["http://host/x"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("lists a directory by name, without hidden and empty files and folders", async () => {
    write("b", 2);
    write("a", 1);
    write(".hidden", 9);
    write("empty", 0);
    mkdirSync(join(folder, "below"));
    const input = await openInput([folder]);
    expect(input).toEqual({
      kind: "stored",
      records: 3,
      sources: [
        { kind: "file", path: join(folder, "a"), sizeBytes: 100 },
        { kind: "file", path: join(folder, "b"), sizeBytes: 200 },
      ],
    });
  });

  it("tells what is wrong with a file", async () => {
    const torn = join(folder, "torn");
    writeFileSync(torn, Buffer.alloc(150));
    await expect(openInput([torn])).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("150 bytes"),
    });
    await expect(openInput([join(folder, "missing")])).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(openInput([join(torn, "below")])).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(openInput(["/dev/null"])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("tells that a file may not be read", async () => {
    const path = write("locked", 1);
    chmodSync(path, 0);
    chmodSync(folder, 0o755);
    // Root may read anything: be nobody meanwhile.
    const root = process.getuid?.() === 0;
    if (root) process.seteuid?.(65534);
    try {
      await expect(openInput([path])).rejects.toThrow(/may not be read/);
    } finally {
      if (root) process.seteuid?.(0);
    }
  });
});

describe("splits", () => {
  it("add up, respect the limits, and are at least as many as function workers", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3_000_000 }),
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 3_000, max: 100_000 }),
        fc.integer({ min: 1, max: 3_000 }),
        (records, workers, most, least) => {
          const sizes = splitSizes(records, workers, most, least);
          expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(records);
          expect(Math.max(...sizes)).toBeLessThanOrEqual(most);
          expect(Math.min(...sizes)).toBeGreaterThan(0);
          expect(sizes.length).toBeGreaterThanOrEqual(Math.min(records, workers) / 3);
          // Only the last may be larger than the one before, by the crumb that it takes along.
          const grown = sizes
            .slice(0, -1)
            .filter((size, i) => size > (sizes[i - 1] ?? Number.POSITIVE_INFINITY));
          expect(grown).toEqual([]);
        },
      ),
    );
  });

  it("cut files without losing, repeating or reordering a byte", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 20 }),
        async (files, workers, most) => {
          let records = 0;
          const names = files.map((count, i) => {
            const path = write(`f${i}`, count, records);
            records += count;
            return path;
          });
          const input = await openInput(names);
          const splits = cutSplits(input, splitSizes(input.records, workers, most, 1));
          const whole = Buffer.alloc(records * RECORD_BYTES);
          let at = 0;
          for (const split of splits) {
            const into = whole.subarray(at, at + split.records * RECORD_BYTES);
            await fillSplit(split, into, noGenerator);
            at += into.length;
          }
          expect(at).toBe(whole.length);
          for (let i = 0; i < records; i += 1) expect(whole.readUInt32BE(i * RECORD_BYTES)).toBe(i);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("cut generated input by record numbers", () => {
    const input: SortInput = { kind: "generated", records: 10, skewed: true };
    expect(cutSplits(input, [6, 4])).toEqual([
      { kind: "generated", firstRecord: 0, records: 6, skewed: true },
      { kind: "generated", firstRecord: 6, records: 4, skewed: true },
    ]);
  });

  it("notice a file that became shorter", async () => {
    const path = write("f", 4);
    const input = await openInput([path]);
    const [split] = cutSplits(input, [4]);
    writeFileSync(path, Buffer.alloc(200));
    await expect(fillSplit(split as never, new Uint8Array(400), noGenerator)).rejects.toMatchObject({
      code: "CORRUPT",
    });
  });
});

describe("samples", () => {
  it("lie inside the input, ascending and apart, evenly spread", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 1_000_000 }),
        fc.integer({ min: 1, max: 500 }),
        fc.integer({ min: 1, max: 100 }),
        (records, stretches, each) => {
          const positions = samplePositions(records, stretches, each);
          let end = 0;
          for (const [first, count] of positions) {
            expect(first).toBeGreaterThanOrEqual(end);
            end = first + count;
          }
          expect(end).toBeLessThanOrEqual(records);
          if (records > 0) expect(end).toBe(stretches > 1 || records <= each ? records : each);
        },
      ),
    );
  });

  it("are read across the borders of files", async () => {
    const paths = [write("a", 3, 0), write("b", 5, 3), write("c", 4, 8)];
    const input = await openInput(paths);
    const into = Buffer.alloc(6 * RECORD_BYTES);
    await fillStretches(
      input,
      [
        [1, 3],
        [6, 1],
        [7, 2],
      ],
      into,
      noGenerator,
    );
    expect(Array.from({ length: 6 }, (_, i) => into.readUInt32BE(i * RECORD_BYTES))).toEqual([
      1, 2, 3, 6, 7, 8,
    ]);
  });
});
