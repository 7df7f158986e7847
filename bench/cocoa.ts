/**
 * CoCoA on function workers through the store, beside the same kernels in one process with as many threads and no
 * store (the serverless tax), and beside scikit-learn where it is installed. On Fashion-MNIST as Debian ships it.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { promisify } from "node:util";
import { kernels } from "../client/kernels.js";
import { learning } from "../client/learning.js";
import { WorkloadSession } from "../server/cli/workload.js";
import { dealOf } from "../workloads/ml/cocoa/calls.js";
import { type CocoaOptions, type CocoaRun, trainCocoa, warmUp } from "../workloads/ml/cocoa/driver.js";
import { orderSeed, partitionRanges } from "../workloads/ml/cocoa/plan.js";
import { ridgeObjectives } from "../workloads/ml/cocoa/problem.js";
import type { Dataset } from "../workloads/ml/dataset.js";
import { loadDataset } from "../workloads/ml/input/load.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median } from "./measure.js";

const DATA = "/usr/share/datasets/fashion-mnist";
const CLASS = "6";
const PYTHON = "/usr/bin/python3";
const DOUBLE_BYTES = 8;

/** Fits to about the gap that our runs end at, and prints seconds and objective. */
const SCIKIT_LEARN = `
import gzip, json, sys, time, numpy as np
from sklearn.svm import LinearSVC
d = sys.argv[1] + "/"
X = np.frombuffer(gzip.open(d + "train-images-idx3-ubyte.gz").read(), np.uint8, offset=16).reshape(-1, 784).astype(np.float64)
Y = np.frombuffer(gzip.open(d + "train-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
X /= np.linalg.norm(X, axis=1, keepdims=True)
y = np.where(Y == 6, 1.0, -1.0)
start = time.perf_counter()
w = LinearSVC(loss="hinge", C=1 / (len(y) * 1e-4), fit_intercept=False, dual=True, max_iter=20, tol=1e-2).fit(X, y).coef_[0]
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "objective": float(np.maximum(0, 1 - y * (X @ w)).mean() + 5e-5 * (w @ w))}))
`;

export async function run(options: BenchOptions): Promise<BenchFigure[]> {
  if (!existsSync(DATA)) {
    options.note(`${DATA} is not there (apt-get install dataset-fashion-mnist): nothing to train on`);
    return [];
  }
  const workers = Math.min(2, availableParallelism());
  const session = await WorkloadSession.open({
    name: "bench-cocoa",
    endpoint: null,
    dramBytes: null,
    nvme: [],
    hugePages: options.hugePages,
    workers,
    expectedBytes: 1 << 30,
  });
  try {
    const { namespace, executor } = session;
    const surroundings = { namespace, executor, signal: options.signal };
    const dataset = await loadDataset(
      { paths: [DATA], label: null, task: "classify", role: "train", like: null, prefix: "rows" },
      surroundings,
    );
    await warmUp(surroundings);
    const runs: CocoaRun[] = [];
    const alone: LocalRun[] = [];
    for (let round = 0; round < options.rounds; round += 1) {
      const chosen = optionsOf(dataset, workers);
      runs.push(await trainCocoa(dataset, null, chosen, surroundings));
      alone.push(await trainAlone(dataset, chosen, session));
    }
    return [...figures(runs, alone, workers), ...(await scikitLearn(runs, options))];
  } finally {
    await session.close();
  }
}

function optionsOf(dataset: Dataset, workers: number): CocoaOptions {
  const { label } = dataset;
  return {
    run: `bench-${randomBytes(6).toString("hex")}`,
    loss: "hinge",
    penalty: "l2",
    lambda: 1e-4,
    gap: 1e-3,
    maxRounds: 100,
    partitions: 8,
    mode: "add",
    passes: 1,
    seed: 0,
    unitRows: true,
    intercept: false,
    positive: label.kind === "classes" ? label.classes.indexOf(CLASS) : null,
    workers,
  };
}

interface LocalRun {
  rounds: number;
  /** Of dealing and the rounds. */
  seconds: number;
  roundSeconds: number;
  primal: number;
}

