/**
 * A random forest on function workers through the store, beside the same kernels in one process on as many threads with no
 * store (the serverless tax), and beside scikit-learn on as many processors. The data is Debian's Fashion-MNIST, which is in
 * memory before the clock starts; the runs alternate, and medians are compared.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { HugePages } from "../server/cli/serve_config.js";
import { WorkloadSession } from "../server/cli/workload.js";
import type { Dataset } from "../workloads/ml/dataset.js";
import { type ForestRun, trainForest, warmUp } from "../workloads/ml/forest/driver.js";
import { growForest } from "../workloads/ml/forest/grow.js";
import { makeModel, modelText } from "../workloads/ml/forest/model.js";
import type { ForestOptions } from "../workloads/ml/forest/plan.js";
import { loadDataset } from "../workloads/ml/input/load.js";
import { type BenchFigure, comparedFigure } from "./figure.js";
import { ThreadStages } from "./forest_threads.js";

const DATA = "/usr/share/datasets/fashion-mnist";
const PYTHON = "/usr/bin/python3";
const TREES = 32;
const BINS = 64;

export interface ForestBenchOptions {
  trees?: number;
  /** Function workers here, threads there, processors of scikit-learn. Default 2. */
  workers?: number;
  rounds?: number;
  hugePages?: HugePages;
  signal: AbortSignal;
  note: (sentence: string) => void;
}

export async function run(options: ForestBenchOptions): Promise<BenchFigure[]> {
  const { trees = TREES, workers = 2, rounds = 5, hugePages = "reserve", signal, note } = options;
  if (!existsSync(DATA)) {
    note(`${DATA} is not there (Debian's dataset-fashion-mnist): nothing is measured`);
    return [];
  }
  const session = await WorkloadSession.open({
    name: "forest-bench",
    endpoint: null,
    dramBytes: null,
    nvme: [],
    hugePages,
    workers,
    expectedBytes: 0,
  });
  try {
    const { namespace, executor } = session;
    const surroundings = { namespace, executor, signal };
    await warmUp({ executor });
    const load = (role: "train" | "test", like: Dataset | null) =>
      loadDataset({ paths: [DATA], label: null, task: "classify", role, like, prefix: role }, surroundings);
    const training = await load("train", null);
    const test = await load("test", training);
    // The rival has its rows in memory of its own.
    const blocks: Uint8Array[] = [];
    for (const { key } of training.blocks) blocks.push(Uint8Array.from(await namespace.get(key)));
    const forest = forestOptions(trees);
    const runs: ForestRun[] = [];
    const local: number[] = [];
    const scikit: { seconds: number; accuracy: number }[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const trained = await trainForest(training, test, `round-${round}`, forest, surroundings);
      runs.push(trained);
      const rival = await onThreads(training, blocks, forest, workers);
      local.push(rival.seconds);
      if (rival.text !== [...modelText(trained.model)].join("")) throw new Error("the two forests differ");
      const other = await onScikitLearn(training, test, blocks, surroundings, trees, workers, note);
      if (other !== null) scikit.push(other);
    }
    const seconds = runs.map((trained) => (trained.grownMs - trained.startMs) / 1000);
    const accuracy = runs[0]?.test?.accuracy ?? null;
    const name = `forest of ${trees} trees, Fashion-MNIST, ${workers} function workers`;
    const details = { accuracy, allSeconds: seconds, phases: phasesOf(runs, seconds) };
    return [
      comparedFigure(
        name,
        median(seconds),
        "s",
        { name: `the same kernels in one process, ${workers} threads, no store`, figure: median(local) },
        "<= 1.10x",
        { ...details, allRivalSeconds: local },
      ),
      comparedFigure(
        `${name}, training`,
        median(seconds),
        "s",
        {
          name:
            scikit.length === 0
              ? "scikit-learn is not installed"
              : `scikit-learn's RandomForestClassifier, n_jobs=${workers}`,
          figure: scikit.length === 0 ? null : median(scikit.map((rival) => rival.seconds)),
        },
        "<= 1x",
        {
          accuracy,
          rivalAccuracy: scikit[0]?.accuracy ?? null,
          allRivalSeconds: scikit.map((rival) => rival.seconds),
        },
      ),
    ];
  } finally {
    await session.close();
  }
}

