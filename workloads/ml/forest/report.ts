/** A forest as the page that all workloads share. */
import type { Receipt } from "../../../client/index.js";
import { formatBytes, formatCount, formatSeconds } from "../../report/format.js";
import type { Report } from "../../report/model.js";
import { receiptFacts } from "../../report/receipt.js";
import { timelineLanes } from "../lanes.js";
import type { ForestRun } from "./driver.js";
import type { ForestMetrics } from "./metrics.js";
import { describeMetrics, type ForestDocument } from "./result.js";

export interface ForestReportFacts {
  /** As given on the command line. */
  input: string;
  startUpSeconds: number;
  receipt: Receipt | null;
}

export function forestReport(run: ForestRun, document: ForestDocument, facts: ForestReportFacts): Report {
  const classifies = document.task === "classify";
  const { oob, test } = document;
  const line = (label: string, metrics: ForestMetrics | null) =>
    metrics === null
      ? []
      : [
          {
            label,
            points: metrics.byTree.flatMap((value, tree) =>
              value === null ? [] : [[tree + 1, value] as const],
            ),
          },
        ];
  const quality = (metrics: ForestMetrics): string =>
    metrics.accuracy === null
      ? (metrics.rmse ?? 0).toPrecision(4)
      : `${(100 * metrics.accuracy).toFixed(2)} %`;
  const measure = classifies ? "accuracy" : "RMSE";
  const lines = [...line("out of bag", oob), ...line("test", test)];
  return {
    workload: "millrace forest",
    headline: `${formatCount(document.trees)} trees on ${formatCount(document.rows)} rows in ${formatSeconds(document.seconds)}`,
    subline: `${formatCount(document.features)} columns from ${facts.input}, on ${document.workers} function workers`,
    validated: null,
    facts: [
      ...(oob === null ? [] : [{ label: measure, value: quality(oob), note: "out of bag" }]),
      ...(test === null ? [] : [{ label: measure, value: quality(test), note: "test rows" }]),
      ...run.phases.map(({ name, startMs, endMs }) => ({
        label: name,
        value: formatSeconds((endMs - startMs) / 1000),
      })),
      { label: "exchanged", value: formatBytes(document.exchange.bytes) },
      { label: "nodes", value: formatCount(document.nodes), note: `up to ${document.depth} deep` },
    ],
    startMs: run.startMs,
    endMs: run.endMs,
    phases: run.phases,
    lanes: timelineLanes(run.calls),
    time: document.time,
    seconds: document.seconds,
    byTransport: Object.entries(document.exchange.byTransport).map(([label, value]) => ({ label, value })),
    byTier: Object.entries(document.exchange.byTier).map(([label, value]) => ({ label, value })),
    partitionBytes: [],
    curves:
      lines.length === 0
        ? []
        : [
            {
              title: classifies ? "Accuracy by trees" : "RMSE by trees",
              along: "trees",
              logarithmic: false,
              lines,
            },
          ],
    rankings: [
      {
        title: "Importance of columns",
        items: document.importances.map(({ name, importance }) => ({
          label: name,
          value: importance,
          text: `${(100 * importance).toFixed(2)} %`,
        })),
      },
    ],
    details: [
      { label: "rows", value: formatCount(document.rows) },
      { label: "columns", value: formatCount(document.features) },
      { label: "bad rows left out", value: formatCount(document.badRows) },
      { label: "passes for large nodes", value: formatCount(document.levels) },
      { label: "nodes split by histograms", value: formatCount(document.levelNodes) },
      { label: "nodes finished by one call", value: formatCount(document.finishedNodes) },
      { label: "seed", value: String(document.seed) },
      { label: "bins", value: formatCount(document.bins) },
      ...(oob === null ? [] : [{ label: "out of bag", value: describeMetrics(oob) }]),
      ...(test === null ? [] : [{ label: "test", value: describeMetrics(test) }]),
      { label: "retries", value: formatCount(document.retries) },
      { label: "start-up", value: `${formatSeconds(facts.startUpSeconds)}: node, function workers, loading` },
      ...receiptFacts(facts.receipt),
    ],
  };
}
