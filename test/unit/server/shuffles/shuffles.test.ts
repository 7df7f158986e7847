import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { MillraceError } from "../../../../proto/errors.js";
import type { WatchShuffleEvent } from "../../../../proto/messages.js";
import type { MapOutput } from "../../../../server/shuffles/shuffle.js";
import {
  type Commit,
  type MapOutputStore,
  NO_PARTITION,
  type ShuffleEvent,
  type ShuffleRecorder,
  type ShuffleState,
  Shuffles,
  type SlowestPartition,
} from "../../../../server/shuffles/shuffles.js";

/** Objects by namespace and key, with the store's own rule: a removal may name the version it means. */
class Objects implements MapOutputStore {
  private sequence = 0;
  readonly byKey = new Map<string, { sizeBytes: number; sequence: number }>();

  seal(key: string, sizeBytes: number): void {
    this.sequence += 1;
    this.byKey.set(key, { sizeBytes, sequence: this.sequence });
  }

  head(_namespace: string, key: Uint8Array) {
    return this.byKey.get(Buffer.from(key).toString()) ?? null;
  }

  setPartitions(): void {}

  remove(_namespace: string, key: Uint8Array, condition: { ifSequence: number }): boolean {
    const name = Buffer.from(key).toString();
    const found = this.byKey.get(name);
    if (found === undefined) return false;
    if (condition.ifSequence !== 0 && condition.ifSequence !== found.sequence) {
      throw Object.assign(new Error("another version"), { code: "CONDITION_FAILED" });
    }
    return this.byKey.delete(name);
  }
}

const LIMITS = { partitionsMax: 65_536, mapsMax: 1 << 20, indexBytesMax: 1 << 20 };
const NS = "job";

function setUp(maps: number, partitions: number, limits = LIMITS, recorder: ShuffleRecorder | null = null) {
  const objects = new Objects();
  const shuffles = new Shuffles(objects, limits, recorder);
  shuffles.create(NS, "s", maps, partitions, new Uint8Array([1, 2]));
  return { objects, shuffles };
}

function offsetsOf(lengths: readonly number[]): number[] {
  const offsets = [0];
  for (const length of lengths) offsets.push((offsets.at(-1) as number) + length);
  return offsets;
}

/** Seals the object of an attempt and says how to commit it. */
function produce(objects: Objects, map: number, attempt: number, lengths: readonly number[]): Commit {
  const key = `s/${map}/${attempt}`;
  const offsets = offsetsOf(lengths);
  objects.seal(key, offsets.at(-1) as number);
  return {
    map,
    attempt,
    key: Buffer.from(key),
    offsets,
    checksums: lengths.map((_, index) => map * 1000 + index),
  };
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    return (thrown as MillraceError).code;
  }
  return "OK";
}

const seed = Number(process.env.MILLRACE_SEED ?? Date.now() % 2 ** 31);
console.log(`shuffles.test seed ${seed}`);

describe("the first commit of a map", () => {
  it("wins under any order of attempts, and losers' objects are deleted", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.tuple(fc.nat(5), fc.nat(4)), { maxLength: 40 }),
        (maps, partitions, steps) => {
          const { objects, shuffles } = setUp(maps, partitions);
          const winners = new Map<number, number>();
          for (const [anyMap, attempt] of steps) {
            const map = anyMap % maps;
            const key = `s/${map}/${attempt}`;
            const again = winners.get(map) === attempt;
            const commit = again
              ? { map, attempt, key: Buffer.from(key), offsets: [], checksums: [] }
              : produce(objects, map, attempt, new Array(partitions).fill(map + 1));
            const result = shuffles.commit(NS, "s", commit);
            if (!winners.has(map)) winners.set(map, attempt);
            expect(result).toEqual({ won: winners.get(map) === attempt, winningAttempt: winners.get(map) });
            expect(objects.byKey.has(key)).toBe(result.won);
          }
          expect(objects.byKey.size).toBe(winners.size);
          const described = shuffles.describe(NS, "s");
          expect(described.committed).toBe(winners.size);
        },
      ),
      { seed },
    );
  });

  it("is replaced when its object was overwritten under its own key", () => {
    const { objects, shuffles } = setUp(1, 2);
    shuffles.commit(NS, "s", produce(objects, 0, 7, [1, 2]));
    const before = shuffles.locate(NS, "s", 0, 1).extents[0];
    expect(shuffles.commit(NS, "s", produce(objects, 0, 7, [3, 4])).won).toBe(true);
    const after = shuffles.locate(NS, "s", 0, 1).extents[0];
    expect(after?.length).toBe(3);
    expect(after?.sequence).not.toBe(before?.sequence);
    expect(shuffles.describe(NS, "s").partitionBytes).toEqual([3, 4]);
  });
});

