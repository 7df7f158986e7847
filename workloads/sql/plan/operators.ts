/** Which operator of DuckDB's plan is translated by what. */

import { planAggregate } from "./aggregates.js";
import { planColumnData, planCte, planCteRef, planDelimGet, planDelimJoin, planRecursive } from "./ctes.js";
import { unsupported } from "./errors.js";
import { planJoin } from "./joins.js";
import { asString, type JsonObject } from "./json.js";
import { planLimit, planOrder, planSample, planTopN } from "./order.js";
import type { Needed, Planner, Scope } from "./planner.js";
import type { Relation } from "./relation.js";
import { planDummy, planEmpty, planFilter, planProjection, planUnnest, planValues } from "./rows.js";
import { planGet } from "./scans.js";
import { planDistinct, planSetOperation, planUnion } from "./sets.js";
import { planWindow } from "./windows.js";

type Translation = (planner: Planner, node: JsonObject, scope: Scope, needed: Needed) => Promise<Relation>;

const OPERATORS: Record<string, Translation> = {
  LOGICAL_GET: planGet,
  LOGICAL_FILTER: planFilter,
  LOGICAL_PROJECTION: planProjection,
  LOGICAL_UNNEST: planUnnest,
  LOGICAL_EXPRESSION_GET: planValues,
  LOGICAL_DUMMY_SCAN: planDummy,
  LOGICAL_EMPTY_RESULT: planEmpty,
  LOGICAL_CHUNK_GET: planColumnData,
  LOGICAL_COMPARISON_JOIN: planJoin,
  LOGICAL_ASOF_JOIN: planJoin,
  LOGICAL_ANY_JOIN: planJoin,
  LOGICAL_CROSS_PRODUCT: planJoin,
  LOGICAL_POSITIONAL_JOIN: planJoin,
  LOGICAL_DELIM_JOIN: planDelimJoin,
  LOGICAL_DELIM_GET: planDelimGet,
  LOGICAL_AGGREGATE_AND_GROUP_BY: planAggregate,
  LOGICAL_WINDOW: planWindow,
  LOGICAL_DISTINCT: planDistinct,
  LOGICAL_UNION: planUnion,
  LOGICAL_INTERSECT: planSetOperation,
  LOGICAL_EXCEPT: planSetOperation,
  LOGICAL_ORDER_BY: planOrder,
  LOGICAL_TOP_N: planTopN,
  LOGICAL_LIMIT: planLimit,
  LOGICAL_SAMPLE: planSample,
  LOGICAL_MATERIALIZED_CTE: planCte,
  LOGICAL_CTE_REF: planCteRef,
  LOGICAL_RECURSIVE_CTE: planRecursive,
};

export async function planOperator(
  planner: Planner,
  node: JsonObject,
  scope: Scope,
  needed: Needed,
): Promise<Relation> {
  const type = asString(node.type);
  const translation = Object.hasOwn(OPERATORS, type) ? OPERATORS[type] : undefined;
  if (translation === undefined) throw unsupported(type);
  return translation(planner, node, scope, needed);
}
