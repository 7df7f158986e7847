/** How a run is cut: what the driver decides before it calls anybody. Pure. */

import type { ExchangePlan } from "../stores/exchange.js";
import type { StoreChoice } from "../stores/open.js";
import type { SortInput, Split } from "./input.js";
import type { OutputPlace } from "./output.js";
import { RECORD_BYTES } from "./records.js";

/** A map output must fit one segment of the store (64 MiB) beside its headers, so that its bytes are contiguous. */
export const MAP_BYTES_MAX = 60_000_000;
/** Below this a call costs more than it brings. */
export const MAP_BYTES_MIN = 12_000_000;
/**
 * Bytes of a partition, unless `--partitions` says otherwise. Measured (docs/benchmarks.md): smaller ones cost
 * the reduce more calls to the node, larger ones do not fit the caches while being sorted.
 */
export const PARTITION_BYTES = 32_000_000;
/** As `kPartitionsMax` of native/base/limits.h. */
export const PARTITIONS_MAX = 65_536;
export const FUNCTION_WORKERS_MAX = 1024;

/** Keys looked at to choose the splitters: for each partition this many, which keeps the largest near the mean. */
const SAMPLE_RECORDS_PER_PARTITION = 512;
const SAMPLE_RECORDS_MIN = 8_192;
const SAMPLE_RECORDS_MAX = 4_000_000;
/**
 * Neighbours looked at together. Those of a file may be alike, so files are sampled in many places; those that are
 * generated are not, and each stretch costs a kernel call; each of an object costs a request.
 */
const SAMPLE_STRETCH_RECORDS = { file: 64, object: 512, generated: 4096 } as const;

export function sampleStretchRecords(input: SortInput): number {
  if (input.kind === "generated") return SAMPLE_STRETCH_RECORDS.generated;
  return Math.max(...new Set(input.sources.map(({ kind }) => SAMPLE_STRETCH_RECORDS[kind])));
}

/** What a sample call needs, as an object of the namespace. */
export interface SamplePlan {
  input: SortInput;
  stretches: [first: number, count: number][];
  calls: number;
}

/** What map and reduce calls need, as an object of the namespace: written once, kept by each function worker. */
export interface SortPlan {
  store: StoreChoice;
  exchange: ExchangePlan;
  splits: Split[];
  /** Base64 of the R-1 splitters that the kernel chose. */
  splitters: string;
  /** Null where sorted records are not written. */
  output: OutputPlace | null;
}

export function defaultPartitions(records: number, workers: number): number {
  const bySize = Math.ceil((records * RECORD_BYTES) / PARTITION_BYTES);
  // Every function worker gets something to do, as far as there are records.
  return Math.max(1, Math.min(PARTITIONS_MAX, records, Math.max(bySize, workers)));
}

export function sampleRecords(partitions: number): number {
  if (partitions === 1) return 0;
  return Math.min(
    SAMPLE_RECORDS_MAX,
    Math.max(SAMPLE_RECORDS_MIN, partitions * SAMPLE_RECORDS_PER_PARTITION),
  );
}

/** Neighbouring pieces of work, those of one call. */
export interface Range {
  first: number;
  count: number;
}

/**
 * Divides pieces of work of the given sizes among calls: much for each at first, less and less towards the end, so
 * that few calls are needed and yet the function workers end their last ones close together. A call takes at most
 * `countMax` pieces: its results must stay small, and a call that is lost is done again whole.
 */
export function callRanges(sizes: readonly number[], workers: number, countMax: number): Range[] {
  const ranges: Range[] = [];
  let left = sizes.reduce((sum, size) => sum + size, 0);
  for (let first = 0; first < sizes.length; ) {
    const fair = left / (2 * workers);
    let count = 0;
    let taken = 0;
    while (first + count < sizes.length && count < countMax) {
      const size = sizes[first + count] as number;
      if (count > 0 && taken + size > fair) break;
      taken += size;
      count += 1;
    }
    ranges.push({ first, count });
    first += count;
    left -= taken;
  }
  return ranges;
}

/** Map outputs of one call at most. */
export const MAPS_PER_CALL_MAX = 16;
/** Partitions of one call at most. */
export const PARTITIONS_PER_CALL_MAX = 32;
