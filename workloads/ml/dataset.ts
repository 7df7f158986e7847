/**
 * Training data as function workers find it in the store: blocks of neighbouring rows, written once and read in place
 * by every call that needs them. Whoever trains never sees a file.
 */

export type ColumnKind = "numeric" | "categorical";

export interface FeatureColumn {
  name: string;
  kind: ColumnKind;
  /** Of a categorical column, in the order of their codes 0, 1, …: sorted, so that no split of the files changes them. */
  categories: readonly string[];
}

/** What is to be predicted. Labels are class numbers 0, 1, … or plain numbers. */
export type Label = { kind: "classes"; classes: readonly string[] } | { kind: "number" };

/**
 * A block: one object. Little-endian, each part aligned to 64 bytes:
 *   u64 magic, u64 firstRow, u64 rows, u64 features, u64 nonZeros (0 where dense), u64 flags (1: sparse)
 *   f64 labels[rows]
 *   dense:  f32 values[rows * features], row after row; NaN is a missing value; a categorical value is its code
 *   sparse: u64 rowEnds[rows], u32 columns[nonZeros] ascending within a row, f32 values[nonZeros]
 * Row numbers are global: the place of the row among the good rows of all files, in the order of the files' names.
 */
export interface BlockRef {
  key: string;
  firstRow: number;
  rows: number;
  nonZeros: number;
  bytes: number;
}

/** A row that could not be used. */
export interface BadRow {
  file: string;
  /** From 1. 0 where the format has none. */
  line: number;
  column: number;
  why: string;
}

export interface Dataset {
  rows: number;
  /** Features, without the label. */
  features: number;
  sparse: boolean;
  columns: readonly FeatureColumn[];
  label: Label;
  /** Of CSV and Parquet: what the column of the label is called. */
  labelColumn?: string;
  blocks: readonly BlockRef[];
  bad: { count: number; first: readonly BadRow[] };
}

/** The magic of a block: `mlblock1`. */
export const BLOCK_MAGIC = 0x316b636f6c626c6dn;
