/** How a query would be cut into stages: the planner at work, with sizes as it expects them and nothing run. */
import { MillraceError } from "../../client/errors.js";
import { formatBytes, formatCount } from "../report/format.js";
import type { Catalog } from "./catalog.js";
import { openEngine, queryTexts, runStatement } from "./duckdb.js";
import { PLAN_SETTINGS, planAndRun, planQuery } from "./plan/plan.js";
import type { Exchanged, Output, Stage, StageRunner, TableRead } from "./plan/stage.js";
import { planSizes } from "./sizes.js";

export interface ExplainOptions {
  /** One SELECT. */
  sql: string;
  catalog: Catalog;
  workers: number;
  /** As the driver's. */
  partitions: number | null;
  broadcastBytes: number | null;
}

export interface Explained {
  /** The last one's rows are the result. */
  stages: readonly Stage[];
  /** Of every exchange by hash or range. */
  partitions: number;
}

/** Bytes of a row, about, where only the bytes are known. */
const ROW_BYTES = 32;

/** Of a filter, in the tree. */
const FILTER_CHARACTERS = 100;

/** Leaves what the planner expects. */
class ExpectingRunner implements StageRunner {
  readonly real = false;
  readonly #partitions: number;

  constructor(partitions: number) {
    this.#partitions = partitions;
  }

  run({ id, output, estimatedBytes }: Stage): Promise<Exchanged> {
    const partitions = output.kind === "hash" || output.kind === "range" ? this.#partitions : 1;
    return Promise.resolve({
      stage: id,
      output,
      types: [],
      partitions,
      rows: Math.ceil(estimatedBytes / ROW_BYTES),
      bytes: estimatedBytes,
      partitionBytes: new Array<number>(partitions).fill(estimatedBytes / partitions),
    });
  }
}

/** The stages of a query. Errors as of running it, but for those of its data. */
export async function explainSql({ sql, catalog, ...options }: ExplainOptions): Promise<Explained> {
  const { partitions, plan } = planSizes({ catalog, ...options });
  const engine = openEngine({ threads: 1 });
  try {
    for (const table of catalog.tables.values()) await runStatement(engine, catalog.viewSql(table));
    for (const setting of PLAN_SETTINGS) await runStatement(engine, setting);
    const [row] = await queryTexts(engine, planQuery(sql));
    const { stages } = await planAndRun(row?.[0] ?? "", catalog, new ExpectingRunner(partitions), plan);
    return { stages, partitions };
  } finally {
    await engine.close();
  }
}

/** A stage for programs: `millrace sql --explain --json`. */
export interface ExplainedStage {
  id: number;
  label: string;
  output: Output["kind"];
  /** SQL over the stage's columns; none where rows do not go by keys. */
  keys: string[];
  estimatedBytes: number;
  tables: { table: string; share: string; bytes: number; filter: string | null }[];
  exchanges: { stage: number; share: string }[];
  sql: string;
}

export function explainedStages(stages: readonly Stage[], catalog: Catalog): ExplainedStage[] {
  return stages.map((stage) => ({
    id: stage.id,
    label: stage.label,
    output: stage.output.kind,
    keys: keysOf(stage.output),
    estimatedBytes: stage.estimatedBytes,
    tables: stage.tables.map(({ table, share, filter }) => ({
      table,
      share,
      bytes: catalog.tables.get(table)?.bytes ?? 0,
      filter,
    })),
    exchanges: stage.exchanges.map(({ exchange, share }) => ({ stage: exchange.stage, share })),
    sql: stage.sql,
  }));
}

/**
 * The stages as a tree, the result at its root: under each what it reads. A stage that several read is drawn where it
 * is read first.
 */
export function stageTree({ stages, partitions }: Explained, catalog: Catalog): string {
  const byId = new Map(stages.map((stage) => [stage.id, stage]));
  const last = stages.at(-1);
  if (last === undefined) throw new MillraceError("INTERNAL", "a query has at least one stage");
  const drawn = new Set<number>();
  const lines: string[] = [];
  const draw = (stage: Stage, head: string, below: string, how: string): void => {
    const again = drawn.has(stage.id) ? ", drawn above" : "";
    lines.push(`${head}stage ${stage.id} (${how}${again}): ${stage.label}`);
    if (again !== "") return;
    drawn.add(stage.id);
    const inputs = inputsOf(stage, byId, catalog, partitions);
    inputs.forEach((input, i) => {
      const end = i === inputs.length - 1;
      const branch = `${below}${end ? "└─ " : "├─ "}`;
      if (input.stage === null) lines.push(`${branch}${input.how}`);
      else draw(input.stage, branch, `${below}${end ? "   " : "│  "}`, input.how);
    });
  };
  draw(last, "", "", `the result, about ${sizeOf(last)}`);
  const exchanged = stages.filter((stage) => stage !== last);
  const bytes = exchanged.reduce((sum, stage) => sum + stage.estimatedBytes, 0);
  lines.push(
    `${count(stages.length, "stage")}, ${count(exchanged.length, "exchange")} of about ${formatBytes(Math.round(bytes))} in all; ` +
      "sizes are guesses: when it runs, real ones decide what is broadcast and what is hashed",
  );
  return `${lines.join("\n")}\n`;
}

interface Input {
  stage: Stage | null;
  how: string;
}

function inputsOf(
  stage: Stage,
  byId: ReadonlyMap<number, Stage>,
  catalog: Catalog,
  partitions: number,
): Input[] {
  const exchanges = stage.exchanges.map(({ exchange, share }): Input => {
    const from = byId.get(exchange.stage);
    if (from === undefined) throw new MillraceError("INTERNAL", `there is no stage ${exchange.stage}`);
    const whole = share === "whole" && from.output.kind === "hash" ? ", read by every task" : "";
    return { stage: from, how: `${outputOf(from.output, partitions)}, about ${sizeOf(from)}${whole}` };
  });
  return [
    ...stage.tables.map((read): Input => ({ stage: null, how: tableLine(read, catalog) })),
    ...exchanges,
  ];
}

function tableLine({ table, columns, filter, share }: TableRead, catalog: Catalog): string {
  const found = catalog.tables.get(table);
  const size = found === undefined ? "" : `${formatBytes(found.bytes)}, ${formatCount(found.rows)} rows, `;
  const how = share === "split" ? "split" : share === "whole" ? "read by every task" : "read by one task";
  const names = (filter ?? "").replace(/\bc(\d+)\b/g, (all, at: string) => columns[Number(at)] ?? all);
  const shown = names.length > FILTER_CHARACTERS ? `${names.slice(0, FILTER_CHARACTERS - 1)}…` : names;
  return `table ${table} (${size}${how})${filter === null ? "" : `: ${shown}`}`;
}

function outputOf(output: Output, partitions: number): string {
  const keys = keysOf(output);
  if (keys.length === 0) return output.kind;
  return `${output.kind} by ${keys.join(", ")} in ${partitions} partitions`;
}

function keysOf(output: Output): string[] {
  if (output.kind === "hash") return [...output.keys];
  if (output.kind === "range") return output.order.map(({ expression }) => expression);
  return [];
}

function sizeOf(stage: Stage): string {
  return formatBytes(Math.round(stage.estimatedBytes));
}

function count(number: number, what: string): string {
  return `${formatCount(number)} ${what}${number === 1 ? "" : "s"}`;
}
