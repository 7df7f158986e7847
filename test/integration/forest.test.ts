/** Forests on real function workers against a real node: the same whoever works on them, and as good as they should be. */
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connect, type Namespace } from "../../client/index.js";
import { createExecutor, type Executor } from "../../functions/index.js";
import type { Dataset, Label } from "../../workloads/ml/dataset.js";
import { type ForestRun, predictForest, trainForest } from "../../workloads/ml/forest/driver.js";
import { modelText, parseModel } from "../../workloads/ml/forest/model.js";
import type { ForestOptions } from "../../workloads/ml/forest/plan.js";
import { startDaemon } from "../support/daemon.js";
import { printedSeed, randomOf } from "../support/random.js";
import { putRows, type Rows } from "../support/training_blocks.js";
import { startTrainingNode, type TrainingNode } from "../support/training_node.js";

let node: TrainingNode;
let namespace: Namespace;

beforeAll(async () => {
  node = await startTrainingNode("forest-test");
  namespace = node.namespace;
});

afterAll(() => node.close());

function executorOf(workers: number): Executor {
  return node.executorOf(workers);
}

const NUMBER: Label = { kind: "number" };
const CLASSES: Label = { kind: "classes", classes: ["a", "b", "c"] };

const OPTIONS: ForestOptions = {
  trees: 6,
  maxDepth: null,
  bins: 32,
  seed: 5,
  criterion: "gini",
  minLeaf: 1,
  maxFeatures: "sqrt",
  classWeight: null,
  bagging: true,
  memoryBytes: 64 << 20,
  finishRows: null,
};

interface Data extends Rows {
  label: Label;
}

/** Rings around the origin: no single column says which. Some values are missing. */
function rings(count: number, seed: number, missing = 0.05): Data {
  const random = randomOf(seed).next;
  const labels: number[] = [];
  const values: number[][] = [];
  for (let i = 0; i < count; i += 1) {
    const [x, y] = [random() * 2 - 1, random() * 2 - 1];
    labels.push(Math.min(2, Math.floor(Math.hypot(x, y) * 2.5)));
    values.push([x, y, random(), Math.floor(random() * 4)].map((v) => (random() < missing ? Number.NaN : v)));
  }
  return { labels, values, label: CLASSES };
}

/** A smooth surface, and some noise. */
function surface(count: number, seed: number): Data {
  const random = randomOf(seed).next;
  const labels: number[] = [];
  const values: number[][] = [];
  for (let i = 0; i < count; i += 1) {
    const row = Array.from({ length: 4 }, () => random() * 2 - 1) as [number, number, number, number];
    labels.push(1e6 + 10 * Math.sin(3 * row[0]) + 5 * row[1] * row[2] + (random() - 0.5));
    values.push(row);
  }
  return { labels, values, label: NUMBER };
}

interface Training {
  data: Data;
  rowsPerBlock?: number;
  test?: Data;
  workers?: number;
  options?: Partial<ForestOptions>;
  /** Of the dataset, before it is trained on. */
  change?: (dataset: Dataset) => Dataset;
  onProgress?: (stage: string) => void;
  executor?: Executor;
  namespace?: Namespace;
}

async function train(training: Training): Promise<ForestRun> {
  const { data, rowsPerBlock = 300, test, workers = 2, options = {}, change = (same) => same } = training;
  const run = `run-${randomBytes(6).toString("hex")}`;
  const place = training.namespace ?? namespace;
  const dataset = change(await putRows(place, `${run}/rows`, data, data.label, rowsPerBlock));
  const tested = test === undefined ? null : await putRows(place, `${run}/test`, test, test.label, 500);
  const { onProgress } = training;
  return trainForest(
    dataset,
    tested,
    run,
    { ...OPTIONS, ...options },
    {
      namespace: place,
      executor: training.executor ?? executorOf(workers),
      ...(onProgress === undefined ? {} : { onProgress: ({ stage }) => onProgress(stage) }),
    },
  );
}

function textOf({ model }: ForestRun): string {
  return [...modelText(model)].join("");
}

/** The last column is a category. */
function withCategory(dataset: Dataset): Dataset {
  const categories = ["p", "q", "r", "s"];
  const columns = dataset.columns.map((column, i) =>
    i === 3 ? { ...column, kind: "categorical" as const, categories } : column,
  );
  return { ...dataset, columns };
}

