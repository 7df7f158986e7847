/**
 * Runs the planner's stages in one process, task by task, so that a planner that errs gives a wrong answer: every task
 * sees its own share of what it reads and nothing else.
 */

import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import type { Catalog, FilePart, Table } from "../../workloads/sql/catalog.js";
import { PLAN_SETTINGS, type PlanOptions, planAndRun, planQuery } from "../../workloads/sql/plan/plan.js";
import type { Exchanged, OrderKey, Share, Stage, StageRunner } from "../../workloads/sql/plan/stage.js";

export type Cell = unknown;

/** A DuckDB of the test's own, and a catalog of the Parquet files that it writes. */
export class PlanBench {
  readonly catalog: FileCatalog = new FileCatalog();
  readonly #folder = mkdtempSync(join(tmpdir(), "millrace-plan-"));
  #connection!: DuckDBConnection;
  #lock: Promise<unknown> = Promise.resolve();
  #exchanges = 0;

  static async open(): Promise<PlanBench> {
    const bench = new PlanBench();
    const instance = await DuckDBInstance.create(":memory:", {
      threads: "1",
      allow_unsigned_extensions: "true",
    });
    bench.#connection = await instance.connect();
    // As in the driver: only so DuckDB has the files' statistics to plan by.
    await bench.run("SET parquet_metadata_cache = true");
    for (const setting of PLAN_SETTINGS) await bench.run(setting);
    return bench;
  }

