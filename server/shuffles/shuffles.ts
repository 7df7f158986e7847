/**
 * The shuffles of a node: names, limits, the first commit of a map wins. Pure policy; objects are looked up and
 * removed through `MapOutputStore`. Where a recorder is given it hears of every change before anybody else does, so
 * that `restore` can bring the shuffles back in the node's next life.
 */
import { MillraceError } from "../../proto/errors.js";
import type { PartitionExtent, ShuffleMessage } from "../../proto/messages.js";
import { indexBytesOf, type MapOutput, Shuffle, type ShuffleWatcher } from "./shuffle.js";

/** What shuffles need of the store. */
export interface MapOutputStore {
  head(namespace: string, key: Uint8Array): { sizeBytes: number; sequence: number } | null;
  remove(namespace: string, key: Uint8Array, condition: { ifAbsent: boolean; ifSequence: number }): boolean;
  /** Where the partitions of a map output begin, so that those of one shuffle can be stored side by side. */
  setPartitions(
    namespace: string,
    key: Uint8Array,
    shuffle: string,
    offsets: Uint32Array | Float64Array,
  ): void;
}

export interface ShuffleLimits {
  partitionsMax: number;
  mapsMax: number;
  /** Bytes of offsets and checksums that all shuffles of the node may hold. */
  indexBytesMax: number;
}

export interface Commit {
  map: number;
  attempt: number;
  key: Uint8Array;
  offsets: readonly number[];
  checksums: readonly number[];
}

export interface Location {
  extents: PartitionExtent[];
  complete: boolean;
}

export interface SlowestPartition {
  /** "shuffle/partition", "" where there is none. */
  readonly partition: string;
  readonly bytes: number;
}

export type ShuffleEvent =
  | {
      readonly type: "shuffleCreated";
      readonly namespace: string;
      readonly shuffle: string;
      readonly maps: number;
      readonly partitions: number;
      readonly partitioner: Uint8Array;
    }
  | {
      readonly type: "mapCommitted";
      readonly namespace: string;
      readonly shuffle: string;
      readonly map: number;
      readonly output: MapOutput;
    }
  | {
      readonly type: "mapsLost";
      readonly namespace: string;
      readonly shuffle: string;
      readonly maps: readonly number[];
    }
  | {
      readonly type: "shuffleDeleted";
      readonly namespace: string;
      readonly shuffle: string;
      /** Of all shuffles of the namespace that were deleted. */
      readonly slowest: SlowestPartition;
    };

/** Takes note of a change, or throws; then nothing has changed. */
export interface ShuffleRecorder {
  record(event: ShuffleEvent): void;
}

/** What of a shuffle outlives the node. */
export interface ShuffleState {
  readonly name: string;
  readonly maps: number;
  readonly partitions: number;
  readonly partitioner: Uint8Array;
  readonly outputs: ReadonlyMap<number, MapOutput>;
  readonly lost: ReadonlySet<number>;
}

const SHUFFLE_NAME = /^[A-Za-z0-9._-]{1,200}$/;
const SHUFFLES_PER_NAMESPACE_MAX = 10_000;
const PARTITIONER_BYTES_MAX = 16 << 20;
const REMOVALS_A_TURN = 256;

interface ShufflesOfNamespace {
  byName: Map<string, Shuffle>;
  /** Shuffles whose map outputs are being deleted; their names are taken until that is done. */
  ending: Set<string>;
  /** Of shuffles that were deleted. */
  slowest: SlowestPartition;
}

export class Shuffles {
  private readonly namespaces = new Map<string, ShufflesOfNamespace>();
  private indexBytes = 0;

  constructor(
    private readonly store: MapOutputStore,
    private readonly limits: ShuffleLimits,
    private readonly recorder: ShuffleRecorder | null = null,
  ) {}

  /**
   * Brings back the shuffles of a namespace, and returns how many of their map outputs are gone: these are lost, and
   * have to be run again.
   */
  restore(namespace: string, states: Iterable<ShuffleState>, slowest: SlowestPartition): number {
    const shuffles = this.ofNamespace(namespace);
    shuffles.slowest = slowest;
    let gone = 0;
    for (const state of states) {
      const shuffle = new Shuffle(state.name, state.maps, state.partitions, state.partitioner);
      for (const map of state.lost) shuffle.restoreLost(map);
      for (const [map, output] of state.outputs) {
        if (this.store.head(namespace, output.key)?.sequence === output.sequence) {
          shuffle.accept(map, output);
          this.tellPartitions(namespace, state.name, output);
          continue;
        }
        shuffle.restoreLost(map);
        gone += 1;
      }
      shuffles.byName.set(state.name, shuffle);
      this.indexBytes += shuffle.indexBytes;
    }
    return gone;
  }

