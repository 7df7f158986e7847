/** Joins: which side every task reads, or how both come to lie by their keys, and the SQL of each kind. */

import {
  anyConditions,
  bothSql,
  type Comparison,
  type Conditions,
  comparisonConditions,
  comparisonSql,
  conditionsSql,
  isEquality,
  keyOf,
  leftSql,
  rightSql,
} from "./conditions.js";
import { unsupported } from "./errors.js";
import {
  canBeWhole,
  cutColumns,
  evaluatedWhole,
  exchangedWhole,
  gathered,
  hashExchange,
  isSmall,
  readExchange,
  settled,
} from "./exchange.js";
import { columnsRead, comparison, isVolatile } from "./expressions.js";
import { asArray, asIndex, asObjects, asString, type JsonObject } from "./json.js";
import type { Key, Needed, Planner, Scope } from "./planner.js";
import {
  chooseColumns,
  columnNames,
  type HashKey,
  isSplit,
  moveHash,
  type Relation,
  rowBytes,
  selectSql,
} from "./relation.js";
import type { Exchanged } from "./stage.js";

export type JoinKind =
  | "INNER"
  | "LEFT"
  | "RIGHT"
  | "FULL"
  | "SEMI"
  | "ANTI"
  | "RIGHT_SEMI"
  | "RIGHT_ANTI"
  | "MARK"
  | "SINGLE"
  | "CROSS"
  | "POSITIONAL";

export interface Join {
  kind: JoinKind;
  asof: boolean;
  conditions: Conditions;
}

const SYMBOLS: Record<JoinKind, string> = {
  INNER: "⋈",
  LEFT: "⟕",
  RIGHT: "⟖",
  FULL: "⟗",
  SEMI: "⋉",
  ANTI: "▷",
  RIGHT_SEMI: "⋊",
  RIGHT_ANTI: "◁",
  MARK: "mark join",
  SINGLE: "single join",
  CROSS: "×",
  POSITIONAL: "positional join",
};

/** Rows of the left may be told apart from each other: the right can be whole while the left is split. */
const LEFT_BY_LEFT: ReadonlySet<JoinKind> = new Set([
  "INNER",
  "CROSS",
  "LEFT",
  "SEMI",
  "ANTI",
  "MARK",
  "SINGLE",
]);
const RIGHT_BY_RIGHT: ReadonlySet<JoinKind> = new Set([
  "INNER",
  "CROSS",
  "RIGHT",
  "RIGHT_SEMI",
  "RIGHT_ANTI",
]);
const KINDS: ReadonlySet<string> = new Set(Object.keys(SYMBOLS));

function joinKind(node: JsonObject): JoinKind {
  const kind = asString(node.join_type).replace(/^OUTER$/, "FULL");
  if (!KINDS.has(kind)) throw unsupported(`a join of type ${kind}`);
  return kind as JoinKind;
}

/** LOGICAL_COMPARISON_JOIN, LOGICAL_ASOF_JOIN, LOGICAL_ANY_JOIN, LOGICAL_CROSS_PRODUCT, LOGICAL_POSITIONAL_JOIN */
export async function planJoin(
  planner: Planner,
  node: JsonObject,
  scope: Scope,
  needed: Needed,
): Promise<Relation> {
  const [leftNode, rightNode] = asObjects(node.children);
  if (leftNode === undefined || rightNode === undefined)
    throw unsupported(String(node.type), "it lacks a side");
  const maps = [node.left_projection_map, node.right_projection_map].some((map) => asArray(map).length > 0);
  const used = maps ? null : needed;
  const below = neededOfChildren(node, used);
  const [left, right] = await Promise.all([
    planner.plan(leftNode, scope, below.left),
    planner.plan(rightNode, scope, below.right),
  ]);
  return joinSides(planner, node, left, right, used);
}

/** Joins whose output is one side only (and a mark). */
const ONLY_LEFT: ReadonlySet<string> = new Set(["SEMI", "ANTI", "MARK"]);
const ONLY_RIGHT: ReadonlySet<string> = new Set(["RIGHT_SEMI", "RIGHT_ANTI"]);

