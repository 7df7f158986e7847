/** A CoCoA training as the page that all workloads share. */
import type { Receipt } from "../../../client/index.js";
import { formatBytes, formatCount, formatSeconds } from "../../report/format.js";
import type { Report } from "../../report/model.js";
import { receiptFacts } from "../../report/receipt.js";
import { timelineLanes } from "../lanes.js";
import type { CocoaRun } from "./driver.js";
import type { CocoaDocument } from "./result.js";

export interface CocoaReportFacts {
  /** As given on the command line. */
  input: string;
  startUpSeconds: number;
  receipt: Receipt | null;
}

export function cocoaReport(run: CocoaRun, document: CocoaDocument, facts: CocoaReportFacts): Report {
  const { perRound, test } = document;
  const along = (of: (round: CocoaRun["rounds"][number]) => number) =>
    run.rounds.map((round) => [round.round, of(round)] as const);
  const made = run.rounds.slice(0, Math.max(1, run.rounds.length - 1));
  return {
    workload: "millrace cocoa",
    headline: `a gap of ${document.gap.toExponential(2)} after ${document.rounds} rounds, in ${formatSeconds(document.seconds)}`,
    subline:
      `${document.loss} loss with an ${document.penalty.toUpperCase()} penalty on ${formatCount(document.rows)} rows from ` +
      `${facts.input}, ${document.partitions} partitions on ${document.workers} function workers`,
    validated: document.converged,
    facts: [
      { label: "objective", value: document.primal.toFixed(6), note: `at least ${document.dual.toFixed(6)}` },
      { label: "a round", value: formatSeconds(perRound.seconds) },
      { label: "compute", value: formatSeconds(perRound.compute), note: "of a round" },
      { label: "broadcast", value: formatSeconds(perRound.broadcast), note: "of a round" },
      { label: "reduce", value: formatSeconds(perRound.reduce), note: "of a round" },
      { label: "bytes a round", value: formatBytes(Math.round(perRound.bytes)) },
      ...(document.accuracy === null
        ? []
        : [{ label: "accuracy", value: `${(100 * document.accuracy).toFixed(2)} %`, note: "training rows" }]),
      ...(test?.accuracy == null
        ? []
        : [{ label: "accuracy", value: `${(100 * test.accuracy).toFixed(2)} %`, note: "test rows" }]),
    ],
    startMs: run.startMs,
    endMs: run.endMs,
    phases: run.phases,
    lanes: timelineLanes(run.calls),
    time: document.time,
    seconds: document.seconds,
    byTransport: Object.entries(document.exchange.byTransport).map(([label, value]) => ({ label, value })),
    byTier: Object.entries(document.exchange.byTier).map(([label, value]) => ({ label, value })),
    partitionBytes: run.partitionBytes,
    curves: [
      {
        title: "Duality gap",
        along: "round",
        logarithmic: true,
        lines: [{ label: "gap", points: along((round) => Math.max(round.gap, Number.MIN_VALUE)) }],
      },
      {
        title: "A round's time",
        along: "round",
        logarithmic: false,
        lines: [
          { label: "compute", points: made.map((round) => [round.round + 1, round.computeSeconds] as const) },
          {
            label: "broadcast",
            points: made.map((round) => [round.round + 1, round.broadcastSeconds] as const),
          },
          { label: "reduce", points: made.map((round) => [round.round + 1, round.reduceSeconds] as const) },
        ],
      },
    ],
    details: [
      { label: "rows", value: formatCount(document.rows) },
      { label: "features", value: formatCount(document.features) },
      { label: "weights", value: formatCount(document.weights) },
      { label: "bad rows left out", value: formatCount(document.badRows) },
      { label: "lambda", value: String(document.lambda) },
      { label: "updates", value: document.mode === "add" ? "added" : "averaged" },
      { label: "seed", value: String(document.seed) },
      { label: "retries", value: formatCount(document.retries) },
      { label: "start-up", value: `${formatSeconds(facts.startUpSeconds)}: node, function workers, loading` },
      ...receiptFacts(facts.receipt),
    ],
  };
}
