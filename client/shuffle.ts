/** One exchange between two stages: M map outputs times R partitions. */
import { loadContract } from "../proto/load.js";
import type {
  PartitionExtent as LocatedExtent,
  ShuffleMessage,
  WatchShuffleEvent,
} from "../proto/messages.js";
import { MillraceError } from "./errors.js";
import { checkCount } from "./names.js";
import type { NamespaceSession } from "./session.js";
import {
  joinNeighbours,
  locatePartitions,
  PartitionReader,
  type PartitionSpan,
  type ReadOptions,
} from "./shuffle_reader.js";
import { ShuffleWriter } from "./shuffle_writer.js";
import { Watch } from "./watch.js";

const UINT32_MAX = 2 ** 32 - 1;
/** Extents of one reply, as the node limits them. */
const LOCATED_EXTENTS_MAX = 65_536;

export interface ShuffleOptions {
  /** M: map tasks. */
  maps: number;
  /** R: partitions, one a reduce task. */
  partitions: number;
  /** What mappers need to know to partition, for example serialised splitters. Opaque to the node. */
  partitioner?: Uint8Array;
}

/** What whoever created a shuffle knows of it. */
export interface ShuffleShape {
  maps: number;
  partitions: number;
}

export interface RunOptions {
  /** Of the maps, only these neighbours. */
  maps?: { first: number; count: number };
}

export interface ShuffleProgress {
  /** Maps whose output is committed. */
  committed: number;
  /** Bytes of each partition in the outputs committed so far. */
  partitionBytes: number[];
  /** Maps to run again. */
  lostMaps: number[];
}

/** `map` was committed, or its output was lost and a new commit will follow. */
export type ShuffleEvent = WatchShuffleEvent;

/** A handle of a shuffle; it lives with the namespace handle that it came from and needs no close. */
export class Shuffle {
  /** Its name, unique in the namespace. */
  readonly id: string;
  readonly maps: number;
  readonly partitions: number;
  readonly partitioner: Uint8Array;
  readonly #session: NamespaceSession;
  /** What `locate` has found and no reader has taken yet. */
  readonly #located = new Map<number, LocatedExtent[]>();

  private constructor(
    session: NamespaceSession,
    message: Pick<ShuffleMessage, "shuffle" | "maps" | "partitions" | "partitioner">,
  ) {
    this.#session = session;
    this.id = message.shuffle;
    this.maps = message.maps;
    this.partitions = message.partitions;
    // A copy: what gRPC hands over is a slice of a larger message.
    this.partitioner = Uint8Array.from(message.partitioner);
  }

  /** @internal */
  static async create(session: NamespaceSession, id: string, options: ShuffleOptions): Promise<Shuffle> {
    const message = await session.channel.unary(loadContract().shuffles.CreateShuffle, {
      namespace: session.name,
      shuffle: id,
      maps: checkCount("maps", options.maps, 1, UINT32_MAX),
      partitions: checkCount("partitions", options.partitions, 1, UINT32_MAX),
      partitioner: options.partitioner ?? new Uint8Array(0),
    });
    return new Shuffle(session, message);
  }

  /** @internal */
  static async open(session: NamespaceSession, id: string, shape: ShuffleShape | null): Promise<Shuffle> {
    if (shape === null) return new Shuffle(session, await describe(session, id));
    return new Shuffle(session, {
      shuffle: id,
      maps: checkCount("maps", shape.maps, 1, UINT32_MAX),
      partitions: checkCount("partitions", shape.partitions, 1, UINT32_MAX),
      partitioner: new Uint8Array(0),
    });
  }

