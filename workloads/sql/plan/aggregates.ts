/** LOGICAL_AGGREGATE_AND_GROUP_BY: in place, in two steps around an exchange, or after an exchange by the groups. */

import {
  type Aggregate,
  aggregateSql,
  dependsOnOrder,
  partsOf,
  readAggregate,
} from "./aggregate_functions.js";
import { gathered, hashed, liesBy, settled } from "./exchange.js";
import { columnOf, columnsRead, expression, isVolatile, typeOf } from "./expressions.js";
import { asArray, asIndex, asObjects, type JsonObject } from "./json.js";
import type { Key, Planner, Scope } from "./planner.js";
import { columnNames, from, isSplit, type Relation, rowBytes, selectSql } from "./relation.js";
import { onlyChild } from "./rows.js";
import { castSql, sqlType } from "./types.js";

interface Grouping {
  /** SQL of the groups. */
  groups: readonly Key[];
  /** Positions of groups; one set unless ROLLUP and its kin say so. */
  sets: readonly (readonly number[])[];
  aggregates: readonly Aggregate[];
  /** GROUPING(…), as positions of groups. */
  functions: readonly (readonly number[])[];
  /** Types of the output. */
  types: readonly string[];
}

/** What is expected to be left of the rows. */
const GROUP_SHARE = 0.1;

function readGrouping(node: JsonObject): Grouping {
  const expressions = asObjects(node.groups);
  const groups = expressions.map((value) => ({
    sql: expression(value),
    column: columnOf(value),
    type: sqlType(typeOf(value)),
  }));
  const sets = asArray(node.grouping_sets).map((set) => asArray(set).map(asIndex));
  const functions = asArray(node.grouping_functions).map((list) => asArray(list).map(asIndex));
  const aggregates = asObjects(node.expressions).map(readAggregate);
  return {
    groups,
    sets: sets.length === 0 ? [groups.map((_, at) => at)] : sets,
    aggregates,
    functions,
    types: [
      ...groups.map((group) => group.type),
      ...aggregates.map((aggregate) => sqlType(aggregate.type)),
      ...functions.map(() => "BIGINT"),
    ],
  };
}

export async function planAggregate(planner: Planner, node: JsonObject, scope: Scope): Promise<Relation> {
  const read = columnsRead(node.expressions, columnsRead(node.groups));
  const input = await planner.plan(onlyChild(node), scope, read);
  // A random number that is grouped by or counted twice must be one number.
  const volatile = isVolatile(node.groups) || isVolatile(node.expressions);
  const grouping = readGrouping(node);
  if (!isSplit(input)) return aggregated(grouping, volatile ? await settled(planner, input) : input);
  if (volatile) return aggregated(grouping, await gathered(planner, input));
  if (canStay(grouping, input)) return aggregated(grouping, input);
  if (repeatsSets(grouping)) return aggregated(grouping, await gathered(planner, input));
  const parts = grouping.aggregates.map((aggregate) => (aggregate.distinct ? null : partsOf(aggregate)));
  if (parts.every((part) => part !== null)) return inTwoSteps(planner, grouping, input);
  return distinctInSteps(planner, grouping, input) ?? afterExchange(planner, grouping, input);
}

/** One set with all groups, some of which keep rows of one group together. */
function canStay(grouping: Grouping, input: Relation): boolean {
  return isPlain(grouping) && grouping.groups.length > 0 && liesBy(input, grouping.groups);
}

function isPlain(grouping: Grouping): boolean {
  return grouping.sets.length === 1 && new Set(grouping.sets[0]).size === grouping.groups.length;
}

function repeatsSets(grouping: Grouping): boolean {
  const sets = grouping.sets.map((set) => [...new Set(set)].sort((a, b) => a - b).join());
  return new Set(sets).size < sets.length;
}

function groupBy(grouping: Grouping, names: readonly string[]): string {
  if (isPlain(grouping)) return names.length === 0 ? "" : ` GROUP BY ${names.join(", ")}`;
  const sets = grouping.sets.map((set) => `(${set.map((at) => names[at]).join(", ")})`);
  return ` GROUP BY GROUPING SETS (${sets.join(", ")})`;
}

