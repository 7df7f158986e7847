/** What a query reports: the JSON document, which is a contract. Times are wall-clock seconds. */
import type { Activity } from "../report/activity.js";
import type { StoreChoice } from "../stores/open.js";
import type { Column } from "./catalog.js";
import type { SqlRun } from "./driver.js";
import type { SqlExchangeTotals, SqlStage } from "./run.js";

/** More rows than this are not part of the document. */
export const DOCUMENT_ROWS_MAX = 10_000;

export interface SqlStageDocument {
  id: number;
  label: string;
  /** hash, range, broadcast, gather, sorted; null: Parquet parts. */
  output: SqlStage["output"];
  tasks: number;
  rows: number;
  bytes: number;
  seconds: number;
  /** Bytes of the largest partition over the mean. */
  skew: number;
}

/** `millrace sql --json` prints this document, and after these fields `result`: the rows, arrays of values. */
export interface SqlDocument {
  workload: "sql";
  /** From the plan to the last row, on function workers that are up. */
  seconds: number;
  /** Of it, until the plan was there. */
  planSeconds: number;
  rows: number;
  /** Empty where the rows went to a directory. */
  columns: Column[];
  stages: SqlStageDocument[];
  exchange: SqlExchangeTotals;
  /** What the calls spent, summed over all of them and divided by the number of function workers. */
  time: Record<Activity, number>;
  /** Attempts and tasks that had to be made again. */
  retries: number;
  workers: number;
  partitions: number;
  store: StoreChoice["kind"];
  /** Where `--output` was given. */
  output?: { directory: string; parts: { name: string; rows: number; bytes: number }[] };
  /** Why there is no `result`. */
  resultOmitted?: string;
}

export interface SqlDocumentFacts {
  workers: number;
  store: StoreChoice;
  /** Of the parts; null: the rows were printed. */
  directory: string | null;
}

export function sqlDocument(run: SqlRun, { workers, store, directory }: SqlDocumentFacts): SqlDocument {
  return {
    workload: "sql",
    seconds: (run.endMs - run.startMs) / 1000,
    planSeconds: (run.plannedMs - run.startMs) / 1000,
    rows: run.rows,
    columns: run.result === null ? [] : run.result.columns.map(({ name, type }) => ({ name, type })),
    stages: run.stages.map(stageDocument),
    exchange: run.exchange,
    time: run.time,
    retries: run.retries,
    workers,
    partitions: run.partitions,
    store: store.kind,
    ...(directory === null ? {} : { output: { directory, parts: run.parts } }),
    ...(run.result !== null && run.rows > DOCUMENT_ROWS_MAX ? { resultOmitted: omitted(run.rows) } : {}),
  };
}

export function omitted(rows: number): string {
  return `${rows} rows are more than ${DOCUMENT_ROWS_MAX}: use --format json, or --output`;
}

function stageDocument(stage: SqlStage): SqlStageDocument {
  return {
    id: stage.id,
    label: stage.label,
    output: stage.output,
    tasks: stage.tasks,
    rows: stage.rows,
    bytes: stage.bytes,
    seconds: (stage.endMs - stage.startMs) / 1000,
    skew: skewOf(stage.partitionBytes),
  };
}

/** The largest over the mean; 1 where there is nothing. */
export function skewOf(partitionBytes: readonly number[]): number {
  let most = 0;
  let total = 0;
  for (const bytes of partitionBytes) {
    most = Math.max(most, bytes);
    total += bytes;
  }
  return total === 0 ? 1 : (most * partitionBytes.length) / total;
}
