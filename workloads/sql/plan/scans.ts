/** Scans of tables, and table functions. */

import type { Table } from "../catalog.js";
import { unsupported } from "./errors.js";
import { comparison, expression } from "./expressions.js";
import {
  asArray,
  asIndex,
  asInteger,
  asObject,
  asObjects,
  asString,
  isObject,
  type Json,
  type JsonObject,
} from "./json.js";
import { literal } from "./literals.js";
import type { Planner, Scope } from "./planner.js";
import { mark, type Relation, rowBytes, selectSql } from "./relation.js";
import { quoteText, sqlType } from "./types.js";

/** What is left of the rows by a filter, where nothing is known. */
export const FILTER_SHARE = 0.3;

/** Columns from here on are none of the file's. */
const VIRTUAL = 1n << 63n;
/** The column of nothing, for rows whose columns nobody reads. */
const EMPTY_COLUMN = 18446744073709551614n;

/** SQL of a filter that was pushed into a scan; null where it only saves work. */
export function tableFilter(filter: JsonObject, column: string): string | null {
  switch (filter.filter_type) {
    case "CONSTANT_COMPARISON":
      return `${column} ${comparison(filter.comparison_type)} ${literal(asObject(filter.constant))}`;
    case "IS_NULL":
      return `${column} IS NULL`;
    case "IS_NOT_NULL":
      return `${column} IS NOT NULL`;
    case "IN_FILTER":
      return `${column} IN (${asObjects(filter.values).map(literal).join(", ")})`;
    case "CONJUNCTION_AND":
    case "CONJUNCTION_OR": {
      const all = asObjects(filter.child_filters).map((child) => tableFilter(child, column));
      const some = all.filter((sql): sql is string => sql !== null);
      const or = filter.filter_type === "CONJUNCTION_OR";
      if (some.length === 0 || (or && some.length < all.length)) return null;
      return `(${some.join(or ? " OR " : " AND ")})`;
    }
    case "STRUCT_EXTRACT": {
      const name = filter.child_name;
      const part =
        typeof name === "string" && name !== ""
          ? `struct_extract(${column}, ${quoteText(name)})`
          : `struct_extract_at(${column}, ${asIndex(filter.child_idx) + 1})`;
      return tableFilter(asObject(filter.child_filter), part);
    }
    case "EXPRESSION_FILTER":
      return expression(filter.expr, () => column);
    case "OPTIONAL_FILTER":
    case "DYNAMIC_FILTER":
    case "BLOOM_FILTER":
    case "PERFECT_HASH_JOIN_FILTER":
    case "PREFIX_RANGE_FILTER":
      return null;
    default:
      throw unsupported(`a table filter of type ${String(filter.filter_type)}`);
  }
}

function tableOf(planner: Planner, node: JsonObject): Table | null {
  const data = node.function_data;
  if (!isObject(data)) return null;
  if (Array.isArray(data.files)) return planner.catalog.tableOfFiles(asArray(data.files).map(asString));
  if (typeof data.table === "string") return planner.catalog.tables.get(data.table) ?? null;
  return null;
}

/** LOGICAL_GET */
export async function planGet(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const name = asString(node.name);
  if (asArray(node.children).length > 0) return planLateral(planner, node, name, scope);
  if (node.function_data === undefined || !isObject(node.function_data)) return planFunction(node, name);
  const table = tableOf(planner, node);
  if (table === null) throw unsupported(`a scan by ${name}`, "it reads what is no table of --data");
  const names = asArray(node.names).map(asString);
  const scanned: string[] = [];
  const place = (column: string): number => {
    const at = scanned.indexOf(column);
    return at >= 0 ? at : scanned.push(column) - 1;
  };
  const outputs = asObjects(node.column_indexes).map((index) => {
    if (
      index.index_type !== undefined &&
      index.index_type !== "FULL_READ" &&
      index.index_type !== "OPTIONAL_PRUNE_HINT"
    ) {
      throw unsupported(`a scan with ${String(index.index_type)}`);
    }
    const position = asInteger(index.index);
    if (position === EMPTY_COLUMN) return { sql: "CAST(NULL AS BOOLEAN)", type: "BOOLEAN" };
    if (position >= VIRTUAL)
      throw unsupported("a virtual column of a scan", "rows have no numbers across files");
    const column = names[Number(position)];
    const type = asObjects(node.returned_types)[Number(position)];
    if (column === undefined || type === undefined)
      throw unsupported(`a scan by ${name}`, "its columns are unknown");
    return { sql: `c${place(column)}`, type: sqlType(type) };
  });
  const chosen = asArray(node.projection_ids).map(asIndex);
  const shown = chosen.length === 0 ? outputs : chosen.map((at) => outputs[at]!);
  const filters: string[] = [];
  for (const entry of asObjects(isObject(node.table_filters) ? node.table_filters.filters : undefined)) {
    const column = names[asIndex(entry.key)];
    if (column === undefined) throw unsupported(`a scan by ${name}`, "it filters by an unknown column");
    const sql = tableFilter(asObject(entry.value), `c${place(column)}`);
    if (sql !== null) filters.push(sql);
  }
  // Rows without columns are still to be counted.
  if (scanned.length === 0) place(table.columns[0]!.name);
  const types = shown.map((output) => output.type);
  const kept = FILTER_SHARE ** Math.min(filters.length, 3);
  const rows = table.rows * kept;
  // Of the file by the columns that are read: what a task that reads all of it has to read.
  const share = Math.min(1, scanned.length / Math.max(1, table.columns.length));
  const id = planner.nextRead();
  const whole = scope.alone || table.bytes * share <= planner.options.smallBytes;
  return {
    sql: selectSql(
      shown.map((output) => output.sql),
      `FROM ${mark(id)}`,
    ),
    types,
    reads: [
      {
        id,
        source: {
          kind: "table",
          table: table.name,
          columns: scanned,
          filter: filters.length === 0 ? null : filters.join(" AND "),
        },
        share: whole ? "whole" : "split",
        bytes: Math.ceil(table.bytes * share),
      },
    ],
    spread: whole ? "whole" : "split",
    hash: null,
    divisible: null,
    ordered: false,
    stable: true,
    emptyOnEmpty: true,
    cheap: true,
    recurring: false,
    kept,
    rows,
    bytes: rows * rowBytes(types),
    label: [`scan ${table.name}`],
  };
}