function groupingFunctions(grouping: Grouping, names: readonly string[]): string[] {
  return grouping.functions.map((list) => `grouping(${list.map((at) => names[at]).join(", ")})`);
}

/**
 * Groups by plain columns: a constant or a number in GROUP BY would mean a position. Each has a column of its own, as
 * grouping sets may leave out one of two groups that are the same.
 */
function grouped(grouping: Grouping, input: Relation): { sql: string; names: string[] } {
  const width = input.types.length;
  const extra = grouping.groups.filter(
    ({ column }, at, all) => column === null || all.findIndex((other) => other.column === column) < at,
  );
  if (extra.length === 0) return { sql: input.sql, names: grouping.groups.map((group) => group.sql) };
  const names = grouping.groups.map((group) =>
    extra.includes(group) ? `c${width + extra.indexOf(group)}` : group.sql,
  );
  return {
    sql: selectSql([...columnNames(width), ...extra.map((group) => group.sql)], from(input)),
    names,
  };
}

/** All at once, over rows of which those of one group lie together. */
function aggregated(grouping: Grouping, input: Relation): Relation {
  const { sql, names } = grouped(grouping, input);
  const expressions = [
    ...names,
    ...grouping.aggregates.map((aggregate) => castSql(aggregateSql(aggregate), aggregate.type)),
    ...groupingFunctions(grouping, names),
  ];
  const source = `FROM (${sql}) AS s${groupBy(grouping, names)}`;
  const hash =
    input.hash === null || !isSplit(input)
      ? null
      : input.hash.map((key) => ({
          type: key.type,
          columns: grouping.groups.flatMap((group, at) =>
            group.column !== null && key.columns.includes(group.column) ? [at] : [],
          ),
        }));
  return result(grouping, input, selectSql(expressions.length === 0 ? ["1"] : expressions, source), hash);
}

function result(grouping: Grouping, input: Relation, sql: string, hash: Relation["hash"]): Relation {
  const rows = grouping.groups.length === 0 ? 1 : Math.max(1, input.rows * GROUP_SHARE);
  return {
    ...input,
    sql,
    types: grouping.types,
    hash,
    divisible: null,
    ordered: false,
    stable: input.stable && !grouping.aggregates.some(dependsOnOrder),
    emptyOnEmpty: input.emptyOnEmpty && grouping.sets.every((set) => set.length > 0),
    cheap: false,
    kept: 1,
    rows,
    bytes: rows * rowBytes(grouping.types),
    label: [...input.label, "aggregate"],
  };
}

/** Each task aggregates what it has; the parts meet by their groups. */
async function inTwoSteps(planner: Planner, grouping: Grouping, input: Relation): Promise<Relation> {
  const parts = grouping.aggregates.map((aggregate) => partsOf(aggregate)!);
  const { sql, names } = grouped(grouping, input);
  const types: string[] = grouping.groups.map((group) => group.type);
  const partials: string[] = [];
  const places = parts.map((part) =>
    part.partial.map((partial) => {
      partials.push(partial.sql);
      types.push(partial.type);
      return `c${types.length - 1}`;
    }),
  );
  const plain = isPlain(grouping);
  const expressions = [...names, ...partials];
  const set = `c${types.length}`;
  if (!plain) {
    // Which set a row is of: groups that a set leaves out are null there, as values can be.
    expressions.push(setNumber(names));
    types.push("BIGINT");
  }
  if (expressions.length === 0) {
    expressions.push("1");
    types.push("INTEGER");
  }
  const width = types.length;
  const source = `FROM (${sql}) AS s${groupBy(grouping, names)}`;
  const rows = Math.max(1, input.rows * GROUP_SHARE);
  const partial: Relation = {
    ...input,
    sql: selectSql(expressions, source),
    types,
    hash: null,
    ordered: false,
    emptyOnEmpty: false,
    kept: 1,
    rows,
    bytes: rows * rowBytes(types),
    label: [...input.label, "partial aggregate"],
  };
  const keys = columnNames(grouping.groups.length).map(
    (name, at): Key => ({ sql: name, column: at, type: types[at]! }),
  );
  if (!plain) keys.push({ sql: set, column: width - 1, type: "BIGINT" });
  const met = keys.length === 0 ? await gathered(planner, partial) : await hashed(planner, partial, keys);
  const finals = parts.map((part, at) => castSql(part.final(places[at]!), grouping.aggregates[at]!.type));
  const groupNames = columnNames(grouping.groups.length);
  const outputs = [...groupNames, ...finals, ...(plain ? zeroes(grouping) : setFunctions(grouping, set))];
  const by = [...groupNames, ...(plain ? [] : [set])];
  const finalSql = selectSql(
    outputs.length === 0 ? ["1"] : outputs,
    `${from(met)}${by.length === 0 ? "" : ` GROUP BY ${by.join(", ")}`}`,
  );
  const final = result(grouping, met, finalSql, plain && isSplit(met) ? met.hash : null);
  return {
    ...final,
    rows: Math.max(1, met.rows / 2),
    bytes: met.bytes / 2,
    label: [...met.label, "final aggregate"],
  };
}

