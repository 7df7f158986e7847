/** LOGICAL_WINDOW: in place where partitions lie together, else after an exchange by what they are made of. */

import { boundArguments } from "./aggregate_functions.js";
import { unsupported } from "./errors.js";
import { gathered, hashed, liesBy, settled, withKeyColumns } from "./exchange.js";
import { columnOf, expression, isVolatile, type Order, orderList, orders, typeOf } from "./expressions.js";
import { asArray, asObject, asObjects, asString, isObject, type Json, type JsonObject } from "./json.js";
import type { Key, Planner, Scope } from "./planner.js";
import { columnNames, from, isSplit, type Relation, rowBytes, selectSql } from "./relation.js";
import { onlyChild } from "./rows.js";
import { castSql, quoteName, sqlType, typeId } from "./types.js";

/** Functions of windows alone. */
const FUNCTIONS: Record<string, string> = {
  WINDOW_RANK: "rank",
  WINDOW_RANK_DENSE: "dense_rank",
  WINDOW_NTILE: "ntile",
  WINDOW_PERCENT_RANK: "percent_rank",
  WINDOW_CUME_DIST: "cume_dist",
  WINDOW_ROW_NUMBER: "row_number",
  WINDOW_FIRST_VALUE: "first_value",
  WINDOW_LAST_VALUE: "last_value",
  WINDOW_NTH_VALUE: "nth_value",
  WINDOW_LEAD: "lead",
  WINDOW_LAG: "lag",
  WINDOW_FILL: "fill",
};

const EXCLUDES: Record<string, string> = {
  NO_OTHER: "",
  CURRENT_ROW: " EXCLUDE CURRENT ROW",
  GROUP: " EXCLUDE GROUP",
  TIES: " EXCLUDE TIES",
};

function partitionKeys(window: JsonObject): Key[] {
  return asObjects(window.partitions).map((value) => ({
    sql: expression(value),
    column: columnOf(value),
    type: sqlType(typeOf(value)),
  }));
}

export async function planWindow(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const planned = await planner.plan(onlyChild(node), scope);
  const windows = asObjects(node.expressions);
  const volatile = isVolatile(node.expressions);
  const input = volatile ? await settled(planner, planned) : planned;
  const width = input.types.length;
  const types = windows.map((window) => sqlType(window.return_type));
  if (!isSplit(input)) return windowed(input, windows, types);

  // Windows with partitions in common are computed together; each lot wants its own exchange.
  const lots = divide(windows);
  if (lots.some((lot) => lot.keys.length === 0))
    return windowed(await gathered(planner, input), windows, types);
  let current = input;
  const places = new Map<number, number>();
  for (const lot of lots) {
    current = await together(planner, current, lot.keys);
    lot.windows.forEach((at, index) => {
      places.set(at, current.types.length + index);
    });
    current = windowed(
      current,
      lot.windows.map((at) => windows[at]!),
      lot.windows.map((at) => types[at]!),
    );
  }
  const order = [...Array.from({ length: width }, (_, at) => at), ...windows.map((_, at) => places.get(at)!)];
  if (order.length === current.types.length && order.every((at, index) => at === index)) return current;
  return {
    ...current,
    sql: selectSql(
      order.map((at) => `c${at}`),
      from(current),
    ),
    types: order.map((at) => current.types[at]!),
    hash: null,
  };
}

interface Lot {
  keys: Key[];
  windows: number[];
}

function divide(windows: readonly JsonObject[]): Lot[] {
  const lots: Lot[] = [];
  windows.forEach((window, at) => {
    const keys = partitionKeys(window);
    for (const lot of lots) {
      const common = lot.keys.filter((key) => keys.some((other) => other.sql === key.sql));
      if (common.length > 0) {
        lot.keys = common;
        lot.windows.push(at);
        return;
      }
    }
    lots.push({ keys, windows: [at] });
  });
  return lots;
}

async function together(planner: Planner, input: Relation, keys: readonly Key[]): Promise<Relation> {
  if (!isSplit(input) || liesBy(input, keys)) return input;
  const placed = withKeyColumns(input, keys);
  const met = await hashed(planner, placed.relation, placed.keys);
  if (met.types.length === input.types.length) return met;
  // The keys' own columns have done their work.
  return {
    ...met,
    sql: `SELECT ${columnNames(input.types.length).join(", ")} ${from(met)}`,
    types: input.types,
    hash: null,
  };
}

function windowed(input: Relation, windows: readonly JsonObject[], types: readonly string[]): Relation {
  const all = [...input.types, ...types];
  return {
    ...input,
    sql: selectSql([...columnNames(input.types.length), ...windows.map(windowSql)], from(input)),
    types: all,
    divisible: null,
    // Rows that are equal in the order are numbered as they come.
    stable: false,
    cheap: false,
    bytes: input.rows * rowBytes(all),
    label: [...input.label, "window"],
  };
}