describe("locate", () => {
  it("gives extents whose totals equal the offsets committed", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }).chain((partitions) =>
          fc.array(
            fc.array(fc.oneof(fc.nat(1000), fc.constant(0), fc.constant(2 ** 33)), {
              minLength: partitions,
              maxLength: partitions,
            }),
            { minLength: 1, maxLength: 8 },
          ),
        ),
        fc.infiniteStream(fc.nat()),
        (matrix, order) => {
          const partitions = (matrix[0] as number[]).length;
          const { objects, shuffles } = setUp(matrix.length, partitions);
          const left = matrix.map((_, map) => map);
          while (left.length > 0) {
            const [map] = left.splice((order.next().value as number) % left.length, 1) as [number];
            shuffles.commit(NS, "s", produce(objects, map, 0, matrix[map] as number[]));
          }
          for (let partition = 0; partition < partitions; partition++) {
            const { extents, complete } = shuffles.locate(NS, "s", partition, 1);
            const many = shuffles.locate(NS, "s", partition, partitions - partition).extents;
            expect(many.filter((extent) => extent.partition === partition)).toEqual(extents);
            expect(many.length).toBe((partitions - partition) * matrix.length);
            expect(complete).toBe(true);
            expect(extents.map(({ map }) => map)).toEqual(matrix.map((_, map) => map));
            extents.forEach((extent, map) => {
              const lengths = matrix[map] as number[];
              expect(extent.length).toBe(lengths[partition]);
              expect(extent.offset).toBe(offsetsOf(lengths)[partition]);
              expect(extent.crc32c).toBe(map * 1000 + partition);
            });
            const total = extents.reduce((sum, { length }) => sum + length, 0);
            expect(shuffles.describe(NS, "s").partitionBytes[partition]).toBe(total);
          }
        },
      ),
      { seed },
    );
  });

  it("waits for the last map", async () => {
    const { objects, shuffles } = setUp(2, 1);
    const waiting = shuffles.locateWhenComplete(NS, "s", 0, 1, new AbortController().signal);
    shuffles.commit(NS, "s", produce(objects, 1, 0, [5]));
    expect(shuffles.locate(NS, "s", 0, 1)).toMatchObject({ complete: false, extents: [{ map: 1 }] });
    shuffles.commit(NS, "s", produce(objects, 0, 0, [6]));
    expect(await waiting).toMatchObject({
      complete: true,
      extents: [
        { map: 0, length: 6 },
        { map: 1, length: 5 },
      ],
    });
  });

  it("stops waiting when a map is lost, the caller leaves, the shuffle or the namespace ends", async () => {
    const { objects, shuffles } = setUp(2, 1);
    const leaving = new AbortController();
    const left = shuffles.locateWhenComplete(NS, "s", 0, 1, leaving.signal);
    leaving.abort();
    await expect(left).rejects.toMatchObject({ code: "ABORTED" });

    shuffles.commit(NS, "s", produce(objects, 1, 0, [5]));
    const lost = shuffles.locateWhenComplete(NS, "s", 0, 1, new AbortController().signal);
    shuffles.reportLost(NS, "s", [1]);
    await expect(lost).rejects.toMatchObject({ code: "MAP_OUTPUT_LOST", maps: [1] });

    shuffles.commit(NS, "s", produce(objects, 1, 1, [5]));
    const deleted = shuffles.locateWhenComplete(NS, "s", 0, 1, new AbortController().signal);
    await shuffles.delete(NS, "s");
    await expect(deleted).rejects.toMatchObject({ code: "NOT_FOUND" });

    shuffles.create(NS, "t", 1, 1, new Uint8Array());
    const gone = shuffles.locateWhenComplete(NS, "t", 0, 1, new AbortController().signal);
    shuffles.dropNamespace(NS);
    await expect(gone).rejects.toMatchObject({ code: "NAMESPACE_GONE" });
  });
});

