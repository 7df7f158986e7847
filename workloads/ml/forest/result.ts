/** What a forest reports: the JSON document, which is a contract, and the summary for people. */
import { type Activity, secondsByActivity } from "../../report/activity.js";
import { formatBytes, formatCount, formatSeconds, formatShare } from "../../report/format.js";
import type { Dataset } from "../dataset.js";
import type { ForestRun } from "./driver.js";
import type { ForestMetrics } from "./metrics.js";
import type { ForestOptions } from "./plan.js";

const IMPORTANCES_TOP = 20;

/** `millrace forest train --json` prints this document. Times are wall-clock seconds. */
export interface ForestDocument {
  workload: "forest";
  task: "classify" | "regress";
  rows: number;
  /** Columns without the label. */
  features: number;
  trees: number;
  /** Of the deepest tree. */
  depth: number;
  /** Of all trees, leaves included. */
  nodes: number;
  /** Passes that split nodes by their histograms, the nodes of these, and those that one call finished each. */
  levels: number;
  levelNodes: number;
  finishedNodes: number;
  /** From rows in the store to the last tree. */
  seconds: number;
  /** `votes`, out of bag and on the test rows, comes after. */
  phases: Record<string, number>;
  /** Of the calls in `seconds`, summed over them and divided by the function workers. */
  time: Record<Activity, number>;
  /** What calls took from the store: rows and bins, samples, histograms, trees. In place over shm. */
  exchange: { bytes: number; byTransport: Record<string, number>; byTier: { dram: number; nvme: number } };
  oob: ForestMetrics | null;
  test: ForestMetrics | null;
  /** The most important columns. */
  importances: { name: string; importance: number }[];
  seed: number;
  bins: number;
  retries: number;
  workers: number;
  badRows: number;
}

export function forestDocument(
  run: ForestRun,
  dataset: Dataset,
  options: ForestOptions,
  workers: number,
): ForestDocument {
  const { model } = run;
  const growing = run.calls.filter(({ stage }) => stage !== "votes");
  const time = secondsByActivity(growing.flatMap((call) => call.spans));
  const bytes = Object.values(run.takenBytes).reduce((sum, taken) => sum + taken, 0);
  return {
    workload: "forest",
    task: model.label.kind === "classes" ? "classify" : "regress",
    rows: dataset.rows,
    features: dataset.features,
    trees: model.trees.length,
    depth: run.depth,
    nodes: model.trees.reduce((sum, tree) => sum + tree.feature.length, 0),
    levels: run.grown.levels,
    levelNodes: run.grown.levelNodes,
    finishedNodes: run.grown.finishedNodes,
    seconds: (run.grownMs - run.startMs) / 1000,
    phases: Object.fromEntries(
      run.phases.map(({ name, startMs, endMs }) => [name, (endMs - startMs) / 1000]),
    ),
    time: {
      input: time.input / workers,
      compute: time.compute / workers,
      exchange: time.exchange / workers,
      output: time.output / workers,
    },
    exchange: {
      bytes,
      byTransport: { shm: 0, tcp: 0, grpc: 0, ...run.takenBytes },
      byTier: { dram: bytes - run.takenNvmeBytes, nvme: run.takenNvmeBytes },
    },
    oob: run.outOfBag,
    test: run.test,
    importances: model.importances
      .map((importance, i) => ({ name: model.columns[i]?.name ?? String(i), importance }))
      .filter(({ importance }) => importance > 0)
      .sort((a, b) => b.importance - a.importance)
      .slice(0, IMPORTANCES_TOP),
    seed: options.seed,
    bins: options.bins,
    retries: run.retries,
    workers,
    badRows: dataset.bad.count,
  };
}

/** The summary that the command prints on a terminal. */
export function describeForest(document: ForestDocument, startUpSeconds: number): string {
  const { phases, time, seconds, exchange } = document;
  const known = time.input + time.compute + time.exchange + time.output;
  const share = (part: number) => (seconds === 0 ? "" : ` (${formatShare(part / seconds)})`);
  const rows: [string, string][] = [
    [
      "data",
      `${formatCount(document.rows)} rows of ${formatCount(document.features)} columns` +
        (document.badRows === 0 ? "" : `; ${formatCount(document.badRows)} bad rows left out`),
    ],
    [
      "forest",
      `${formatCount(document.trees)} trees of ${formatCount(document.nodes)} nodes, up to ${document.depth} deep`,
    ],
    ["time", `${formatSeconds(seconds)}; start-up and loading ${formatSeconds(startUpSeconds)}`],
    [
      "phases",
      Object.entries(phases)
        .map(([name, took]) => `${name} ${formatSeconds(took)}`)
        .join(", "),
    ],
    [
      "split",
      `compute ${formatSeconds(time.compute)}${share(time.compute)}, exchange ${formatSeconds(time.exchange)}` +
        `${share(time.exchange)}, waiting ${formatSeconds(Math.max(0, seconds - known))}`,
    ],
    [
      "exchange",
      Object.entries(exchange.byTransport)
        .filter(([, bytes]) => bytes > 0)
        .map(([name, bytes]) => `${formatBytes(bytes)} over ${name}`)
        .join(", ") || "nothing",
    ],
  ];
  if (document.oob !== null) rows.push(["out of bag", describeMetrics(document.oob)]);
  if (document.test !== null) rows.push(["test", describeMetrics(document.test)]);
  if (document.retries > 0) rows.push(["retries", formatCount(document.retries)]);
  return rows.map(([name, value]) => `${name.padEnd(10)} ${value}`).join("\n");
}

export function describeMetrics({ rows, accuracy, rmse, r2 }: ForestMetrics): string {
  const of = `of ${formatCount(rows)} rows`;
  if (accuracy !== null) return `${(100 * accuracy).toFixed(2)} % ${of} right`;
  return `root mean squared error ${(rmse ?? 0).toPrecision(6)}, R2 ${r2 === null ? "-" : r2.toFixed(4)}, ${of}`;
}