function windowSql(window: JsonObject): string {
  const type = asString(window.type);
  const aggregate = type === "WINDOW_AGGREGATE";
  const name = aggregate ? asString(window.name) : FUNCTIONS[type];
  if (name === undefined) throw unsupported(type);
  const children = asObjects(window.children);
  const args = children.map((child) => expression(child));
  if (aggregate) args.push(...boundArguments(name, window));
  if (isObject(window.offset_expr)) args.push(expression(window.offset_expr));
  if (isObject(window.default_expr)) {
    if (!isObject(window.offset_expr)) args.push("1");
    args.push(expression(window.default_expr));
  }
  const distinct = window.distinct === true ? "DISTINCT " : "";
  const inner =
    asArray(window.arg_orders).length === 0 ? "" : ` ORDER BY ${orderList(orders(window.arg_orders))}`;
  const nulls = window.ignore_nulls === true ? " IGNORE NULLS" : "";
  const filters = window.filters ?? window.filter_expr;
  const filter = isObject(filters) ? ` FILTER (WHERE ${expression(filters)})` : "";
  const list = name === "count_star" ? "*" : args.join(", ");
  const called = name === "count_star" ? "count" : name === "sum_no_overflow" ? "sum" : name;
  const partitions = asObjects(window.partitions).map((value) => expression(value));
  const order = orders(window.orders);
  const over = [
    partitions.length === 0 ? "" : `PARTITION BY ${partitions.join(", ")}`,
    order.length === 0 ? "" : `ORDER BY ${orderList(order)}`,
    frame(window, order),
  ].filter((part) => part !== "");
  const call = `${quoteName(called)}(${distinct}${list}${inner}${nulls})${filter} OVER (${over.join(" ")})`;
  return castSql(call, asObject(window.return_type));
}

/** ROWS, RANGE or GROUPS BETWEEN …; empty: what DuckDB takes without. */
function frame(window: JsonObject, order: readonly Order[]): string {
  const start = asString(window.start);
  const end = asString(window.end);
  const exclude = EXCLUDES[asString(window.exclude_clause ?? "NO_OTHER")];
  if (exclude === undefined) throw unsupported(`a window with EXCLUDE ${String(window.exclude_clause)}`);
  if (start === "UNBOUNDED_PRECEDING" && end === "CURRENT_ROW_RANGE" && exclude === "") return "";
  const unit = unitOf(start) ?? unitOf(end) ?? "ROWS";
  const from = bound(start, window.start_expr, unit, order);
  const to = bound(end, window.end_expr, unit, order);
  return `${unit} BETWEEN ${from} AND ${to}${exclude}`;
}

function unitOf(boundary: string): string | null {
  return /_(ROWS|RANGE|GROUPS)$/.exec(boundary)?.[1] ?? null;
}

function bound(boundary: string, value: Json | undefined, unit: string, order: readonly Order[]): string {
  switch (boundary) {
    case "UNBOUNDED_PRECEDING":
      return "UNBOUNDED PRECEDING";
    case "UNBOUNDED_FOLLOWING":
      return "UNBOUNDED FOLLOWING";
    case "CURRENT_ROW_RANGE":
    case "CURRENT_ROW_ROWS":
    case "CURRENT_ROW_GROUPS":
      return "CURRENT ROW";
    default:
      break;
  }
  const side = /^EXPR_(PRECEDING|FOLLOWING)_/.exec(boundary)?.[1];
  if (side === undefined || !isObject(value)) throw unsupported(`a window frame from or to ${boundary}`);
  if (unit !== "RANGE") return `${expression(value)} ${side}`;
  return `${rangeOffset(value, order)} ${side}`;
}

/** The plan has the key plus or minus the offset; SQL wants the offset. */
function rangeOffset(value: JsonObject, order: readonly Order[]): string {
  const key = order[0]?.expression;
  const call = value.expression_class === "BOUND_CAST" ? asObject(value.child) : value;
  if (call.expression_class === "BOUND_FUNCTION" && (call.name === "+" || call.name === "-")) {
    const [, offset] = asObjects(call.children);
    if (offset !== undefined) return expression(offset);
  }
  // What adds nothing was left out.
  if (key !== undefined && expression(call) === expression(key)) {
    return typeId(typeOf(key)).startsWith("TIMESTAMP") ? "to_days(0)" : `CAST(0 AS ${sqlType(typeOf(key))})`;
  }
  throw unsupported("a window frame with RANGE", "its offset is not told in the plan");
}
