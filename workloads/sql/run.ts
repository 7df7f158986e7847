/** What a run of a query leaves to tell, for `--json` and for the report. Times are Unix milliseconds. */
import type { Activity, Span } from "../report/activity.js";
import type { Output } from "./plan/stage.js";

/** One task of a stage, in the attempt that counted. */
export interface SqlCall {
  /** Of the stage: its number among the tasks, and so of its map output. */
  task: number;
  functionWorker: string;
  attempt: number;
  startMs: number;
  endMs: number;
  /** `input` is reading tables apart from DuckDB, which scans while it computes: so mostly `compute`. */
  spans: Span[];
  /** That it left. */
  rows: number;
  bytes: number;
  /** That it read from exchanges. */
  exchangedBytes: number;
}

/** An edge of the graph of stages. */
export interface SqlInput {
  from: { kind: "table"; table: string } | { kind: "stage"; stage: number };
  /** Of a table: bytes of its files that tasks were given; of a stage: bytes that tasks read, all of them together. */
  bytes: number;
}

export interface SqlStage {
  /** As in the planner's `Stage`. */
  id: number;
  label: string;
  /** Null: Parquet parts in a directory. */
  output: Output["kind"] | null;
  tasks: number;
  rows: number;
  bytes: number;
  /** Of each partition. */
  partitionBytes: readonly number[];
  startMs: number;
  endMs: number;
  calls: SqlCall[];
  inputs: SqlInput[];
}

/** An attempt that came to nothing. */
export interface SqlLostAttempt {
  stage: number;
  functionWorker: string;
  attempt: number;
  startMs: number;
  endMs: number;
  outcome: string;
}

export interface SqlExchangeTotals {
  /** What tasks, and the driver, read out of exchanges. */
  bytes: number;
  /** Millrace's transports; another store adds its own name. */
  byTransport: { shm: number; tcp: number; grpc: number; [store: string]: number };
  /** Where they lay when they were read. Over tcp and grpc the node reads files, and they count as `dram`. */
  byTier: { dram: number; nvme: number };
}

export interface SqlMeasurements {
  startMs: number;
  /** When the plan was there; the stages follow. */
  plannedMs: number;
  /** When the last stage had ended and the result could be read. */
  endMs: number;
  partitions: number;
  stages: SqlStage[];
  /** Seconds of the calls by activity, summed over them and divided by the number of function workers. */
  time: Record<Activity, number>;
  exchange: SqlExchangeTotals;
  /** Fresh attempts of calls, and tasks that ran again because their output was lost. */
  retries: number;
  lostAttempts: SqlLostAttempt[];
}
