/** A forest as a file: JSON, described in docs/ml.md. Read with suspicion. */
import { MillraceError } from "../../../client/errors.js";
import type { Dataset, FeatureColumn, Label } from "../dataset.js";
import type { GrownForest } from "./grow.js";
import { CLASSES_MAX, FEATURES_MAX, type ForestOptions, TREES_MAX } from "./plan.js";
import type { Subtree } from "./trees.js";

const FORMAT = "millrace-forest";
const VERSION = 1;
const LEAF = -1;
const NODES_MAX = 2 ** 31;
/** Above all floats but infinity, which counts as missing: all that is there goes left. */
const ALL_THERE = 3.4028234663852886e38;

/** Nodes in preorder: the left child of a split follows it. Splits, and leaves, count in that order. */
export interface ForestTree {
  /** Of each node: the column that it asks for, or -1 for a leaf. */
  feature: readonly number[];
  /** Of each node: where the right child is; 0 for leaves. */
  right: readonly number[];
  /** Of each split: values up to it go left; of a categorical column, the number of its set in `sets`. */
  threshold: readonly number[];
  /** Of each split: 1 where missing values go left, and categories that the training has not seen; else 0. */
  missingLeft: readonly number[];
  /** Codes of the categories that go left, ascending. */
  sets: readonly (readonly number[])[];
  /** Classification, of each leaf: where its entries in `classes` and `rows` end. */
  ends?: readonly number[];
  classes?: readonly number[];
  /** Drawn rows of the class in the leaf. */
  rows?: readonly number[];
  /** Regression, of each leaf: the mean of its labels. */
  value?: readonly number[];
}

export interface ForestModel {
  format: typeof FORMAT;
  version: typeof VERSION;
  columns: readonly FeatureColumn[];
  label: Label;
  /** What the column of the label was called, where it had a name. */
  labelColumn?: string;
  /** Whether rows were sparse: then a value that is not there is 0, not missing. */
  sparse: boolean;
  trained: {
    rows: number;
    seed: number;
    bins: number;
    criterion: "gini" | "entropy" | "variance";
    featuresPerNode: number;
    minLeaf: number;
    maxDepth: number;
    bagging: boolean;
  };
  /** By which the rows of a leaf count, one a class; none: 1 each. */
  classWeights: readonly number[];
  /** Of each column: its share of what all splits have won. They add up to 1. */
  importances: readonly number[];
  trees: readonly ForestTree[];
}

export function makeModel(
  grown: GrownForest,
  options: ForestOptions,
  { columns, label, labelColumn, sparse }: Dataset,
): ForestModel {
  const { settings } = grown.plan;
  return {
    format: FORMAT,
    version: VERSION,
    columns,
    label,
    ...(labelColumn === undefined ? {} : { labelColumn }),
    sparse,
    trained: {
      rows: grown.facts.rows,
      seed: options.seed,
      bins: options.bins,
      criterion: label.kind === "number" ? "variance" : options.criterion,
      featuresPerNode: settings.featuresPerNode,
      minLeaf: settings.leafMin,
      maxDepth: settings.depthMax,
      bagging: settings.bagging,
    },
    classWeights: settings.classWeights,
    importances: importancesOf(grown.trees, columns.length),
    trees: grown.trees.map((tree) =>
      treeOf(tree.entryRows.some((rows) => rows > 0) ? tree : stump(grown), grown),
    ),
  };
}

/** Each tree counts the same, whatever its gains add up to. */
function importancesOf(trees: readonly Subtree[], features: number): number[] {
  const sums = new Float64Array(features);
  for (const tree of trees) {
    const own = new Float64Array(features);
    let split = 0;
    for (const feature of tree.features) {
      if (feature !== LEAF) own[feature] = (own[feature] as number) + (tree.gains[split++] as number);
    }
    const total = own.reduce((sum, gain) => sum + gain, 0);
    if (total > 0)
      own.forEach((gain, f) => {
        sums[f] = (sums[f] as number) + gain / total;
      });
  }
  const total = sums.reduce((sum, share) => sum + share, 0);
  return Array.from(sums, (share) => (total > 0 ? share / total : 0));
}