  create(
    namespace: string,
    name: string,
    maps: number,
    partitions: number,
    partitioner: Uint8Array,
  ): ShuffleMessage {
    if (!SHUFFLE_NAME.test(name)) {
      throw invalid("a shuffle's name must have 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-'");
    }
    checkCount("maps", maps, this.limits.mapsMax);
    checkCount("partitions", partitions, this.limits.partitionsMax);
    if (partitioner.length > PARTITIONER_BYTES_MAX) {
      throw invalid(`the partitioner has ${partitioner.length} bytes, the most is ${PARTITIONER_BYTES_MAX}`);
    }
    if (maps * (partitions + 1) * 4 > this.limits.indexBytesMax) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `${maps} maps times ${partitions} partitions need more than the ${this.limits.indexBytesMax} bytes that ` +
          "a node keeps for shuffle indexes; use fewer of either",
        { retryable: false },
      );
    }
    const shuffles = this.ofNamespace(namespace);
    if (shuffles.ending.has(name)) {
      throw new MillraceError(
        "ALREADY_EXISTS",
        `shuffle ${name} of namespace ${namespace} is still being deleted; wait for that, or choose another name`,
      );
    }
    if (shuffles.byName.has(name)) {
      throw new MillraceError("ALREADY_EXISTS", `shuffle ${name} exists already in namespace ${namespace}`);
    }
    if (shuffles.byName.size >= SHUFFLES_PER_NAMESPACE_MAX) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `namespace ${namespace} has ${SHUFFLES_PER_NAMESPACE_MAX} shuffles, which is the limit; delete some`,
      );
    }
    // A copy, because what gRPC hands over is a slice of a larger message.
    const shuffle = new Shuffle(name, maps, partitions, Uint8Array.from(partitioner));
    this.recorder?.record({
      type: "shuffleCreated",
      namespace,
      shuffle: name,
      maps,
      partitions,
      partitioner: shuffle.partitioner,
    });
    shuffles.byName.set(name, shuffle);
    return describe(namespace, shuffle);
  }

  describe(namespace: string, name: string): ShuffleMessage {
    return describe(namespace, this.require(namespace, name));
  }

  /**
   * Commits a map output. The first commit of a map wins; the object of a later attempt is deleted. Repeating a
   * commit that won is told so again.
   */
  commit(namespace: string, name: string, commit: Commit): { won: boolean; winningAttempt: number } {
    const shuffle = this.require(namespace, name);
    const { map, attempt } = commit;
    checkIndex("map", map, shuffle.maps);
    const info = this.store.head(namespace, commit.key);
    const current = shuffle.output(map);
    if (current !== null) {
      const sameObject = sameBytes(current.key, commit.key);
      if (!sameObject) {
        if (info !== null) this.removeObject(namespace, commit.key, info.sequence);
        return { won: false, winningAttempt: current.attempt };
      }
      if (info !== null && info.sequence === current.sequence) {
        return { won: attempt === current.attempt, winningAttempt: current.attempt };
      }
      // The winner's object was overwritten under its own key, so it is gone: what replaced it takes its place.
    }
    if (info === null) {
      throw new MillraceError(
        "NOT_FOUND",
        `map ${map} of shuffle ${name}: there is no object ${JSON.stringify(Buffer.from(commit.key).toString())}; ` +
          "seal the map output before committing it",
      );
    }
    const output = checkOutput(commit, shuffle, info);
    const moreBytes = indexBytesOf(output) - (current === null ? 0 : indexBytesOf(current));
    if (this.indexBytes + moreBytes > this.limits.indexBytesMax) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `this node keeps at most ${this.limits.indexBytesMax} bytes of shuffle indexes; delete finished shuffles`,
      );
    }
    this.recorder?.record({ type: "mapCommitted", namespace, shuffle: name, map, output });
    this.indexBytes += moreBytes;
    shuffle.accept(map, output);
    this.tellPartitions(namespace, name, output);
    return { won: true, winningAttempt: attempt };
  }

  /** What is there now of `count` partitions from `first` on. MAP_OUTPUT_LOST where maps must be run again. */
  locate(namespace: string, name: string, first: number, count: number): Location {
    const shuffle = this.require(namespace, name);
    checkPartitions(shuffle, first, count);
    if (shuffle.lostMaps.length > 0) throw shuffle.lostError();
    return located(shuffle, first, count);
  }

  /** As `locate`, when all maps have committed. Rejects when one is lost, the shuffle ends or `signal` aborts. */
  locateWhenComplete(
    namespace: string,
    name: string,
    first: number,
    count: number,
    signal: AbortSignal,
  ): Promise<Location> {
    return new Promise((resolve, reject) => {
      const shuffle = this.require(namespace, name);
      checkPartitions(shuffle, first, count);
      const onAbort = () => {
        cancel();
        reject(new MillraceError("ABORTED", "the caller went away"));
      };
      let cancel = () => {};
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      cancel = shuffle.whenComplete((error) => {
        signal.removeEventListener("abort", onAbort);
        if (error !== null) reject(error);
        else resolve(located(shuffle, first, count));
      });
    });
  }

  watch(namespace: string, name: string, watcher: ShuffleWatcher): () => void {
    return this.require(namespace, name).watch(watcher);
  }

  /** Marks the maps as lost, frees what is left of their outputs, and returns all maps lost now. */
  reportLost(namespace: string, name: string, maps: readonly number[]): number[] {
    const shuffle = this.require(namespace, name);
    for (const map of maps) checkIndex("map", map, shuffle.maps);
    const held = [...new Set(maps)].filter((map) => shuffle.output(map) !== null);
    // The objects first: a record of a loss whose object is still there would leave the object to nobody.
    for (const map of held) {
      const { key, sequence } = shuffle.output(map) as MapOutput;
      this.removeObject(namespace, key, sequence);
    }
    if (held.length > 0) this.recorder?.record({ type: "mapsLost", namespace, shuffle: name, maps: held });
    for (const map of held) this.indexBytes -= indexBytesOf(shuffle.lose(map) as MapOutput);
    shuffle.announceLosses();
    return shuffle.lostMaps;
  }

  /**
   * Forgets the shuffle and deletes its map outputs, some at a time so that the event loop stays free. It is recorded
   * when all are gone: a node that dies before comes back with the shuffle and what is left of it.
   */
  async delete(namespace: string, name: string): Promise<void> {
    const shuffle = this.require(namespace, name);
    const shuffles = this.ofNamespace(namespace);
    shuffles.slowest = slower(shuffles.slowest, shuffle);
    shuffles.byName.delete(name);
    shuffles.ending.add(name);
    this.indexBytes -= shuffle.indexBytes;
    shuffle.end(new MillraceError("NOT_FOUND", `shuffle ${name} was deleted`));
    try {
      let removals = 0;
      for (const output of shuffle.allOutputs()) {
        this.removeObject(namespace, output.key, output.sequence);
        if (++removals % REMOVALS_A_TURN !== 0) continue;
        await new Promise((resolve) => setImmediate(resolve));
        // The namespace has ended meanwhile, and perhaps begun anew: what it holds is no longer ours.
        if (this.namespaces.get(namespace) !== shuffles) return;
      }
      this.recorder?.record({ type: "shuffleDeleted", namespace, shuffle: name, slowest: shuffles.slowest });
    } finally {
      shuffles.ending.delete(name);
    }
  }

  /** The namespace has ended, and its objects with it. */
  dropNamespace(namespace: string): void {
    const shuffles = this.namespaces.get(namespace);
    if (shuffles === undefined) return;
    this.namespaces.delete(namespace);
    for (const shuffle of shuffles.byName.values()) {
      this.indexBytes -= shuffle.indexBytes;
      shuffle.end(new MillraceError("NAMESPACE_GONE", `namespace ${namespace} has ended`));
    }
  }

  /** "shuffle/partition" with the most bytes, of the namespace's shuffles past and present; "" where none. */
  slowestPartition(namespace: string): SlowestPartition {
    const shuffles = this.namespaces.get(namespace);
    if (shuffles === undefined) return NO_PARTITION;
    return [...shuffles.byName.values()].reduce(slower, shuffles.slowest);
  }

  private ofNamespace(namespace: string): ShufflesOfNamespace {
    let shuffles = this.namespaces.get(namespace);
    if (shuffles === undefined) {
      shuffles = { byName: new Map(), ending: new Set(), slowest: NO_PARTITION };
      this.namespaces.set(namespace, shuffles);
    }
    return shuffles;
  }

  private require(namespace: string, name: string): Shuffle {
    const shuffle = this.namespaces.get(namespace)?.byName.get(name);
    if (shuffle === undefined) {
      throw new MillraceError(
        "NOT_FOUND",
        `there is no shuffle ${JSON.stringify(name.slice(0, 200))} in namespace ${namespace}; create it first`,
      );
    }
    return shuffle;
  }

  /** What the store stores side by side is a matter of speed: that the object is gone or replaced is no failure. */
  private tellPartitions(namespace: string, shuffle: string, { key, offsets }: MapOutput): void {
    try {
      this.store.setPartitions(namespace, key, shuffle, offsets);
    } catch (thrown) {
      const { code } = MillraceError.from(thrown);
      if (!["INVALID_ARGUMENT", "NOT_FOUND", "NAMESPACE_GONE"].includes(code)) throw thrown;
    }
  }

  /** Removes this very version of the object; that it is gone already, or replaced, is as good. */
  private removeObject(namespace: string, key: Uint8Array, sequence: number): void {
    try {
      this.store.remove(namespace, key, { ifAbsent: false, ifSequence: sequence });
    } catch (thrown) {
      const { code } = MillraceError.from(thrown);
      if (!["CONDITION_FAILED", "NOT_FOUND", "NAMESPACE_GONE"].includes(code)) throw thrown;
    }
  }
}

