/** Shuffles through the SDK against a real node, the same suite over every transport. */
import { randomBytes } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { crc32c } from "../../client/checksum.js";
import {
  type Client,
  connect,
  type MillraceError,
  type Namespace,
  type PartitionExtent,
  type Shuffle,
  type ShuffleEvent,
  type TransportKind,
} from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon.stop();
});

const failsWith = (code: string, more: object = {}) => expect.objectContaining({ code, ...more });

const PARTITIONS = 4;
/** What `attempt` of `map` has for `partition`; the last partition of every map is empty. */
const share = (map: number, partition: number, attempt = 0) =>
  partition === PARTITIONS - 1 ? "" : `map ${map} partition ${partition} attempt ${attempt};`.repeat(map + 1);

async function writeMap(shuffle: Shuffle, map: number, attempt = 0) {
  const writer = await shuffle.writer(map, attempt);
  for (let partition = 0; partition < PARTITIONS; partition++) {
    await writer.write(partition, share(map, partition, attempt));
  }
  return writer.commit();
}

const texts = (extents: readonly PartitionExtent[]) =>
  extents.map(({ map, bytes }) => [map, Buffer.from(bytes).toString()] as const);

describe.each<TransportKind>(["shm", "tcp", "grpc"])("shuffles over %s", (kind) => {
  let client: Client;
  let namespace: Namespace;
  let shuffle: Shuffle;
  beforeEach(async () => {
    client = await connect(daemon.endpoint, { transport: kind });
    namespace = await client.createNamespace(`shuffle-${process.pid}-${randomBytes(4).toString("hex")}`);
    shuffle = await namespace.createShuffle("test", {
      maps: 3,
      partitions: PARTITIONS,
      partitioner: Uint8Array.of(1, 2, 3),
    });
  });
  afterEach(async () => {
    await client.deleteNamespace(namespace.name).catch(() => {});
    await client.close();
  });

  async function outputs(): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of namespace.list({ prefix: "shuffle/test/" })) keys.push(key);
    return keys;
  }

  it("locates several partitions in one reply, for one reader each", async () => {
    for (let map = 0; map < 3; map++) await writeMap(shuffle, map);
    const handle = await namespace.openShuffle("test");
    await handle.locate(1, 3);
    await expect(handle.locate(1, 4)).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    for (let partition = 0; partition < PARTITIONS; partition++) {
      for (let time = 0; time < 2; time++) {
        expect(texts(await handle.reader(partition).extents())).toEqual(
          [0, 1, 2].map((map) => [map, share(map, partition)]),
        );
      }
    }
  });

  it("are made, found and deleted by their id", async () => {
    const opened = await namespace.openShuffle("test");
    expect(opened).toMatchObject({ id: "test", maps: 3, partitions: PARTITIONS });
    expect(opened.partitioner).toEqual(Uint8Array.of(1, 2, 3));
    await expect(namespace.createShuffle("test", { maps: 1, partitions: 1 })).rejects.toThrow(
      failsWith("ALREADY_EXISTS"),
    );
    await expect(namespace.createShuffle("", { maps: 1, partitions: 1 })).rejects.toThrow(
      failsWith("INVALID_ARGUMENT"),
    );
    await expect(namespace.createShuffle("x", { maps: 0, partitions: 1 })).rejects.toThrow(
      failsWith("INVALID_ARGUMENT"),
    );
    await writeMap(shuffle, 0);
    await namespace.deleteShuffle("test");
    await expect(namespace.openShuffle("test")).rejects.toThrow(failsWith("NOT_FOUND"));
    expect(await outputs()).toEqual([]);
  });

  it("give each reducer its share of every map, in the order of the maps", async () => {
    for (const map of [2, 0, 1]) expect(await writeMap(shuffle, map)).toMatchObject({ won: true });
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const extents = await shuffle.reader(partition).extents();
      expect(texts(extents)).toEqual([0, 1, 2].map((map) => [map, share(map, partition)]));
    }
    const { committed, partitionBytes, lostMaps } = await shuffle.progress();
    expect({ committed, lostMaps }).toEqual({ committed: 3, lostMaps: [] });
    expect(partitionBytes).toEqual(
      Array.from({ length: PARTITIONS }, (_, p) => [0, 1, 2].reduce((sum, m) => sum + share(m, p).length, 0)),
    );
  });

  it("take outputs that were filled in place", async () => {
    const data = randomBytes(3 * 1024 * 1024 + 5);
    const offsets = Float64Array.of(0, 1_000_001, 1_000_001, 2_000_000, data.length);
    const writer = await shuffle.writer(0, 0);
    const room = await writer.reserve(data.length);
    expect(room.length).toBe(data.length);
    if (kind === "shm") expect(room.byteOffset % 64).toBe(0);
    room.set(data);
    expect(await writer.commit({ offsets })).toEqual({
      won: true,
      winningAttempt: 0,
      sizeBytes: data.length,
    });
    await writeMap(shuffle, 1);
    await writeMap(shuffle, 2);
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const [extent] = await shuffle.reader(partition).extents();
      const expected = data.subarray(offsets[partition], offsets[partition + 1]);
      expect(Buffer.compare(extent?.bytes as Uint8Array, expected)).toBe(0);
    }
  });

  it("take outputs that are empty as a whole", async () => {
    await (await shuffle.writer(0, 0)).commit();
    const reserved = await shuffle.writer(1, 0);
    await reserved.reserve(0);
    await reserved.commit({ offsets: [0, 0, 0, 0, 0] });
    await writeMap(shuffle, 2);
    expect(texts(await shuffle.reader(0).extents())).toEqual([
      [0, ""],
      [1, ""],
      [2, share(2, 0)],
    ]);
  });

  it("let the first attempt of a map win and free what others made", async () => {
    const [first, second] = await Promise.all([shuffle.writer(0, 0), shuffle.writer(0, 1)]);
    for (const [writer, attempt] of [
      [first, 0],
      [second, 1],
    ] as const) {
      await writer.write(0, share(0, 0, attempt));
    }
    expect(await second.commit()).toMatchObject({ won: true, winningAttempt: 1 });
    expect(await first.commit()).toMatchObject({ won: false, winningAttempt: 1 });
    expect(await outputs()).toEqual([expect.stringMatching(/^shuffle\/test\/m0\.a1\./)]);
    await writeMap(shuffle, 1);
    await writeMap(shuffle, 2);
    expect(texts(await shuffle.reader(0).extents())[0]).toEqual([0, share(0, 0, 1)]);
  });

  it("leave nothing of an attempt that was given up or refused", async () => {
    const aborted = await shuffle.writer(0, 0);
    await aborted.write(0, "given up");
    await aborted.abort();
    await aborted.abort();
    await expect(aborted.commit()).rejects.toThrow(failsWith("CLOSED"));

    const wrong = await shuffle.writer(0, 1);
    (await wrong.reserve(10)).fill(1);
    await expect(wrong.commit()).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(wrong.commit({ offsets: [0, 10] })).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(wrong.commit({ offsets: [0, 5, 4, 6, 10] })).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(wrong.commit({ offsets: [0, 5, 6, 7, 9] })).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    // Checksums that do not fit the bytes are caught when these are sealed; over shm only when they are read,
    // because sealing in place touches no byte.
    if (kind === "shm") {
      await wrong.abort();
    } else {
      await expect(wrong.commit({ offsets: [0, 10, 10, 10, 10], checksums: [1, 0, 0, 0] })).rejects.toThrow(
        failsWith("CHECKSUM_MISMATCH"),
      );
    }

    const backwards = await shuffle.writer(0, 2);
    await backwards.write(2, "c");
    await expect(backwards.write(1, "b")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await backwards.abort();

    const orphan = await shuffle.writer(0, 3);
    await orphan.write(0, "orphan");
    await namespace.deleteShuffle("test");
    await expect(orphan.commit()).rejects.toThrow(failsWith("NOT_FOUND"));
    expect(await outputs()).toEqual([]);
  });

  it("refuse tasks and partitions that they do not have", async () => {
    await expect(shuffle.writer(3, 0)).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    expect(() => shuffle.reader(PARTITIONS)).toThrow(failsWith("INVALID_ARGUMENT"));
  });

  it("make a reducer wait for the last map, up to its timeout", async () => {
    await writeMap(shuffle, 0);
    await writeMap(shuffle, 1);
    await expect(shuffle.reader(0, { timeoutMs: 100 }).extents()).rejects.toThrow(
      failsWith("DEADLINE_EXCEEDED"),
    );
    const waiting = shuffle.reader(0).extents();
    await writeMap(shuffle, 2);
    expect(texts(await waiting)).toHaveLength(3);
  });

  it("let a reducer start before the last map is done", async () => {
    await writeMap(shuffle, 1);
    const seen: number[] = [];
    for await (const { map, bytes } of shuffle.reader(0)) {
      expect(Buffer.from(bytes).toString()).toBe(share(map, 0));
      seen.push(map);
      if (seen.length === 1) await writeMap(shuffle, 2);
      if (seen.length === 2) await writeMap(shuffle, 0);
    }
    expect(seen).toEqual([1, 2, 0]);
  });

  it("give neighbouring partitions as one stretch a map, of all maps or of some", async () => {
    for (const map of [0, 1, 2]) await writeMap(shuffle, map);
    const handle = await namespace.openShuffle("test", { maps: 3, partitions: PARTITIONS });
    for (let first = 0; first < PARTITIONS; first++) {
      for (let count = 1; count <= PARTITIONS - first; count++) {
        for (const maps of [undefined, { first: 1, count: 2 }]) {
          const wanted = [0, 1, 2].filter((map) => map >= (maps?.first ?? 0));
          const run = await handle.readRun(first, count, maps === undefined ? {} : { maps });
          const expected = wanted
            .map((map) => ({
              map,
              text: Array.from({ length: count }, (_, i) => share(map, first + i)).join(""),
            }))
            .filter(({ text }) => text !== "");
          expect(run.map(({ map, bytes }) => [map, bytes.length])).toEqual(
            expected.map(({ map, text }) => [map, text.length]),
          );
          expect(run.map(({ crc32c }) => crc32c)).toEqual(
            expected.map(({ text }) => crc32c(0, Buffer.from(text))),
          );
        }
      }
    }
    await expect(handle.readRun(2, 3)).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(handle.readRun(0, 1, { maps: { first: 2, count: 2 } })).rejects.toThrow(
      failsWith("INVALID_ARGUMENT"),
    );
  });

  it("are opened without a question by who knows their shape, and missed when they are used", async () => {
    const known = await namespace.openShuffle("test", { maps: 3, partitions: PARTITIONS });
    expect(known).toMatchObject({ id: "test", maps: 3, partitions: PARTITIONS });
    for (const map of [0, 1, 2]) await writeMap(known, map);
    expect(texts(await known.reader(1).extents())).toEqual([0, 1, 2].map((map) => [map, share(map, 1)]));
    const missing = await namespace.openShuffle("nothing", { maps: 1, partitions: 1 });
    await expect(missing.readRun(0, 1)).rejects.toThrow(failsWith("NOT_FOUND"));
  });

  it("give bytes unchecked with their checksum to who asks for it", async () => {
    for (const map of [0, 1, 2]) await writeMap(shuffle, map);
    const checked = await shuffle.reader(1).extents();
    const unchecked = await shuffle.reader(1, { verify: false }).extents();
    expect(unchecked).toEqual(checked);
    expect(unchecked.every(({ crc32c }) => crc32c !== null)).toBe(true);
  });

  it("name the maps to run again when outputs are missing or replaced, and go on when they were", async () => {
    for (const map of [0, 1, 2]) await writeMap(shuffle, map);
    const keys = await outputs();
    await namespace.delete(keys[0] as string);
    await namespace.put(
      keys[2] as string,
      "not what was committed, but long enough to hold the range ".repeat(9),
    );
    const error = (await shuffle
      .reader(0)
      .extents()
      .then(
        () => expect.unreachable(),
        (thrown) => thrown,
      )) as MillraceError;
    expect(error).toEqual(failsWith("MAP_OUTPUT_LOST", { retryable: false, maps: [0, 2] }));
    expect((await shuffle.progress()).lostMaps).toEqual([0, 2]);
    // Other reducers learn it from the node, whether they wait or not.
    await expect(shuffle.reader(1).extents()).rejects.toThrow(failsWith("MAP_OUTPUT_LOST", { maps: [0, 2] }));
    for (const map of [0, 2])
      expect(await writeMap(shuffle, map, 1)).toMatchObject({ won: true, winningAttempt: 1 });
    expect(texts(await shuffle.reader(0).extents())).toEqual([
      [0, share(0, 0, 1)],
      [1, share(1, 0, 0)],
      [2, share(2, 0, 1)],
    ]);
  });

  it("tell watchers what stands and what comes", async () => {
    await writeMap(shuffle, 1);
    const events: ShuffleEvent[] = [];
    for await (const event of shuffle.watch()) {
      events.push(event);
      if (events.length === 1) await writeMap(shuffle, 0, 7);
      if (events.length === 2) await shuffle.reportLost([1]);
      if (events.length === 3) await writeMap(shuffle, 1, 1);
      if (events.length === 4) await writeMap(shuffle, 2);
      if (event.complete) break;
    }
    expect(events.map(({ map, attempt, lost }) => [map, attempt, lost])).toEqual([
      [1, 0, false],
      [0, 7, false],
      [1, 0, true],
      [1, 1, false],
      [2, 0, false],
    ]);
  });

  it("end waiting reducers when they are deleted", async () => {
    const waiting = shuffle.reader(0).extents();
    const early = (async () => {
      for await (const _ of shuffle.reader(0));
    })();
    const ends = Promise.allSettled([waiting, early]);
    await writeMap(shuffle, 0);
    await namespace.deleteShuffle("test");
    for (const end of await ends) {
      expect(end).toMatchObject({ status: "rejected", reason: failsWith("NOT_FOUND") });
    }
  });
});