/** Instead of a tree that has drawn no row at all, which takes very few of them: what all rows say. */
function stump({ facts, plan }: GrownForest): Subtree {
  const isRegression = plan.settings.classes === 0;
  const classes = isRegression ? [0] : [...facts.classRows.keys()].filter((c) => facts.classRows[c] !== 0);
  return {
    features: Int32Array.of(LEAF),
    rights: Uint32Array.of(0),
    gains: new Float64Array(0),
    left: new Uint32Array(0),
    // The middle of all labels.
    sums: isRegression ? BigInt64Array.of(0n) : new BigInt64Array(0),
    entryEnds: Uint32Array.of(classes.length),
    entryClasses: Uint32Array.from(classes),
    entryRows: Uint32Array.from(classes, (c) => (isRegression ? 1 : (facts.classRows[c] as number))),
  };
}

function treeOf(tree: Subtree, { plan, tables }: GrownForest): ForestTree {
  const threshold: number[] = [];
  const missingLeft: number[] = [];
  const sets: number[][] = [];
  let split = 0;
  for (const feature of tree.features) {
    if (feature === LEAF) continue;
    const left = tree.left.subarray(8 * split, 8 * split + 8);
    split += 1;
    missingLeft.push(has(left, 0) ? 1 : 0);
    const table = tables.values.subarray(
      feature === 0 ? 0 : (tables.ends[feature - 1] as number),
      tables.ends[feature] as number,
    );
    if ((plan.categories[feature] as number) > 0) {
      threshold.push(sets.length);
      const set: number[] = [];
      table.forEach((bin, code) => {
        if (has(left, bin)) set.push(code);
      });
      sets.push(set);
    } else {
      // Bins 1, 2, … up to this one go left.
      let bin = 0;
      while (bin < 255 && has(left, bin + 1)) bin += 1;
      threshold.push(table[bin - 1] ?? ALL_THERE);
    }
  }
  const shared = {
    feature: Array.from(tree.features),
    right: Array.from(tree.rights),
    threshold,
    missingLeft,
    sets,
  };
  if (plan.settings.classes > 0) {
    return {
      ...shared,
      ends: Array.from(tree.entryEnds),
      classes: Array.from(tree.entryClasses),
      rows: Array.from(tree.entryRows),
    };
  }
  const { center, scale } = plan.fixedPoint;
  return {
    ...shared,
    value: Array.from(
      tree.sums,
      (sum, leaf) => center + Number(sum) / (tree.entryRows[leaf] as number) / scale,
    ),
  };
}

function has(words: Uint32Array, bin: number): boolean {
  return (((words[bin >>> 5] as number) >>> (bin & 31)) & 1) === 1;
}

/** The file's text, in pieces: a large forest is more than one string holds. */
export function* modelText(model: ForestModel): Generator<string, void, undefined> {
  const { trees, ...rest } = model;
  yield `${JSON.stringify(rest).slice(0, -1)},"trees":[`;
  let isFirst = true;
  for (const tree of trees) {
    yield `${isFirst ? "" : ","}\n${JSON.stringify(tree)}`;
    isFirst = false;
  }
  yield "]}\n";
}

