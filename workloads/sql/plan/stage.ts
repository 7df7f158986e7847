/**
 * What the planner hands to whoever runs it: stages, and what each leaves behind. A stage is one SQL fragment that
 * stateless function workers run in parallel, each task over its share of what the fragment reads.
 *
 * Columns have no names between stages: a fragment, and whatever it reads, has the columns c0, c1, …
 */

/**
 * How the tasks of a stage share something that the fragment reads.
 * - `split`: each row goes to exactly one task (tables: files and row groups; exchanges: runs of partitions). Tasks
 *   that share out several exchanges take the same partitions of each.
 * - `whole`: every task reads all of it.
 * - `once`: task 0 reads all of it and the others nothing: a branch of a UNION ALL that is not split.
 */
export type Share = "split" | "whole" | "once";

/** A table that the fragment reads, under `name`. */
export interface TableRead {
  /** As the fragment calls it: `table_0`. */
  name: string;
  /** Of the catalog. */
  table: string;
  /** Its columns, in order: the fragment knows them as c0, c1, … */
  columns: readonly string[];
  /** SQL over c0, c1, … that the scan itself applies, so that row groups can be skipped; null: none. */
  filter: string | null;
  share: Share;
}

/** An exchange that the fragment reads, under `name`. */
export interface ExchangeRead {
  /** As the fragment calls it: `exchange_0`. */
  name: string;
  exchange: Exchanged;
  share: Share;
}

/** Where the rows of a stage go. */
export type Output =
  /** By the hash of the keys, SQL over the fragment's columns. Equal keys (nulls are equal) meet in one partition. */
  | { kind: "hash"; keys: readonly string[] }
  /** By ranges of the order, so that partition after partition is in order; each is still to be sorted. */
  | { kind: "range"; order: readonly OrderKey[] }
  /** One partition, which every task of the consumers reads. */
  | { kind: "broadcast" }
  /** One partition, which one task reads. Also what the driver prints. */
  | { kind: "gather" }
  /**
   * Only of the last stage, which sorts the ranges of the one exchange that it reads `split`: tasks take runs of
   * ranges, and leave their rows, which are in order, in a partition of their own, the partitions being in the order
   * of the tasks.
   */
  | { kind: "sorted" };

export interface OrderKey {
  /** SQL over the fragment's columns. */
  expression: string;
  descending: boolean;
  nullsFirst: boolean;
}

export interface Stage {
  /** 0, 1, … in the order in which the planner asked for them. */
  id: number;
  /** For people: `scan store_sales, join item, partial aggregate`. */
  label: string;
  /** SELECT … with columns c0, c1, …, FROM the names of `tables` and `exchanges`. */
  sql: string;
  /** Columns. */
  width: number;
  tables: readonly TableRead[];
  exchanges: readonly ExchangeRead[];
  output: Output;
  /** Whether the order of rows within a partition matters to the reader: then one task writes it. */
  ordered: boolean;
  /** Whether its rows are the result of the query. */
  last: boolean;
  /** What the planner expects; all that it can know while nothing is run. */
  estimatedBytes: number;
  /** Whether tasks may take a share of one partition's maps on the `split` exchange of that name (the others being
   * read whole by each): what a skewed key needs. Null: every partition must be read by one task. */
  divisible: string | null;
}

/** What a stage left behind. */
export interface Exchanged {
  stage: number;
  output: Output;
  /** SQL types of c0, c1, …; empty where nothing was run. */
  types: readonly string[];
  partitions: number;
  rows: number;
  bytes: number;
  /** Of each partition. */
  partitionBytes: readonly number[];
}

/** Runs stages. Several may be asked for at once; each resolves when its rows can be read. */
export interface StageRunner {
  /** False where nothing is run (`--explain`): sizes are estimates then. */
  readonly real: boolean;
  run(stage: Stage): Promise<Exchanged>;
}
