/**
 * What an operator of the plan has become so far: a SQL fragment that nobody has run yet, and what is known of how its
 * rows lie over the tasks that will run it.
 */

import { unsupported } from "./errors.js";
import type { Exchanged, Share } from "./stage.js";
import { MARK, typeBytes } from "./types.js";

export interface TableSource {
  kind: "table";
  table: string;
  columns: readonly string[];
  filter: string | null;
}

export interface ExchangeSource {
  kind: "exchange";
  exchange: Exchanged;
}

/** Something that a fragment reads: its mark in the SQL becomes a name when the stage is made. */
export interface Read {
  id: number;
  source: TableSource | ExchangeSource;
  share: Share;
  bytes: number;
}

/** Rows that agree in all keys lie in one task. Columns of one key hold the same value in each row. */
export interface HashKey {
  columns: readonly number[];
  /** SQL type that was hashed. */
  type: string;
}

export interface Relation {
  /** SELECT of c0, c1, …, with marks for what it reads. */
  sql: string;
  /** SQL types of the columns. */
  types: readonly string[];
  reads: readonly Read[];
  /** `whole`: each task has all rows. `split`: each row is in one task. */
  spread: "whole" | "split";
  /** Of split rows only; null: they lie anyhow. Never empty. */
  hash: readonly HashKey[] | null;
  /** The exchange (by its read) whose partitions several tasks may divide, see `Stage.divisible`. */
  divisible: number | null;
  /** The order of the rows means something. Whole rows only. */
  ordered: boolean;
  /** Evaluated twice it gives the same rows. */
  stable: boolean;
  /** Without rows to read it has none. */
  emptyOnEmpty: boolean;
  /** Only scans, filters, projections and joins with what is small: may be evaluated by every task. */
  cheap: boolean;
  /** It refers to the recursion that it stands in, and so cannot be run apart from it. */
  recurring: boolean;
  /** Share of the rows that there would be without filters, as far as is expected: what an inner join with this
   * leaves of its other side. */
  kept: number;
  /** What is expected. */
  rows: number;
  bytes: number;
  /** Words for people. */
  label: readonly string[];
}

/** Stands in SQL where a read's name will. */
export function mark(id: number): string {
  return `${MARK}${id}${MARK}`;
}

const MARKS = new RegExp(`${MARK}(\\d+)${MARK}`, "g");

/** The SQL with its marks replaced. */
export function named(sql: string, name: (id: number) => string): string {
  return sql.replace(MARKS, (_, id: string) => name(Number(id)));
}

export function columnNames(count: number, prefix = ""): string[] {
  return Array.from({ length: count }, (_, at) => `${prefix}c${at}`);
}

/** SELECT of the expressions as c0, c1, … DuckDB has no SELECT of nothing. */
export function selectSql(expressions: readonly string[], rest: string): string {
  if (expressions.length === 0) throw unsupported("an operator without columns");
  const list = expressions.map((sql, at) => (sql === `c${at}` ? sql : `${sql} AS c${at}`));
  return `SELECT ${list.join(", ")} ${rest}`;
}

/** `FROM (…) AS s` */
export function from(relation: Relation, alias = "s"): string {
  return `FROM (${relation.sql}) AS ${alias}`;
}

export function rowBytes(types: readonly string[]): number {
  return types.reduce((sum, type) => sum + typeBytes(type), 0);
}

/** Label words without repetition. */
export function words(...labels: (readonly string[])[]): string[] {
  return [...new Set(labels.flat())];
}

/** Equal keys need not lie together any more for what is built on this, or the other way round. */
export function rigid(relation: Relation): Relation {
  return { ...relation, divisible: null };
}

/** The hash as it is after columns moved: `to` gives the new positions of an old one. */
export function moveHash(
  hash: readonly HashKey[] | null,
  to: (column: number) => readonly number[],
): readonly HashKey[] | null {
  if (hash === null) return null;
  const moved = hash.map((key) => ({ type: key.type, columns: key.columns.flatMap((at) => [...to(at)]) }));
  return moved.every((key) => key.columns.length > 0) ? moved : null;
}

export function isSplit(relation: Relation): boolean {
  return relation.spread === "split";
}

/** Bytes that each task would read, were the rows made whole by reading all in each. */
export function wholeBytes(relation: Relation): number {
  return relation.reads.reduce((sum, read) => sum + read.bytes, 0);
}

/** Some of the columns, by position. */
export function chooseColumns(relation: Relation, positions: readonly number[]): Relation {
  if (positions.length === relation.types.length && positions.every((at, index) => at === index))
    return relation;
  const types = positions.map((at) => relation.types[at]!);
  return {
    ...relation,
    sql: selectSql(
      positions.map((at) => `c${at}`),
      from(relation),
    ),
    types,
    hash: moveHash(relation.hash, (column) =>
      positions.flatMap((at, index) => (at === column ? [index] : [])),
    ),
    bytes: relation.rows * rowBytes(types),
  };
}
