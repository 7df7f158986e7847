import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openInput, type SortInput } from "../../../../workloads/sort/input.js";
import { openOutput } from "../../../../workloads/sort/output.js";

const GENERATED: SortInput = { kind: "generated", records: 1, skewed: false };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-output-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it("opens a directory by its absolute path", async () => {
  const output = await openOutput(join(folder, "x", "..", "out"), false, GENERATED);
  expect(output.place).toEqual({ kind: "directory", path: join(folder, "out") });
});

it.each(["ftp://host/x", "s3://", "s3:///x"])("refuses %s", async (word) => {
  await expect(openOutput(word, false, GENERATED)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

it("refuses to write over its input, by whatever name", async () => {
  mkdirSync(join(folder, "in"));
  writeFileSync(join(folder, "in", "part-00000"), Buffer.alloc(100));
  symlinkSync(join(folder, "in"), join(folder, "link"));
  const input = await openInput([join(folder, "in")]);
  await expect(openOutput(join(folder, "link"), true, input)).rejects.toThrow(/holds the input/);
  const stored: SortInput = {
    kind: "stored",
    records: 1,
    sources: [{ kind: "object", bucket: "b", key: "x/part-00000", etag: null, sizeBytes: 100 }],
  };
  await expect(openOutput("s3://b/x/", true, stored)).rejects.toThrow(/holds the input/);
});