/** Where the right's columns begin is not known yet: positions past the left's do no harm. */
function neededOfChildren(node: JsonObject, needed: Needed): Record<Side, Needed> {
  if (needed === null || node.type !== "LOGICAL_COMPARISON_JOIN") return { left: null, right: null };
  const { comparisons, others } = comparisonConditions(node);
  if (others.length > 0) return { left: null, right: null };
  const kind = joinKind(node);
  const read = (side: Side): Set<number> => columnsRead(comparisons.map((condition) => condition[side]));
  if (ONLY_RIGHT.has(kind)) return { left: read("left"), right: new Set([...needed, ...read("right")]) };
  return {
    left: new Set([...needed, ...read("left")]),
    right: ONLY_LEFT.has(kind) ? read("right") : null,
  };
}

/** Columns of each side that the join or somebody above it reads. */
function neededOfSides(how: Join, needed: Needed, width: number): Record<Side, Needed> {
  if (needed === null) return { left: null, right: null };
  const { comparisons, others } = how.conditions;
  const both = columnsRead([...others]);
  const left = columnsRead(comparisons.map((condition) => condition.left));
  const right = columnsRead(comparisons.map((condition) => condition.right));
  if (!ONLY_RIGHT.has(how.kind)) for (const at of needed) both.add(at);
  for (const at of both) {
    if (at < width) left.add(at);
    else right.add(at - width);
  }
  if (ONLY_RIGHT.has(how.kind)) for (const at of needed) right.add(at);
  return { left, right };
}

/** The join of two sides that are planned already. */
export async function joinSides(
  planner: Planner,
  node: JsonObject,
  left: Relation,
  right: Relation,
  needed: Needed = null,
): Promise<Relation> {
  const joined = await join(planner, joinOf(node, left.types.length), left, right, needed);
  return mapped(node, joined, left.types.length);
}

function joinOf(node: JsonObject, leftWidth: number): Join {
  const none = { comparisons: [], others: [] };
  switch (node.type) {
    case "LOGICAL_CROSS_PRODUCT":
      return { kind: "CROSS", asof: false, conditions: none };
    case "LOGICAL_POSITIONAL_JOIN":
      return { kind: "POSITIONAL", asof: false, conditions: none };
    case "LOGICAL_ANY_JOIN":
      return { kind: joinKind(node), asof: false, conditions: anyConditions(node, leftWidth) };
    default:
      return {
        kind: joinKind(node),
        asof: node.type === "LOGICAL_ASOF_JOIN",
        conditions: comparisonConditions(node),
      };
  }
}

/** Leaves out the columns that the join's projection maps leave out. */
function mapped(node: JsonObject, joined: Relation, leftWidth: number): Relation {
  const leftMap = asArray(node.left_projection_map).map(asIndex);
  const rightMap = asArray(node.right_projection_map).map(asIndex);
  if (leftMap.length === 0 && rightMap.length === 0) return joined;
  const width = joined.types.length;
  const all = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);
  const kind = node.type === "LOGICAL_CROSS_PRODUCT" ? "CROSS" : joinKind(node);
  if (kind === "RIGHT_SEMI" || kind === "RIGHT_ANTI") {
    return rightMap.length === 0 ? joined : chooseColumns(joined, rightMap);
  }
  const first = leftMap.length === 0 ? all(0, Math.min(leftWidth, width)) : leftMap;
  const second =
    rightMap.length === 0 || kind === "MARK" ? all(leftWidth, width) : rightMap.map((at) => leftWidth + at);
  return chooseColumns(joined, [...first, ...second]);
}

export async function join(
  planner: Planner,
  how: Join,
  left: Relation,
  right: Relation,
  needed: Needed = null,
): Promise<Relation> {
  const volatile = isVolatile([...how.conditions.others]);
  const sides = volatile
    ? await Promise.all([settled(planner, left), settled(planner, right)])
    : ([left, right] as const);
  const [l, r] = await place(planner, how, sides[0], sides[1], neededOfSides(how, needed, left.types.length));
  return joined(how, l, r);
}

/** The equalities by which rows that match are brought together. */
function meeting(how: Join): Comparison[] {
  const equal = how.conditions.comparisons.filter(isEquality);
  // Whether IN is false or unknown depends on nulls anywhere among the rows that it looks at.
  if (how.kind === "MARK") return equal.filter((condition) => condition.type === "COMPARE_NOT_DISTINCT_FROM");
  return equal;
}

