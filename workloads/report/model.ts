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

/** A stage of a graph of them. */
export interface ReportNode {
  id: string;
  title: string;
  /** Two at most, drawn under the title. */
  lines: readonly string[];
  /** Lines of the hover box. */
  details: readonly string[];
}

/** What a stage reads of another. */
export interface ReportEdge {
  from: string;
  to: string;
  /** hash, range, broadcast, gather. */
  kind: string;
  bytes: number;
}

export interface ReportGraph {
  nodes: readonly ReportNode[];
  edges: readonly ReportEdge[];
}

/** How something went on: one line, or several over the same axes. */
export interface ReportCurve {
  title: string;
  /** What is counted along the bottom: `round`, `tree`. */
  along: string;
  /** Whether the height is on a logarithmic scale; then every y is above 0. */
  logarithmic: boolean;
  lines: readonly { label: string; points: readonly (readonly [x: number, y: number])[] }[];
}

/** Things by their weight, the heaviest first. */
export interface ReportRanking {
  title: string;
  /** Of each value: how it is written. */
  items: readonly { label: string; value: number; text: string }[];
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
  /** Of what the partitions are, where there is more than one thing. */
  partitionsOf?: string;
  /** Stages and what they read of each other, where they are no plain row. */
  graph?: ReportGraph;
  curves?: readonly ReportCurve[];
  rankings?: readonly ReportRanking[];
  /** Everything else, as a table. */
  details: readonly ReportFact[];
}