function describe(namespace: string, shuffle: Shuffle): ShuffleMessage {
  return {
    namespace,
    shuffle: shuffle.name,
    maps: shuffle.maps,
    partitions: shuffle.partitions,
    partitioner: shuffle.partitioner,
    committed: shuffle.committed,
    partitionBytes: Array.from(shuffle.partitionBytes),
    lostMaps: shuffle.lostMaps,
  };
}

export const NO_PARTITION: SlowestPartition = { partition: "", bytes: 0 };

function slower(than: SlowestPartition, shuffle: Shuffle): SlowestPartition {
  const { partition, bytes } = shuffle.slowest();
  return bytes > than.bytes ? { partition: `${shuffle.name}/${partition}`, bytes } : than;
}

function checkOutput(
  commit: Commit,
  shuffle: Shuffle,
  info: { sizeBytes: number; sequence: number },
): MapOutput {
  const { offsets, checksums } = commit;
  const about = `map ${commit.map} of shuffle ${shuffle.name}`;
  if (offsets.length !== shuffle.partitions + 1) {
    throw invalid(
      `${about}: ${offsets.length} offsets, but ${shuffle.partitions} partitions need ${shuffle.partitions + 1}`,
    );
  }
  if (checksums.length !== 0 && checksums.length !== shuffle.partitions) {
    throw invalid(
      `${about}: ${checksums.length} checksums; send one a partition (${shuffle.partitions}) or none`,
    );
  }
  if (offsets[0] !== 0) throw invalid(`${about}: the first offset is ${offsets[0]}, it must be 0`);
  for (let index = 1; index < offsets.length; index++) {
    const offset = offsets[index] as number;
    if (!Number.isSafeInteger(offset) || offset < (offsets[index - 1] as number)) {
      throw invalid(`${about}: offset ${index} is ${offset}, less than the one before; offsets must ascend`);
    }
  }
  const sizeBytes = offsets[shuffle.partitions] as number;
  if (sizeBytes !== info.sizeBytes) {
    throw invalid(`${about}: the last offset is ${sizeBytes}, but the object has ${info.sizeBytes} bytes`);
  }
  return {
    attempt: commit.attempt,
    key: Uint8Array.from(commit.key),
    sequence: info.sequence,
    offsets: sizeBytes <= 0xffff_ffff ? Uint32Array.from(offsets) : Float64Array.from(offsets),
    checksums: checksums.length === 0 ? null : Uint32Array.from(checksums),
  };
}

