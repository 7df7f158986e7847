/** Queries on function workers beside single-node DuckDB: a node, a pool, tables, and both answers as text. */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { createExecutor, type Executor } from "../../functions/index.js";
import type { Catalog } from "../../workloads/sql/catalog.js";
import { runSql, type SqlOptions, type SqlProgress, type SqlRun } from "../../workloads/sql/driver.js";
import { openCatalog } from "../../workloads/sql/tables.js";
import { type Daemon, type DaemonOptions, startDaemon } from "../support/daemon.js";

export type Rows = (string | null)[][];

export interface Answer {
  run: SqlRun;
  rows: Rows;
}

export interface RunChanges extends Partial<Omit<SqlOptions, "sql" | "catalog">> {
  onProgress?: (progress: SqlProgress) => void;
  signal?: AbortSignal;
}

/** Statements that make tables, by the file that each becomes. */
export type TableStatements = Readonly<Record<string, string>>;

/** Makes files of tables: the extension says which format. */
export async function makeTables(directory: string, tables: TableStatements): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  try {
    for (const [file, select] of Object.entries(tables)) {
      const options = file.endsWith(".csv") ? "FORMAT csv, HEADER" : "FORMAT parquet, ROW_GROUP_SIZE 2048";
      if (file.includes("/")) mkdirSync(join(directory, file, ".."), { recursive: true });
      await connection.run(`COPY (${select}) TO '${join(directory, file)}' (${options})`);
    }
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

/** A daemon, a namespace in it, function workers and a folder with tables. Ends all of it when disposed. */
export class SqlPlace implements AsyncDisposable {
  readonly directory: string;
  readonly daemon: Daemon;
  readonly client: Client;
  readonly namespace: Namespace;
  readonly executor: Executor;
  readonly catalog: Catalog;
  readonly #temporaryBefore: string | undefined;
  /** The daemon's and the catalog's. */
  readonly #thereBefore: ReadonlySet<string>;

  private constructor(
    parts: Omit<SqlPlace, "run" | "expected" | "at" | "leftovers" | typeof Symbol.asyncDispose>,
    temporaryBefore: string | undefined,
  ) {
    this.#temporaryBefore = temporaryBefore;
    this.#thereBefore = new Set(readdirSync(tmpdir()));
    this.directory = parts.directory;
    this.daemon = parts.daemon;
    this.client = parts.client;
    this.namespace = parts.namespace;
    this.executor = parts.executor;
    this.catalog = parts.catalog;
  }

  static async open(
    tables: TableStatements | string,
    { workers = 2, daemon: options = {} }: { workers?: number; daemon?: DaemonOptions } = {},
  ): Promise<SqlPlace> {
    const directory = mkdtempSync(join(tmpdir(), "millrace-sql-test-"));
    const data = typeof tables === "string" ? tables : join(directory, "data");
    if (typeof tables !== "string") await makeTables(data, tables);
    const temporary = join(directory, "tmp");
    mkdirSync(temporary);
    // Of this process and all that it starts: what is left there is theirs.
    const before = process.env.TMPDIR;
    process.env.TMPDIR = temporary;
    const daemon = await startDaemon({ dram: "1GiB", ...options });
    if (daemon.s3Address !== "") process.env.AWS_ENDPOINT_URL = `http://${daemon.s3Address}`;
    const client = await connect(daemon.endpoint);
    const namespace = await client.createNamespace(`sql-test-${randomBytes(4).toString("hex")}`);
    const executor = createExecutor({ workers, endpoint: daemon.endpoint, namespace: namespace.name });
    return new SqlPlace(
      { directory, daemon, client, namespace, executor, catalog: await openCatalog(data) },
      before,
    );
  }

  at(name: string): string {
    return join(this.directory, name);
  }

  /** On function workers. */
  async run(sql: string, { onProgress, signal, ...changes }: RunChanges = {}): Promise<Answer> {
    const { namespace, executor, catalog } = this;
    const run = await runSql(
      {
        sql,
        catalog,
        store: { kind: "millrace" },
        workers: executor.workers,
        partitions: 4,
        broadcastBytes: 0,
        memoryBytes: null,
        threads: 1,
        output: null,
        run: `sql-${randomBytes(6).toString("hex")}`,
        ...changes,
      },
      {
        namespace,
        executor,
        ...(onProgress === undefined ? {} : { onProgress }),
        ...(signal === undefined ? {} : { signal }),
      },
    );
    try {
      return { run, rows: run.result === null ? [] : await textsOf(run.result) };
    } finally {
      await run.result?.close();
    }
  }

  /** In this process, by DuckDB alone. */
  async expected(sql: string): Promise<Rows> {
    const instance = await DuckDBInstance.create(":memory:", { threads: "2" });
    const connection = await instance.connect();
    try {
      for (const table of this.catalog.tables.values())
        await connection.run(this.catalog.singleViewSql(table));
      const result = await connection.runAndReadAll(`SELECT COLUMNS(*)::VARCHAR FROM (${sql}) AS q`);
      return result.getRows() as Rows;
    } finally {
      connection.closeSync();
      instance.closeSync();
    }
  }

  /** What queries have left in the namespace, and in the folder for temporary files. */
  async leftovers(): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of this.namespace.list()) if (!key.startsWith("calls/")) keys.push(key);
    const files = readdirSync(tmpdir()).filter(
      (name) => !ELSEWHERE.test(name) && !this.#thereBefore.has(name),
    );
    return [...keys, ...files];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.executor.close();
    await this.catalog.close();
    await this.client.close();
    await this.daemon.stop();
    if (this.#temporaryBefore === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = this.#temporaryBefore;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The TypeScript loader's. */
const ELSEWHERE = /^(tsx-|node-compile-cache)/;

async function textsOf(result: NonNullable<SqlRun["result"]>): Promise<Rows> {
  const list = result.columns.map((_, i) => `c${i}::VARCHAR`).join(", ");
  const rows = await result.query(`SELECT ${list} FROM rows_in('result')`);
  try {
    const columns = rows.names.map((_, column) => rows.texts(column, 0, rows.rows));
    return Array.from({ length: rows.rows }, (_, row) => columns.map((column) => column[row] ?? null));
  } finally {
    rows.close();
  }
}

/** As a multiset: in an order of their own. */
export function sorted(rows: Rows): Rows {
  return [...rows].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}
