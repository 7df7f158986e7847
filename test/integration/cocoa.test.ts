/** CoCoA on real function workers against a real node, held to solutions found by other means. */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Namespace } from "../../client/index.js";
import type { Executor } from "../../functions/index.js";
import { type CocoaOptions, type CocoaProgress, trainCocoa } from "../../workloads/ml/cocoa/driver.js";
import { randomOf } from "../support/random.js";
import { putRows, type Rows } from "../support/training_blocks.js";
import { startTrainingNode, type TrainingNode } from "../support/training_node.js";

let node: TrainingNode;
let namespace: Namespace;

beforeAll(async () => {
  node = await startTrainingNode("cocoa-test");
  namespace = node.namespace;
});

afterAll(() => node.close());

function executorOf(workers: number): Executor {
  return node.executorOf(workers);
}

const CLASSES = { kind: "classes", classes: ["no", "yes"] } as const;
const NUMBER = { kind: "number" } as const;

function options(changes: Partial<CocoaOptions>): CocoaOptions {
  return {
    run: `run-${randomBytes(6).toString("hex")}`,
    loss: "hinge",
    penalty: "l2",
    lambda: 0.01,
    gap: 1e-6,
    maxRounds: 500,
    partitions: 3,
    mode: "add",
    passes: 1,
    seed: 1,
    unitRows: false,
    intercept: false,
    positive: 1,
    workers: 2,
    ...changes,
  };
}

/** Rows around a plane, some of them on its wrong side. */
function makeRows(count: number, features: number, seed: number): Rows {
  const random = randomOf(seed).next;
  const rows: { labels: number[]; values: number[][] } = { labels: [], values: [] };
  for (let i = 0; i < count; i += 1) {
    const row = Array.from({ length: features }, () => Math.fround(random() * 2 - 1));
    const score = row.reduce((sum, value, j) => sum + value * (j % 2 === 0 ? 1 : -1), 0);
    rows.values.push(row);
    rows.labels.push(score + random() - 0.5 > 0 ? 1 : 0);
  }
  return rows;
}

function train(rows: Rows, changes: Partial<CocoaOptions>, rowsPerBlock = 200, test: Rows | null = null) {
  const chosen = options(changes);
  const label = chosen.positive === null ? NUMBER : CLASSES;
  return (async () => {
    const training = await putRows(namespace, `${chosen.run}/rows`, rows, label, rowsPerBlock);
    const tested = test === null ? null : await putRows(namespace, `${chosen.run}/test`, test, label, 100);
    return trainCocoa(training, tested, chosen, { namespace, executor: executorOf(chosen.workers) });
  })();
}