function checkCount(field: string, value: number, max: number): void {
  if (!Number.isSafeInteger(value) || value < 1 || value > max) {
    throw invalid(`${field} must be a whole number from 1 to ${max}, not ${value}`);
  }
}

function checkIndex(field: string, value: number, count: number): void {
  if (!Number.isSafeInteger(value) || value < 0 || value >= count) {
    throw new MillraceError(
      "OUT_OF_RANGE",
      `${field} ${value}: this shuffle has ${field}s 0 to ${count - 1}`,
    );
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}

/** The most extents that one reply lists: some MiB of message. */
const LOCATED_EXTENTS_MAX = 65_536;

function checkPartitions(shuffle: Shuffle, first: number, count: number): void {
  checkIndex("partition", first, shuffle.partitions);
  if (count > shuffle.partitions - first || (count > 1 && count * shuffle.maps > LOCATED_EXTENTS_MAX)) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${count} partitions from ${first} on cannot be located in one reply: there are ${shuffle.partitions}, ` +
        `and a reply lists at most ${LOCATED_EXTENTS_MAX} extents`,
    );
  }
}

function located(shuffle: Shuffle, first: number, count: number): Location {
  const extents = Array.from({ length: count }, (_, i) => shuffle.locate(first + i)).flat();
  return { extents, complete: shuffle.complete };
}