  close(): void {
    this.#connection.closeSync();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** One statement at a time. */
  rows(sql: string): Promise<Cell[][]> {
    const done = this.#lock.then(
      async () => (await this.#connection.runAndReadAll(sql)).getRowsJson() as Cell[][],
    );
    this.#lock = done.catch(() => {});
    return done;
  }

  async run(sql: string): Promise<void> {
    await this.rows(sql);
  }

  /** Makes a table of several files: row i of the SELECT goes to file i % files. */
  async table(name: string, select: string, files = 3): Promise<void> {
    await this.run(
      `CREATE OR REPLACE TEMP TABLE made AS SELECT *, row_number() OVER () % ${files} AS file_of FROM (${select})`,
    );
    const paths: string[] = [];
    for (let file = 0; file < files; file += 1) {
      const path = join(this.#folder, `${name}-${file}.parquet`);
      await this.run(
        `COPY (SELECT * EXCLUDE (file_of) FROM made WHERE file_of = ${file}) TO '${path}' (FORMAT parquet)`,
      );
      paths.push(path);
    }
    await this.addTable(name, paths);
  }

  async addTable(name: string, paths: readonly string[], groups = false): Promise<void> {
    const list = paths.map((path) => `'${path}'`).join(", ");
    const described = await this.rows(`DESCRIBE SELECT * FROM read_parquet([${list}])`);
    const [[rows] = [0]] = await this.rows(`SELECT count(*)::INTEGER FROM read_parquet([${list}])`);
    const parts: FilePart[] = paths.map((path) => ({ path, rows: null, bytes: statSync(path).size }));
    const cut = groups ? parts.flatMap((part) => halves(part, Number(rows))) : parts;
    this.catalog.add({
      name,
      format: "parquet",
      columns: described.map(([column, type]) => ({ name: String(column), type: String(type) })),
      files: paths,
      bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
      rows: Number(rows),
      parts: cut,
    });
    await this.run(`CREATE OR REPLACE VIEW "${name}" AS SELECT * FROM read_parquet([${list}])`);
  }

  async plan(sql: string): Promise<string> {
    return String((await this.rows(planQuery(sql)))[0]![0]);
  }

  /** Plans the query and runs its stages. */
  async distributed(sql: string, partitions: number, options: Partial<PlanOptions> = {}): Promise<Answer> {
    const runner = new LocalRunner(this, partitions);
    const planned = await planAndRun(await this.plan(sql), this.catalog, runner, {
      partitionsHint: partitions,
      broadcastBytes: 0,
      scanBytes: 0,
      smallBytes: 0,
      ...options,
    });
    const rows = await this.rows(runner.resultSql(planned.result));
    const exchanges = planned.stages.length - 1;
    await runner.close();
    return { rows, stages: planned.stages, exchanges, ordered: planned.ordered };
  }

  nextExchange(): number {
    return this.#exchanges++;
  }
}

function halves(part: FilePart, rows: number): FilePart[] {
  const middle = Math.floor(rows / 2);
  if (rows < 2) return [part];
  const cut = (first: number, end: number): FilePart => ({
    ...part,
    rows: { first, end },
    bytes: Math.ceil(part.bytes / 2),
  });
  return [cut(0, middle), cut(middle, rows)];
}

export interface Answer {
  rows: Cell[][];
  stages: readonly Stage[];
  exchanges: number;
  ordered: boolean;
}

class FileCatalog implements Catalog {
  readonly tables = new Map<string, Table>();

  add(table: Table): void {
    this.tables.set(table.name, table);
  }

  viewSql(table: Table): string {
    return `CREATE VIEW "${table.name}" AS SELECT * FROM read_parquet([${table.files.map((f) => `'${f}'`).join(", ")}])`;
  }

  singleViewSql(table: Table): string {
    return this.viewSql(table);
  }

  tableOfFiles(files: readonly string[]): Table | null {
    for (const table of this.tables.values()) {
      if (table.files.length === files.length && table.files.every((file) => files.includes(file)))
        return table;
    }
    return null;
  }

  scanSql(
    table: Table,
    columns: readonly string[],
    parts: readonly FilePart[],
    filter: string | null,
  ): string {
    const where = filter === null ? "" : ` WHERE ${filter}`;
    const list = columns.map((column, at) => `"${column}" AS c${at}`).join(", ");
    const scans = parts.map((part) => {
      const rows = part.rows;
      const cut =
        rows === null ? "" : ` WHERE file_row_number >= ${rows.first} AND file_row_number < ${rows.end}`;
      return `SELECT ${list} FROM read_parquet(['${part.path}'])${cut}`;
    });
    if (scans.length === 0) scans.push(`SELECT ${list} FROM read_parquet(['${table.files[0]}']) WHERE false`);
    return `SELECT * FROM (${scans.join(" UNION ALL ")}) AS scanned${where}`;
  }

  async close(): Promise<void> {}
}

/** Pieces that a divisible partition is divided into. */
const PIECES = 2;

class LocalRunner implements StageRunner {
  readonly real = true;
  readonly #bench: PlanBench;
  readonly #partitions: number;
  /** Table of an exchange, by its stage. */
  readonly #tables = new Map<number, string>();

  constructor(bench: PlanBench, partitions: number) {
    this.#bench = bench;
    this.#partitions = partitions;
  }

  async run(stage: Stage): Promise<Exchanged> {
    const reads = [...stage.tables, ...stage.exchanges];
    const split = reads.some((read) => read.share === "split");
    const single = stage.ordered && stage.output.kind !== "sorted";
    const pieces = stage.divisible === null || single ? 1 : PIECES;
    if (pieces > 1 && stage.tables.some((read) => read.share === "split")) {
      throw new Error(`stage ${stage.id} is divisible and splits a table`);
    }
    const tasks = split && !single ? this.#partitions * pieces : 1;
    const target = `exchange_table_${this.#bench.nextExchange()}`;
    const columns = Array.from({ length: stage.width }, (_, at) => `c${at}`);
    for (let task = 0; task < tasks; task += 1) {
      const inputs = [
        ...stage.tables.map(
          (read) => `${read.name} AS NOT MATERIALIZED (${this.#tableSql(stage, read.name, task, tasks)})`,
        ),
        ...stage.exchanges.map((read) => {
          const divided = read.name === stage.divisible;
          return `${read.name} AS NOT MATERIALIZED (${this.#exchangeSql(read.exchange, read.share, task, tasks, pieces, divided)})`;
        }),
      ];
      const prefix = inputs.length === 0 ? "" : `WITH ${inputs.join(", ")} `;
      const body = `${prefix}${stage.sql}`;
      const named = `SELECT ${columns.join(", ")}, (${this.#partitionSql(stage, task)})::INTEGER AS partition_of FROM (${body}) AS fragment`;
      await this.#bench.run(
        task === 0 ? `CREATE TEMP TABLE ${target} AS ${named}` : `INSERT INTO ${target} ${named}`,
      );
    }
    if (stage.output.kind === "range") await this.#makeRanges(target, stage.output.order, columns);
    this.#tables.set(stage.id, target);
    return this.#describe(stage, target, columns);
  }

  /** Rows of the result, in order. */
  resultSql(result: Exchanged): string {
    return `SELECT * EXCLUDE (partition_of) FROM ${this.#tables.get(result.stage)} ORDER BY partition_of, rowid`;
  }

  async close(): Promise<void> {
    for (const table of this.#tables.values()) await this.#bench.run(`DROP TABLE ${table}`);
  }

  #tableSql(stage: Stage, name: string, task: number, tasks: number): string {
    const read = stage.tables.find((candidate) => candidate.name === name)!;
    const table = this.#bench.catalog.tables.get(read.table)!;
    const all = table.parts;
    const parts = all.filter((_, at) => mine(read.share, Math.floor((at * tasks) / all.length), task));
    return this.#bench.catalog.scanSql(table, read.columns, parts, read.filter);
  }

  #exchangeSql(
    exchange: Exchanged,
    share: Share,
    task: number,
    tasks: number,
    pieces: number,
    divided: boolean,
  ): string {
    const columns = exchange.types.map((_, at) => `c${at}`).join(", ");
    const from = `FROM ${this.#tables.get(exchange.stage)}`;
    const base = `SELECT ${columns} ${from}`;
    if (share === "whole" || (share === "once" && task === 0)) return base;
    if (share === "once") return `${base} WHERE false`;
    const piece = divided ? ` AND rowid % ${pieces} = ${task % pieces}` : "";
    // The order of ranges is that of the tasks.
    return `${base} WHERE partition_of % ${tasks / pieces} = ${Math.floor(task / pieces)}${piece}`;
  }

