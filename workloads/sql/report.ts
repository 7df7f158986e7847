/** A query as the page that all workloads share. */
import type { Receipt } from "../../client/index.js";
import { formatBytes, formatCount, formatSeconds } from "../report/format.js";
import type { Report, ReportCall, ReportFact, ReportGraph, ReportLane } from "../report/model.js";
import { receiptFacts } from "../report/receipt.js";
import { type SqlDocument, skewOf } from "./document.js";
import type { SqlRun } from "./driver.js";
import type { SqlCall, SqlLostAttempt, SqlStage } from "./run.js";

export interface SqlReportFacts {
  /** As given on the command line. */
  data: string;
  sql: string;
  document: SqlDocument;
  /** Node, namespace, function workers and tables, until they were ready. */
  startUpSeconds: number;
  /** Of the namespace at its end; null where there is none. */
  receipt: Receipt | null;
}

export function sqlReport(run: SqlRun, facts: SqlReportFacts): Report {
  const { document } = facts;
  const tasks = run.stages.reduce((sum, stage) => sum + stage.tasks, 0);
  const largest = largestExchange(run.stages);
  return {
    workload: "millrace sql",
    headline: `${formatCount(run.rows)} ${run.rows === 1 ? "row" : "rows"} in ${formatSeconds(document.seconds)}`,
    subline:
      `from ${facts.data}, in ${formatCount(run.stages.length)} ${run.stages.length === 1 ? "stage" : "stages"} on ` +
      `${document.workers} function workers, exchange through ${document.store === "millrace" ? "Millrace" : document.store}`,
    validated: null,
    facts: [
      { label: "planning", value: formatSeconds(document.planSeconds) },
      { label: "stages", value: formatCount(run.stages.length), note: `${formatCount(tasks)} tasks` },
      { label: "tables read", value: formatBytes(tableBytes(run.stages)) },
      {
        label: "left in exchanges",
        value: formatBytes(run.stages.reduce((sum, stage) => sum + stage.bytes, 0)),
        note: `${formatCount(run.stages.reduce((sum, stage) => sum + stage.rows, 0))} rows`,
      },
      { label: "read from them", value: formatBytes(run.exchange.bytes) },
      {
        label: "skew",
        value: (largest === null ? 1 : skewOf(largest.partitionBytes)).toFixed(2),
        note: "largest partition over mean",
      },
    ],
    startMs: run.startMs,
    endMs: run.endMs,
    phases: [{ name: "plan", startMs: run.startMs, endMs: run.plannedMs }],
    lanes: lanes(run),
    time: run.time,
    seconds: document.seconds,
    byTransport: Object.entries(run.exchange.byTransport).map(([label, value]) => ({ label, value })),
    byTier: Object.entries(run.exchange.byTier).map(([label, value]) => ({ label, value })),
    partitionBytes: largest?.partitionBytes ?? [],
    ...(largest === null ? {} : { partitionsOf: `stage ${largest.id}, the largest exchange` }),
    graph: graph(run.stages),
    details: details(run, facts),
  };
}

function tableBytes(stages: readonly SqlStage[]): number {
  return stages
    .flatMap((stage) => stage.inputs)
    .reduce((sum, input) => sum + (input.from.kind === "table" ? input.bytes : 0), 0);
}

function largestExchange(stages: readonly SqlStage[]): SqlStage | null {
  const several = stages.filter((stage) => stage.partitionBytes.length > 1);
  return several.reduce<SqlStage | null>((a, b) => (a === null || b.bytes > a.bytes ? b : a), null);
}

