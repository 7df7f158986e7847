/** The driver of a forest: grows it on function workers, and lets it vote on the rows that its trees have not seen. */
import type { Namespace } from "../../../client/index.js";
import type { Executor } from "../../../functions/index.js";
import { nowMs } from "../../report/activity.js";
import type { BlockRef, Dataset, Label } from "../dataset.js";
import { type ForestStage, type GrownForest, growForest } from "./grow.js";
import { type ForestMetrics, metricsOf } from "./metrics.js";
import { encodeForest, type ForestModel, makeModel } from "./model.js";
import { type ForestOptions, keys } from "./plan.js";
import { type ForestCallReport, FunctionWorkerStages, warmUp } from "./stages.js";

export { warmUp };

export interface ForestSurroundings {
  namespace: Namespace;
  executor: Executor;
  onProgress?: (progress: { stage: ForestStage; fraction: number }) => void;
  /** Ends the training with its reason. */
  signal?: AbortSignal;
}

export interface ForestRun {
  model: ForestModel;
  /** On the rows that each tree did not draw. Null without bagging, or where every row was drawn by all. */
  outOfBag: ForestMetrics | null;
  test: ForestMetrics | null;
  grown: Pick<GrownForest, "levels" | "levelNodes" | "finishedNodes">;
  depth: number;
  calls: ForestCallReport[];
  phases: { name: ForestStage; startMs: number; endMs: number }[];
  startMs: number;
  /** When the last tree was whole; votes come after. */
  grownMs: number;
  endMs: number;
  takenBytes: Record<string, number>;
  takenNvmeBytes: number;
  retries: number;
}

/**
 * Trains on a dataset, and measures the forest on another where there is one. Objects of the run, whose name has 1 to 40
 * of a-z 0-9 -, stay in the namespace. Rejects with the MillraceError of whatever failed.
 */
export async function trainForest(
  training: Dataset,
  test: Dataset | null,
  run: string,
  options: ForestOptions,
  surroundings: ForestSurroundings,
): Promise<ForestRun> {
  const { onProgress, signal, namespace } = surroundings;
  const stages = stagesOf(training, run, options.seed, surroundings);
  const phases: ForestRun["phases"] = [];
  const phase = async <T>(name: ForestStage, work: () => Promise<T>): Promise<T> => {
    signal?.throwIfAborted();
    const startMs = nowMs();
    const result = await work();
    phases.push({ name, startMs, endMs: nowMs() });
    onProgress?.({ stage: name, fraction: 1 });
    return result;
  };
  const startMs = nowMs();
  const grown = await growForest(training, run, options, stages, {
    phase,
    onProgress: (stage, fraction) => onProgress?.({ stage, fraction }),
  });
  const model = makeModel(grown, options, training);
  const grownMs = nowMs();
  const [outOfBag, tested] = await phase("votes", async () => {
    await namespace.put(keys.forest(run), encodeForest(model));
    return [
      options.bagging
        ? await measure(stages, model, run, training.blocks, grown.plan.fixedPoint.center, true)
        : null,
      test === null
        ? null
        : await measure(stages, model, run, test.blocks, grown.plan.fixedPoint.center, false),
    ] as const;
  });
  return {
    model,
    outOfBag,
    test: tested,
    grown,
    depth: Math.max(...model.trees.map((tree) => depthOf(tree.feature))),
    calls: stages.calls,
    phases,
    startMs,
    grownMs,
    endMs: nowMs(),
    takenBytes: Object.fromEntries(stages.takenBytes),
    takenNvmeBytes: stages.takenNvmeBytes,
    retries: stages.retries,
  };
}

async function measure(
  stages: FunctionWorkerStages,
  model: ForestModel,
  run: string,
  blocks: readonly BlockRef[],
  around: number,
  isOutOfBag: boolean,
): Promise<ForestMetrics | null> {
  if (blocks.length === 0) return null;
  const options = { isOutOfBag, around, wantsPredictions: false };
  const tallies = await stages.votes(keys.forest(run), blocks, options);
  return metricsOf(tallies, model.label, model.trees.length);
}

export interface ForestPrediction {
  /** One a block: a class or a number for each row. */
  predictions: Float64Array[];
  /** Null where the rows have no labels. */
  metrics: ForestMetrics | null;
}

/** What a model says of a dataset that was loaded like its training data. */
export async function predictForest(
  model: ForestModel,
  dataset: Dataset,
  run: string,
  surroundings: ForestSurroundings,
): Promise<ForestPrediction> {
  const stages = stagesOf(dataset, run, 0, surroundings);
  await surroundings.namespace.put(keys.forest(run), encodeForest(model));
  const around = model.trees[0]?.value?.[0] ?? 0;
  const tallies = await stages.votes(keys.forest(run), dataset.blocks, {
    isOutOfBag: false,
    around,
    wantsPredictions: true,
  });
  return {
    predictions: tallies.map(({ predictions }) => predictions),
    metrics: metricsOf(tallies, model.label, model.trees.length),
  };
}

function stagesOf(
  dataset: Dataset,
  run: string,
  seed: number,
  { namespace, executor, signal, onProgress }: ForestSurroundings,
): FunctionWorkerStages {
  return new FunctionWorkerStages(
    {
      namespace,
      executor,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined
        ? {}
        : { onProgress: (stage: ForestStage, fraction: number) => onProgress({ stage, fraction }) }),
    },
    run,
    seed,
    classesOf(dataset.label),
    dataset.blocks,
  );
}

function classesOf(label: Label): number {
  return label.kind === "classes" ? label.classes.length : 0;
}

/** Of a tree in preorder: the most splits on the way to a leaf. */
function depthOf(feature: readonly number[]): number {
  let depth = 0;
  let most = 0;
  /** Depths of right children that are still to come. */
  const pending: number[] = [];
  for (const column of feature) {
    if (column !== -1) {
      depth += 1;
      pending.push(depth);
    } else {
      most = Math.max(most, depth);
      depth = pending.pop() ?? 0;
    }
  }
  return most;
}