function forestOptions(trees: number): ForestOptions {
  return {
    trees,
    maxDepth: null,
    bins: BINS,
    seed: 1,
    criterion: "gini",
    minLeaf: 1,
    maxFeatures: "sqrt",
    classWeight: null,
    bagging: true,
    memoryBytes: 256 << 20,
    finishRows: null,
  };
}

async function onThreads(
  training: Dataset,
  blocks: readonly Uint8Array[],
  options: ForestOptions,
  threads: number,
): Promise<{ seconds: number; text: string }> {
  const classes = training.label.kind === "classes" ? training.label.classes.length : 0;
  const rows = training.blocks.map((block) => block.rows);
  const stages = new ThreadStages(threads, blocks, rows, options.seed, classes);
  const startMs = performance.now();
  const grown = await growForest(training, "threads", options, stages, {
    phase: (_, work) => work(),
    onProgress: () => undefined,
  });
  const model = makeModel(grown, options, training);
  const seconds = (performance.now() - startMs) / 1000;
  return { seconds, text: [...modelText(model)].join("") };
}

const SCRIPT = `
import sys, time, json
import numpy as np
from sklearn.ensemble import RandomForestClassifier
folder, features, trees, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def read(name):
    return np.fromfile(f"{folder}/{name}-x", "<f4").reshape(-1, features), np.fromfile(f"{folder}/{name}-y", "<f8")
x, y = read("train")
forest = RandomForestClassifier(n_estimators=trees, n_jobs=jobs, random_state=1)
start = time.perf_counter()
forest.fit(x, y)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "accuracy": forest.score(*read("test"))}))
`;

/** Null where it is not installed. */
async function onScikitLearn(
  training: Dataset,
  test: Dataset,
  blocks: readonly Uint8Array[],
  { namespace, signal }: { namespace: WorkloadSession["namespace"]; signal: AbortSignal },
  trees: number,
  jobs: number,
  note: (sentence: string) => void,
): Promise<{ seconds: number; accuracy: number } | null> {
  if (!existsSync(PYTHON)) return null;
  const folder = mkdtempSync(join(tmpdir(), "millrace-bench-"));
  try {
    const testBlocks: Uint8Array[] = [];
    for (const { key } of test.blocks) testBlocks.push(Uint8Array.from(await namespace.get(key)));
    writeArrays(folder, "train", training, blocks);
    writeArrays(folder, "test", test, testBlocks);
    const args = ["-c", SCRIPT, folder, String(training.features), String(trees), String(jobs)];
    const { stdout } = await promisify(execFile)(PYTHON, args, { signal });
    return JSON.parse(stdout) as { seconds: number; accuracy: number };
  } catch (error) {
    signal.throwIfAborted();
    if (!/ModuleNotFoundError/.test((error as Error).message)) throw error;
    note("scikit-learn is not installed (Debian's python3-sklearn): no comparison with it");
    return null;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Labels and values of dense blocks as plain arrays. */
function writeArrays(folder: string, name: string, dataset: Dataset, blocks: readonly Uint8Array[]): void {
  const labels: Uint8Array[] = [];
  const values: Uint8Array[] = [];
  blocks.forEach((block, i) => {
    const rows = dataset.blocks[i]?.rows ?? 0;
    const valuesAt = Math.ceil((64 + 8 * rows) / 64) * 64;
    labels.push(block.subarray(64, 64 + 8 * rows));
    values.push(block.subarray(valuesAt, valuesAt + 4 * rows * dataset.features));
  });
  writeFileSync(join(folder, `${name}-y`), Buffer.concat(labels));
  writeFileSync(join(folder, `${name}-x`), Buffer.concat(values));
}

/** Of the run in the middle. */
function phasesOf(runs: readonly ForestRun[], seconds: readonly number[]): Record<string, number> {
  const middle = runs[seconds.indexOf(median(seconds))];
  return Object.fromEntries(
    (middle?.phases ?? []).map(({ name, startMs, endMs }) => [name, (endMs - startMs) / 1000]),
  );
}

/** The middle one, or the lower of the two in the middle: a value that was really seen. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}