describe("lost map outputs", () => {
  it("are named until a new commit, and what is left of them is freed", () => {
    const { objects, shuffles } = setUp(4, 2);
    for (const map of [0, 1, 2]) shuffles.commit(NS, "s", produce(objects, map, 0, [1, map]));
    expect(shuffles.reportLost(NS, "s", [2, 0, 3])).toEqual([0, 2]);
    expect([...objects.byKey.keys()]).toEqual(["s/1/0"]);
    expect(() => shuffles.locate(NS, "s", 0, 1)).toThrowError(/map 0, 2 is lost; run these map tasks again/);
    expect(shuffles.describe(NS, "s")).toMatchObject({
      committed: 1,
      lostMaps: [0, 2],
      partitionBytes: [1, 1],
    });
    shuffles.commit(NS, "s", produce(objects, 0, 1, [9, 9]));
    shuffles.commit(NS, "s", produce(objects, 2, 1, [9, 9]));
    expect(shuffles.locate(NS, "s", 1, 1).extents).toMatchObject([
      { map: 0, length: 9 },
      { map: 1, length: 1 },
      { map: 2, length: 9 },
    ]);
  });
});

describe("watchers", () => {
  it("see what happened before, then what happens, and the end", async () => {
    const { objects, shuffles } = setUp(2, 1);
    shuffles.commit(NS, "s", produce(objects, 1, 3, [1]));
    const events: WatchShuffleEvent[] = [];
    const ends: string[] = [];
    shuffles.watch(NS, "s", {
      onEvent: (event) => events.push(event),
      onEnd: (error) => ends.push(error.code),
    });
    shuffles.commit(NS, "s", produce(objects, 0, 0, [1]));
    shuffles.reportLost(NS, "s", [1]);
    shuffles.commit(NS, "s", produce(objects, 1, 4, [1]));
    await shuffles.delete(NS, "s");
    expect(events).toEqual([
      { map: 1, attempt: 3, lost: false, committed: 1, complete: false },
      { map: 0, attempt: 0, lost: false, committed: 2, complete: true },
      { map: 1, attempt: 3, lost: true, committed: 1, complete: false },
      { map: 1, attempt: 4, lost: false, committed: 2, complete: true },
    ]);
    expect(ends).toEqual(["NOT_FOUND"]);
  });
});

