/** How aggregate functions are called, and how they are made of parts. */

import { unsupported } from "./errors.js";
import { expression, orderList, orders, typeOf } from "./expressions.js";
import { asArray, asObject, asObjects, asString, isObject, type JsonObject } from "./json.js";
import { literal } from "./literals.js";
import { quoteName, quoteText, sqlType, typeId } from "./types.js";

/** A BOUND_AGGREGATE, with SQL over the columns c0, c1, … of its input. */
export interface Aggregate {
  name: string;
  args: readonly string[];
  distinct: boolean;
  filter: string | null;
  /** `x DESC NULLS LAST, …`; empty: any. */
  order: string;
  type: JsonObject;
  argumentTypes: readonly JsonObject[];
  node: JsonObject;
}

/** Repetition of a value does not matter to these. */
const REPEATABLE = new Set([
  "min",
  "max",
  "bool_and",
  "bool_or",
  "bit_and",
  "bit_or",
  "any_value",
  "arbitrary",
]);
/** The order of rows, or which of several rows with equal order is taken, is part of the value of these. */
const ORDERED = new Set(["list", "array_agg", "string_agg", "group_concat", "listagg"]);
const FIRSTS = new Set(["first", "last", "any_value", "arbitrary"]);
const NAMES: Record<string, string> = { sum_no_overflow: "sum", count_star: "count" };
const SEPARATED = new Set(["string_agg", "group_concat", "listagg"]);
const QUANTILES = new Set([
  "quantile",
  "quantile_cont",
  "quantile_disc",
  "percentile_cont",
  "percentile_disc",
  "approx_quantile",
  "reservoir_quantile",
]);

export function readAggregate(node: JsonObject): Aggregate {
  if (node.expression_class !== "BOUND_AGGREGATE")
    throw unsupported(`${String(node.expression_class)} as an aggregate`);
  const children = asObjects(node.children);
  const name = asString(node.name);
  const order = isObject(node.order_bys) ? orderList(orders(node.order_bys.orders)) : "";
  return {
    name,
    args: [...children.map((child) => expression(child)), ...boundArguments(name, node)],
    // Constant arguments are told by their place; what repetition does not change is no matter of DISTINCT.
    distinct: node.aggregate_type === "DISTINCT" && !REPEATABLE.has(name),
    filter: isObject(node.filter) ? expression(node.filter) : null,
    order: ORDERED.has(name) || FIRSTS.has(name) ? order : "",
    type: asObject(node.return_type),
    argumentTypes: children.map(typeOf),
    node,
  };
}

/** Arguments that DuckDB keeps as data of the function once it is bound. */
export function boundArguments(name: string, node: JsonObject): string[] {
  const data = node.function_data;
  if (!isObject(data)) return [];
  if (SEPARATED.has(name)) return data.separator === undefined ? [] : [quoteText(asString(data.separator))];
  if (QUANTILES.has(name)) {
    const quantiles = asArray(data.quantiles).map((value) => {
      if (!isObject(value)) return `CAST('${String(value)}' AS FLOAT)`;
      return data.desc === true ? `-(${literal(value)})` : literal(value);
    });
    const many = typeId(asObject(node.return_type)) === "LIST";
    const list = many ? `[${quantiles.join(", ")}]` : (quantiles[0] ?? "0.5");
    return data.sample_size === undefined ? [list] : [list, String(data.sample_size)];
  }
  if (name === "median") return [];
  if (name === "bitstring_agg") {
    return isObject(data.min) && isObject(data.max) ? [literal(data.min), literal(data.max)] : [];
  }
  if (Object.keys(data).length === 0) return [];
  throw unsupported(`the aggregate ${name}`, "the plan does not say all that it was bound with");
}

/** The call, as it would stand in a SELECT with the same input. */
export function aggregateSql(aggregate: Aggregate, args: readonly string[] = aggregate.args): string {
  const name = NAMES[aggregate.name] ?? aggregate.name;
  const list = aggregate.name === "count_star" ? "*" : args.join(", ");
  const distinct = aggregate.distinct ? "DISTINCT " : "";
  const order = aggregate.order === "" ? "" : ` ORDER BY ${aggregate.order}`;
  return `${quoteName(name)}(${distinct}${list}${order})${filterSql(aggregate.filter)}`;
}