/** The same rounds with the same kernels over memory of this process. */
async function trainAlone(
  dataset: Dataset,
  options: CocoaOptions,
  session: WorkloadSession,
): Promise<LocalRun> {
  const { partitions, lambda, seed, gap, maxRounds, workers } = options;
  const blocks: Uint8Array[] = [];
  for (const { key } of dataset.blocks)
    blocks.push(((await session.namespace.get(key)) as Uint8Array).slice());
  const deal = dealOf({ ...options, widths: dataset.columns.map(() => 1) });
  const lanes = partitionRanges(partitions, workers);
  const started = performance.now();
  const parts: Uint8Array[] = [];
  const variables: Uint8Array[] = [];
  let features = 0;
  await Promise.all(
    lanes.map(async ({ first, count }) => {
      for (let k = first; k < first + count; k += 1) {
        const shape = await learning().dealtShape(deal, k, blocks);
        const part = new Uint8Array(shape.bytes);
        await learning().dealRows(deal, k, blocks, part);
        parts[k] = part;
        variables[k] = new Uint8Array(shape.rows * DOUBLE_BYTES);
        features = shape.features;
      }
    }),
  );
  let model = new Uint8Array(features * DOUBLE_BYTES);
  const rounds: number[] = [];
  for (let round = 0; ; round += 1) {
    const roundStarted = performance.now();
    const deltas: Uint8Array[] = [];
    const sums: { loss: number; dual: number }[] = [];
    await Promise.all(
      lanes.map(async ({ first, count }) => {
        for (let k = first; k < first + count; k += 1) {
          const problem = {
            loss: options.loss,
            lambda,
            rows: dataset.rows,
            sigma: partitions,
            gamma: 1,
            passes: 1,
            seed: orderSeed({ seed, partitions }, round, k),
          };
          const before = variables[k] as Uint8Array;
          const after = new Uint8Array(before.length);
          const delta = new Uint8Array(model.length);
          sums[k] = await learning().dualAscent(problem, parts[k] as Uint8Array, model, before, after, delta);
          variables[k] = after;
          deltas[k] = delta;
        }
      }),
    );
    const square = await learning().dot(model, model);
    const total = sums.reduce((sum, { loss, dual }) => ({ loss: sum.loss + loss, dual: sum.dual + dual }));
    const found = ridgeObjectives(total, dataset.rows, lambda, square);
    const done = found.gap <= gap || round === maxRounds;
    if (!done) {
      const next = new Uint8Array(model.length);
      await kernels().sumArrays("float64", [model, ...deltas], next);
      model = next;
    }
    rounds.push((performance.now() - roundStarted) / 1000);
    if (!done) continue;
    const seconds = (performance.now() - started) / 1000;
    return { rounds: round, seconds, roundSeconds: median(rounds), primal: found.primal };
  }
}

function figures(runs: readonly CocoaRun[], alone: readonly LocalRun[], workers: number): BenchFigure[] {
  const rounds = runs.flatMap((run) => run.rounds.slice(0, -1));
  const last = runs[0]?.rounds.at(-1);
  const seconds = (run: CocoaRun) => (run.endMs - run.startMs) / 1000;
  const split = {
    compute: median(rounds.map((round) => round.computeSeconds)),
    broadcast: median(rounds.map((round) => round.broadcastSeconds)),
    reduce: median(rounds.map((round) => round.reduceSeconds)),
    bytes: median(rounds.map((round) => round.bytes)),
  };
  return [
    comparedFigure(
      `hinge loss on Fashion-MNIST, K = 8, ${workers} function workers`,
      median(runs.map(seconds)),
      "s",
      {
        name: `the same kernels in one process, ${workers} threads, no store`,
        figure: median(alone.map((run) => run.seconds)),
      },
      "<= 1.1x",
      { rounds: last?.round, gap: last?.gap, primal: last?.primal, alone },
    ),
    comparedFigure(
      "of that, one round",
      median(rounds.map((round) => round.seconds)),
      "s",
      { name: "the same", figure: median(alone.map((run) => run.roundSeconds)) },
      "<= 1.1x",
      split,
    ),
  ];
}

async function scikitLearn(runs: readonly CocoaRun[], options: BenchOptions): Promise<BenchFigure[]> {
  try {
    const { stdout } = await promisify(execFile)(PYTHON, ["-W", "ignore", "-c", SCIKIT_LEARN, DATA], {
      signal: options.signal,
    });
    const found = JSON.parse(stdout) as { seconds: number; objective: number };
    const seconds = median(runs.map((run) => (run.endMs - run.startMs) / 1000));
    return [
      comparedFigure(
        "the same, to a gap of 1e-3",
        seconds,
        "s",
        { name: "scikit-learn's LinearSVC (one thread)", figure: found.seconds },
        null,
        { objective: runs[0]?.rounds.at(-1)?.primal, theirObjective: found.objective },
      ),
    ];
  } catch (thrown) {
    options.signal.throwIfAborted();
    options.note(`scikit-learn (python3-sklearn) is not there: ${(thrown as Error).message.split("\n")[0]}`);
    return [];
  }
}