describe("what comes from outside", () => {
  it.each([
    ["too few offsets", { offsets: [0, 3] }],
    ["a first offset that is not 0", { offsets: [1, 2, 3] }],
    ["offsets that descend", { offsets: [0, 4, 3] }],
    ["a last offset that is not the size", { offsets: [0, 1, 2] }],
    ["too few checksums", { checksums: [1] }],
  ])("refuses a commit with %s", (_, wrong) => {
    const { objects, shuffles } = setUp(1, 2);
    const commit = produce(objects, 0, 0, [1, 2]);
    expect(codeOf(() => shuffles.commit(NS, "s", { ...commit, ...wrong }))).toBe("INVALID_ARGUMENT");
    expect(shuffles.describe(NS, "s").committed).toBe(0);
  });

  it("refuses maps, partitions, objects and shuffles that are not there", () => {
    const { objects, shuffles } = setUp(1, 2);
    const commit = produce(objects, 0, 0, [1, 2]);
    expect(codeOf(() => shuffles.commit(NS, "s", { ...commit, map: 1 }))).toBe("OUT_OF_RANGE");
    expect(codeOf(() => shuffles.commit(NS, "s", { ...commit, key: Buffer.from("none") }))).toBe("NOT_FOUND");
    expect(codeOf(() => shuffles.commit(NS, "other", commit))).toBe("NOT_FOUND");
    expect(codeOf(() => shuffles.locate(NS, "s", 2, 1))).toBe("OUT_OF_RANGE");
    expect(codeOf(() => shuffles.locate(NS, "s", 1, 2))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => shuffles.locate("elsewhere", "s", 0, 1))).toBe("NOT_FOUND");
    expect(codeOf(() => shuffles.create(NS, "s", 1, 1, new Uint8Array()))).toBe("ALREADY_EXISTS");
    expect(codeOf(() => shuffles.create(NS, "a b", 1, 1, new Uint8Array()))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => shuffles.create(NS, "x", 0, 1, new Uint8Array()))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => shuffles.create(NS, "x", 1, 65_537, new Uint8Array()))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => shuffles.create(NS, "x", 1 << 20, 65_536, new Uint8Array()))).toBe(
      "RESOURCE_EXHAUSTED",
    );
  });

  it("keeps index memory within its limit and gives it back", async () => {
    const { objects, shuffles } = setUp(10, 2, { ...LIMITS, indexBytesMax: 130 });
    const commit = (map: number, attempt = 0) =>
      codeOf(() => shuffles.commit(NS, "s", produce(objects, map, attempt, [1, 2])));
    // 3 offsets and 2 checksums of 4 bytes each.
    expect([0, 1, 2, 3, 4, 5, 6].map((map) => commit(map))).toEqual([
      ...new Array(6).fill("OK"),
      "RESOURCE_EXHAUSTED",
    ]);
    shuffles.reportLost(NS, "s", [0]);
    expect(commit(6, 1)).toBe("OK");
    await shuffles.delete(NS, "s");
    shuffles.create(NS, "s", 10, 2, new Uint8Array());
    expect([0, 1, 2, 3, 4, 5].map((map) => commit(map, 2))).toEqual(new Array(6).fill("OK"));
  });
});

describe("the end of a shuffle", () => {
  it("deletes its map outputs and nothing else", async () => {
    const { objects, shuffles } = setUp(600, 1);
    objects.seal("other", 1);
    for (let map = 0; map < 600; map++) shuffles.commit(NS, "s", produce(objects, map, 0, [1]));
    await shuffles.delete(NS, "s");
    expect([...objects.byKey.keys()]).toEqual(["other"]);
  });

  it("leaves the slowest partition for the receipt", async () => {
    const { objects, shuffles } = setUp(1, 3);
    expect(shuffles.slowestPartition(NS)).toEqual({ partition: "", bytes: 0 });
    shuffles.commit(NS, "s", produce(objects, 0, 0, [1, 8, 2]));
    expect(shuffles.slowestPartition(NS)).toEqual({ partition: "s/1", bytes: 8 });
    await shuffles.delete(NS, "s");
    expect(shuffles.slowestPartition(NS)).toEqual({ partition: "s/1", bytes: 8 });
  });
});

/** Keeps what it is told, as a journal does; refuses while `full`. */
class Recorder implements ShuffleRecorder {
  full = false;
  slowest: SlowestPartition = NO_PARTITION;
  readonly states = new Map<string, ShuffleState & { outputs: Map<number, MapOutput>; lost: Set<number> }>();

  record(event: ShuffleEvent): void {
    if (this.full) throw new Error("no room for the record");
    if (event.type === "shuffleCreated") {
      this.states.set(event.shuffle, { ...event, name: event.shuffle, outputs: new Map(), lost: new Set() });
      return;
    }
    const state = this.states.get(event.shuffle);
    if (state === undefined) throw new Error(`no shuffle ${event.shuffle} was recorded`);
    if (event.type === "shuffleDeleted") {
      this.states.delete(event.shuffle);
      this.slowest = event.slowest;
    } else if (event.type === "mapCommitted") {
      state.outputs.set(event.map, event.output);
      state.lost.delete(event.map);
    } else {
      for (const map of event.maps) {
        state.outputs.delete(map);
        state.lost.add(map);
      }
    }
  }
}