function filterSql(filter: string | null): string {
  return filter === null ? "" : ` FILTER (WHERE ${filter})`;
}

/** An aggregate of aggregates: columns that each task computes, and what is computed of all of them in the end. */
export interface Parts {
  partial: readonly { sql: string; type: string }[];
  /** SQL over the names of the partial columns. */
  final(names: readonly string[]): string;
}

/** Welford's sums of two parts become one: no difference of large numbers is taken. */
const MERGE_MOMENTS =
  "lambda a, b: struct_pack(n := a.n + b.n, m := a.m + (b.m - a.m) * b.n / (a.n + b.n), " +
  "q := a.q + b.q + (b.m - a.m) * (b.m - a.m) * a.n * b.n / (a.n + b.n))";

function moments(aggregate: Aggregate): Parts {
  const x = aggregate.args[0]!;
  const filter = filterSql(aggregate.filter);
  const n = `count(${x})${filter}`;
  const value =
    `CASE WHEN ${n} > 0 THEN struct_pack(n := CAST(${n} AS DOUBLE), m := avg(${x})${filter}, ` +
    `q := var_pop(${x})${filter} * ${n}) END`;
  const type = "STRUCT(n DOUBLE, m DOUBLE, q DOUBLE)";
  const deviation = aggregate.name.startsWith("stddev");
  const sample =
    aggregate.name.endsWith("_samp") || aggregate.name === "stddev" || aggregate.name === "variance";
  return {
    partial: [{ sql: value, type }],
    final: ([part]) => {
      const merged = `list_reduce(list(${part}) FILTER (WHERE ${part} IS NOT NULL), ${MERGE_MOMENTS})`;
      // The lambda of a one-item list is never called; of none there is no list.
      const variance = sample
        ? `CASE WHEN (${merged}).n > 1 THEN (${merged}).q / ((${merged}).n - 1) END`
        : `CASE WHEN (${merged}).n > 1 THEN (${merged}).q / (${merged}).n WHEN (${merged}).n = 1 THEN 0 END`;
      return deviation ? `sqrt(${variance})` : variance;
    },
  };
}

function single(sql: string, type: string, final: (name: string) => string): Parts {
  return { partial: [{ sql, type }], final: ([name]) => final(name!) };
}

/** The same function of the parts. */
function selfMerging(aggregate: Aggregate, name: string): Parts {
  return single(aggregateSql(aggregate), sqlType(aggregate.type), (part) => `${quoteName(name)}(${part})`);
}

const NUMERIC = new Set([
  "TINYINT",
  "SMALLINT",
  "INTEGER",
  "BIGINT",
  "HUGEINT",
  "UTINYINT",
  "USMALLINT",
  "UINTEGER",
  "UBIGINT",
  "UHUGEINT",
  "DECIMAL",
  "FLOAT",
  "DOUBLE",
  "BOOLEAN",
]);

/**
 * How the aggregate is made of parts; null where it is not. A DISTINCT one must see each of its values in one part
 * only, and then its parts are those of the same aggregate without.
 */