async function place(
  planner: Planner,
  how: Join,
  left: Relation,
  right: Relation,
  needed: Record<Side, Needed>,
): Promise<[Relation, Relation]> {
  if (!isSplit(left) && !isSplit(right)) return [left, right];
  // DuckDB's ASOF join that keeps the right's rows may not end where a task has few rows of the left.
  const asofRight = how.asof && (how.kind === "RIGHT" || how.kind === "FULL");
  if (how.kind === "POSITIONAL" || asofRight)
    return Promise.all([gathered(planner, left), gathered(planner, right)]);
  const rightWhole = LEFT_BY_LEFT.has(how.kind);
  const leftWhole = RIGHT_BY_RIGHT.has(how.kind) && !how.asof;
  if (!isSplit(right) && rightWhole) return [left, await settled(planner, right)];
  if (!isSplit(left) && leftWhole) return [await settled(planner, left), right];

  const pairs = meeting(how);
  const leftKeys = pairs.map((pair) => keyOf(pair.left));
  const rightKeys = pairs.map((pair) => keyOf(pair.right));
  // Keys are compared as one type: were they hashed as two, equal ones would not meet.
  const usable = pairs.map((_, at) => at).filter((at) => leftKeys[at]!.type === rightKeys[at]!.type);
  const keys = { left: usable.map((at) => leftKeys[at]!), right: usable.map((at) => rightKeys[at]!) };
  if (aligned(left, right, keys)) return [left, right];

  const leftFirst = left.bytes <= right.bytes;
  if (isSplit(left) && isSplit(right)) {
    const rightFree = rightWhole && canBeWhole(planner, right, left);
    const leftFree = leftWhole && canBeWhole(planner, left, right);
    if (leftFree && (leftFirst || !rightFree)) return [evaluatedWhole(planner, left), right];
    if (rightFree) return [left, evaluatedWhole(planner, right)];
  } else if (isSplit(right) && canBeWhole(planner, right, left)) {
    return [left, evaluatedWhole(planner, right)];
  } else if (isSplit(left) && canBeWhole(planner, left, right)) {
    return [evaluatedWhole(planner, left), right];
  }
  if (keys.left.length === 0) {
    if (isSplit(left) && isSplit(right)) {
      if (leftWhole && (leftFirst || !rightWhole)) return [await exchangedWhole(planner, left), right];
      if (rightWhole) return [left, await exchangedWhole(planner, right)];
    }
    return Promise.all([gathered(planner, left), gathered(planner, right)]);
  }
  return exchangeSides(planner, left, right, keys, { left: leftWhole, right: rightWhole }, needed);
}

interface Keys {
  left: readonly Key[];
  right: readonly Key[];
}

/** For each key of `hash`, the pair that has it on that side; null: some has none. */
function pairsOf(hash: readonly HashKey[] | null, keys: readonly Key[]): number[] | null {
  if (hash === null) return null;
  const pairs = hash.map((part) =>
    keys.findIndex(
      (key) => key.column !== null && key.type === part.type && part.columns.includes(key.column),
    ),
  );
  return pairs.every((at) => at >= 0) ? pairs : null;
}

/** Whether rows that match lie in one task already. */
function aligned(left: Relation, right: Relation, keys: Keys): boolean {
  const pairs = pairsOf(left.hash, keys.left);
  if (pairs === null || right.hash === null || right.hash.length !== pairs.length) return false;
  return right.hash.every((part, at) =>
    keys.left.some((leftKey, pair) => {
      const rightKey = keys.right[pair]!;
      const here = left.hash![at]!;
      return (
        leftKey.column !== null &&
        rightKey.column !== null &&
        here.columns.includes(leftKey.column) &&
        part.columns.includes(rightKey.column) &&
        part.type === rightKey.type &&
        here.type === leftKey.type
      );
    }),
  );
}

type Side = "left" | "right";

