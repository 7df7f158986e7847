/** One partition of a shuffle: its extents in all map outputs, checked. */
import { loadContract } from "../proto/load.js";
import type {
  PartitionExtent as LocatedExtent,
  LocatePartitionResponse,
  WatchShuffleEvent,
} from "../proto/messages.js";
import { crc32c } from "./checksum.js";
import { MillraceError } from "./errors.js";
import type { NamespaceSession } from "./session.js";
import type { Transport } from "./transport.js";
import type { Watch } from "./watch.js";

/** Extents asked for at once: enough to hide round trips, without holding many large ones that wait. */
const EXTENTS_IN_FLIGHT_MAX = 32;

const NO_BYTES = new Uint8Array(0);

export interface ReadOptions {
  /**
   * Checks each extent against its CRC32C, which is the default. Leave it to whoever reads the bytes anyway, for
   * example to the sort kernel, by `false`.
   */
  verify?: boolean;
  /** How long to wait for maps that have not committed; forever where left out. */
  timeoutMs?: number;
}

/** What one map output holds of a partition. */
export interface PartitionExtent {
  map: number;
  /** Over shm a view in place, see `Namespace` for how long it lives; over tcp and grpc memory of its own. */
  bytes: Uint8Array;
  /** Of the bytes; null where the map committed without checksums. */
  crc32c: number | null;
}

interface ShuffleFace {
  readonly id: string;
  watch(): Watch<WatchShuffleEvent>;
  reportLost(maps: readonly number[]): Promise<MillraceError>;
}

/**
 * Reads one partition, either all at once (`extents`) or map by map while maps still commit (as an async
 * iterable). A map output that is missing or corrupt is reported to the node, and the read fails with
 * MAP_OUTPUT_LOST, whose `maps` are to be run again.
 */
export class PartitionReader implements AsyncIterable<PartitionExtent> {
  readonly partition: number;
  readonly #session: NamespaceSession;
  readonly #shuffle: ShuffleFace;
  readonly #verify: boolean;
  readonly #timeoutMs: number;

  /** @internal Use `Shuffle.reader`. */
  constructor(session: NamespaceSession, shuffle: ShuffleFace, partition: number, options: ReadOptions) {
    this.#session = session;
    this.#shuffle = shuffle;
    this.partition = partition;
    this.#verify = options.verify ?? true;
    this.#timeoutMs = options.timeoutMs ?? 0;
  }

  /** Waits until every map has committed and gives their extents in the order of the maps, empty ones too. */
  async extents(): Promise<PartitionExtent[]> {
    const location = await this.#locate(true);
    const extents: PartitionExtent[] = [];
    for await (const extent of this.#read(location.extents)) extents.push(extent);
    return extents;
  }

  /**
   * Gives extents as maps commit, each map once, in no order, and ends when all have committed. The timeout
   * does not apply; leave the loop to stop waiting.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<PartitionExtent, void, undefined> {
    const seen = new Set<number>();
    // One reply locates all that has committed, so asking at every commit would cost M replies of up to M
    // extents. Asking when an eighth more has committed keeps that near M.
    let askAt = 1;
    for await (const event of this.#shuffle.watch()) {
      if (!event.complete && event.committed < askAt) continue;
      const { extents, complete } = await this.#locate(false);
      askAt = extents.length + 1 + (extents.length >> 3);
      const fresh = extents.filter((extent) => !seen.has(extent.map));
      for (const { map } of fresh) seen.add(map);
      yield* this.#read(fresh);
      if (complete) return;
    }
    throw new MillraceError(
      "ABORTED",
      `the watch of shuffle ${this.#shuffle.id} ended before all maps committed`,
    );
  }

  #locate(wait: boolean): Promise<LocatePartitionResponse> {
    const { channel, name } = this.#session;
    return channel.unary(
      loadContract().shuffles.LocatePartition,
      { namespace: name, shuffle: this.#shuffle.id, partition: this.partition, wait },
      { idempotent: true, ...(wait ? { timeoutMs: this.#timeoutMs } : {}) },
    );
  }

  /** In order, with many under way. Fails at the end where any were lost, so that one error names them all. */
  async *#read(located: readonly LocatedExtent[]): AsyncGenerator<PartitionExtent, void, undefined> {
    const lost: number[] = [];
    const underWay: Promise<PartitionExtent | null>[] = [];
    let next = 0;
    for (const { map } of located) {
      while (next < located.length && underWay.length < EXTENTS_IN_FLIGHT_MAX) {
        const extent = located[next++] as LocatedExtent;
        const fetching = this.#session.run((transport) => this.#fetch(transport, extent));
        fetching.catch(() => {}); // Seen when its turn comes.
        underWay.push(fetching);
      }
      const extent = await (underWay.shift() as Promise<PartitionExtent | null>);
      if (extent === null) lost.push(map);
      else if (lost.length === 0) yield extent;
    }
    if (lost.length > 0) throw await this.#shuffle.reportLost(lost);
  }

  /** Null where the map output is missing or not what was committed. */
  async #fetch(transport: Transport, located: LocatedExtent): Promise<PartitionExtent | null> {
    const { map, key, sequence, offset, length, hasCrc32c } = located;
    const expected = hasCrc32c ? located.crc32c : null;
    if (length === 0) return { map, bytes: NO_BYTES, crc32c: expected };
    let got: Awaited<ReturnType<Transport["get"]>>;
    try {
      got = await transport.get(key, { offset, length });
    } catch (thrown) {
      if (MEANS_LOST.has(MillraceError.from(thrown).code)) return null;
      throw thrown;
    }
    if (got === null || got.info.sequence !== sequence || got.bytes.length !== length) return null;
    if (this.#verify && expected !== null && crc32c(0, got.bytes) !== expected) return null;
    return { map, bytes: got.bytes, crc32c: expected };
  }
}

const MEANS_LOST = new Set(["NOT_FOUND", "OUT_OF_RANGE", "CHECKSUM_MISMATCH", "CORRUPT"]);
