/**
 * What a workload's report shows. Every workload fills this model and `renderReport` turns it into a page, so
 * that all reports read alike.
 */
import type { Activity, Span } from "./activity.js";

/** One call of a function worker. Times are Unix milliseconds. */
export interface ReportCall {
  /** Short, drawn into the bar where there is room: `map 3`. */
  label: string;
  /** The stage that the call belongs to. */
  stage: string;
  startMs: number;
  endMs: number;
  /** Above 1: an attempt that replaced one that failed. */
  attempt: number;
  spans: readonly Span[];
  /** Lines of the hover box. */
  details: readonly string[];
}

/** One row of the timeline. */
export interface ReportLane {
  name: string;
  calls: readonly ReportCall[];
}

export interface ReportFact {
  label: string;
  value: string;
  note?: string;
}

export interface ReportBar {
  label: string;
  value: number;
}

export interface Report {
  /** The command: `millrace sort`. */
  workload: string;
  /** One line that says what was done and how long it took. */
  headline: string;
  /** What, where, how many. */
  subline: string;
  validated: boolean | null;
  /** The figures at the top. */
  facts: readonly ReportFact[];
  startMs: number;
  endMs: number;
  phases: readonly { name: string; startMs: number; endMs: number }[];
  lanes: readonly ReportLane[];
  /** Seconds of one function worker's time by activity; they and the waiting add up to `seconds`. */
  time: Readonly<Record<Activity, number>>;
  seconds: number;
  /** Bytes exchanged. */
  byTransport: readonly ReportBar[];
  byTier: readonly ReportBar[];
  /** Bytes of each partition, in order. */
  partitionBytes: readonly number[];
  /** Everything else, as a table. */
  details: readonly ReportFact[];
}