/** Exchanges the side that is expected to be smaller, and by its real size decides on the other. */
async function exchangeSides(
  planner: Planner,
  left: Relation,
  right: Relation,
  keys: Keys,
  mayBeWhole: Record<Side, boolean>,
  needed: Record<Side, Needed>,
): Promise<[Relation, Relation]> {
  const sides = { left, right };
  const small: Side = left.bytes <= right.bytes ? "left" : "right";
  const large: Side = small === "left" ? "right" : "left";
  // What lies by some of the keys stays where it is, and the other side follows.
  const kept = pairsOf(sides[large].hash, keys[large]);
  const pairs = kept ?? pairsOf(sides[small].hash, keys[small]) ?? keys.left.map((_, at) => at);
  const by = { left: pairs.map((at) => keys.left[at]!), right: pairs.map((at) => keys.right[at]!) };
  const cut = {
    left: cutColumns(left, by.left, needed.left),
    right: cutColumns(right, by.right, needed.right),
  };
  const exchange = (side: Side): Promise<Exchanged> =>
    hashExchange(planner, cut[side].relation, cut[side].keys);
  const read = (side: Side, from: Exchanged, share: "split" | "whole"): Relation =>
    cut[side].restore(readExchange(planner, from, cut[side].relation, share, cut[side].keys));
  const fits = (from: Exchanged, against: number): boolean =>
    isSmall(planner, from) ||
    from.bytes <= planner.options.broadcastBytes ||
    (planner.options.broadcastBytes > 0 && from.bytes * planner.options.partitionsHint < against);

  const done = (side: Side, first: Relation, second: Relation): [Relation, Relation] =>
    side === "left" ? [first, second] : [second, first];

  if (!isSplit(left) || !isSplit(right)) {
    // A whole side cannot meet a split one here: it is exchanged only where the other turns out to be large.
    const split: Side = isSplit(left) ? "left" : "right";
    const other: Side = split === "left" ? "right" : "left";
    const first = await exchange(split);
    if (isSmall(planner, first) || first.bytes <= planner.options.broadcastBytes) {
      return done(split, read(split, first, "whole"), sides[other]);
    }
    return done(split, read(split, first, "split"), read(other, await exchange(other), "split"));
  }
  const stays: Side | null =
    kept !== null ? large : pairsOf(sides[small].hash, keys[small]) !== null ? small : null;
  // What lies by the keys already is moved only where it is likely to be so little that the other side can stay.
  const dear =
    stays === small &&
    cut[small].relation.bytes * planner.options.partitionsHint >= cut[large].relation.bytes;
  if (mayBeWhole[small] && !dear) {
    const first = await exchange(small);
    if (fits(first, sides[large].bytes)) return done(small, read(small, first, "whole"), sides[large]);
    const here = read(small, first, "split");
    if (stays === large) return done(small, here, sides[large]);
    const second = await exchange(large);
    const whole = mayBeWhole[large] && fits(second, first.bytes);
    return done(small, here, read(large, second, whole ? "whole" : "split"));
  }
  if (stays !== null) {
    const moves: Side = stays === small ? large : small;
    const moved = await exchange(moves);
    const whole = mayBeWhole[moves] && fits(moved, sides[stays].bytes);
    return done(stays, sides[stays], read(moves, moved, whole ? "whole" : "split"));
  }
  const [first, second] = await Promise.all([exchange(small), exchange(large)]);
  if (isSmall(planner, first) && isSmall(planner, second)) {
    return done(small, read(small, first, "whole"), read(large, second, "whole"));
  }
  const whole = mayBeWhole[large] && fits(second, first.bytes);
  return done(small, read(small, first, "split"), read(large, second, whole ? "whole" : "split"));
}

/** The SQL of the join, both sides being where they must. */
function joined(how: Join, left: Relation, right: Relation): Relation {
  const width = left.types.length;
  const own = columnNames(width, "l.");
  const both = [...own, ...columnNames(right.types.length, "r.")];
  const l = `(${left.sql}) AS l`;
  const r = `(${right.sql}) AS r`;
  const on = conditionsSql(how.conditions, width, how.asof);
  const asof = how.asof ? "ASOF " : "";
  const outer = (kind: string): string => selectSql(both, `FROM ${l} ${asof}${kind} JOIN ${r} ON ${on}`);
  const bothTypes = [...left.types, ...right.types];
  switch (how.kind) {
    case "CROSS":
      return combined(how, left, right, selectSql(both, `FROM ${l} CROSS JOIN ${r}`), bothTypes);
    case "POSITIONAL":
      return combined(how, left, right, selectSql(both, `FROM ${l} POSITIONAL JOIN ${r}`), bothTypes);
    case "INNER":
    case "LEFT":
    case "RIGHT":
    case "FULL":
      return combined(how, left, right, outer(how.kind), bothTypes);
    case "SEMI":
    case "ANTI":
      return combined(
        how,
        left,
        right,
        selectSql(own, `FROM ${l} ${asof}${how.kind} JOIN ${r} ON ${on}`),
        left.types,
      );
    case "RIGHT_SEMI":
    case "RIGHT_ANTI": {
      if (how.asof) throw unsupported(`an ASOF join of type ${how.kind}`);
      const kind = how.kind === "RIGHT_SEMI" ? "SEMI" : "ANTI";
      const sql = selectSql(columnNames(right.types.length, "r."), `FROM ${r} ${kind} JOIN ${l} ON ${on}`);
      return combined(how, left, right, sql, right.types);
    }
    case "MARK":
      return combined(
        how,
        left,
        right,
        `${withMatches(right)} ${selectSql([...own, markSql(how, width)], `FROM ${l}`)}`,
        [...left.types, "BOOLEAN"],
      );
    case "SINGLE": {
      const sql = `${withMatches(right)} ${singleSql(own, l, right.types.length, on)}`;
      return combined(how, left, right, sql, bothTypes);
    }
  }
}

