/** What a forest is grown by, and how its work is cut. Pure. */
import type { ForestLabelFacts, ForestSettings } from "../../../client/learning.js";
import type { BlockRef, FeatureColumn } from "../dataset.js";

export type MaxFeatures = number | "sqrt" | "third" | "all";

/** What the user may choose. */
export interface ForestOptions {
  trees: number;
  /** Null: until leaves are pure or too small to be split; never beyond `DEPTH_MAX`. */
  maxDepth: number | null;
  /** Of a feature, that of missing values not counted. */
  bins: number;
  seed: number;
  /** Classification only; regression goes by the variance. */
  criterion: "gini" | "entropy";
  /** Rows of a leaf, each as often as it was drawn. */
  minLeaf: number;
  maxFeatures: MaxFeatures;
  classWeight: "balanced" | null;
  /** Whether each tree draws its rows anew. */
  bagging: boolean;
  /** Of a function worker, for histograms. */
  memoryBytes: number;
  /** Nodes of at most so many rows are finished by one call. Null: by the size of a row. */
  finishRows: number | null;
}

export const DEPTH_MAX = 64;
export const TREES_MAX = 100_000;
export const BINS_MIN = 2;
/** One bin more is for missing values. */
export const BINS_MAX = 255;
/** As native/kernels/forest.h. */
export const ROWS_MAX = 2 ** 28;
export const FEATURES_MAX = 2 ** 20;
export const CLASSES_MAX = 1024;
const WEIGHT_MAX = 12;

/** Rows whose values the bins are chosen from. */
const SAMPLE_ROWS = 10_000;
/** Binned rows of a node that is finished: what a processor's cache holds. */
const FINISH_BYTES = 4 << 20;
const FINISH_ROWS_MIN = 256;
export const FINISH_ROWS_MAX = 1 << 20;
/** Bits of a label as a fixed-point number, at most. */
const LABEL_BITS_MAX = 40;

/** The numbers of regression's labels: round((label - center) * scale). */
export interface FixedPoint {
  center: number;
  scale: number;
}

/** What function workers must know of a run; an object. */
export interface ForestPlan {
  run: string;
  blocks: readonly BlockRef[];
  share: number;
  /** Of each feature: how many codes it has, 0 for numbers. */
  categories: readonly number[];
  settings: Omit<ForestSettings, "classWeights" | "categorical"> & { classWeights: readonly number[] };
  fixedPoint: FixedPoint;
}

export const keys = {
  plan: (run: string) => `${run}/plan`,
  tables: (run: string) => `${run}/bins`,
  binned: (run: string, block: number) => `${run}/binned/${block}`,
  level: (run: string, level: string) => `${run}/level/${level}`,
  forest: (run: string) => `${run}/forest`,
};

export function sampleShare(rows: number): number {
  return Math.min(1, SAMPLE_ROWS / Math.max(1, rows));
}

export function featuresPerNode(maxFeatures: MaxFeatures, features: number): number {
  const wanted = {
    sqrt: Math.floor(Math.sqrt(features)),
    third: Math.floor(features / 3),
    all: features,
  };
  const count = typeof maxFeatures === "number" ? maxFeatures : wanted[maxFeatures];
  return Math.max(1, Math.min(features, count));
}

/** Weights under which all classes count the same; classes without rows weigh 1. */
export function balancedWeights(classRows: ArrayLike<number>): number[] {
  const rows = Array.from(classRows);
  const present = rows.filter((count) => count > 0).length;
  const total = rows.reduce((sum, count) => sum + count, 0);
  return rows.map((count) => (count === 0 ? 1 : total / (present * count)));
}

/** So fine that sums over all rows, each drawn as often as can be, fit into 63 bits. */
export function fixedPointOf({ rows, min, max }: Pick<ForestLabelFacts, "rows" | "min" | "max">): FixedPoint {
  const center = min + (max - min) / 2;
  const half = Math.max(max - center, center - min);
  if (half === 0) return { center, scale: 1 };
  const bits = Math.min(LABEL_BITS_MAX, 61 - Math.ceil(Math.log2(rows * WEIGHT_MAX + 1)));
  // A power of two: scaling alone loses nothing.
  const exponent = Math.max(-1000, Math.min(1000, bits - Math.ceil(Math.log2(half))));
  return { center, scale: 2 ** exponent };
}

export function nativeSettings({ settings, categories }: ForestPlan): ForestSettings {
  return {
    ...settings,
    classWeights: Float64Array.from(settings.classWeights),
    categorical: Uint8Array.from(categories, (count) => (count > 0 ? 1 : 0)),
  };
}

export function categoriesOf(columns: readonly FeatureColumn[]): number[] {
  return columns.map(({ kind, categories }) => (kind === "categorical" ? Math.max(1, categories.length) : 0));
}

export function finishRowsOf(options: ForestOptions, features: number): number {
  if (options.finishRows !== null) return Math.min(FINISH_ROWS_MAX, options.finishRows);
  return Math.min(FINISH_ROWS_MAX, Math.max(FINISH_ROWS_MIN, Math.floor(FINISH_BYTES / features)));
}

/** Some neighbours. */
export interface Range {
  first: number;
  count: number;
}

/** Cuts neighbours with these sizes into at most `parts` ranges of about the same size, none empty. */
export function evenRanges(sizes: readonly number[], parts: number): Range[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const ranges: Range[] = [];
  let first = 0;
  let done = 0;
  for (let i = 0; i < sizes.length; i += 1) {
    done += sizes[i] as number;
    const left = sizes.length - i - 1;
    const open = parts - ranges.length;
    if (left > 0 && open > 1 && done * parts < total * (ranges.length + 1)) continue;
    if (left > 0 && open === 1) continue;
    ranges.push({ first, count: i + 1 - first });
    first = i + 1;
  }
  return ranges;
}

/** The first of each range, and the end. */
export function cutsOf(ranges: readonly Range[]): Uint32Array {
  const last = ranges.at(-1);
  return Uint32Array.from([
    ...ranges.map(({ first }) => first),
    last === undefined ? 0 : last.first + last.count,
  ]);
}
