/** Objects that memory has no room for, through the SDK against a real node with an `nvme` directory. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Client,
  connect,
  kernels,
  type MillraceError,
  type Namespace,
  type TransportKind,
} from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { damageFiles } from "../support/damage.js";
import { Pattern } from "../support/pattern.js";
import { printedSeed, randomOf } from "../support/random.js";

const KIB = 1 << 10;
const MIB = 1 << 20;
const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];

const folder = mkdtempSync(join(tmpdir(), "millrace-tiers-"));
let daemon: Daemon;
let client: Client;
beforeAll(async () => {
  daemon = await startDaemon({ dram: "64MiB", args: ["--nvme", `${folder}:1GiB`] });
  client = await connect(daemon.endpoint);
});
afterAll(async () => {
  await client.close();
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
  rmSync(folder, { recursive: true, force: true });
});

const failsWith = (code: string, message = "") =>
  expect.objectContaining({ code, message: expect.stringContaining(message) });

function isDemoted(namespace: Namespace, key: string): boolean {
  try {
    expect(namespace.view(key)).not.toBeNull();
    return false;
  } catch (thrown) {
    if ((thrown as MillraceError).code === "UNSUPPORTED") return true;
    throw thrown;
  }
}

/** Fills memory until every object of `keys` was demoted. */
async function pushOut(namespace: Namespace, keys: readonly string[]): Promise<void> {
  for (let i = 0; i < 2000 && !keys.every((key) => isDemoted(namespace, key)); i++) {
    await namespace.put(`filler-${i % 700}`, new Pattern("filler").bytes(i, 200 * KIB));
  }
  for (const key of keys) expect(() => namespace.view(key)).toThrow(failsWith("UNSUPPORTED", key));
}

async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

async function emptied(namespace: Namespace): Promise<void> {
  await client.deleteNamespace(namespace.name);
  await namespace.close();
}

describe("300 MiB in a node of 64 MiB", () => {
  const seed = printedSeed("client_tiers");
  const random = randomOf(seed);
  const sizes = new Map<string, number>();
  let namespace: Namespace;
  beforeAll(async () => {
    namespace = await client.createNamespace("tiers");
    expect(namespace.transport).toBe("shm");
    let total = 0;
    for (let i = 0; total < 300 * MIB; i++) {
      const key = `object-${i}`;
      const most = random.below(10) === 0 ? 5 * MIB : 2 ** random.below(20);
      const size = random.below(most + 1);
      const data = new Pattern(key).bytes(0, size);
      if (random.below(4) > 0) await namespace.put(key, data);
      else await pipeline([data], namespace.createWriteStream(key)); // in parts
      sizes.set(key, size);
      total += size;
    }
  }, 120_000);
  afterAll(() => emptied(namespace));

  it("has demoted most of it", () => {
    const large = [...sizes].filter(([, size]) => size > MIB).map(([key]) => key);
    expect(large.filter((key) => isDemoted(namespace, key)).length).toBeGreaterThan(large.length / 2);
  });

  it.each(KINDS)(
    "gives it back over %s by get, by range and as streams",
    async (kind) => {
      await using other = await connect(daemon.endpoint, { transport: kind });
      await using handle = await other.openNamespace("tiers");
      for (const [key, size] of sizes) {
        const pattern = new Pattern(key);
        const { bytes, info } = await handle.getWithInfo(key);
        expect(info.sizeBytes).toBe(size);
        expect(bytes.length).toBe(size);
        expect(pattern.differs(bytes, 0), key).toBeNull();
        const offset = random.below(size + 1);
        const length = random.below(size - offset + 1);
        const verify = [true, false, undefined][random.below(3)];
        const part = await handle.get(key, { offset, length }, verify === undefined ? {} : { verify });
        expect(part.length).toBe(length);
        expect(pattern.differs(part, offset), `${key} from ${offset}, ${length} bytes`).toBeNull();
        if (random.below(3) > 0) continue;
        const whole = await collect(handle.createReadStream(key));
        expect(whole.length).toBe(size);
        expect(pattern.differs(whole, 0), key).toBeNull();
        const some = await collect(handle.createReadStream(key, { offset, length }));
        expect(some.length).toBe(length);
        expect(pattern.differs(some, offset), key).toBeNull();
      }
    },
    240_000,
  );

  it("gives many at once", async () => {
    const keys = [...sizes.keys()].filter((_, i) => i % 4 === 0);
    await Promise.all(
      keys.map(async (key) => {
        expect(new Pattern(key).differs(await namespace.get(key), 0), key).toBeNull();
      }),
    );
  }, 60_000);

  it("says what it says of objects in memory", async () => {
    const key = [...sizes].find(([key, size]) => size > MIB && isDemoted(namespace, key))?.[0] as string;
    const size = sizes.get(key) as number;
    expect((await namespace.head(key))?.sizeBytes).toBe(size);
    expect((await namespace.get(key, { offset: size })).length).toBe(0);
    await expect(namespace.get(key, { offset: size, length: 1 })).rejects.toThrow(failsWith("OUT_OF_RANGE"));
    expect(() => namespace.view(key)).toThrow(failsWith("UNSUPPORTED", "get"));
    expect(() => namespace.viewExtents(key)).toThrow(failsWith("UNSUPPORTED", "get"));
    expect(await namespace.tryGet("nothing")).toBeNull();
  });
});

