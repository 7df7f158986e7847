/** A sort as the page that all workloads share. */
import type { Receipt } from "../../client/index.js";
import { formatBytes, formatCount, formatSeconds } from "../report/format.js";
import type { Report, ReportCall, ReportFact, ReportLane } from "../report/model.js";
import { receiptFacts } from "../report/receipt.js";
import type { LostAttempt, SortRun, TimelineCall } from "./driver.js";
import { throughput } from "./result.js";

export interface SortReportFacts {
  /** As given on the command line. */
  input: string;
  output: string;
  /** Node, namespace and function workers, until they were ready. */
  startUpSeconds: number;
  /** Of the namespace at its end; null where there is none. */
  receipt: Receipt | null;
}

export function sortReport(run: SortRun, facts: SortReportFacts): Report {
  const { document } = run;
  return {
    workload: "millrace sort",
    headline: `${formatCount(document.records)} records sorted in ${formatSeconds(document.seconds)}`,
    subline:
      `${formatBytes(document.bytes)} from ${facts.input} to ${facts.output}, on ${document.workers} function workers, ` +
      `exchange through ${document.store === "millrace" ? "Millrace" : document.store}`,
    validated: document.validated,
    facts: [
      { label: "throughput", value: throughput(document) || "none" },
      ...run.phases.map((phase) => ({
        label: phase.name,
        value: formatSeconds((phase.endMs - phase.startMs) / 1000),
        note: callsOf(run, phase.name),
      })),
      { label: "exchanged", value: formatBytes(document.exchange.bytes) },
      {
        label: "partition skew",
        value: document.partitionSkew.toFixed(2),
        note: "largest over mean",
      },
    ],
    startMs: run.startMs,
    endMs: run.endMs,
    phases: run.phases,
    lanes: lanes(run),
    time: document.time,
    seconds: document.seconds,
    byTransport: Object.entries(document.exchange.byTransport).map(([label, value]) => ({ label, value })),
    byTier: Object.entries(document.exchange.byTier).map(([label, value]) => ({ label, value })),
    partitionBytes: run.partitionBytes,
    details: details(run, facts),
  };
}

function callsOf(run: SortRun, stage: string): string {
  const count = run.calls.filter((call) => call.stage === stage).length;
  return `${formatCount(count)} ${count === 1 ? "call" : "calls"}`;
}

/** A row a function worker, in the order in which they appeared. */
function lanes(run: SortRun): ReportLane[] {
  const byName = new Map<string, ReportCall[]>();
  const lane = (name: string): ReportCall[] => {
    const calls = byName.get(name) ?? [];
    byName.set(name, calls);
    return calls;
  };
  for (const call of run.calls) lane(call.functionWorker).push(timelineCall(call));
  for (const lost of run.lostAttempts) lane(lost.functionWorker).push(lostCall(lost));
  return [...byName]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([name, calls]) => ({
      name: `function worker ${name.replace(/^w/, "")}`,
      calls: calls.sort((a, b) => a.startMs - b.startMs),
    }));
}

function timelineCall(call: TimelineCall): ReportCall {
  const last = call.first + call.count - 1;
  const label = `${call.stage} ${call.first}${call.count === 1 ? "" : `-${last}`}`;
  const { stage, startMs, endMs, spans } = call;
  return {
    label,
    stage,
    startMs,
    endMs,
    attempt: call.attempt + 1,
    spans,
    details: [`${formatCount(call.records)} records`],
  };
}

function lostCall(lost: LostAttempt): ReportCall {
  const { stage, startMs, endMs, attempt, outcome } = lost;
  return {
    label: `${stage}: ${outcome}`,
    stage,
    startMs,
    endMs,
    attempt: attempt + 1,
    spans: [],
    details: ["came to nothing"],
  };
}

function details(run: SortRun, facts: SortReportFacts): ReportFact[] {
  const { document } = run;
  const rows: ReportFact[] = [
    { label: "records", value: formatCount(document.records) },
    { label: "bytes", value: formatCount(document.bytes) },
    { label: "checksum", value: document.checksum },
    { label: "neighbours with equal keys", value: formatCount(run.duplicates) },
    { label: "function workers", value: formatCount(document.workers) },
    { label: "map outputs", value: formatCount(run.maps) },
    { label: "partitions", value: formatCount(document.partitions) },
    { label: "retries", value: formatCount(document.retries) },
    { label: "start-up", value: `${formatSeconds(facts.startUpSeconds)}: node, namespace, function workers` },
    { label: "store", value: document.store },
  ];
  const { receipt } = facts;
  return [...rows, ...receiptFacts(receipt)];
}