describe("a forest is the same, bit for bit", () => {
  const seed = printedSeed("forest");

  it.each<[string, () => Data, Partial<ForestOptions>]>([
    ["of classes", () => rings(1_500, seed), {}],
    [
      "of classes by weighted entropy",
      () => rings(900, seed),
      { criterion: "entropy", classWeight: "balanced" },
    ],
    ["of numbers", () => surface(1_500, seed), { maxFeatures: "third" }],
  ])("%s, on 1, 4 and 16 function workers, in any blocks, wherever levels stop", async (_, make, options) => {
    const data = make();
    const change = data.label.kind === "classes" ? withCategory : (same: Dataset) => same;
    const expected = textOf(await train({ data, workers: 1, options, change }));
    const shuffled = (dataset: Dataset): Dataset =>
      change({ ...dataset, blocks: [...dataset.blocks].reverse() });
    const others: Training[] = [
      { data, workers: 4 },
      { data, workers: 16, rowsPerBlock: 50 },
      { data, workers: 2, rowsPerBlock: 10_000 },
      { data, workers: 4, rowsPerBlock: 77, change: shuffled },
      // Every node by its histograms, in batches of a few.
      { data, workers: 2, options: { finishRows: 0, memoryBytes: 100_000, maxDepth: null } },
      { data, workers: 2, options: { finishRows: 100 } },
    ];
    for (const other of others) {
      const { options: more, ...rest } = other;
      const run = await train({ change, ...rest, options: { ...options, ...more } });
      expect(
        textOf(run) === expected,
        `${JSON.stringify({ ...rest, data: null })} gives another forest`,
      ).toBe(true);
    }
  });

  it("when function workers reach the node over TCP alone", async () => {
    const data = rings(1_500, seed);
    const options = { finishRows: 200 };
    const expected = textOf(await train({ data, options }));
    const remote = await startDaemon();
    // Clients of the same host look for the socket.
    rmSync(remote.socketPath);
    const other = await connect(remote.grpcAddress);
    const executor = createExecutor({ workers: 2, endpoint: remote.grpcAddress, namespace: "forest-tcp" });
    try {
      const there = await other.createNamespace("forest-tcp", {});
      const run = await train({ data, options, executor, namespace: there });
      expect(Object.keys(run.takenBytes)).toEqual(["tcp"]);
      expect(textOf(run) === expected).toBe(true);
    } finally {
      await executor.close();
      await other.close();
      await remote.stop();
    }
  });

  it("when rows come sorted by label", async () => {
    const data = rings(1_200, seed);
    const order = data.labels
      .map((_, i) => i)
      .sort((a, b) => (data.labels[a] as number) - (data.labels[b] as number));
    const sorted: Data = {
      label: CLASSES,
      labels: order.map((i) => data.labels[i] as number),
      values: order.map((i) => data.values[i] as readonly number[]),
    };
    const test = rings(2_000, seed + 1);
    const [plain, grouped] = [
      await train({ data, test }),
      await train({ data: sorted, test, rowsPerBlock: 100 }),
    ];
    // Other numbers draw other rows, but no function worker's share is a forest of its own.
    expect(grouped.test?.accuracy).toBeGreaterThan(0.8);
    expect(Math.abs((plain.test?.accuracy ?? 0) - (grouped.test?.accuracy ?? 0))).toBeLessThan(0.05);
  });

  it("and another seed gives another", async () => {
    const data = rings(600, seed);
    expect(textOf(await train({ data }))).not.toBe(textOf(await train({ data, options: { seed: 6 } })));
  });

  it("when function workers are killed", async () => {
    const data = rings(3_000, seed);
    const expected = textOf(await train({ data }));
    for (const stage of ["bin", "levels", "finish"]) {
      const executor = createExecutor({
        workers: 2,
        endpoint: node.endpoint,
        namespace: namespace.name,
        retries: 5,
      });
      let killed = 0;
      try {
        const run = await train({
          data,
          executor,
          options: { finishRows: 300 },
          onProgress: (at) => {
            if (at !== stage || killed > 0) return;
            for (const pid of executor.stats().pids) process.kill(pid, "SIGKILL");
            killed += 1;
          },
        });
        expect(killed).toBe(1);
        expect(textOf(run) === expected, `killed in ${stage}`).toBe(true);
      } finally {
        await executor.close();
      }
    }
  });
});