describe("a demoted object", () => {
  let namespace: Namespace;
  beforeAll(async () => {
    namespace = await client.createNamespace("demoted");
  });
  afterAll(() => emptied(namespace));

  it("is streamed as it was when the stream began", async () => {
    await namespace.put("streamed", new Pattern("before").bytes(0, 7 * MIB));
    await pushOut(namespace, ["streamed"]);
    const chunks: Uint8Array[] = [];
    for await (const chunk of namespace.createReadStream("streamed")) {
      chunks.push(chunk);
      if (chunks.length === 1) await namespace.put("streamed", new Pattern("after").bytes(0, 3 * MIB));
      if (chunks.length === 2) await namespace.delete("streamed");
    }
    const whole = Buffer.concat(chunks);
    expect(whole.length).toBe(7 * MIB);
    expect(new Pattern("before").differs(whole, 0)).toBeNull();
    expect(await namespace.tryGet("streamed")).toBeNull();
  }, 60_000);

  it("outlives a stream that nobody reads to its end", async () => {
    await namespace.put("left", new Pattern("left").bytes(0, 6 * MIB));
    await pushOut(namespace, ["left"]);
    for (let i = 0; i < 5; i++) {
      for await (const chunk of namespace.createReadStream("left")) {
        expect(chunk.length).toBeGreaterThan(0);
        break;
      }
    }
    expect(new Pattern("left").differs(await namespace.get("left"), 0)).toBeNull();
  }, 60_000);

  it("that is damaged is not given out", async () => {
    const data = new Pattern("damaged").bytes(0, 4 * MIB);
    await namespace.put("damaged", data);
    await pushOut(namespace, ["damaged"]);
    expect(damageFiles(folder, data.subarray(MIB, MIB + 4 * KIB))).toBe(1);
    const damaged = failsWith("CORRUPT", "the object 'damaged' is damaged in segment ");
    await expect(namespace.get("damaged")).rejects.toThrow(damaged);
    await expect(collect(namespace.createReadStream("damaged"))).rejects.toThrow(damaged);
    await expect(namespace.get("damaged", { offset: 5, length: 10 }, { verify: true })).rejects.toThrow(
      damaged,
    );
    expect((await namespace.get("damaged", {}, { verify: false })).length).toBe(data.length);
    for (const transport of ["tcp", "grpc"] as const) {
      await using other = await connect(daemon.endpoint, { transport });
      await using handle = await other.openNamespace("demoted");
      await expect(handle.get("damaged")).rejects.toThrow(failsWith("CORRUPT"));
    }
  }, 60_000);
});

describe("a shuffle beyond memory", () => {
  const MAPS = 60;
  const PARTITIONS = 25;
  const PARTITION_BYTES = 80_000;

  it.each(KINDS)(
    "gives every partition over %s",
    async (kind) => {
      const name = `shuffle-${kind}`;
      const namespace = await client.createNamespace(name);
      const shuffle = await namespace.createShuffle("exchange", { maps: MAPS, partitions: PARTITIONS });
      for (let map = 0; map < MAPS; map++) {
        const sizeBytes = PARTITIONS * PARTITION_BYTES;
        const writer = await shuffle.writer(map, 0, { sizeBytes });
        const data = new Pattern(`map-${map}`).bytes(0, sizeBytes);
        for (let i = 0; i < PARTITIONS; i++) {
          await writer.write(i, data.subarray(i * PARTITION_BYTES, (i + 1) * PARTITION_BYTES));
        }
        await writer.commit();
      }
      await using other = await connect(daemon.endpoint, { transport: kind });
      await using handle = await other.openNamespace(name);
      const reading = await handle.openShuffle("exchange");
      let nvmeBytes = 0;
      for (let partition = 0; partition < PARTITIONS; partition++) {
        const hashes = Array.from({ length: MAPS }, (_, map) =>
          digest(new Pattern(`map-${map}`).bytes(partition * PARTITION_BYTES, PARTITION_BYTES)),
        );
        const extents = await reading.reader(partition).extents();
        expect(extents.map(({ bytes }) => digest(bytes))).toEqual(hashes);
        const spans = await reading.reader(partition).spans();
        expect(spans.length).toBe(MAPS);
        for (const [i, { bytes, crc32c }] of spans.entries()) {
          expect(bytes.length).toBe(PARTITION_BYTES);
          const expected = kernels().crc32c(0, extents[i]?.bytes as Uint8Array);
          expect(kernels().crc32c(0, bytes)).toBe(expected);
          if (crc32c !== null) expect(crc32c).toBe(expected);
          if ("release" in bytes) bytes.release();
        }
        nvmeBytes += spans.reduce((sum, span) => sum + span.nvmeBytes, 0);
      }
      // Over tcp and grpc the node reads the files.
      expect(nvmeBytes > 0).toBe(kind === "shm");
      expect(nvmeBytes).toBeLessThanOrEqual(MAPS * PARTITIONS * PARTITION_BYTES);
      await emptied(namespace);
    },
    120_000,
  );
});

const digest = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
