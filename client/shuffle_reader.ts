/** One partition of a shuffle: its extents in all map outputs, checked. */
import { loadContract } from "../proto/load.js";
import type {
  PartitionExtent as LocatedExtent,
  LocatePartitionResponse,
  WatchShuffleEvent,
} from "../proto/messages.js";
import { crc32c, crc32cJoin } from "./checksum.js";
import { MillraceError } from "./errors.js";
import type { NamespaceSession } from "./session.js";
import type { ByteSpan, ObjectInfo, Range, Transport } from "./transport.js";
import type { Watch } from "./watch.js";

/**
 * Extents asked for at once: enough to hide round trips, and of small ones many, because those that lie side by side
 * in a file are read together; without holding many large ones that wait.
 */
const EXTENTS_IN_FLIGHT_MAX = 256;
const EXTENT_BYTES_IN_FLIGHT_MAX = 16 << 20;
/** Whatever their size. */
const EXTENTS_IN_FLIGHT_MIN = 4;

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

/** As `PartitionExtent`, for kernels: over shm the bytes are an opaque span. */
export interface PartitionSpan {
  map: number;
  bytes: ByteSpan;
  crc32c: number | null;
  /** How many of the bytes this client read from files of the nvme tier; over tcp and grpc it cannot tell: 0. */
  nvmeBytes: number;
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
  /** Found ahead of time, for the first look. */
  #located: LocatedExtent[] | null;

  /** @internal Use `Shuffle.reader`. */
  constructor(
    session: NamespaceSession,
    shuffle: ShuffleFace,
    partition: number,
    options: ReadOptions,
    located: LocatedExtent[] | null,
  ) {
    this.#located = located;
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
    const fetch = (transport: Transport, extent: LocatedExtent) => this.#fetch(transport, extent);
    for await (const extent of this.#read(location.extents, fetch)) extents.push(extent);
    return extents;
  }

  /**
   * As `extents`, for kernels, which check the checksums in the pass that reads the bytes: nothing is checked
   * here, and over shm JavaScript never sees the bytes, which spares the engine's collector.
   */
  async spans(): Promise<PartitionSpan[]> {
    const location = await this.#locate(true);
    const spans: PartitionSpan[] = [];
    const fetch = (transport: Transport, extent: LocatedExtent) => fetchSpan(transport, extent);
    for await (const span of this.#read(location.extents, fetch)) spans.push(span);
    return spans;
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
      yield* this.#read(fresh, (transport, extent) => this.#fetch(transport, extent));
      if (complete) return;
    }
    throw new MillraceError(
      "ABORTED",
      `the watch of shuffle ${this.#shuffle.id} ended before all maps committed`,
    );
  }

  async #locate(wait: boolean): Promise<LocatePartitionResponse> {
    const extents = this.#located;
    this.#located = null;
    if (extents !== null) return { extents, complete: true };
    const asked = { partition: this.partition, count: 1, wait };
    return locatePartitions(this.#session, this.#shuffle.id, asked, this.#timeoutMs);
  }

  /** In order, with many under way. Fails at the end where any were lost, so that one error names them all. */
  async *#read<Extent>(
    located: readonly LocatedExtent[],
    fetch: (transport: Transport, extent: LocatedExtent) => Promise<Extent | null>,
  ): AsyncGenerator<Extent, void, undefined> {
    const lost: number[] = [];
    const underWay: Promise<Extent | null>[] = [];
    let bytesUnderWay = 0;
    let next = 0;
    const isBelow = (share: number) =>
      underWay.length < EXTENTS_IN_FLIGHT_MIN ||
      (underWay.length < EXTENTS_IN_FLIGHT_MAX * share && bytesUnderWay < EXTENT_BYTES_IN_FLIGHT_MAX * share);
    for (const { map, length } of located) {
      // Many at once and then none for a while: only what is asked for together is read together.
      for (let fill = isBelow(1 / 2); fill && next < located.length; fill = isBelow(1)) {
        const extent = located[next++] as LocatedExtent;
        bytesUnderWay += extent.length;
        const fetching = this.#session.run((transport) => fetch(transport, extent));
        fetching.catch(() => {}); // Seen when its turn comes.
        underWay.push(fetching);
      }
      const extent = await (underWay.shift() as Promise<Extent | null>);
      bytesUnderWay -= length;
      if (extent === null) lost.push(map);
      else if (lost.length === 0) yield extent;
    }
    if (lost.length > 0) throw await this.#shuffle.reportLost(lost);
  }

