/**
 * One namespace, every door: what is put through one is read through each, byte for byte, with the same metadata.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  type Client,
  connect,
  kernels,
  type Namespace,
  type ObjectInfo,
  type TransportKind,
} from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";
import { printedSeed, randomOf } from "../support/random.js";

const MIB = 1 << 20;
const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const SIZES_BYTES = [0, 1, 100, 4096, MIB + 1, 70 * MIB, 300 * MIB];
const KEY = "doors/объект";

const { next } = randomOf(printedSeed("doors"));

let daemon: Daemon;
let clients: Client[];
let owner: Namespace;
/** One handle a transport. */
const handles = {} as Record<TransportKind, Namespace>;
beforeAll(async () => {
  daemon = await startDaemon({ dram: "2GiB" });
  clients = await Promise.all(KINDS.map((transport) => connect(daemon.endpoint, { transport })));
  owner = await (clients[0] as Client).createNamespace("doors");
  for (const client of clients) {
    const handle = await client.openNamespace("doors");
    handles[handle.transport] = handle;
  }
});
afterAll(async () => {
  await (clients[0] as Client).deleteNamespace(owner.name);
  await Promise.all(clients.map((client) => client.close()));
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});
afterEach(async () => {
  await owner.delete(KEY);
});

it("is open through all three", () => {
  expect(KINDS.map((kind) => handles[kind]?.transport)).toEqual(KINDS);
});

/** Everything that a reader can find out about the object. */
async function check(
  reader: Namespace,
  pattern: Pattern,
  sizeBytes: number,
  info: ObjectInfo,
): Promise<void> {
  const over = `over ${reader.transport}`;
  const whole = await reader.getWithInfo(KEY);
  expect(whole.bytes.length, over).toBe(sizeBytes);
  expect(pattern.differs(whole.bytes, 0), over).toBeNull();
  expect(whole.info, over).toEqual(info);
  expect(await reader.head(KEY), over).toEqual(info);
  const { objects, truncated } = await reader.listPage({ prefix: "doors/" });
  expect({ objects, truncated }, over).toEqual({ objects: [{ key: KEY, ...info }], truncated: false });

  for (const { offset, length } of ranges(sizeBytes)) {
    const range = `bytes ${offset} and ${length} more ${over}`;
    const part = await reader.getWithInfo(KEY, { offset, length });
    expect(part.bytes.length, range).toBe(length);
    expect(pattern.differs(part.bytes, offset), range).toBeNull();
    expect(part.info, range).toEqual(info);
  }
  const offset = Math.floor(sizeBytes / 2);
  const rest = await reader.get(KEY, { offset });
  expect(rest.length, over).toBe(sizeBytes - offset);
  expect(pattern.differs(rest, offset), over).toBeNull();
  for (const outside of [
    { offset: sizeBytes + 1 },
    { offset: sizeBytes, length: 1 },
    { offset: 0, length: sizeBytes + 1 },
    { offset: 1, length: sizeBytes },
    { offset: Number.MAX_SAFE_INTEGER, length: Number.MAX_SAFE_INTEGER },
  ]) {
    const attempt = reader.get(KEY, outside);
    await expect(attempt, `${JSON.stringify(outside)} ${over}`).rejects.toMatchObject({
      code: "OUT_OF_RANGE",
    });
  }

  let at = 0;
  for await (const chunk of reader.createReadStream(KEY) as AsyncIterable<Uint8Array>) {
    expect(pattern.differs(chunk, at), `stream ${over}`).toBeNull();
    at += chunk.length;
  }
  expect(at, `stream ${over}`).toBe(sizeBytes);
}

/** Edges, what crosses 64 MiB and 256 MiB, and some anywhere. */
function ranges(sizeBytes: number): { offset: number; length: number }[] {
  const found = [
    { offset: 0, length: 0 },
    { offset: sizeBytes, length: 0 },
    { offset: 0, length: Math.min(1, sizeBytes) },
    { offset: Math.max(0, sizeBytes - 1), length: Math.min(1, sizeBytes) },
  ];
  for (const border of [MIB, 64 * MIB, 256 * MIB]) {
    if (sizeBytes > border + MIB) found.push({ offset: border - MIB, length: 2 * MIB - 1 });
    else if (sizeBytes > border) found.push({ offset: border - 1, length: sizeBytes - border + 1 });
  }
  for (let i = 0; i < 5; i++) {
    const offset = Math.floor(next() * sizeBytes);
    found.push({ offset, length: Math.floor(next() * Math.min(8 * MIB, sizeBytes - offset)) });
  }
  return found;
}

function* pieces(pattern: Pattern, sizeBytes: number): Generator<Buffer> {
  for (let at = 0; at < sizeBytes; ) {
    const length = Math.min(sizeBytes - at, 1 + Math.floor(next() * 3 * MIB));
    yield pattern.bytes(at, length);
    at += length;
  }
}

describe.each(KINDS)("what is put over %s", (kind) => {
  it.each(SIZES_BYTES)("in one call: %i bytes", async (sizeBytes) => {
    const pattern = new Pattern(`${kind}/${sizeBytes}`);
    const data = pattern.bytes(0, sizeBytes);
    const info = await handles[kind].put(KEY, data);
    expect(info.sizeBytes).toBe(sizeBytes);
    expect(info.crc32c).toBe(kernels().crc32c(0, data));
    for (const reader of KINDS) await check(handles[reader], pattern, sizeBytes, info);
  });

  it.each([0, 100, MIB + 1, 70 * MIB, 300 * MIB])(
    "as a stream of unknown size: %i bytes",
    async (sizeBytes) => {
      const pattern = new Pattern(`${kind}/stream/${sizeBytes}`);
      const stream = handles[kind].createWriteStream(KEY);
      await pipeline(Readable.from(pieces(pattern, sizeBytes), { objectMode: false }), stream);
      const info = stream.info as ObjectInfo;
      expect(info.sizeBytes).toBe(sizeBytes);
      for (const reader of KINDS) await check(handles[reader], pattern, sizeBytes, info);
    },
  );

  it("takes the place of what any other has put, and is deleted by any other", async () => {
    const pattern = new Pattern(kind);
    for (const before of KINDS) {
      const first = await handles[before].put(KEY, "before");
      const second = await handles[kind].put(KEY, pattern.bytes(0, 5000), { ifSequence: first.sequence });
      expect(second.sequence).toBeGreaterThan(first.sequence);
      for (const reader of KINDS) {
        expect(pattern.differs(await handles[reader].get(KEY), 0)).toBeNull();
        const late = handles[reader].put(KEY, "late", { ifSequence: first.sequence });
        await expect(late).rejects.toMatchObject({ code: "CONDITION_FAILED" });
        const again = handles[reader].put(KEY, "again", { ifAbsent: true });
        await expect(again).rejects.toMatchObject({ code: "CONDITION_FAILED" });
      }
      expect(await handles[before].delete(KEY, { ifSequence: second.sequence })).toBe(true);
      for (const reader of KINDS) expect(await handles[reader].tryGet(KEY)).toBeNull();
    }
  });

  it("a copy of it is the same through all", async () => {
    const sizeBytes = 300 * MIB;
    const pattern = new Pattern(`${kind}/copy`);
    const from = await owner.put("source", pattern.bytes(0, sizeBytes));
    const info = await handles[kind].copy("source", KEY);
    expect(info).toMatchObject({ sizeBytes, crc32c: from.crc32c });
    expect(info.sequence).toBeGreaterThan(from.sequence);
    await owner.delete("source");
    for (const reader of KINDS) await check(handles[reader], pattern, sizeBytes, info);
  });
});
