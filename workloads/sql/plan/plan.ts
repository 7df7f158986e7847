/**
 * From DuckDB's optimised plan to stages that have run. The plan is walked once; an operator stays a lazy SQL fragment
 * until rows must meet in another way than they lie. Then the fragment runs as a stage, and what it leaves decides how
 * the walk goes on.
 */

import { MillraceError } from "../../../client/errors.js";
import type { Catalog } from "../catalog.js";
import { unsupported } from "./errors.js";
import { readExchange } from "./exchange.js";
import { expression, isVolatile, orderList, orders } from "./expressions.js";
import { asArray, asIndex, asObject, asObjects, asString, type JsonObject, parseJson } from "./json.js";
import { planOperator } from "./operators.js";
import type { Needed, Planner, PlanOptions, Scope } from "./planner.js";
import { chooseColumns, from, isSplit, named, type Relation } from "./relation.js";
import { onlyChild, project } from "./rows.js";
import type { Exchanged, ExchangeRead, OrderKey, Output, Stage, StageRunner, TableRead } from "./stage.js";

export type { PlanOptions } from "./planner.js";

/**
 * Optimizers that the DuckDB which makes the plan must do without: what they do the plan's JSON does not say, or holds
 * in one process only.
 */
export const DISABLED_OPTIMIZERS = [
  "column_lifetime",
  // It leaves count(*) of several grouping sets in a state that cannot be serialised; function workers do it anyway.
  "common_aggregate",
  "compressed_materialization",
  "late_materialization",
  "in_clause",
  "join_filter_pushdown",
  "sampling_pushdown",
  "top_n_window_elimination",
  "window_self_join",
] as const;

/** The statements that DuckDB runs before it plans. */
export const PLAN_SETTINGS: readonly string[] = [
  `SET disabled_optimizers = '${DISABLED_OPTIMIZERS.join(",")}'`,
];

/** The query whose one value is the plan of `sql` as JSON: the argument of `planAndRun`. */
export function planQuery(sql: string): string {
  const text = sql.replaceAll("'", "''");
  return `SELECT json_serialize_plan('${text}', skip_null := true, skip_empty := false, optimize := true)`;
}

export interface Planned {
  /** One partition; or partitions in order, each of them sorted, of a large ORDER BY. */
  result: Exchanged;
  width: number;
  /** Whether the order of the rows means something. */
  ordered: boolean;
  /** In the order in which they were asked for. */
  stages: readonly Stage[];
}

const LABEL_MAX = 200;

class Walk implements Planner {
  readonly catalog: Catalog;
  readonly options: PlanOptions;
  readonly #runner: StageRunner;
  readonly stages: Stage[] = [];
  /** By all that they are: what several places of the plan ask for runs once. */
  readonly #alike = new Map<string, Promise<Exchanged>>();
  #reads = 0;

  constructor(catalog: Catalog, runner: StageRunner, options: PlanOptions) {
    this.catalog = catalog;
    this.options = options;
    this.#runner = runner;
  }

  plan(node: JsonObject, scope: Scope, needed: Needed = null): Promise<Relation> {
    return planOperator(this, node, scope, needed);
  }

  nextRead(): number {
    return this.#reads++;
  }

  run(
    relation: Relation,
    output: Output,
    { ordered = false, last = false }: { ordered?: boolean; last?: boolean } = {},
  ): Promise<Exchanged> {
    const names = new Map<number, string>();
    const tables: TableRead[] = [];
    const exchanges: ExchangeRead[] = [];
    for (const { id, source, share } of relation.reads) {
      if (names.has(id)) continue;
      if (source.kind === "table") {
        const name = `table_${tables.length}`;
        names.set(id, name);
        const { table, columns, filter } = source;
        tables.push({ name, table, columns, filter, share });
      } else {
        const name = `exchange_${exchanges.length}`;
        names.set(id, name);
        exchanges.push({ name, exchange: source.exchange, share });
      }
    }
    const label = relation.label.join(", ");
    // The runner puts a WITH of its own before it.
    const sql = relation.sql.startsWith("WITH ") ? `SELECT * ${from(relation)}` : relation.sql;
    const stage: Stage = {
      id: this.stages.length,
      label: label.length > LABEL_MAX ? `${label.slice(0, LABEL_MAX - 1)}…` : label,
      sql: named(sql, (id) => names.get(id)!),
      width: relation.types.length,
      tables,
      exchanges,
      output,
      ordered,
      last,
      estimatedBytes: Math.ceil(relation.bytes),
      divisible: relation.divisible === null ? null : (names.get(relation.divisible) ?? null),
    };
    const { sql: text, divisible } = stage;
    const sources = exchanges.map((read) => [read.exchange.stage, read.share]);
    const key = JSON.stringify([text, tables, sources, output, ordered, divisible]);
    const known = relation.stable && !last ? this.#alike.get(key) : undefined;
    if (known !== undefined) return known;
    this.stages.push(stage);
    const done = this.#runner.run(stage);
    this.#alike.set(key, done);
    return done;
  }
}