/** A relation that reads nothing. */
export function constantRelation(
  sql: string,
  types: readonly string[],
  rows: number,
  label: string,
): Relation {
  return {
    sql,
    types,
    reads: [],
    spread: "whole",
    hash: null,
    divisible: null,
    ordered: false,
    stable: true,
    emptyOnEmpty: rows === 0,
    cheap: true,
    recurring: false,
    kept: 1,
    rows,
    bytes: rows * rowBytes(types),
    label: label === "" ? [] : [label],
  };
}

/** range(10), generate_series(1, 9), unnest([…]): functions whose arguments are all that they are. */
function planFunction(node: JsonObject, name: string): Relation {
  const parameters = asObjects(node.parameters);
  const types = asArray(node.returned_types).map(sqlType);
  if (!["range", "generate_series", "unnest"].includes(name) || asArray(node.named_parameters).length > 0) {
    throw unsupported(`the table function ${name}`, "the plan does not say all that it was called with");
  }
  const args = parameters.map(literal).join(", ");
  const chosen = asArray(node.projection_ids).map(asIndex);
  const read = asObjects(node.column_indexes).map((index) => asInteger(index.index));
  const outputs = (chosen.length === 0 ? read : chosen.map((at) => read[at]!)).map((at) =>
    at === EMPTY_COLUMN
      ? { sql: "CAST(NULL AS BOOLEAN)", type: "BOOLEAN" }
      : { sql: `t.v${at}`, type: types[Number(at)] ?? types[0]! },
  );
  const filters = asObjects(isObject(node.table_filters) ? node.table_filters.filters : undefined)
    .map((entry) => tableFilter(asObject(entry.value), `t.v${asIndex(entry.key)}`))
    .filter((sql): sql is string => sql !== null);
  const where = filters.length === 0 ? "" : ` WHERE ${filters.join(" AND ")}`;
  const names = types.map((_, at) => `v${at}`).join(", ");
  const ordinality = types.length > 1 ? " WITH ORDINALITY" : "";
  return constantRelation(
    selectSql(
      outputs.map((output) => output.sql),
      `FROM ${name}(${args})${ordinality} AS t(${names})${where}`,
    ),
    outputs.map((output) => output.type),
    1000,
    name,
  );
}

/** A table function called once for each row of its input: the row's chosen columns follow the function's. */
async function planLateral(
  planner: Planner,
  node: JsonObject,
  name: string,
  scope: Scope,
): Promise<Relation> {
  if (!["range", "generate_series", "unnest"].includes(name)) {
    throw unsupported(`the table function ${name}`, "it is called for each row");
  }
  if (asObjects(isObject(node.table_filters) ? node.table_filters.filters : undefined).length > 0) {
    throw unsupported(`the table function ${name}`, "a filter was pushed into it");
  }
  const child = asObjects(node.children)[0]!;
  const input = await planner.plan(resolveColumns(child), scope);
  const arity = asArray(node.input_table_types).length;
  const args = Array.from({ length: arity }, (_, at) => `c${at}`).join(", ");
  const list = name === "unnest" ? args : `${name}(${args})`;
  const kept = asArray(node.projected_input).map((at) => Number(asInteger(at)));
  const returned = asArray(node.returned_types).map(sqlType);
  // WITH ORDINALITY: lists in one SELECT are unnested side by side.
  const ordinals = returned.length > 1 ? [`unnest(range(1, len(${list}) + 1))`] : [];
  const outer = [`unnest(${list})`, ...ordinals, ...kept.map((at) => `c${at}`)];
  const types = [...returned, ...kept.map((at) => input.types[at]!)];
  return {
    ...input,
    sql: selectSql(outer, `FROM (${input.sql}) AS s`),
    types,
    hash: null,
    ordered: false,
    emptyOnEmpty: input.emptyOnEmpty,
    rows: input.rows * 4,
    bytes: input.rows * 4 * rowBytes(types),
    label: [...input.label, name],
  };
}

/** DuckDB leaves columns by name of table below such a function; the projection there reads its own child only. */
function resolveColumns(node: JsonObject): JsonObject {
  const below = asObjects(node.children)[0];
  const swap = (value: Json): Json => {
    if (Array.isArray(value)) return (value as readonly Json[]).map(swap);
    if (!isObject(value)) return value;
    if (value.expression_class === "BOUND_COLUMN_REF") {
      const binding = asObject(value.binding);
      if (below === undefined || binding.table_index !== below.table_index) {
        throw unsupported("a table function of columns", "they come from afar");
      }
      return {
        expression_class: "BOUND_REF",
        type: "BOUND_REF",
        return_type: value.return_type ?? null,
        index: binding.column_index ?? 0,
      };
    }
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, swap(item)]));
  };
  if (node.type !== "LOGICAL_PROJECTION") return node;
  return { ...node, expressions: swap(node.expressions ?? []) };
}