/** The right as a table of its own: DuckDB cannot look through all kinds of joins into a subquery that depends on a row. */
function withMatches(right: Relation): string {
  return `WITH matches AS MATERIALIZED (${right.sql})`;
}

/** Whether the row is IN the right: true, false or unknown. */
function markSql(how: Join, leftWidth: number): string {
  const right = "matches AS r";
  const matching = how.conditions.comparisons.filter(
    (condition) => condition.type === "COMPARE_NOT_DISTINCT_FROM",
  );
  const compared = how.conditions.comparisons.filter(
    (condition) => condition.type !== "COMPARE_NOT_DISTINCT_FROM",
  );
  const others = how.conditions.others.map((value) => bothSql(value, leftWidth));
  const where = [...matching.map(comparisonSql), ...others];
  const whereSql = where.length === 0 ? "" : ` WHERE ${where.join(" AND ")}`;
  if (compared.length === 0) return `EXISTS (SELECT 1 FROM ${right}${whereSql})`;
  if (others.length > 0) throw unsupported("a mark join with a condition that compares nothing");
  if (compared.length === 1) {
    const one = compared[0]!;
    const operator = one.type === "COMPARE_EQUAL" ? "IN" : `${comparison(one.type)} ANY`;
    return `(${leftSql(one.left)} ${operator} (SELECT ${rightSql(one.right)} FROM ${right}${whereSql}))`;
  }
  if (compared.some((condition) => condition.type !== "COMPARE_EQUAL")) {
    throw unsupported("a mark join of several columns that are not compared by =");
  }
  const row = compared.map((condition) => leftSql(condition.left)).join(", ");
  const rows = compared.map((condition) => rightSql(condition.right)).join(", ");
  return `((${row}) IN (SELECT ${rows} FROM ${right}${whereSql}))`;
}

/** The one row that matches, or nulls; more than one is DuckDB's error, as of any subquery that is used as a value. */
function singleSql(own: readonly string[], left: string, rightWidth: number, on: string): string {
  const row = columnNames(rightWidth).map((name) => `${name} := r.${name}`);
  const inner = `SELECT l.*, (SELECT struct_pack(${row.join(", ")}) FROM matches AS r WHERE ${on}) AS found FROM ${left}`;
  const found = columnNames(rightWidth).map((name) => `struct_extract(l.found, '${name}')`);
  return selectSql([...own, ...found], `FROM (${inner}) AS l`);
}

function combined(
  how: Join,
  left: Relation,
  right: Relation,
  sql: string,
  types: readonly string[],
): Relation {
  const kind = how.kind;
  const byLeft = LEFT_BY_LEFT.has(kind);
  const byRight = RIGHT_BY_RIGHT.has(kind) && !how.asof;
  const onlyLeft = !["INNER", "CROSS", "RIGHT", "FULL", "RIGHT_SEMI", "RIGHT_ANTI", "POSITIONAL"].includes(
    kind,
  );
  const rows = expectedRows(kind, left, right);
  const divisible = byLeft && byRight ? (left.bytes >= right.bytes ? left : right) : byLeft ? left : right;
  return {
    sql,
    types,
    reads: [...left.reads, ...right.reads],
    spread: isSplit(left) || isSplit(right) ? "split" : "whole",
    hash: joinedHash(how, left, right),
    divisible: byLeft || byRight ? (divisible.divisible ?? lone(left, right)) : null,
    ordered: false,
    stable: left.stable && right.stable && !isVolatile([...how.conditions.others]),
    emptyOnEmpty: emptyOnEmpty(kind, left, right),
    cheap: left.cheap && right.cheap,
    recurring: left.recurring || right.recurring,
    kept: keptOf(kind, left, right),
    rows,
    bytes:
      onlyLeft && kind !== "LEFT" && kind !== "SINGLE"
        ? left.bytes * (rows / Math.max(1, left.rows))
        : rows * rowBytes(types),
    label: [`${left.label.join(", ")} ${SYMBOLS[kind]} ${right.label.join(", ").replace(/^scan /, "")}`],
  };
}

