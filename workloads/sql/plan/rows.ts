/** Operators that take row after row: filters, projections, unnesting; and rows that stand in the plan itself. */

import { unsupported } from "./errors.js";
import { columnOf, columnsRead, expression, isVolatile, typeOf } from "./expressions.js";
import { asArray, asIndex, asObject, asObjects, type JsonObject } from "./json.js";
import type { Needed, Planner, Scope } from "./planner.js";
import {
  chooseColumns,
  columnNames,
  from,
  moveHash,
  type Relation,
  rowBytes,
  selectSql,
} from "./relation.js";
import { constantRelation, FILTER_SHARE } from "./scans.js";
import { sqlType } from "./types.js";

export function onlyChild(node: JsonObject): JsonObject {
  const children = asObjects(node.children);
  if (children.length !== 1) throw unsupported(String(node.type), `it has ${children.length} inputs`);
  return children[0]!;
}

/** LOGICAL_FILTER */
export async function planFilter(
  planner: Planner,
  node: JsonObject,
  scope: Scope,
  needed: Needed,
): Promise<Relation> {
  const shown = asArray(node.projection_map).map(asIndex);
  const above = shown.length === 0 ? needed : new Set(shown);
  const below = above === null ? null : columnsRead(node.expressions, new Set(above));
  const child = onlyChild(node);
  const input = await planner.plan(child, scope, below);
  const conditions = asArray(node.expressions).map((condition) =>
    child.type === "LOGICAL_GET" ? forThisSideOnly(expression(condition)) : expression(condition),
  );
  const filtered: Relation =
    conditions.length === 0
      ? input
      : {
          ...input,
          sql: `SELECT * ${from(input)} WHERE ${conditions.join(" AND ")}`,
          stable: input.stable && !isVolatile(node.expressions),
          kept: input.kept * FILTER_SHARE,
          rows: input.rows * FILTER_SHARE,
          bytes: input.bytes * FILTER_SHARE,
        };
  return shown.length === 0 ? filtered : chooseColumns(filtered, shown);
}

/**
 * A filter that DuckDB has left above a scan, most often because it took it from the statistics of what the scan is
 * joined with. Written plainly, the function workers' DuckDB would take it over to that side of the join too, where it
 * holds for every row: 12 % of the time of a scan of TPC-DS's store_sales.
 */
function forThisSideOnly(condition: string): string {
  return `(${condition}) IS TRUE`;
}

/** LOGICAL_PROJECTION */
export async function planProjection(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope, columnsRead(node.expressions));
  return project(input, asObjects(node.expressions));
}

export function project(input: Relation, expressions: readonly JsonObject[]): Relation {
  const positions = expressions.map(columnOf);
  if (positions.every((at): at is number => at !== null)) return chooseColumns(input, positions);
  const types = expressions.map((value) => sqlType(typeOf(value)));
  return {
    ...input,
    sql: selectSql(
      expressions.map((value) => expression(value)),
      from(input),
    ),
    types,
    hash: moveHash(input.hash, (column) => positions.flatMap((at, index) => (at === column ? [index] : []))),
    stable: input.stable && !isVolatile(expressions),
    bytes: input.rows * rowBytes(types),
  };
}

/** LOGICAL_UNNEST: the lists' items behind the columns of their row. */
export async function planUnnest(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  const unnested = asObjects(node.expressions);
  const calls = unnested.map((value) => {
    if (value.expression_class !== "BOUND_UNNEST")
      throw unsupported(`${String(value.expression_class)} in an UNNEST`);
    return `unnest(${expression(value.child)})`;
  });
  const types = [...input.types, ...unnested.map((value) => sqlType(value.return_type))];
  return {
    ...input,
    sql: selectSql([...columnNames(input.types.length), ...calls], from(input)),
    types,
    stable: input.stable && !isVolatile(node.expressions),
    rows: input.rows * 4,
    bytes: input.rows * 4 * rowBytes(types),
    label: [...input.label, "unnest"],
  };
}

/** LOGICAL_EXPRESSION_GET: VALUES. */
export async function planValues(_planner: Planner, node: JsonObject): Promise<Relation> {
  if (onlyChild(node).type !== "LOGICAL_DUMMY_SCAN")
    throw unsupported("LOGICAL_EXPRESSION_GET", "its rows depend on others");
  const types = asArray(node.expr_types).map(sqlType);
  const lists = asArray(node.expressions).map((row) => asObjects(row));
  const text = lists.map((row) => `(${row.map((value) => expression(value)).join(", ")})`);
  const relation = constantRelation(
    selectSql(
      types.map((type, at) => `CAST(c${at} AS ${type})`),
      `FROM (VALUES ${text.join(", ")}) AS v(${columnNames(types.length).join(", ")})`,
    ),
    types,
    lists.length,
    "values",
  );
  return { ...relation, stable: !isVolatile(node.expressions) };
}

/** LOGICAL_DUMMY_SCAN: one row. */
export async function planDummy(): Promise<Relation> {
  return constantRelation("SELECT 42 AS c0", ["INTEGER"], 1, "");
}

/** LOGICAL_EMPTY_RESULT */
export async function planEmpty(_planner: Planner, node: JsonObject): Promise<Relation> {
  const types = asArray(node.return_types).map((type) => sqlType(asObject(type)));
  const nulls = types.map((type) => `CAST(NULL AS ${type})`);
  return constantRelation(selectSql(nulls, "WHERE false"), types, 0, "no rows");
}
