/**
 * The exchange between the two stages of a workload: M map outputs, each cut into R partitions. Millrace is one
 * way to do it; the others exist so that anyone can measure the difference with everything else the same.
 *
 * A function worker opens the exchange once a run and keeps it. Map calls `openOutput`, fill the buffer with
 * their partitions one after another, and `commit`. Reduce calls `readPartition` or `readRun` when all maps have
 * committed.
 */

import type { MillraceError } from "../../client/errors.js";
import type { ByteSpan } from "../../client/index.js";

/** What a map call writes into. `commit` or `abort` ends it. */
export interface MapOutput {
  /** Room for the whole output. Over shared memory it is the store itself; elsewhere memory of the process. */
  readonly buffer: ByteSpan;
  /**
   * Makes the output visible, whole. `offsets` has R+1 entries, ascending, from 0 to the size of the buffer;
   * `checksums` the CRC32C of each partition. Committing a map again is harmless: the outputs are the same.
   */
  commit(offsets: Float64Array, checksums: Uint32Array): Promise<void>;
  abort(): Promise<void>;
}

/** One partition, or some neighbouring ones, as the maps left them. */
export interface PartitionExtents {
  /** The maps that have any of it, ascending. */
  readonly maps: number[];
  /** The stretch from each of these maps. Valid until `close`. */
  readonly extents: ByteSpan[];
  /** CRC32C of each extent. */
  readonly checksums: Uint32Array;
  readonly sizeBytes: number;
  /** Of these, what was read from files of Millrace's nvme tier by this function worker itself. */
  readonly nvmeBytes?: number;
}

/** Neighbouring maps. */
export interface MapRange {
  first: number;
  count: number;
}

export interface Exchange {
  /** How the bytes travel: 'shm', 'tcp' or 'grpc' for Millrace, else the name of the store. */
  readonly transport: string;
  openOutput(map: number, attempt: number, sizeBytes: number): Promise<MapOutput>;
  /** Says which partitions will be read next, where that saves asking for each of them. */
  expectPartitions?(first: number, count: number): Promise<void>;
  readPartition(partition: number): Promise<PartitionExtents>;
  /**
   * Reads `count` neighbouring partitions from `first` on, of all maps or of some neighbouring ones. What lies side by
   * side is one extent: so mostly one a map, which holds the partitions in order.
   */
  readRun(first: number, count: number, maps: MapRange | null): Promise<PartitionExtents>;
  /** What these maps left does not match its checksums. Gives the error to fail with: MAP_OUTPUT_LOST, naming them. */
  reportLost(maps: readonly number[]): Promise<MillraceError>;
  close(): Promise<void>;
}

/** Attempts of different rounds must differ, and the executor counts from 0 in each. */
const ATTEMPTS_PER_ROUND = 1000;

/** The attempt to open an output with: `round` is how often the driver has asked for it before. */
export function attemptOf(round: number, attempt: number): number {
  return round * ATTEMPTS_PER_ROUND + attempt;
}

/** What all function workers of a run must agree on. */
export interface ExchangePlan {
  /** Unique to the run; 1 to 63 of a-z 0-9 - . */
  run: string;
  maps: number;
  partitions: number;
  /** Little is expected to be exchanged: what it costs is round trips. Left out: it may be much. */
  isSmall?: boolean;
}

/** The driver's side: before the first map and after the last reduce. */
export interface ExchangeSetup {
  /** Leaves nothing of the run in the store. Called once, also after failures. */
  remove(): Promise<void>;
}