function graph(stages: readonly SqlStage[]): ReportGraph {
  const outputs = new Map(stages.map((stage) => [stage.id, stage.output ?? "parts"]));
  return {
    nodes: stages.map((stage) => {
      const seconds = formatSeconds((stage.endMs - stage.startMs) / 1000);
      const tables = stage.inputs.flatMap(({ from, bytes }) =>
        from.kind === "table" ? [`${from.table} ${formatBytes(bytes)}`] : [],
      );
      const tasks = `${formatCount(stage.tasks)} ${stage.tasks === 1 ? "task" : "tasks"}`;
      return {
        id: String(stage.id),
        title: `${stage.id} ${stage.label}`,
        lines: [
          `${tasks}, ${formatCount(stage.rows)} rows, ${seconds}`,
          tables.length === 0 ? `leaves ${formatBytes(stage.bytes)}` : tables.join(", "),
        ],
        details: [
          `${tasks}, ${seconds}`,
          `leaves ${formatCount(stage.rows)} rows, ${formatBytes(stage.bytes)} (${stage.output ?? "Parquet parts"})`,
          ...(stage.partitionBytes.length > 1
            ? [`${stage.partitionBytes.length} partitions, skew ${skewOf(stage.partitionBytes).toFixed(2)}`]
            : []),
          ...tables.map((table) => `reads ${table}`),
        ],
      };
    }),
    edges: stages.flatMap((stage) =>
      stage.inputs.flatMap(({ from, bytes }) =>
        from.kind === "stage"
          ? [{ from: String(from.stage), to: String(stage.id), kind: outputs.get(from.stage) ?? "", bytes }]
          : [],
      ),
    ),
  };
}

/** A row a function worker, in the order in which they appeared. */
function lanes(run: SqlRun): ReportLane[] {
  const byName = new Map<string, ReportCall[]>();
  const lane = (name: string): ReportCall[] => {
    const calls = byName.get(name) ?? [];
    byName.set(name, calls);
    return calls;
  };
  for (const stage of run.stages) {
    for (const call of stage.calls) lane(call.functionWorker).push(timelineCall(stage, call));
  }
  for (const lost of run.lostAttempts) lane(lost.functionWorker).push(lostCall(lost));
  return [...byName]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([name, calls]) => ({
      name: `function worker ${name.replace(/^w/, "")}`,
      calls: calls.sort((a, b) => a.startMs - b.startMs),
    }));
}

function timelineCall(stage: SqlStage, call: SqlCall): ReportCall {
  const { startMs, endMs, spans } = call;
  return {
    label: `${stage.id}.${call.task}`,
    stage: String(stage.id),
    startMs,
    endMs,
    attempt: call.attempt + 1,
    spans,
    details: [
      `stage ${stage.id}: ${stage.label}`,
      `${formatCount(call.rows)} rows, ${formatBytes(call.bytes)}`,
      `read ${formatBytes(call.exchangedBytes)} from exchanges`,
    ],
  };
}

function lostCall(lost: SqlLostAttempt): ReportCall {
  const { stage, startMs, endMs, attempt, outcome } = lost;
  return {
    label: `stage ${stage}: ${outcome}`,
    stage: String(stage),
    startMs,
    endMs,
    attempt: attempt + 1,
    spans: [],
    details: ["came to nothing"],
  };
}

function details(run: SqlRun, { document, sql, startUpSeconds, receipt }: SqlReportFacts): ReportFact[] {
  const rows: ReportFact[] = [
    { label: "columns", value: document.columns.map(({ name, type }) => `${name} ${type}`).join(", ") },
    { label: "function workers", value: formatCount(document.workers) },
    { label: "partitions", value: formatCount(document.partitions) },
    { label: "retries", value: formatCount(document.retries) },
    {
      label: "start-up",
      value: `${formatSeconds(startUpSeconds)}: tables, node, namespace, function workers`,
    },
    { label: "store", value: document.store },
    ...run.parts.map(({ name, rows: count, bytes }) => ({
      label: name,
      value: `${formatCount(count)} rows, ${formatBytes(bytes)}`,
    })),
  ];
  return [...rows, ...receiptFacts(receipt), { label: "query", value: sql.trim() }];
}