/** GROUPING() of one set with all groups is 0. */
function zeroes(grouping: Grouping): string[] {
  return grouping.functions.map(() => "CAST(0 AS BIGINT)");
}

function setNumber(names: readonly string[]): string {
  return names.length === 0 ? "CAST(0 AS BIGINT)" : `grouping(${names.join(", ")})`;
}

/** GROUPING(a, b) out of the number of the set, which has a bit for each group, the first one highest. */
function setFunctions(grouping: Grouping, set: string): string[] {
  const count = grouping.groups.length;
  return grouping.functions.map((list) => {
    const bits = list.map(
      (at, index) => `(((${set} >> ${count - 1 - at}) & 1) << ${list.length - 1 - index})`,
    );
    return `CAST(${bits.join(" | ")} AS BIGINT)`;
  });
}

/**
 * DISTINCT over one value beside aggregates that are made of parts: each task groups by the value as well, so that what
 * is exchanged has each value about once. Null where that does not fit.
 */
function distinctInSteps(planner: Planner, grouping: Grouping, input: Relation): Promise<Relation> | null {
  if (!isPlain(grouping)) return null;
  const distinct = grouping.aggregates.filter((aggregate) => aggregate.distinct);
  const rest = grouping.aggregates.filter((aggregate) => !aggregate.distinct);
  const values = new Set(distinct.map((aggregate) => aggregate.args[0]));
  const simple = distinct.every(
    (aggregate) =>
      aggregate.args.length === 1 &&
      aggregate.filter === null &&
      aggregate.order === "" &&
      partsOf(aggregate) !== null,
  );
  if (values.size !== 1 || !simple || rest.some((aggregate) => partsOf(aggregate) === null)) return null;
  return distinctSteps(planner, grouping, input, distinct[0]!);
}