describe("cocoa", () => {
  it("finds ridge regression's solution, which the normal equations give", async () => {
    // y = 2 a - b over a grid: the Gram matrix is diagonal, so every weight stands for itself.
    const values: number[][] = [];
    const labels: number[] = [];
    for (const a of [-2, -1, 1, 2]) {
      for (const b of [-1, 1]) {
        values.push([a, b]);
        labels.push(2 * a - b);
      }
    }
    const lambda = 0.5;
    const run = await train({ labels, values }, { loss: "squared", positive: null, lambda, gap: 1e-12 }, 3);
    expect(run.converged).toBe(true);
    const n = labels.length;
    expect(run.weights[0]).toBeCloseTo((2 * 20) / (20 + n * lambda), 5);
    expect(run.weights[1]).toBeCloseTo(-n / (n + n * lambda), 5);
  });

  it.each(["hinge", "logistic"] as const)(
    "%s: one optimum for every K, mode and cut of the rows",
    async (loss) => {
      const rows = makeRows(600, 6, 5);
      const found = [
        await train(rows, { loss, partitions: 1 }),
        await train(rows, { loss, partitions: 5 }, 77),
        await train(rows, { loss, partitions: 3, mode: "average", maxRounds: 3000 }),
      ];
      for (const { rounds, converged } of found) {
        expect(converged).toBe(true);
        const last = rounds.at(-1);
        expect(last?.primal).toBeCloseTo(found[0]?.rounds.at(-1)?.primal ?? 0, 5);
        for (const { primal, dual } of rounds) expect(primal).toBeGreaterThanOrEqual(dual - 1e-12);
      }
      const [one, , averaged] = found;
      expect(averaged?.rounds.length).toBeGreaterThan(one?.rounds.length ?? 0);
    },
  );

  it("gives the same bits for any number of function workers and any cut of the rows", async () => {
    const rows = makeRows(500, 7, 6);
    const one = await train(rows, { partitions: 6, workers: 1, gap: 1e-4 }, 500);
    for (const [workers, rowsPerBlock] of [
      [2, 64],
      [3, 499],
    ] as const) {
      const other = await train(rows, { partitions: 6, workers, gap: 1e-4 }, rowsPerBlock);
      expect(other.weights).toEqual(one.weights);
      expect(other.rounds.map(({ gap }) => gap)).toEqual(one.rounds.map(({ gap }) => gap));
    }
    const reseeded = await train(rows, { partitions: 6, workers: 2, gap: 1e-4, seed: 2 }, 500);
    expect(reseeded.weights).not.toEqual(one.weights);
  });

  it("the lasso leaves out the features that do not matter", async () => {
    const random = randomOf(8).next;
    const values = Array.from({ length: 300 }, () =>
      Array.from({ length: 8 }, () => Math.fround(random() * 2 - 1)),
    );
    const labels = values.map((row) => 3 * (row[2] as number) - 2 * (row[5] as number) + 0.01 * random());
    const run = await train(
      { labels, values },
      {
        loss: "squared",
        penalty: "l1",
        positive: null,
        lambda: 0.05,
        gap: 1e-8,
      },
    );
    expect(run.converged).toBe(true);
    const used = [...run.weights].flatMap((weight, j) => (weight === 0 ? [] : [j]));
    expect(used).toEqual([2, 5]);
    expect(run.weights[2]).toBeGreaterThan(2);
    expect(run.weights[5]).toBeLessThan(-1);
  });

  it("measures the model on other rows", async () => {
    const run = await train(makeRows(800, 5, 9), { gap: 1e-4 }, 300, makeRows(250, 5, 10));
    expect(run.test?.rows).toBe(250);
    expect(run.test?.accuracy).toBeGreaterThan(0.7);
    expect(run.test?.loss).toBeGreaterThan(0);
    const last = run.rounds.at(-1);
    expect(last?.accuracy).toBeGreaterThan(0.7);
  });

  it("a function worker that is killed in the middle changes nothing", async () => {
    const rows = makeRows(3000, 20, 11);
    const changes = { partitions: 4, workers: 2, gap: 1e-5 };
    const undisturbed = await train(rows, changes);
    const executor = executorOf(2);
    const chosen = options(changes);
    const training = await putRows(namespace, `${chosen.run}/rows`, rows, CLASSES, 200);
    let kills = 0;
    const onProgress = ({ stage, fraction }: CocoaProgress) => {
      if (stage !== "rounds" || fraction === 1 || kills === 3) return;
      kills += 1;
      process.kill(executor.stats().pids[0] as number, "SIGKILL");
    };
    const run = await trainCocoa(training, null, chosen, { namespace, executor, onProgress });
    expect(kills).toBe(3);
    expect(run.weights).toEqual(undisturbed.weights);
    expect(run.rounds.length).toBe(undisturbed.rounds.length);
  });

  it("stops at the limit of rounds and says so", async () => {
    const run = await train(makeRows(300, 5, 12), { gap: 1e-12, maxRounds: 2 });
    expect(run.converged).toBe(false);
    expect(run.rounds.map(({ round }) => round)).toEqual([0, 1, 2]);
  });

  it("leaves nothing of earlier rounds behind", async () => {
    const chosen = options({ gap: 1e-5 });
    const training = await putRows(namespace, `${chosen.run}/rows`, makeRows(300, 5, 13), CLASSES, 200);
    const run = await trainCocoa(training, null, chosen, { namespace, executor: executorOf(2) });
    const left = [];
    for await (const { key } of namespace.list({ prefix: `${chosen.run}/` })) left.push(key);
    const round = run.rounds.length - 1;
    expect(left.filter((key) => !/\/(rows|part|plan)/.test(key))).toEqual([
      `${chosen.run}/model/${round}`,
      ...[0, 1, 2].map((k) => `${chosen.run}/variables/${round}/${k}`),
    ]);
  });
});
