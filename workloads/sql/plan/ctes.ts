/** What is computed once and read in several places: CTEs, duplicate-eliminated sides, and recursion. */

import { keyOf } from "./conditions.js";
import { unsupported } from "./errors.js";
import { evaluatedWhole, gathered, hashExchange, isSmall, readExchange } from "./exchange.js";
import { joinSides } from "./joins.js";
import { asArray, asIndex, asObjects, type JsonObject } from "./json.js";
import type { Key, Planner, Scope } from "./planner.js";
import { columnNames, from, isSplit, type Relation, rowBytes, selectSql } from "./relation.js";
import { sqlType } from "./types.js";

/** A relation that can be read again and again. */
type Shared = () => Relation;

/** Wide keys cost more than they spread. */
const SPREAD_COLUMNS = 4;

/** Runs it once where evaluating it at each reader is dear, or could give other rows. */
async function shared(
  planner: Planner,
  relation: Relation,
  scope: Scope,
  keys: readonly Key[] | null,
): Promise<Shared> {
  if (!isSplit(relation) && relation.cheap && relation.stable) return () => relation;
  if (scope.alone) {
    if (!relation.stable) throw unsupported("a recursive query that reads a changing table twice");
    return () => relation;
  }
  const by = keys ?? spreadKeys(relation);
  const exchange = await hashExchange(planner, relation, by);
  const share = isSmall(planner, exchange) ? "whole" : "split";
  return () => readExchange(planner, exchange, relation, share, by);
}

/** Keys that keep rows where they are, if they lie by something; else some columns. */
function spreadKeys(relation: Relation): Key[] {
  const positions =
    relation.hash === null
      ? relation.types.map((_, at) => at).slice(0, SPREAD_COLUMNS)
      : relation.hash.map((key) => key.columns[0]!);
  return positions.map((at) => ({ sql: `c${at}`, column: at, type: relation.types[at]! }));
}

/** LOGICAL_MATERIALIZED_CTE: the first child, for the second to read. */
export async function planCte(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const [definition, body] = asObjects(node.children);
  if (definition === undefined || body === undefined)
    throw unsupported("LOGICAL_MATERIALIZED_CTE", "it lacks a part");
  const table = planner.plan(definition, scope).then((relation) => shared(planner, relation, scope, null));
  // Where the body fails before it reads the table, this failure is nobody's.
  table.catch(() => {});
  const ctes = new Map(scope.ctes).set(asIndex(node.table_index), async () => (await table)());
  const planned = await planner.plan(body, { ...scope, ctes });
  await table;
  return planned;
}

/** LOGICAL_CTE_REF */
export async function planCteRef(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const cte = scope.ctes.get(asIndex(node.cte_index));
  if (cte === undefined) throw unsupported("LOGICAL_CTE_REF", "it refers to no table of the plan");
  if (node.is_recurring === true) throw unsupported("a recursive query that reads its whole result");
  const relation = await cte();
  return scope.alone ? evaluatedWhole(planner, relation) : relation;
}

/** LOGICAL_DELIM_JOIN: the other side reads the distinct rows of some columns of the one. */
export async function planDelimJoin(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const [leftNode, rightNode] = asObjects(node.children);
  if (leftNode === undefined || rightNode === undefined)
    throw unsupported("LOGICAL_DELIM_JOIN", "it lacks a side");
  const flipped = node.delim_flipped === true;
  const source = await planner.plan(flipped ? rightNode : leftNode, scope);
  const columns = asObjects(node.duplicate_eliminated_columns);
  const keys = columns.map(keyOf);
  const read = await shared(planner, source, scope, keys.length === 0 ? null : keys);
  const delim = async (): Promise<Relation> => distinctKeys(read(), keys);
  const other = await planner.plan(flipped ? leftNode : rightNode, { ...scope, delim });
  return flipped ? joinSides(planner, node, other, read()) : joinSides(planner, node, read(), other);
}

function distinctKeys(source: Relation, keys: readonly Key[]): Relation {
  const types = keys.map((key) => key.type);
  const list = keys.map((key, at) => `${key.sql} AS c${at}`);
  // Rows lie by all of the keys, where they lie by anything.
  const hash = isSplit(source)
    ? keys.map((key, at) => ({
        columns: keys.flatMap((other, i) => (other.sql === key.sql ? [i] : [])),
        type: types[at]!,
      }))
    : null;
  return {
    ...source,
    sql: `SELECT DISTINCT ${list.join(", ")} ${from(source)}`,
    types,
    hash,
    divisible: null,
    ordered: false,
    kept: 1,
    rows: source.rows / 2,
    bytes: (source.rows / 2) * rowBytes(types),
    label: [...source.label, "distinct"],
  };
}

/** LOGICAL_DELIM_GET */
export async function planDelimGet(planner: Planner, _node: JsonObject, scope: Scope): Promise<Relation> {
  if (scope.delim === null) throw unsupported("LOGICAL_DELIM_GET", "no join above it eliminates duplicates");
  const relation = await scope.delim();
  return scope.alone ? evaluatedWhole(planner, relation) : relation;
}

/** LOGICAL_RECURSIVE_CTE: one task evaluates all of it. */
export async function planRecursive(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const [base, step] = asObjects(node.children);
  if (base === undefined || step === undefined) throw unsupported("LOGICAL_RECURSIVE_CTE", "it lacks a part");
  if (asArray(node.key_targets).length > 0) throw unsupported("a recursive query with USING KEY");
  if (node.ref_recurring === true) throw unsupported("a recursive query that reads its whole result");
  const start = await gathered(planner, await planner.plan(base, scope));
  const name = `recurring_${asIndex(node.table_index)}`;
  const columns = columnNames(start.types.length);
  const again: Relation = {
    ...start,
    sql: `SELECT ${columns.join(", ")} FROM ${name}`,
    reads: [],
    ordered: false,
    stable: true,
    emptyOnEmpty: false,
    cheap: true,
    recurring: true,
    label: ["recursion"],
  };
  const ctes = new Map(scope.ctes).set(asIndex(node.table_index), async () => again);
  const next = await planner.plan(step, { ...scope, ctes, alone: true });
  const union = node.union_all === false ? "UNION" : "UNION ALL";
  const casts = start.types.map((type, at) => `CAST(c${at} AS ${type})`);
  const recursive = `(${selectSql(casts, from(start))}) ${union} (${selectSql(casts, from(next))})`;
  return {
    ...start,
    sql: `WITH RECURSIVE ${name}(${columns.join(", ")}) AS (${recursive}) SELECT ${columns.join(", ")} FROM ${name}`,
    reads: [...start.reads, ...next.reads],
    ordered: false,
    stable: start.stable && next.stable,
    emptyOnEmpty: start.emptyOnEmpty,
    cheap: false,
    recurring: scope.alone,
    kept: 1,
    rows: start.rows * 10,
    bytes: start.bytes * 10,
    label: [...start.label, "recursion"],
  };
}

/** LOGICAL_CHUNK_GET is rows in DuckDB's memory, which the plan does not have. */
export async function planColumnData(_planner: Planner, node: JsonObject): Promise<Relation> {
  throw unsupported(
    "LOGICAL_CHUNK_GET",
    `the plan lacks its rows of ${asArray(node.chunk_types)
      .map((t) => sqlType(t))
      .join(", ")}`,
  );
}
