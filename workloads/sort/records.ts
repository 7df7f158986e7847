/**
 * The records that the sort works on (gensort's: 100 bytes, of which the first 10 are the key) and what is known
 * of a stretch of them. Summaries add up: those of the input and those of the sorted partitions, put together,
 * say whether a run is valid.
 */
import type { RecordsSummary } from "../../client/kernels.js";

export const RECORD_BYTES = 100;
export const KEY_BYTES = 10;

const CHECKSUM_MASK = (1n << 128n) - 1n;

/** A summary as it travels from a function worker to the driver: plain values, a few hundred bytes. */
export interface StretchSummary {
  records: number;
  /** Lower-case hexadecimal, without leading zeros: the 128-bit sum of the zlib CRC32 of every record. */
  checksum: string;
  /** Neighbours in the wrong order; 0 where order was not asked for. */
  unordered: number;
  /** Neighbours with equal keys; 0 where order was not asked for. */
  duplicates: number;
  /** Hexadecimal; empty where there are no records. */
  firstKey: string;
  lastKey: string;
}

export const EMPTY_SUMMARY: StretchSummary = {
  records: 0,
  checksum: "0",
  unordered: 0,
  duplicates: 0,
  firstKey: "",
  lastKey: "",
};

/** What a kernel found, made ready to travel. */
export function toStretchSummary(summary: RecordsSummary): StretchSummary {
  return {
    records: summary.count,
    checksum: BigInt(`0x${Buffer.from(summary.checksum).toString("hex")}`).toString(16),
    unordered: summary.unordered,
    duplicates: summary.duplicates,
    firstKey: summary.count === 0 ? "" : Buffer.from(summary.firstKey).toString("hex"),
    lastKey: summary.count === 0 ? "" : Buffer.from(summary.lastKey).toString("hex"),
  };
}

/** The summary of the second stretch set after the first: also looks at the border between them. */
export function joinSummaries(first: StretchSummary, second: StretchSummary): StretchSummary {
  if (first.records === 0) return second;
  if (second.records === 0) return first;
  // Equal lengths of lower-case hexadecimal compare as the bytes do.
  const border = { unordered: first.lastKey > second.firstKey, duplicate: first.lastKey === second.firstKey };
  return {
    records: first.records + second.records,
    checksum: addChecksums(first.checksum, second.checksum),
    unordered: first.unordered + second.unordered + (border.unordered ? 1 : 0),
    duplicates: first.duplicates + second.duplicates + (border.duplicate ? 1 : 0),
    firstKey: first.firstKey,
    lastKey: second.lastKey,
  };
}

/** Sum of two checksums, mod 2^128. */
export function addChecksums(a: string, b: string): string {
  return ((BigInt(`0x${a}`) + BigInt(`0x${b}`)) & CHECKSUM_MASK).toString(16);
}

/** Count and checksum of stretches whose order does not matter. */
export function totalOf(stretches: Iterable<{ records: number; checksum: string }>): {
  records: number;
  checksum: string;
} {
  let records = 0;
  let checksum = 0n;
  for (const stretch of stretches) {
    records += stretch.records;
    checksum = (checksum + BigInt(`0x${stretch.checksum}`)) & CHECKSUM_MASK;
  }
  return { records, checksum: checksum.toString(16) };
}