/** The exchange of the only side that is split. */
function lone(left: Relation, right: Relation): number | null {
  if (isSplit(left) === isSplit(right)) return null;
  return (isSplit(left) ? left : right).divisible;
}

function emptyOnEmpty(kind: JoinKind, left: Relation, right: Relation): boolean {
  switch (kind) {
    case "INNER":
    case "CROSS":
      return left.emptyOnEmpty || right.emptyOnEmpty;
    case "FULL":
    case "POSITIONAL":
      return left.emptyOnEmpty && right.emptyOnEmpty;
    case "RIGHT":
    case "RIGHT_SEMI":
    case "RIGHT_ANTI":
      return right.emptyOnEmpty;
    default:
      return left.emptyOnEmpty;
  }
}

function expectedRows(kind: JoinKind, left: Relation, right: Relation): number {
  switch (kind) {
    case "CROSS":
      return left.rows * right.rows;
    case "FULL":
      return left.rows + right.rows;
    case "LEFT":
    case "MARK":
    case "SINGLE":
      return left.rows;
    case "SEMI":
      return left.rows * Math.min(HALF, right.kept);
    case "ANTI":
      return left.rows * HALF;
    case "RIGHT":
      return right.rows;
    case "RIGHT_SEMI":
      return right.rows * Math.min(HALF, left.kept);
    case "RIGHT_ANTI":
      return right.rows * HALF;
    default:
      // As by foreign keys: each row of one side has one partner, if that one is still there.
      return Math.max(left.rows * right.kept, right.rows * left.kept);
  }
}

/** What a semi or anti join leaves, where nothing is known. */
const HALF = 0.5;

function keptOf(kind: JoinKind, left: Relation, right: Relation): number {
  switch (kind) {
    case "INNER":
    case "SEMI":
    case "RIGHT_SEMI":
      return left.kept * right.kept;
    case "RIGHT":
    case "RIGHT_ANTI":
      return right.kept;
    case "FULL":
    case "CROSS":
    case "POSITIONAL":
      return 1;
    default:
      return left.kept;
  }
}

/** Where rows lie after the join, in positions of its output. */
function joinedHash(how: Join, left: Relation, right: Relation): readonly HashKey[] | null {
  if (!isSplit(left) && !isSplit(right)) return null;
  const width = left.types.length;
  const ofLeft = (): readonly HashKey[] | null => moveHash(left.hash, (at) => [at]);
  switch (how.kind) {
    case "LEFT":
    case "SEMI":
    case "ANTI":
    case "MARK":
    case "SINGLE":
      return ofLeft();
    case "RIGHT_SEMI":
    case "RIGHT_ANTI":
      return right.hash;
    case "RIGHT":
      return moveHash(right.hash, (at) => [width + at]);
    case "INNER":
    case "CROSS": {
      // Equal columns of both sides are one key.
      const equal = how.conditions.comparisons
        .filter(isEquality)
        .map((c) => [keyOf(c.left), keyOf(c.right)] as const);
      const partners = (at: number, side: 0 | 1, type: string): number[] =>
        equal
          .filter((pair) => pair[side].column === at && pair[0].type === type && pair[1].type === type)
          .map((pair) => pair[side === 0 ? 1 : 0].column)
          .filter((column): column is number => column !== null)
          .map((column) => (side === 0 ? width + column : column));
      const unique = (columns: number[]): number[] => [...new Set(columns)];
      if (isSplit(left) && left.hash !== null) {
        return left.hash.map((key) => ({
          type: key.type,
          columns: unique([...key.columns, ...key.columns.flatMap((at) => partners(at, 0, key.type))]),
        }));
      }
      if (isSplit(right) && right.hash !== null) {
        return right.hash.map((key) => ({
          type: key.type,
          columns: unique([
            ...key.columns.map((at) => width + at),
            ...key.columns.flatMap((at) => partners(at, 1, key.type)),
          ]),
        }));
      }
      return null;
    }
    default:
      return null;
  }
}
