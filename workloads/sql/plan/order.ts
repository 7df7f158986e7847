/** ORDER BY, LIMIT, both together, and samples. */

import { unsupported } from "./errors.js";
import { gathered, settled } from "./exchange.js";
import { expression, isVolatile, type Order, orderList, orders } from "./expressions.js";
import { asArray, asIndex, asInteger, asObject, asString, isObject, type JsonObject } from "./json.js";
import { literal } from "./literals.js";
import type { Planner, Scope } from "./planner.js";
import { chooseColumns, columnNames, from, isSplit, type Relation } from "./relation.js";
import { onlyChild } from "./rows.js";

function sorted(input: Relation, order: readonly Order[]): Relation {
  return {
    ...input,
    sql: `SELECT * ${from(input)} ORDER BY ${orderList(order)}`,
    ordered: true,
    divisible: null,
    cheap: false,
    label: [...input.label, "order"],
  };
}

/** LOGICAL_ORDER_BY, of rows that all come to one task. */
export async function planOrder(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  return projected(node, sorted(await gathered(planner, input), orders(node.orders)));
}

function projected(node: JsonObject, relation: Relation): Relation {
  const chosen = asArray(node.projections).map(asIndex);
  return chosen.length === 0 ? relation : chooseColumns(relation, chosen);
}

/** LOGICAL_TOP_N: each task sends only what may be among the first. */
export async function planTopN(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  const order = orders(node.orders);
  const limit = asInteger(node.limit);
  const offset = asInteger(node.offset ?? 0);
  const all = isSplit(input)
    ? await gathered(planner, {
        ...firstRows({ ...sorted(input, order), divisible: input.divisible }, limit + offset, 0n, input),
        ordered: false,
      })
    : input;
  return firstRows(sorted(all, order), limit, offset, all);
}

/** `ordered` with LIMIT and OFFSET. */
function firstRows(ordered: Relation, limit: bigint | null, offset: bigint, input: Relation): Relation {
  const rows = limit === null ? input.rows : Math.min(input.rows, Number(limit));
  const limits = `${limit === null ? "" : ` LIMIT ${limit}`}${offset === 0n ? "" : ` OFFSET ${offset}`}`;
  return {
    ...ordered,
    sql: `${ordered.sql}${limits}`,
    stable: false,
    cheap: false,
    rows,
    bytes: input.rows === 0 ? 0 : input.bytes * (rows / input.rows),
  };
}

interface Limit {
  kind: "none" | "rows" | "percent" | "expression" | "expression percent";
  rows: bigint;
  percent: number;
  expression: string;
}

function readLimit(node: JsonObject): Limit {
  const none: Limit = { kind: "none", rows: 0n, percent: 0, expression: "" };
  const value = isObject(node.expression) ? expression(node.expression) : "";
  switch (asString(node.type)) {
    case "UNSET":
      return none;
    case "CONSTANT_VALUE":
      return { ...none, kind: "rows", rows: asInteger(node.constant_integer) };
    case "CONSTANT_PERCENTAGE":
      return { ...none, kind: "percent", percent: Number(node.constant_percentage) };
    case "EXPRESSION_VALUE":
      return { ...none, kind: "expression", expression: value };
    case "EXPRESSION_PERCENTAGE":
      return { ...none, kind: "expression percent", expression: value };
    default:
      throw unsupported(`a LIMIT of type ${String(node.type)}`);
  }
}

/** LOGICAL_LIMIT */
export async function planLimit(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  const limit = readLimit(asObject(node.limit_val));
  const offset = readLimit(asObject(node.offset_val));
  if (offset.kind === "percent" || offset.kind === "expression percent")
    throw unsupported("OFFSET in percent");
  if (isVolatile(node.limit_val) || isVolatile(node.offset_val))
    throw unsupported("LIMIT by a random number");
  const constant = (limit.kind === "rows" || limit.kind === "none") && offset.kind !== "expression";
  let all = input;
  if (isSplit(input)) {
    const enough = constant && limit.kind === "rows" ? limit.rows + offset.rows : null;
    const partial = { ...input, sql: `SELECT * ${from(input)}`, label: [...input.label, "limit"] };
    all = await gathered(planner, enough === null ? input : firstRows(partial, enough, 0n, input));
  }
  const plain: Relation = {
    ...all,
    sql: `SELECT * ${from(all)}`,
    divisible: null,
    label: [...all.label, "limit"],
  };
  if (constant) return firstRows(plain, limit.kind === "rows" ? limit.rows : null, offset.rows, all);
  if (limit.kind === "percent") {
    const skipped = offset.kind === "rows" && offset.rows > 0n ? ` OFFSET ${offset.rows}` : "";
    if (offset.kind === "expression") throw unsupported("LIMIT in percent with an OFFSET that is computed");
    return { ...plain, sql: `${plain.sql} LIMIT ${limit.percent}%${skipped}`, stable: false, cheap: false };
  }
  if (limit.kind === "expression percent") throw unsupported("LIMIT in percent that is computed");
  // The value stands in each row, being the same in all; without rows it does not matter.
  const value = (part: Limit): string =>
    part.kind === "expression" ? `(SELECT ${part.expression} FROM limited LIMIT 1)` : String(part.rows);
  const limits = `${limit.kind === "none" ? "" : ` LIMIT ${value(limit)}`}${offset.kind === "none" ? "" : ` OFFSET ${value(offset)}`}`;
  const columns = columnNames(all.types.length).join(", ");
  return {
    ...plain,
    sql: `WITH limited AS MATERIALIZED (${all.sql}) SELECT ${columns} FROM limited${limits}`,
    stable: false,
    cheap: false,
  };
}

const SAMPLE_METHODS: Record<string, string> = {
  System: "system",
  Bernoulli: "bernoulli",
  Reservoir: "reservoir",
};

/** LOGICAL_SAMPLE: a share of the rows can be taken by each task, a number of rows by one. */
export async function planSample(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  const options = asObject(node.sample_options);
  const method = SAMPLE_METHODS[asString(options.method)];
  if (method === undefined) throw unsupported(`a sample by ${String(options.method)}`);
  const size = literal(asObject(options.sample_size)).replace(/^CAST\('?([\d.e+-]+)'? AS \w+\)$/, "$1");
  const percent = options.is_percentage === true;
  const seed = asInteger(options.seed ?? -1);
  const all = percent && seed < 0n && method !== "reservoir" ? input : await gathered(planner, input);
  const amount = percent ? `${size}%` : `${size} ROWS`;
  const repeatable = seed < 0n ? "" : ` REPEATABLE (${seed})`;
  const sample: Relation = {
    ...all,
    sql: `SELECT * ${from(all)} TABLESAMPLE ${method}(${amount})${repeatable}`,
    stable: false,
    cheap: false,
    label: [...all.label, "sample"],
  };
  return isSplit(sample) ? sample : settled(planner, sample);
}
