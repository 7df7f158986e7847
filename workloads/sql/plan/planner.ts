/** What the translations of the operators share. */

import type { Catalog } from "../catalog.js";
import type { JsonObject } from "./json.js";
import type { Relation } from "./relation.js";
import type { Exchanged, Output } from "./stage.js";

export interface PlanOptions {
  /** Tasks that a large stage has, about: what a broadcast costs against an exchange by hash. */
  partitionsHint: number;
  /** A side of a join of at most as many bytes is read by every task. 0: never. */
  broadcastBytes: number;
  /** So much of tables that nothing filters every task scans, where the other side of a join is far larger. */
  scanBytes: number;
  /** Results of at most as many bytes are read by one task: what follows needs no exchange. */
  smallBytes: number;
}

/** Positions of the columns of an operator that somebody above it reads; null: all, as far as is known. */
export type Needed = ReadonlySet<number> | null;

/** What an operator can refer to that is not below it. */
export interface Scope {
  /** By `cte_index`. */
  ctes: ReadonlyMap<number, () => Promise<Relation>>;
  /** The distinct rows of the innermost duplicate-eliminating join. */
  delim: (() => Promise<Relation>) | null;
  /** Within a recursion: all is read by one task, and no stage can end. */
  alone: boolean;
}

/** A key to hash by. */
export interface Key {
  /** SQL over c0, c1, … */
  sql: string;
  /** Its position, where it is a plain column. */
  column: number | null;
  type: string;
}

export interface Planner {
  readonly catalog: Catalog;
  readonly options: PlanOptions;
  /** The operator, and all below it. */
  plan(node: JsonObject, scope: Scope, needed?: Needed): Promise<Relation>;
  /** A mark for something that is read. */
  nextRead(): number;
  /** Runs what the relation is so far; its rows go to `output`. */
  run(relation: Relation, output: Output, options?: { ordered?: boolean }): Promise<Exchanged>;
}