it("carries a corrupt extent to the checksum, not to the reducer", async () => {
  await using client = await connect(daemon.endpoint);
  await using namespace = await client.createNamespace(`corrupt-${process.pid}`);
  const shuffle = await namespace.createShuffle("test", { maps: 2, partitions: 2 });
  const good = await shuffle.writer(0, 0);
  await good.write(0, "good");
  await good.commit();
  // Checksums whose combination is that of the whole object, while each is wrong: no sealing can see that.
  const { crc32c, crc32cCombine } = await import("../../client/checksum.js");
  const halves = [Buffer.from("first half"), Buffer.from("second half")] as const;
  const whole = crc32c(0, Buffer.concat(halves));
  const wrongFirst = (crc32c(0, halves[0]) ^ 1) >>> 0;
  const wrongSecond = (crc32cCombine(wrongFirst, 0, halves[1].length) ^ whole) >>> 0;
  const writer = await shuffle.writer(1, 0);
  (await writer.reserve(21)).set(Buffer.concat(halves));
  await writer.commit({ offsets: [0, 10, 21], checksums: [wrongFirst, wrongSecond] });
  expect(await shuffle.reader(0, { verify: false }).extents()).toHaveLength(2);
  await expect(shuffle.reader(0).extents()).rejects.toThrow(failsWith("MAP_OUTPUT_LOST", { maps: [1] }));
});