export function partsOf(aggregate: Aggregate): Parts | null {
  const { name, args, argumentTypes } = aggregate;
  const filter = filterSql(aggregate.filter);
  const distinct = aggregate.distinct ? "DISTINCT " : "";
  const first = argumentTypes[0];
  const numeric = first !== undefined && NUMERIC.has(typeId(first));
  const type = sqlType(aggregate.type);
  if (aggregate.order !== "") return null;
  switch (name) {
    case "sum":
    case "sum_no_overflow": {
      if (!numeric) return null;
      // Parts are as wide as DuckDB's sums are; what the plan narrowed is narrowed in the end.
      const id = typeId(first);
      const wide = id === "DECIMAL" ? `DECIMAL(38, ${/, (\d+)\)$/.exec(sqlType(first))![1]})` : "HUGEINT";
      const part = id === "FLOAT" || id === "DOUBLE" ? "DOUBLE" : wide;
      return single(`sum(${distinct}${args[0]})${filter}`, part, (n) => `sum(${n})`);
    }
    case "count":
    case "count_star": {
      const counted = name === "count_star" ? "*" : `${distinct}${args[0]}`;
      if (args.length > 1) return null;
      return single(`count(${counted})${filter}`, "BIGINT", (n) => `coalesce(sum(${n}), 0)`);
    }
    case "count_if":
    case "countif":
      // Of nulls alone it is null, not 0.
      return aggregate.distinct ? null : single(aggregateSql(aggregate), type, (n) => `sum(${n})`);
    case "avg":
    case "mean": {
      if (!numeric) return null;
      const id = typeId(first);
      const sum =
        id === "DECIMAL"
          ? `DECIMAL(38, ${/, (\d+)\)$/.exec(sqlType(first))![1]})`
          : id === "FLOAT" || id === "DOUBLE"
            ? "DOUBLE"
            : "HUGEINT";
      return {
        partial: [
          { sql: `sum(${distinct}${args[0]})${filter}`, type: sum },
          { sql: `count(${distinct}${args[0]})${filter}`, type: "BIGINT" },
        ],
        final: ([total, count]) =>
          `(CAST(sum(${total}) AS DOUBLE) / CAST(nullif(sum(${count}), 0) AS DOUBLE))`,
      };
    }
    case "fsum":
    case "kahan_sum":
    case "sumkahan":
      return aggregate.distinct ? null : selfMerging(aggregate, name);
    case "min":
    case "max":
      return args.length === 1 ? selfMerging(aggregate, name) : null;
    case "bool_and":
    case "bool_or":
    case "bit_and":
    case "bit_or":
    case "bit_xor":
    case "product":
      return selfMerging(aggregate, name);
    case "any_value":
    case "arbitrary":
    case "first":
    case "last": {
      // The part of no rows must not win: `first` takes nulls, too.
      const kept = name === "any_value";
      if (aggregate.distinct) return null;
      return {
        partial: [
          { sql: `${name}(${args[0]})${filter}`, type },
          { sql: `count(*)${filter}`, type: "BIGINT" },
        ],
        final: ([value, count]) => `${name}(${value})${kept ? "" : ` FILTER (WHERE ${count} > 0)`}`,
      };
    }
    case "arg_min":
    case "arg_max":
    case "argmin":
    case "argmax":
    case "min_by":
    case "max_by":
    case "arg_min_null":
    case "arg_max_null": {
      if (args.length !== 2 || aggregate.distinct) return null;
      const nulls = name.endsWith("_null");
      const counted = nulls
        ? aggregate.filter
        : [`${args[0]} IS NOT NULL`, aggregate.filter].filter((s) => s !== null).join(" AND ");
      const best = name.includes("max") ? "max" : "min";
      return {
        partial: [
          { sql: `${name}(${args.join(", ")})${filter}`, type },
          { sql: `${best}(${args[1]})${filterSql(counted)}`, type: sqlType(argumentTypes[1]!) },
        ],
        final: ([value, by]) => `${name}(${value}, ${by})`,
      };
    }
    case "stddev":
    case "stddev_samp":
    case "stddev_pop":
    case "variance":
    case "var_samp":
    case "var_pop":
      return aggregate.distinct || !numeric ? null : moments(aggregate);
    case "list":
    case "array_agg":
      if (aggregate.distinct) return null;
      return single(
        `list(${args[0]})${filter}`,
        type,
        (n) => `flatten(list(${n}) FILTER (WHERE ${n} IS NOT NULL))`,
      );
    case "string_agg":
    case "group_concat":
    case "listagg":
      if (aggregate.distinct) return null;
      return single(
        `string_agg(${args.join(", ")})${filter}`,
        "VARCHAR",
        (n) => `string_agg(${n}, ${args[1] ?? "','"})`,
      );
    default:
      return null;
  }
}

/** Whether the rows that two evaluations choose may differ: which comes first is chance. */
export function dependsOnOrder(aggregate: Aggregate): boolean {
  return !new Set([
    "sum",
    "sum_no_overflow",
    "count",
    "count_star",
    "min",
    "max",
    "avg",
    "bool_and",
    "bool_or",
  ]).has(aggregate.name);
}