  /** Null where the map output is missing or not what was committed. */
  async #fetch(transport: Transport, located: LocatedExtent): Promise<PartitionExtent | null> {
    const expected = located.hasCrc32c ? located.crc32c : null;
    const options = this.#verify && expected === null ? {} : { verify: false };
    const bytes = await fetchBytes<Uint8Array>(located, (key, range) => transport.get(key, range, options));
    if (bytes === null) return null;
    if (this.#verify && expected !== null && crc32c(0, bytes) !== expected) return null;
    return { map: located.map, bytes, crc32c: expected };
  }
}

/** @internal */
export function locatePartitions(
  { channel, name }: NamespaceSession,
  shuffle: string,
  asked: { partition: number; count: number; wait: boolean },
  timeoutMs = 0,
): Promise<LocatePartitionResponse> {
  return channel.unary(
    loadContract().shuffles.LocatePartition,
    { namespace: name, shuffle, ...asked },
    { idempotent: true, ...(asked.wait ? { timeoutMs } : {}) },
  );
}

/**
 * One extent a map for the extents of neighbouring partitions, which a map output holds side by side; those without
 * bytes are left out. By map.
 *
 * @internal
 */
export function joinNeighbours(located: readonly LocatedExtent[]): LocatedExtent[] {
  const byMap = new Map<number, LocatedExtent[]>();
  for (const extent of located) {
    if (extent.length === 0) continue;
    const extents = byMap.get(extent.map);
    if (extents === undefined) byMap.set(extent.map, [extent]);
    else extents.push(extent);
  }
  const joined: LocatedExtent[] = [];
  for (const extents of byMap.values()) {
    for (let begin = 0; begin < extents.length; ) {
      const first = extents[begin] as LocatedExtent;
      let end = begin + 1;
      let length = first.length;
      // A map that was committed again between two replies lies elsewhere.
      for (; end < extents.length; end++) {
        const next = extents[end] as LocatedExtent;
        if (next.sequence !== first.sequence || next.offset !== first.offset + length) break;
        length += next.length;
      }
      const same = extents.slice(begin, end);
      const hasCrc32c = same.every((extent) => extent.hasCrc32c);
      const crc32c = hasCrc32c ? crc32cJoin(same.map((extent) => [extent.crc32c, extent.length])) : 0;
      joined.push({ ...first, length, crc32c, hasCrc32c });
      begin = end;
    }
  }
  return joined.sort((a, b) => a.map - b.map);
}

async function fetchSpan(transport: Transport, located: LocatedExtent): Promise<PartitionSpan | null> {
  const options = located.hasCrc32c ? { verify: false } : {};
  let nvmeBytes = 0;
  const bytes = await fetchBytes<ByteSpan>(located, async (key, range) => {
    if (transport.getSpan === undefined) return transport.get(key, range);
    const got = await transport.getSpan(key, range, options);
    nvmeBytes = got?.nvmeBytes ?? 0;
    return got;
  });
  if (bytes === null) return null;
  return { map: located.map, bytes, crc32c: located.hasCrc32c ? located.crc32c : null, nvmeBytes };
}

/** Null where the map output is missing or not what was committed. */
async function fetchBytes<Bytes extends ByteSpan>(
  { key, sequence, offset, length }: LocatedExtent,
  get: (key: Uint8Array, range: Range) => Promise<{ info: ObjectInfo; bytes: Bytes } | null>,
): Promise<Bytes | Uint8Array | null> {
  if (length === 0) return NO_BYTES;
  try {
    const got = await get(key, { offset, length });
    if (got === null || got.info.sequence !== sequence || got.bytes.length !== length) return null;
    return got.bytes;
  } catch (thrown) {
    if (MEANS_LOST.has(MillraceError.from(thrown).code)) return null;
    throw thrown;
  }
}

const MEANS_LOST = new Set(["NOT_FOUND", "OUT_OF_RANGE", "CHECKSUM_MISMATCH", "CORRUPT"]);
