/** What a CoCoA training reports: the JSON document, which is a contract, and the summary for people. */
import { type Activity, secondsByActivity } from "../../report/activity.js";
import { formatBytes, formatCount, formatSeconds } from "../../report/format.js";
import type { Dataset } from "../dataset.js";
import type { CocoaOptions, CocoaRound, CocoaRun, CocoaTest } from "./driver.js";

/** `millrace cocoa train --json` prints this document. Times are wall-clock seconds. */
export interface CocoaDocument {
  workload: "cocoa";
  rows: number;
  /** Columns of the data; of the model, with categories and intercept, `weights`. */
  features: number;
  weights: number;
  badRows: number;
  workers: number;
  partitions: number;
  loss: CocoaOptions["loss"];
  penalty: CocoaOptions["penalty"];
  lambda: number;
  mode: CocoaOptions["mode"];
  seed: number;
  /** Updates of the model until the gap was reached, or the limit of rounds. */
  rounds: number;
  converged: boolean;
  primal: number;
  dual: number;
  gap: number;
  /** Of the training rows, where they are classified. */
  accuracy: number | null;
  test: CocoaTest | null;
  /** The model after 0, 1, 2, … rounds, and what the next round cost. */
  history: readonly CocoaRound[];
  /** Of dealing and the rounds. */
  seconds: number;
  phases: Record<string, number>;
  /** Mean of a round: in the solvers, the model to the calls, what they found back into it. */
  perRound: { seconds: number; compute: number; broadcast: number; reduce: number; bytes: number };
  /** Summed over the calls and divided by the function workers. */
  time: Record<Activity, number>;
  exchange: { bytes: number; byTransport: Record<string, number>; byTier: { dram: number; nvme: number } };
  retries: number;
}

export function cocoaDocument(run: CocoaRun, dataset: Dataset, options: CocoaOptions): CocoaDocument {
  const last = run.rounds.at(-1) as CocoaRound;
  // The last one only looked at the model; nothing was made of its updates.
  const made = run.rounds.length > 1 ? run.rounds.slice(0, -1) : run.rounds;
  const mean = (of: (round: CocoaRound) => number) =>
    made.reduce((sum, round) => sum + of(round), 0) / made.length;
  const time = secondsByActivity(run.calls.flatMap((call) => call.spans));
  // Within calls, `input` is the model coming in: it came out of the exchange.
  const spent = {
    input: 0,
    compute: time.compute,
    exchange: time.exchange + time.input + time.output,
    output: 0,
  };
  const byTransport: Record<string, number> = { shm: 0, tcp: 0, grpc: 0 };
  byTransport[run.transport] = run.exchangedBytes;
  return {
    workload: "cocoa",
    rows: dataset.rows,
    features: dataset.features,
    weights: run.weights.length,
    badRows: dataset.bad.count,
    workers: options.workers,
    partitions: options.partitions,
    loss: options.loss,
    penalty: options.penalty,
    lambda: options.lambda,
    mode: options.mode,
    seed: options.seed,
    rounds: last.round,
    converged: run.converged,
    primal: last.primal,
    dual: last.dual,
    gap: last.gap,
    accuracy: last.accuracy,
    test: run.test,
    history: run.rounds,
    seconds: (run.endMs - run.startMs) / 1000,
    phases: Object.fromEntries(
      run.phases.map(({ name, startMs, endMs }) => [name, (endMs - startMs) / 1000]),
    ),
    perRound: {
      seconds: mean((round) => round.seconds),
      compute: mean((round) => round.computeSeconds),
      broadcast: mean((round) => round.broadcastSeconds),
      reduce: mean((round) => round.reduceSeconds),
      bytes: mean((round) => round.bytes),
    },
    time: {
      input: 0,
      compute: spent.compute / options.workers,
      exchange: spent.exchange / options.workers,
      output: 0,
    },
    exchange: {
      bytes: run.exchangedBytes,
      byTransport,
      byTier: { dram: run.exchangedBytes, nvme: 0 },
    },
    retries: run.retries,
  };
}

/** The summary that the command prints on a terminal. */
export function describeCocoa(document: CocoaDocument, startUpSeconds: number): string {
  const { perRound, test } = document;
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  const rows: [string, string][] = [
    [
      "data",
      `${formatCount(document.rows)} rows of ${formatCount(document.features)} features` +
        (document.badRows === 0 ? "" : `; ${formatCount(document.badRows)} bad rows left out`),
    ],
    [
      "model",
      `${document.loss} loss, ${document.penalty === "l2" ? "L2" : "L1"} penalty, lambda ${document.lambda}, ` +
        `${formatCount(document.weights)} weights`,
    ],
    [
      "rounds",
      `${document.rounds} over ${document.partitions} partitions (updates ${document.mode === "add" ? "added" : "averaged"}), ` +
        `gap ${document.gap.toExponential(2)}${document.converged ? "" : ", NOT reached what was asked for"}`,
    ],
    ["objective", `${document.primal.toFixed(6)} (at least ${document.dual.toFixed(6)})`],
    [
      "time",
      `${formatSeconds(document.seconds)}; start-up and loading ${formatSeconds(startUpSeconds)}; a round ` +
        `${formatSeconds(perRound.seconds)}: compute ${formatSeconds(perRound.compute)}, ` +
        `broadcast ${formatSeconds(perRound.broadcast)}, reduce ${formatSeconds(perRound.reduce)}`,
    ],
    [
      "exchange",
      `${formatBytes(document.exchange.bytes)}, ${formatBytes(Math.round(perRound.bytes))} a round`,
    ],
  ];
  if (document.accuracy !== null)
    rows.push(["accuracy", `${percent(document.accuracy)} of the training rows`]);
  if (test !== null) {
    rows.push([
      "test",
      test.accuracy !== null
        ? `${percent(test.accuracy)} of ${formatCount(test.rows)} rows`
        : `root mean squared error ${(test.rmse as number).toPrecision(6)} over ${formatCount(test.rows)} rows`,
    ]);
  }
  return rows.map(([name, value]) => `${name.padEnd(10)} ${value}`).join("\n");
}