  /**
   * Begins the output of one attempt of one map task. Give `sizeBytes` where it will be written piece by piece
   * and its size is known.
   */
  async writer(map: number, attempt: number, options: { sizeBytes?: number } = {}): Promise<ShuffleWriter> {
    checkCount("map", map, 0, this.maps - 1);
    checkCount("attempt", attempt, 0, UINT32_MAX);
    return ShuffleWriter.open(this.#session, this, map, attempt, options);
  }

  /** Reads one partition of all map outputs. */
  reader(partition: number, options: ReadOptions = {}): PartitionReader {
    checkCount("partition", partition, 0, this.partitions - 1);
    const located = this.#located.get(partition) ?? null;
    this.#located.delete(partition);
    return new PartitionReader(this.#session, this, partition, options, located);
  }

  /**
   * Waits until all maps have committed and locates `count` partitions from `first` on in one reply. The next
   * reader of each takes what was found and asks no more; a reader after it asks again. For tasks that read
   * several partitions: a call to the node costs more than a small partition.
   */
  async locate(first: number, count: number): Promise<void> {
    checkCount("first", first, 0, this.partitions - 1);
    checkCount("count", count, 1, this.partitions - first);
    const { extents } = await locatePartitions(this.#session, this.id, {
      partition: first,
      count,
      wait: true,
    });
    for (let partition = first; partition < first + count; partition++) this.#located.set(partition, []);
    for (const extent of extents) this.#located.get(extent.partition)?.push(extent);
  }

  /**
   * Reads `count` neighbouring partitions from `first` on, when all maps have committed: one stretch a map output that
   * has any of them, because there they lie side by side. For kernels, which check the checksums (see
   * `PartitionReader.spans`); null where the map committed without.
   */
  async readRun(first: number, count: number, options: RunOptions = {}): Promise<PartitionSpan[]> {
    checkCount("first", first, 0, this.partitions - 1);
    checkCount("count", count, 1, this.partitions - first);
    const { maps = { first: 0, count: this.maps } } = options;
    checkCount("maps.first", maps.first, 0, this.maps - 1);
    checkCount("maps.count", maps.count, 1, this.maps - maps.first);
    const located: LocatedExtent[] = [];
    // One reply lists so many extents at most.
    const step = Math.max(1, Math.floor(LOCATED_EXTENTS_MAX / this.maps));
    for (let partition = first; partition < first + count; partition += step) {
      const asked = { partition, count: Math.min(step, first + count - partition), wait: true };
      for (const extent of (await locatePartitions(this.#session, this.id, asked)).extents) {
        if (extent.map >= maps.first && extent.map < maps.first + maps.count) located.push(extent);
      }
    }
    return new PartitionReader(this.#session, this, first, {}, joinNeighbours(located)).spans();
  }

  async progress(): Promise<ShuffleProgress> {
    const { committed, partitionBytes, lostMaps } = await describe(this.#session, this.id);
    return { committed, partitionBytes, lostMaps };
  }

  /**
   * Commits and losses: those that stand now first, then those to come; those that stand once more where the node was
   * away meanwhile. Leave the loop at `complete`.
   */
  watch(): Watch<ShuffleEvent> {
    const { channel, name } = this.#session;
    const { WatchShuffle } = loadContract().shuffles;
    const request = { namespace: name, shuffle: this.id };
    const convert = (event: WatchShuffleEvent) => event;
    return new Watch(channel, () => channel.serverStream(WatchShuffle, request), {
      convert,
      repeatable: true,
    });
  }

  /**
   * Says that these maps' outputs cannot be read, so that they are run again, and gives the error to fail with:
   * MAP_OUTPUT_LOST, which names all maps that are lost now.
   */
  async reportLost(maps: readonly number[]): Promise<MillraceError> {
    const { channel, name } = this.#session;
    const { lostMaps } = await channel.unary(
      loadContract().shuffles.ReportLost,
      { namespace: name, shuffle: this.id, maps: [...maps] },
      { idempotent: true },
    );
    const all = [...new Set([...lostMaps, ...maps])].sort((a, b) => a - b);
    const shown =
      all.length > 20 ? `${all.slice(0, 20).join(", ")} and ${all.length - 20} more` : all.join(", ");
    return new MillraceError(
      "MAP_OUTPUT_LOST",
      `shuffle ${this.id}: the output of map ${shown} is lost; run these map tasks again`,
      { maps: all },
    );
  }
}

function describe(session: NamespaceSession, id: string): Promise<ShuffleMessage> {
  const request = { namespace: session.name, shuffle: id };
  return session.channel.unary(loadContract().shuffles.DescribeShuffle, request, { idempotent: true });
}