async function distinctSteps(
  planner: Planner,
  grouping: Grouping,
  input: Relation,
  distinct: Aggregate,
): Promise<Relation> {
  const groups = grouping.groups.length;
  const value: Key = { sql: distinct.args[0]!, column: null, type: sqlType(distinct.argumentTypes[0]!) };
  const rest = grouping.aggregates.map((aggregate) => (aggregate.distinct ? null : partsOf(aggregate)!));
  const { sql, names } = grouped({ ...grouping, groups: [...grouping.groups, value] }, input);
  const types = [...grouping.groups.map((group) => group.type), value.type];
  const partials: string[] = [];
  const places = rest.map((part) =>
    (part?.partial ?? []).map((partial) => {
      partials.push(partial.sql);
      types.push(partial.type);
      return `c${types.length - 1}`;
    }),
  );
  const rows = Math.max(1, input.rows / 2);
  const deduplicated: Relation = {
    ...input,
    sql: selectSql([...names, ...partials], `FROM (${sql}) AS s GROUP BY ${names.join(", ")}`),
    types,
    hash: null,
    ordered: false,
    kept: 1,
    rows,
    bytes: rows * rowBytes(types),
    label: [...input.label, "partial aggregate"],
  };
  const groupNames = columnNames(groups);
  const valueName = `c${groups}`;
  const keys = groupNames.map((name, at): Key => ({ sql: name, column: at, type: types[at]! }));
  // Without groups the values themselves are shared out, so that not all of them meet in one task.
  const met = await hashed(
    planner,
    deduplicated,
    keys.length > 0 ? keys : [{ ...value, sql: valueName, column: groups }],
  );
  const outputs = grouping.aggregates.map((aggregate, at) =>
    castSql(
      aggregate.distinct ? aggregateSql(aggregate, [valueName]) : rest[at]!.final(places[at]!),
      aggregate.type,
    ),
  );
  if (groups > 0 || !isSplit(met)) {
    const by = groups === 0 ? "" : ` GROUP BY ${groupNames.join(", ")}`;
    const finalSql = selectSql([...groupNames, ...outputs, ...zeroes(grouping)], `${from(met)}${by}`);
    return result(grouping, met, finalSql, isSplit(met) ? met.hash : null);
  }
  return distinctTotals(planner, grouping, met, valueName, places);
}

/** The last step without groups: parts of the values that each task has, then all of them. */
async function distinctTotals(
  planner: Planner,
  grouping: Grouping,
  met: Relation,
  valueName: string,
  places: readonly (readonly string[])[],
): Promise<Relation> {
  const types: string[] = [];
  const partials: string[] = [];
  const place = (sql: string, type: string): string => {
    partials.push(sql);
    types.push(type);
    return `c${types.length - 1}`;
  };
  const finals = grouping.aggregates.map((aggregate, at) => {
    if (aggregate.distinct) {
      const parts = partsOf({ ...aggregate, args: [valueName] })!;
      return parts.final(parts.partial.map((partial) => place(partial.sql, partial.type)));
    }
    // Parts stay parts: they are passed on as they are, in lists.
    const parts = partsOf(aggregate)!;
    const lists = places[at]!.map((name, index) => place(`list(${name})`, `${parts.partial[index]!.type}[]`));
    return { lists, parts };
  });
  const partial: Relation = {
    ...met,
    sql: selectSql(partials, from(met)),
    types,
    hash: null,
    divisible: null,
    emptyOnEmpty: false,
    kept: 1,
    rows: 1,
    bytes: rowBytes(types),
    label: [...met.label, "partial aggregate"],
  };
  const all = await gathered(planner, partial);
  const outputs = finals.map((final, at) => {
    const type = grouping.aggregates[at]!.type;
    if (typeof final === "string") return castSql(`(SELECT ${final} FROM parts)`, type);
    const names = final.lists.map((_, index) => `u${index}`);
    const unnested = final.lists.map((name, index) => `unnest(${name}) AS ${names[index]}`);
    return castSql(
      `(SELECT ${final.parts.final(names)} FROM (SELECT ${unnested.join(", ")} FROM parts) AS u)`,
      type,
    );
  });
  const sql = `WITH parts AS MATERIALIZED (${all.sql}) ${selectSql(outputs, "")}`;
  return result(grouping, all, sql, null);
}

/** Rows meet by their groups first; only what is grouped and aggregated is exchanged. */
async function afterExchange(planner: Planner, grouping: Grouping, input: Relation): Promise<Relation> {
  if (!isPlain(grouping) || grouping.groups.length === 0)
    return aggregated(grouping, await gathered(planner, input));
  const { sql, names } = grouped(grouping, input);
  const plain = grouping.groups.every((group) => group.column !== null);
  const wide: Relation = plain
    ? input
    : {
        ...input,
        sql,
        types: [
          ...input.types,
          ...grouping.groups.filter((group) => group.column === null).map((group) => group.type),
        ],
      };
  const keys = names.map(
    (name, at): Key => ({
      sql: name,
      column: Number(name.slice(1)),
      type: grouping.groups[at]!.type,
    }),
  );
  const met = await hashed(planner, wide, keys);
  return aggregated({ ...grouping, groups: keys }, met);
}