describe("with a recorder", () => {
  /** The same shuffles in the node's next life. */
  function restart(recorder: Recorder, objects: Objects, limits = LIMITS) {
    const shuffles = new Shuffles(objects, limits, recorder);
    return { shuffles, gone: shuffles.restore(NS, recorder.states.values(), recorder.slowest) };
  }

  it("shuffles are the same after a restart, whatever happened before", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.tuple(fc.nat(4), fc.nat(3), fc.nat(3), fc.nat(9)), { maxLength: 30 }),
        (maps, partitions, steps) => {
          const recorder = new Recorder();
          const { objects, shuffles } = setUp(maps, partitions, LIMITS, recorder);
          for (const [anyMap, attempt, kind, length] of steps) {
            const map = anyMap % maps;
            if (kind === 0) shuffles.reportLost(NS, "s", [map]);
            else shuffles.commit(NS, "s", produce(objects, map, attempt, new Array(partitions).fill(length)));
          }
          const { shuffles: again, gone } = restart(recorder, objects);
          expect(gone).toBe(0);
          expect(again.describe(NS, "s")).toEqual(shuffles.describe(NS, "s"));
          for (let partition = 0; partition < partitions; partition++) {
            const locate = (from: Shuffles) => {
              try {
                return from.locate(NS, "s", partition, 1);
              } catch (thrown) {
                return (thrown as MillraceError).message;
              }
            };
            expect(locate(again)).toEqual(locate(shuffles));
          }
          expect(again.slowestPartition(NS)).toEqual(shuffles.slowestPartition(NS));
        },
      ),
      { seed },
    );
  });

  it("map outputs whose objects are gone or replaced are lost after a restart", () => {
    const recorder = new Recorder();
    const { objects, shuffles } = setUp(3, 2, LIMITS, recorder);
    for (let map = 0; map < 3; map++) shuffles.commit(NS, "s", produce(objects, map, 0, [1, 1]));
    objects.byKey.delete("s/0/0");
    objects.seal("s/2/0", 2);
    const { shuffles: again, gone } = restart(recorder, objects);
    expect(gone).toBe(2);
    expect(again.describe(NS, "s")).toMatchObject({ committed: 1, lostMaps: [0, 2] });
    expect(again.commit(NS, "s", produce(objects, 0, 1, [2, 2]))).toEqual({ won: true, winningAttempt: 1 });
    expect(again.commit(NS, "s", produce(objects, 2, 1, [2, 2])).won).toBe(true);
    expect(again.locate(NS, "s", 0, 1).complete).toBe(true);
  });

  it("what cannot be recorded does not happen", () => {
    const recorder = new Recorder();
    const { objects, shuffles } = setUp(2, 1, LIMITS, recorder);
    recorder.full = true;
    expect(() => shuffles.create(NS, "t", 1, 1, new Uint8Array(0))).toThrow(/no room/);
    expect(codeOf(() => shuffles.describe(NS, "t"))).toBe("NOT_FOUND");
    expect(() => shuffles.commit(NS, "s", produce(objects, 0, 0, [5]))).toThrow(/no room/);
    expect(shuffles.describe(NS, "s").committed).toBe(0);
    recorder.full = false;
    expect(shuffles.commit(NS, "s", produce(objects, 0, 0, [5])).won).toBe(true);
  });

  it("a deletion is recorded when the last map output is gone", async () => {
    const maps = 600; // some turns of the event loop
    const recorder = new Recorder();
    const { objects, shuffles } = setUp(maps, 1, LIMITS, recorder);
    for (let map = 0; map < maps; map++) shuffles.commit(NS, "s", produce(objects, map, 0, [1]));
    const deleting = shuffles.delete(NS, "s");
    expect(objects.byKey.size).toBeGreaterThan(0);
    expect(codeOf(() => shuffles.create(NS, "s", 1, 1, new Uint8Array(0)))).toBe("ALREADY_EXISTS");
    // A node that dies now comes back with the shuffle, and what is gone of it is lost.
    const died = restart(recorder, objects);
    expect(died.gone).toBe(maps - objects.byKey.size);
    await deleting;
    expect(objects.byKey.size).toBe(0);
    expect(recorder.states.size).toBe(0);
    shuffles.create(NS, "s", 1, 1, new Uint8Array(0));
    expect(restart(recorder, objects).shuffles.slowestPartition(NS)).toEqual({
      partition: "s/0",
      bytes: maps,
    });
  });
});
