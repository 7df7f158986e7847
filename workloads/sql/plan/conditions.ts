/** What joins compare. */

import { unsupported } from "./errors.js";
import { columnOf, columnsRead, comparison, expression, typeOf } from "./expressions.js";
import { asObject, asObjects, asString, isObject, type Json, type JsonObject } from "./json.js";
import type { Key } from "./planner.js";
import { sqlType } from "./types.js";

/** `left operator right`, each over its own side's columns. */
export interface Comparison {
  left: JsonObject;
  right: JsonObject;
  type: string;
}

export interface Conditions {
  comparisons: readonly Comparison[];
  /** Over the columns of both sides, those of the right behind those of the left. */
  others: readonly JsonObject[];
}

const FLIPPED: Record<string, string> = {
  COMPARE_LESSTHAN: "COMPARE_GREATERTHAN",
  COMPARE_GREATERTHAN: "COMPARE_LESSTHAN",
  COMPARE_LESSTHANOREQUALTO: "COMPARE_GREATERTHANOREQUALTO",
  COMPARE_GREATERTHANOREQUALTO: "COMPARE_LESSTHANOREQUALTO",
};

export function isEquality(condition: Comparison): boolean {
  return condition.type === "COMPARE_EQUAL" || condition.type === "COMPARE_NOT_DISTINCT_FROM";
}

/** Of LOGICAL_COMPARISON_JOIN and its kin. */
export function comparisonConditions(node: JsonObject): Conditions {
  const comparisons: Comparison[] = [];
  const others: JsonObject[] = [];
  for (const condition of asObjects(node.conditions)) {
    if (isObject(condition.left) && isObject(condition.right)) {
      comparisons.push({
        left: condition.left,
        right: condition.right,
        type: asString(condition.comparison),
      });
    } else if (isObject(condition.expression)) {
      others.push(condition.expression);
    } else {
      throw unsupported(String(node.type), "a condition of it has no sides");
    }
  }
  if (isObject(node.predicate)) others.push(node.predicate);
  return { comparisons, others };
}

/** Of LOGICAL_ANY_JOIN: one expression over both sides; what compares one side with the other is told apart. */
export function anyConditions(node: JsonObject, leftWidth: number): Conditions {
  const comparisons: Comparison[] = [];
  const others: JsonObject[] = [];
  const visit = (part: JsonObject): void => {
    if (part.expression_class === "BOUND_CONJUNCTION" && part.type === "CONJUNCTION_AND") {
      asObjects(part.children).forEach(visit);
      return;
    }
    if (part.expression_class === "BOUND_COMPARISON") {
      const left = sideOf(part.left, leftWidth);
      const right = sideOf(part.right, leftWidth);
      const type = asString(part.type);
      if (left === "left" && right === "right") {
        comparisons.push({ left: asObject(part.left), right: shifted(part.right, leftWidth), type });
        return;
      }
      if (left === "right" && right === "left") {
        comparisons.push({
          left: asObject(part.right),
          right: shifted(part.left, leftWidth),
          type: FLIPPED[type] ?? type,
        });
        return;
      }
    }
    others.push(part);
  };
  visit(asObject(node.condition));
  return { comparisons, others };
}

function sideOf(value: Json | undefined, leftWidth: number): "left" | "right" | null {
  const read = [...columnsRead(value)];
  if (read.length === 0) return null;
  if (read.every((at) => at < leftWidth)) return "left";
  return read.every((at) => at >= leftWidth) ? "right" : null;
}

function shifted(value: Json | undefined, by: number): JsonObject {
  const move = (item: Json): Json => {
    if (Array.isArray(item)) return (item as readonly Json[]).map(move);
    if (!isObject(item)) return item;
    if (item.expression_class === "BOUND_REF" && typeof item.index === "number") {
      return { ...item, index: item.index - by };
    }
    return Object.fromEntries(Object.entries(item).map(([key, child]) => [key, move(child)]));
  };
  return asObject(move(asObject(value)));
}

/** SQL over `l.c…` and `r.c…`. */
export function comparisonSql(condition: Comparison): string {
  return `${leftSql(condition.left)} ${comparison(condition.type)} ${rightSql(condition.right)}`;
}

/**
 * As `comparisonSql`, of an ASOF join: DuckDB takes a comparison for one of both sides only where each of them names a
 * column, which it may have replaced by a constant that it is known to be.
 */
function asofSql(condition: Comparison): string {
  const left = withColumn(condition.left, leftSql(condition.left), "l");
  const right = withColumn(condition.right, rightSql(condition.right), "r");
  return `${left} ${comparison(condition.type)} ${right}`;
}

function withColumn(value: JsonObject, sql: string, side: "l" | "r"): string {
  return columnsRead(value).size > 0 ? sql : `CASE WHEN ${side}.c0 IS NULL THEN ${sql} ELSE ${sql} END`;
}

export function leftSql(value: JsonObject): string {
  return expression(value, (at) => `l.c${at}`);
}

export function rightSql(value: JsonObject): string {
  return expression(value, (at) => `r.c${at}`);
}

export function bothSql(value: JsonObject, leftWidth: number): string {
  return expression(value, (at) => (at < leftWidth ? `l.c${at}` : `r.c${at - leftWidth}`));
}

/** All conditions, for ON. */
export function conditionsSql(conditions: Conditions, leftWidth: number, asof = false): string {
  const all = [
    ...conditions.comparisons.map(asof ? asofSql : comparisonSql),
    ...conditions.others.map((value) => bothSql(value, leftWidth)),
  ];
  return all.length === 0 ? "true" : all.join(" AND ");
}

export function keyOf(value: JsonObject): Key {
  return { sql: expression(value), column: columnOf(value), type: sqlType(typeOf(value)) };
}