/** CORRUPT, with what is wrong, where the text is no model of this version. */
export function parseModel(text: string, path: string): ForestModel {
  const wrong = (what: string) => new MillraceError("CORRUPT", `${path}: ${what}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`it is no JSON: ${(error as Error).message}`);
  }
  if (!isObject(value) || value.format !== FORMAT) throw wrong("it is no forest");
  if (value.version !== VERSION)
    throw wrong(`version ${String(value.version)} of the format is not known here`);
  const { columns, label, classWeights, trees } = value;
  if (
    !Array.isArray(columns) ||
    columns.length === 0 ||
    columns.length > FEATURES_MAX ||
    !columns.every(isColumn)
  ) {
    throw wrong("columns are wrong");
  }
  if (!isLabel(label)) throw wrong("label is wrong");
  const classes = label.kind === "classes" ? label.classes.length : 0;
  if (!isNumbers(classWeights, (weight) => weight > 0) || ![0, classes].includes(classWeights.length)) {
    throw wrong("classWeights must be none, or one above 0 for each class");
  }
  if (!isNumbers(value.importances, (share) => share >= 0) || value.importances.length !== columns.length) {
    throw wrong("importances must be one for each column");
  }
  if (!isObject(value.trained)) throw wrong("trained is missing");
  if (typeof value.sparse !== "boolean") throw wrong("sparse must be a boolean");
  if (value.labelColumn !== undefined && typeof value.labelColumn !== "string")
    throw wrong("labelColumn is wrong");
  if (!Array.isArray(trees) || trees.length === 0 || trees.length > TREES_MAX)
    throw wrong("there are no trees");
  trees.forEach((tree: unknown, t) => {
    const fault = faultOfTree(tree, columns as FeatureColumn[], classes);
    if (fault !== null) throw wrong(`tree ${t}: ${fault}`);
  });
  return value as unknown as ForestModel;
}

function faultOfTree(tree: unknown, columns: readonly FeatureColumn[], classes: number): string | null {
  if (!isObject(tree)) return "it is no object";
  const { feature, right, threshold, missingLeft, sets } = tree;
  if (!isWholes(feature, LEAF, columns.length - 1) || feature.length === 0) return "feature is wrong";
  if (feature.length > NODES_MAX) return "it has too many nodes";
  const splits = feature.filter((column) => column !== LEAF).length;
  if (splits !== feature.length - splits - 1) return "it must have one leaf more than splits";
  if (!isWholes(right, 0, feature.length - 1) || right.length !== feature.length) return "right is wrong";
  if (!isNumbers(threshold, () => true) || threshold.length !== splits) return "threshold is wrong";
  if (!isWholes(missingLeft, 0, 1) || missingLeft.length !== splits) return "missingLeft is wrong";
  if (!Array.isArray(sets)) return "sets is missing";
  const shapeFault = faultOfShape(feature, right);
  if (shapeFault !== null) return shapeFault;
  let split = 0;
  for (const number of feature) {
    if (number === LEAF) continue;
    const asked = threshold[split++] as number;
    const column = columns[number] as FeatureColumn;
    if (column.kind === "numeric") continue;
    const set: unknown = sets[asked];
    if (!isWholes(set, 0, Math.max(0, column.categories.length - 1))) return `set ${asked} is wrong`;
    if (set.some((code, i) => i > 0 && code <= (set[i - 1] as number))) return `set ${asked} is out of order`;
  }
  return faultOfLeaves(tree, feature.length - splits, classes);
}

/** Nodes are in preorder: after a split come all nodes of its left child, then its right child. */
function faultOfShape(feature: readonly number[], right: readonly number[]): string | null {
  /** Right children that are still to come, the next one last. */
  const expected: number[] = [];
  for (let node = 0; node < feature.length; node += 1) {
    if (feature[node] !== LEAF) {
      const child = right[node] as number;
      const before = expected.at(-1) ?? feature.length;
      if (child <= node + 1 || child >= before)
        return `node ${node} has no place for its right child at ${child}`;
      expected.push(child);
    } else {
      if (right[node] !== 0) return `leaf ${node} has a child`;
      if (node + 1 < feature.length && expected.pop() !== node + 1)
        return `node ${node + 1} is nobody's child`;
    }
  }
  return expected.length === 0 ? null : `node ${expected.at(-1)} is missing`;
}

