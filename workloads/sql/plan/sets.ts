/** UNION, INTERSECT, EXCEPT and DISTINCT. */

import { unsupported } from "./errors.js";
import { evaluatedOnce, gathered, hashExchange, hashed, isSmall, liesBy, readExchange } from "./exchange.js";
import { columnOf, expression, orderList, orders, typeOf } from "./expressions.js";
import { asArray, asObjects, isObject, type JsonObject } from "./json.js";
import type { Key, Planner, Scope } from "./planner.js";
import { columnNames, from, isSplit, type Relation, rigid, words } from "./relation.js";
import { onlyChild } from "./rows.js";
import { sqlType } from "./types.js";

function inputs(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation[]> {
  return Promise.all(asObjects(node.children).map((child) => planner.plan(child, scope)));
}

function allColumns(relation: Relation): Key[] {
  return relation.types.map((type, at) => ({ sql: `c${at}`, column: at, type }));
}

/** LOGICAL_UNION: always of all rows; a DISTINCT stands above it where there is one. */
export async function planUnion(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const branches = await inputs(planner, node, scope);
  const first = branches[0];
  if (first === undefined) throw unsupported("LOGICAL_UNION", "it has no inputs");
  const split = branches.some(isSplit);
  const parts = split
    ? await Promise.all(branches.map((branch) => evaluatedOnce(planner, branch)))
    : branches;
  return {
    sql: parts.map((part) => `(${part.sql})`).join(" UNION ALL "),
    types: first.types,
    reads: parts.flatMap((part) => part.reads),
    spread: split ? "split" : "whole",
    hash: commonHash(branches),
    divisible: null,
    ordered: parts.every((part) => part.ordered),
    stable: parts.every((part) => part.stable),
    emptyOnEmpty: parts.every((part) => part.emptyOnEmpty),
    cheap: parts.every((part) => part.cheap),
    recurring: parts.some((part) => part.recurring),
    kept: Math.max(...parts.map((part) => part.kept)),
    rows: sum(parts.map((part) => part.rows)),
    bytes: sum(parts.map((part) => part.bytes)),
    label: [...words(...parts.map((part) => part.label)), "union"],
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Rows of all branches lie by the same columns. */
function commonHash(branches: readonly Relation[]): Relation["hash"] {
  const first = branches[0]?.hash ?? null;
  if (first === null || !branches.every(isSplit)) return null;
  const common = first.map((key, at) => ({
    type: key.type,
    columns: key.columns.filter((column) =>
      branches.every((branch) => {
        const other = branch.hash?.length === first.length ? branch.hash[at] : undefined;
        return other !== undefined && other.type === key.type && other.columns.includes(column);
      }),
    ),
  }));
  return common.every((key) => key.columns.length > 0) ? common : null;
}

/** LOGICAL_INTERSECT, LOGICAL_EXCEPT: rows are compared as wholes, nulls being equal. */
export async function planSetOperation(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const name = node.type === "LOGICAL_INTERSECT" ? "INTERSECT" : "EXCEPT";
  const branches = await inputs(planner, node, scope);
  const [left, right] = branches;
  if (left === undefined || right === undefined) throw unsupported(String(node.type), "it lacks a side");
  const isAll = node.setop_all === true;
  const [l, r] = await meeting(planner, left, right, isAll ? (side) => side : withoutRepetition);
  const all = isAll ? " ALL" : "";
  return {
    ...l,
    sql: `(${l.sql}) ${name}${all} (${r.sql})`,
    reads: [...l.reads, ...r.reads],
    spread: isSplit(l) ? "split" : "whole",
    hash: isSplit(l) ? commonHash([l, r]) : null,
    divisible: null,
    ordered: false,
    stable: l.stable && r.stable,
    emptyOnEmpty: l.emptyOnEmpty,
    cheap: false,
    recurring: l.recurring || r.recurring,
    label: [...words(l.label, r.label), name.toLowerCase()],
  };
}

/** Each task leaves out what it has twice. */
function withoutRepetition(relation: Relation): Relation {
  return {
    ...relation,
    sql: `SELECT DISTINCT * ${from(relation)}`,
    ordered: false,
    cheap: false,
    kept: 1,
    rows: relation.rows / 2,
    bytes: relation.bytes / 2,
    label: [...relation.label, "distinct"],
  };
}

/** Both where rows that are equal lie in one task; `reduced` where they have to be moved. */
async function meeting(
  planner: Planner,
  left: Relation,
  right: Relation,
  reduced: (side: Relation) => Relation,
): Promise<[Relation, Relation]> {
  if ((!isSplit(left) && !isSplit(right)) || commonHash([left, right]) !== null) return [left, right];
  if (left.types.some((type, at) => type !== right.types[at])) {
    return Promise.all([gathered(planner, left), gathered(planner, right)]);
  }
  const exchanged = await Promise.all(
    [left, right].map((side) => hashExchange(planner, reduced(side), allColumns(side))),
  );
  const share = exchanged.every((exchange) => isSmall(planner, exchange)) ? "whole" : "split";
  const read = (at: number, side: Relation): Relation =>
    readExchange(planner, exchanged[at]!, side, share, allColumns(side));
  return [read(0, left), read(1, right)];
}

/** LOGICAL_DISTINCT */
export async function planDistinct(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const input = await planner.plan(onlyChild(node), scope);
  const targets = asObjects(node.distinct_targets).map(
    (value): Key => ({
      sql: expression(value),
      column: columnOf(value),
      type: sqlType(typeOf(value)),
    }),
  );
  const order = isObject(node.order_by) ? orderList(orders(asArray(node.order_by.orders))) : "";
  const on = node.distinct_type === "DISTINCT_ON" || !coversAll(targets, input.types.length);
  const distinct = (relation: Relation): Relation => {
    const all = withoutRepetition(relation);
    if (!on) return all;
    const list = targets.map((target) => target.sql).join(", ");
    const sorted = order === "" ? "" : ` ORDER BY ${order}`;
    return { ...all, sql: `SELECT DISTINCT ON (${list}) * ${from(relation)}${sorted}`, stable: false };
  };
  if (!isSplit(input) || liesBy(input, targets)) return rigid(distinct(input));
  // Each task leaves out what it can before anything is exchanged.
  return rigid(distinct(await hashed(planner, distinct(input), targets)));
}

function coversAll(targets: readonly Key[], width: number): boolean {
  const columns = new Set(targets.map((target) => target.column));
  return columnNames(width).every((_, at) => columns.has(at));
}
