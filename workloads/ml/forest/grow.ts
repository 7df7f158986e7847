/**
 * Growing a forest: which stage follows on which, whoever runs them. Function workers through the store are one way
 * (driver.ts), threads of this process another, against which the first is measured.
 */
import { MillraceError } from "../../../client/errors.js";
import {
  type ForestBinTables,
  type ForestLabelFacts,
  type ForestSlotSplit,
  forestKernels,
} from "../../../client/learning.js";
import type { Dataset } from "../dataset.js";
import {
  BINS_MAX,
  BINS_MIN,
  balancedWeights,
  CLASSES_MAX,
  categoriesOf,
  DEPTH_MAX,
  evenRanges,
  FEATURES_MAX,
  type ForestOptions,
  type ForestPlan,
  featuresPerNode,
  finishRowsOf,
  fixedPointOf,
  nativeSettings,
  type Range,
  ROWS_MAX,
  sampleShare,
  TREES_MAX,
} from "./plan.js";
import { GrowingTrees, type OpenNode, readSubtrees, type Subtree } from "./trees.js";

/** What must be done to the data, wherever it lies. */
export interface ForestStages {
  /** How many calls run at a time. */
  readonly workers: number;
  /** Of all rows together. */
  labelFacts(share: number): Promise<ForestLabelFacts>;
  /** Tables of all features. */
  bins(plan: ForestPlan): Promise<ForestBinTables>;
  /** Writes all rows as bins, for the stages below. */
  bin(plan: ForestPlan, tables: ForestBinTables): Promise<void>;
  /** What becomes of all slots of a level, in their order. */
  split(plan: ForestPlan, level: Uint8Array, slots: number, name: string): Promise<ForestSlotSplit[]>;
  /** The subtrees of ranges of slots, as `finishSlots` gives them, one array a range. */
  finish(plan: ForestPlan, level: Uint8Array, ranges: readonly Range[], name: string): Promise<Uint8Array[]>;
}

export type ForestStage = "sample" | "bin" | "levels" | "finish" | "votes";

export interface GrowHooks {
  /** Runs a stage. */
  phase<T>(stage: ForestStage, work: () => Promise<T>): Promise<T>;
  onProgress(stage: ForestStage, fraction: number): void;
}

export interface GrownForest {
  plan: ForestPlan;
  tables: ForestBinTables;
  facts: ForestLabelFacts;
  trees: Subtree[];
  /** Passes over the data for levels: their batches, too. */
  levels: number;
  /** Nodes that were split by their histograms, and those that were finished by one call. */
  levelNodes: number;
  finishedNodes: number;
}

/** Nodes that a finishing call gets are so few that function workers end at about the same time. */
const FINISH_CALLS_PER_FUNCTION_WORKER = 4;

export async function growForest(
  dataset: Dataset,
  run: string,
  options: ForestOptions,
  stages: ForestStages,
  hooks: GrowHooks,
): Promise<GrownForest> {
  checkOptions(options);
  checkDataset(dataset);
  const share = sampleShare(dataset.rows);
  const classes = dataset.label.kind === "classes" ? dataset.label.classes.length : 0;
  const { facts, plan, tables } = await hooks.phase("sample", async () => {
    const found = await stages.labelFacts(share);
    const planned = planOf(dataset, run, options, share, classes, found);
    return { facts: found, plan: planned, tables: await stages.bins(planned) };
  });
  await hooks.phase("bin", () => stages.bin(plan, tables));
  const { trees } = options;
  const growing = new GrowingTrees(trees, dataset.rows, plan.settings);
  const finishRows = finishRowsOf(options, dataset.features);
  const isLarge = (node: OpenNode) => node.rows > finishRows;
  const slotBytes = forestKernels().slotHistogramBytes(nativeSettings(plan));
  const batch = Math.max(1, Math.floor(options.memoryBytes / slotBytes));
  let levels = 0;
  let levelNodes = 0;
  await hooks.phase("levels", async () => {
    for (
      let large = growing.open().filter(isLarge);
      large.length > 0;
      large = growing.open().filter(isLarge)
    ) {
      for (let first = 0; first < large.length; first += batch) {
        const slots = large.slice(first, first + batch);
        levels += 1;
        growing.settle(slots, await stages.split(plan, growing.level(slots), slots.length, String(levels)));
        levelNodes += slots.length;
      }
    }
  });
  const small = growing.open();
  await hooks.phase("finish", async () => {
    if (small.length === 0) return;
    const ranges = evenRanges(
      small.map(({ rows }) => rows),
      stages.workers * FINISH_CALLS_PER_FUNCTION_WORKER,
    );
    const found = await stages.finish(plan, growing.level(small), ranges, "finish");
    growing.finish(
      small,
      ranges.flatMap(({ count }, i) => readSubtrees(found[i] as Uint8Array, count, classes === 0)),
    );
  });
  return {
    plan,
    tables,
    facts,
    trees: Array.from({ length: trees }, (_, tree) => growing.tree(tree)),
    levels,
    levelNodes,
    finishedNodes: small.length,
  };
}

function planOf(
  dataset: Dataset,
  run: string,
  options: ForestOptions,
  share: number,
  classes: number,
  facts: ForestLabelFacts,
): ForestPlan {
  return {
    run,
    blocks: dataset.blocks,
    share,
    categories: categoriesOf(dataset.columns),
    settings: {
      seed: options.seed,
      features: dataset.features,
      bins: options.bins + 1,
      classes,
      featuresPerNode: featuresPerNode(options.maxFeatures, dataset.features),
      depthMax: Math.min(DEPTH_MAX, options.maxDepth ?? DEPTH_MAX),
      leafMin: options.minLeaf,
      entropy: options.criterion === "entropy",
      bagging: options.bagging,
      classWeights: classes > 0 && options.classWeight === "balanced" ? balancedWeights(facts.classRows) : [],
    },
    fixedPoint: classes === 0 ? fixedPointOf(facts) : { center: 0, scale: 1 },
  };
}

function checkOptions(options: ForestOptions): void {
  const inRange = (name: string, value: number, min: number, max: number): void => {
    if (Number.isInteger(value) && value >= min && value <= max) return;
    throw new MillraceError("INVALID_ARGUMENT", `${name} must be a whole number from ${min} to ${max}`);
  };
  inRange("trees", options.trees, 1, TREES_MAX);
  inRange("bins", options.bins, BINS_MIN, BINS_MAX);
  inRange("minLeaf", options.minLeaf, 1, ROWS_MAX);
  inRange("seed", options.seed, 0, Number.MAX_SAFE_INTEGER);
  if (options.maxDepth !== null) inRange("maxDepth", options.maxDepth, 0, DEPTH_MAX);
  if (typeof options.maxFeatures === "number") inRange("maxFeatures", options.maxFeatures, 1, FEATURES_MAX);
}

function checkDataset({ rows, features, label }: Dataset): void {
  const refuse = (what: string) => new MillraceError("INVALID_ARGUMENT", `a forest cannot be grown: ${what}`);
  if (rows === 0) throw refuse("there are no rows");
  if (rows > ROWS_MAX) throw refuse(`${rows} rows are more than ${ROWS_MAX}`);
  if (features === 0) throw refuse("there are no columns beside the label");
  if (features > FEATURES_MAX) throw refuse(`${features} features are more than ${FEATURES_MAX}`);
  if (label.kind !== "classes") return;
  if (label.classes.length > CLASSES_MAX) {
    throw refuse(`${label.classes.length} classes are more than ${CLASSES_MAX}; is the label a number?`);
  }
}