function faultOfLeaves(tree: Record<string, unknown>, leaves: number, classes: number): string | null {
  if (classes === 0) {
    if (!isNumbers(tree.value, () => true) || tree.value.length !== leaves) return "value is wrong";
    return null;
  }
  const { ends, classes: labels, rows } = tree;
  if (!isWholes(rows, 1, Number.MAX_SAFE_INTEGER)) return "rows is wrong";
  if (!isWholes(labels, 0, classes - 1) || labels.length !== rows.length) return "classes is wrong";
  if (!isWholes(ends, 1, rows.length) || ends.length !== leaves || ends.at(-1) !== rows.length)
    return "ends is wrong";
  return ends.every((end, i) => i === 0 || end > (ends[i - 1] as number)) ? null : "ends must ascend";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumbers(value: unknown, holds: (number: number) => boolean): value is number[] {
  return Array.isArray(value) && value.every((n) => typeof n === "number" && Number.isFinite(n) && holds(n));
}

function isWholes(value: unknown, min: number, max: number): value is number[] {
  return isNumbers(value, (n) => Number.isInteger(n) && n >= min && n <= max);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}

function isColumn(value: unknown): boolean {
  if (!isObject(value) || typeof value.name !== "string") return false;
  if (value.kind !== "numeric" && value.kind !== "categorical") return false;
  return isTexts(value.categories) && (value.kind === "categorical" || value.categories.length === 0);
}

function isLabel(value: unknown): value is Label {
  if (!isObject(value)) return false;
  if (value.kind === "number") return true;
  return (
    value.kind === "classes" &&
    isTexts(value.classes) &&
    value.classes.length > 0 &&
    value.classes.length <= CLASSES_MAX
  );
}

const VOTE_MAGIC = 0x3165746f76747366n; // as native/kernels/forest_votes.cc
const HEADER_BYTES = 56;
const NODE_BYTES = 24;
const ENTRY_BYTES = 16;
const NO_FEATURE = 0xffff_ffff;

/** The forest as native/kernels/forest_votes.h asks for it. */
export function encodeForest(model: ForestModel): Uint8Array {
  const { columns, label, trees, classWeights } = model;
  const classes = label.kind === "classes" ? label.classes.length : 0;
  const sum = (of: (tree: ForestTree) => number) => trees.reduce((total, tree) => total + of(tree), 0);
  const nodes = sum((tree) => tree.feature.length);
  const entries = sum((tree) => tree.rows?.length ?? 0);
  const wordsOf = (column: number) => Math.ceil(Math.max(1, columns[column]?.categories.length ?? 0) / 32);
  const isCategorical = (column: number) => columns[column]?.kind === "categorical";
  const words = sum((tree) =>
    tree.feature.reduce(
      (total, column) => total + (column !== LEAF && isCategorical(column) ? 1 + wordsOf(column) : 0),
      0,
    ),
  );
  const nodesAt = HEADER_BYTES + Math.floor((trees.length + 2) / 2) * 2 * 4;
  const entriesAt = nodesAt + nodes * NODE_BYTES;
  const wordsAt = entriesAt + entries * ENTRY_BYTES;
  const bytes = new Uint8Array(wordsAt + words * 4);
  const view = new DataView(bytes.buffer);
  [VOTE_MAGIC, trees.length, nodes, entries, words, columns.length, classes].forEach((value, i) => {
    view.setBigUint64(8 * i, BigInt(value), true);
  });
  let [node, entry, word] = [0, 0, 0];
  trees.forEach((tree, t) => {
    view.setUint32(HEADER_BYTES + 4 * t, node, true);
    let [split, leaf] = [0, 0];
    const firstEntry = entry;
    tree.feature.forEach((column, i) => {
      const at = nodesAt + node * NODE_BYTES;
      node += 1;
      if (column === LEAF) {
        view.setUint32(at + 8, NO_FEATURE, true);
        if (classes === 0) {
          view.setFloat64(at, tree.value?.[leaf] ?? 0, true);
        } else {
          const begin = leaf === 0 ? 0 : (tree.ends?.[leaf - 1] ?? 0);
          const end = tree.ends?.[leaf] ?? begin;
          view.setUint32(at + 12, firstEntry + begin, true);
          view.setUint32(at + 16, firstEntry + end, true);
          let total = 0;
          const weigh = (e: number) => (tree.rows?.[e] ?? 0) * (classWeights[tree.classes?.[e] ?? 0] ?? 1);
          for (let e = begin; e < end; e += 1) total += weigh(e);
          for (let e = begin; e < end; e += 1, entry += 1) {
            view.setFloat64(entriesAt + entry * ENTRY_BYTES, weigh(e) / total, true);
            view.setUint32(entriesAt + entry * ENTRY_BYTES + 8, tree.classes?.[e] ?? 0, true);
          }
        }
        leaf += 1;
        return;
      }
      view.setUint32(at + 8, column, true);
      view.setUint32(at + 12, tree.right[i] ?? 0, true);
      view.setUint32(at + 20, tree.missingLeft[split] ?? 0, true);
      const threshold = tree.threshold[split] ?? 0;
      split += 1;
      if (!isCategorical(column)) {
        view.setFloat64(at, threshold, true);
        return;
      }
      view.setUint32(at + 16, word + 1, true);
      const count = wordsOf(column);
      view.setUint32(wordsAt + 4 * word, count, true);
      for (const code of tree.sets[threshold] ?? []) {
        const place = wordsAt + 4 * (word + 1 + (code >>> 5));
        view.setUint32(place, view.getUint32(place, true) | (1 << (code & 31)), true);
      }
      word += 1 + count;
    });
  });
  view.setUint32(HEADER_BYTES + 4 * trees.length, node, true);
  return bytes;
}