/** The plan out of the JSON that `planQuery` gives: SQL_FAILED with DuckDB's words where it is an error. */
function readPlan(planJson: string): JsonObject {
  if (planJson === "") {
    throw new MillraceError(
      "UNSUPPORTED_OPERATOR",
      "the plan has a constant that has no JSON, such as a BIT",
    );
  }
  const document = asObject(parseJson(planJson));
  if (document.error === true) {
    if (document.error_type === "not implemented")
      throw unsupported("the statement", asString(document.error_message));
    throw new MillraceError("SQL_FAILED", asString(document.error_message));
  }
  const plans = asObjects(document.plans);
  if (plans.length !== 1) throw new MillraceError("INVALID_ARGUMENT", "the query must be one statement");
  return plans[0]!;
}

/**
 * Plans and runs a query, whose plan DuckDB made after `PLAN_SETTINGS`. UNSUPPORTED_OPERATOR names what has no
 * translation; errors of the runner are passed on.
 */
export async function planAndRun(
  planJson: string,
  catalog: Catalog,
  runner: StageRunner,
  options: PlanOptions,
): Promise<Planned> {
  const walk = new Walk(catalog, runner, options);
  const root = readPlan(planJson);
  const scope: Scope = { ctes: new Map(), delim: null, alone: false };
  const planned = (await planLargeOrder(walk, root, scope)) ?? (await planAll(walk, root, scope));
  return { ...planned, stages: walk.stages };
}

async function planAll(walk: Walk, root: JsonObject, scope: Scope): Promise<Omit<Planned, "stages">> {
  return finish(walk, await walk.plan(root, scope));
}

async function finish(walk: Walk, relation: Relation): Promise<Omit<Planned, "stages">> {
  const result = await walk.run(relation, { kind: "gather" }, { ordered: relation.ordered, last: true });
  return { result, width: relation.types.length, ordered: relation.ordered };
}

/** An ORDER BY that only projections stand above, with more rows than one task should sort; else null. */
async function planLargeOrder(
  walk: Walk,
  root: JsonObject,
  scope: Scope,
): Promise<Omit<Planned, "stages"> | null> {
  const above: JsonObject[] = [];
  let node = root;
  while (node.type === "LOGICAL_PROJECTION" && !isVolatile(node.expressions)) {
    above.push(node);
    node = onlyChild(node);
  }
  if (node.type !== "LOGICAL_ORDER_BY") return null;
  const order = orders(node.orders);
  const chosen = asArray(node.projections).map(asIndex);
  const projected = (relation: Relation): Relation =>
    above.reduceRight(
      (input, projection) => project(input, asObjects(projection.expressions)),
      chosen.length === 0 ? relation : chooseColumns(relation, chosen),
    );
  const input = await walk.plan(onlyChild(node), scope);
  const sorted = (relation: Relation): Relation => ({
    ...relation,
    sql: `SELECT * ${from(relation)} ORDER BY ${orderList(order)}`,
    divisible: null,
    label: [...relation.label, "order"],
  });
  if (!isSplit(input) || input.bytes <= walk.options.broadcastBytes) {
    const all = isSplit(input)
      ? readExchange(walk, await walk.run(input, { kind: "gather" }), input, "whole", null)
      : input;
    return finish(walk, { ...projected(sorted(all)), ordered: true });
  }
  const keys = order.map(
    (key): OrderKey => ({
      expression: expression(key.expression),
      descending: key.descending,
      nullsFirst: key.nullsFirst,
    }),
  );
  const ranges = await walk.run(input, { kind: "range", order: keys });
  const relation = projected(sorted(readExchange(walk, ranges, input, "split", null)));
  const result = await walk.run(relation, { kind: "sorted" }, { ordered: true, last: true });
  return { result, width: relation.types.length, ordered: true };
}