  #partitionSql(stage: Stage, task: number): string {
    switch (stage.output.kind) {
      case "hash":
        return `hash(${stage.output.keys.join(", ")}) % ${this.#partitions}`;
      case "sorted":
        return String(task);
      default:
        return "0";
    }
  }

  async #makeRanges(target: string, order: readonly OrderKey[], columns: readonly string[]): Promise<void> {
    const keys = order
      .map(
        (key) =>
          `${key.expression} ${key.descending ? "DESC" : "ASC"} NULLS ${key.nullsFirst ? "FIRST" : "LAST"}`,
      )
      .join(", ");
    await this.#bench.run(
      `CREATE OR REPLACE TEMP TABLE ${target} AS SELECT ${columns.join(", ")}, ` +
        `(ntile(${this.#partitions}) OVER (ORDER BY ${keys}) - 1)::INTEGER AS partition_of FROM ${target}`,
    );
  }

  async #describe(stage: Stage, target: string, columns: readonly string[]): Promise<Exchanged> {
    const described = await this.#bench.rows(`DESCRIBE ${target}`);
    const counts = await this.#bench.rows(
      `SELECT partition_of, count(*)::INTEGER FROM ${target} GROUP BY ALL`,
    );
    const one = stage.output.kind === "gather" || stage.output.kind === "broadcast";
    const partitions = one ? 1 : this.#partitions;
    const rowBytes = 12 * columns.length;
    const partitionBytes = Array.from({ length: partitions }, () => 0);
    for (const [partition, rows] of counts)
      partitionBytes[Number(partition) % partitions]! += Number(rows) * rowBytes;
    const rows = counts.reduce((sum, [, count]) => sum + Number(count), 0);
    return {
      stage: stage.id,
      output: stage.output,
      types: described.slice(0, columns.length).map(([, type]) => String(type)),
      partitions,
      rows,
      bytes: rows * rowBytes,
      partitionBytes,
    };
  }
}

function mine(share: Share, taskOfPart: number, task: number): boolean {
  return share === "whole" || (share === "once" ? task === 0 : taskOfPart === task);
}

const NUMBER = /^-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i;

function isNumber(value: Cell): boolean {
  return typeof value === "number" || (typeof value === "string" && NUMBER.test(value));
}

/** Whether two values are the same, numbers but for rounding. */
export function sameCell(a: Cell, b: Cell): boolean {
  if (a === null || b === null || a === undefined || b === undefined) return (a ?? null) === (b ?? null);
  if (isNumber(a) && isNumber(b)) {
    if (a === b) return true;
    const [x, y] = [Number(a), Number(b)];
    return Math.abs(x - y) <= 1e-9 * Math.max(1, Math.abs(x), Math.abs(y));
  }
  if (typeof a === "object" && typeof b === "object") {
    const [x, y] = [Object.entries(a), Object.entries(b)];
    return (
      x.length === y.length && x.every(([key, value], at) => y[at]![0] === key && sameCell(value, y[at]![1]))
    );
  }
  return a === b;
}

function sameRow(a: readonly Cell[], b: readonly Cell[]): boolean {
  return a.length === b.length && a.every((cell, at) => sameCell(cell, b[at]));
}

/** For sorting rows into one order: numbers coarsely. */
function rowText(row: readonly Cell[]): string {
  return JSON.stringify(row.map((cell) => (isNumber(cell) ? Number(cell).toPrecision(7) : cell)));
}

/** The first difference between two answers, or null. */
export function difference(actual: Cell[][], expected: Cell[][], ordered: boolean): string | null {
  if (actual.length !== expected.length) return `${actual.length} rows instead of ${expected.length}`;
  const sort = (rows: Cell[][]): Cell[][] =>
    ordered
      ? rows
      : rows
          .map((row) => ({ row, text: rowText(row) }))
          .sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0))
          .map(({ row }) => row);
  const [a, e] = [sort(actual), sort(expected)];
  const at = a.findIndex((row, index) => !sameRow(row, e[index]!));
  return at < 0 ? null : `row ${at}: ${JSON.stringify(a[at])} instead of ${JSON.stringify(e[at])}`;
}