describe("a forest is good", () => {
  it("at classes, also those that its trees have not seen", async () => {
    const run = await train({ data: rings(4_000, 1, 0), test: rings(3_000, 2, 0), options: { trees: 20 } });
    expect(run.test?.accuracy).toBeGreaterThan(0.9);
    expect(run.outOfBag?.accuracy).toBeGreaterThan(0.9);
    expect(run.test?.byTree).toHaveLength(20);
    expect(run.test?.byTree.at(-1)).toBe(run.test?.accuracy);
    const confusion = run.test?.confusion ?? [];
    expect(confusion.flat().reduce((sum, count) => sum + count, 0)).toBe(3_000);
    const [x = 0, y = 0, noise = 1] = run.model.importances;
    expect(Math.min(x, y)).toBeGreaterThan(2 * noise);
    expect(run.model.importances.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1);
  });

  it("at numbers far from 0", async () => {
    const run = await train({
      data: surface(4_000, 3),
      test: surface(1_000, 4),
      options: { trees: 20, maxFeatures: "all", bins: 64, minLeaf: 2 },
    });
    expect(run.test?.r2).toBeGreaterThan(0.95);
    expect(run.outOfBag?.r2).toBeGreaterThan(0.95);
    expect(run.test?.rmse).toBeLessThan(2);
  });

  it("where one tree without bagging can learn everything by heart", async () => {
    const data = rings(800, 6, 0);
    const run = await train({
      data,
      test: data,
      options: { trees: 1, bagging: false, bins: 255, maxFeatures: "all" },
    });
    expect(run.outOfBag).toBeNull();
    expect(run.test?.accuracy).toBeGreaterThan(0.99);
  });

  it("at a category that has no order", async () => {
    const random = randomOf(9).next;
    const codes = Array.from({ length: 2_000 }, () => Math.floor(random() * 4));
    const data: Data = {
      label: CLASSES,
      labels: codes.map((code) => (code === 1 || code === 2 ? 0 : 1)),
      values: codes.map((code) => [random(), random(), random(), code]),
    };
    const options = { trees: 1, maxDepth: 1, maxFeatures: "all" as const };
    const run = await train({ data, test: data, options, change: withCategory });
    expect(run.test?.accuracy).toBe(1);
    expect(run.model.trees[0]?.sets[0]).toSatisfy((set: number[]) => ["0,3", "1,2"].includes(set.join(",")));
  });

  it("no deeper and with no smaller leaves than it may", async () => {
    const run = await train({
      data: rings(2_000, 8),
      options: { maxDepth: 3, minLeaf: 40, finishRows: 200 },
    });
    expect(run.depth).toBe(3);
    for (const { ends = [], rows = [] } of run.model.trees) {
      ends.forEach((end, leaf) => {
        const begin = leaf === 0 ? 0 : (ends[leaf - 1] as number);
        expect(rows.slice(begin, end).reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(40);
      });
    }
  });
});

it("predicts what its votes on the test rows were", async () => {
  const test = rings(1_000, 12);
  const run = await train({ data: rings(2_000, 11), test });
  const name = `run-${randomBytes(6).toString("hex")}`;
  const dataset = await putRows(namespace, name, test, CLASSES, 130);
  const { predictions, metrics } = await predictForest(run.model, dataset, name, {
    namespace,
    executor: executorOf(2),
  });
  const all = predictions.flatMap((block) => [...block]);
  expect(all).toHaveLength(1_000);
  const right = all.filter((prediction, i) => prediction === test.labels[i]).length;
  expect(right / 1_000).toBe(run.test?.accuracy);
  expect(metrics?.confusion).toEqual(run.test?.confusion);
});

it.each<[string, Data]>([
  ["a class", { labels: [1], values: [[5, Number.NaN]], label: CLASSES }],
  ["a number", { labels: [-3.5], values: [[5, Number.NaN]], label: NUMBER }],
])("grows from one row of %s, which most trees do not draw once", async (_, data) => {
  const run = await train({ data, test: data, options: { trees: 20 } });
  expect(run.depth).toBe(0);
  expect(run.test?.rows).toBe(1);
  expect(run.test?.accuracy ?? 1 - (run.test?.rmse ?? 1)).toBe(1);
  expect(parseModel(textOf(run), "m.json")).toEqual(run.model);
});

it("refuses data that no forest can be grown from", async () => {
  const none: Data = { labels: [], values: [], label: CLASSES };
  await expect(train({ data: none })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  const wrong: Data = { labels: [0, 7], values: [[1], [2]], label: CLASSES };
  await expect(train({ data: wrong })).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringContaining("row 1"),
  });
});
