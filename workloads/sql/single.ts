/** DuckDB alone, in this process: what distributed runs are compared with. */
import { rename } from "node:fs/promises";
import type { DuckDb, DuckDbRows } from "../../client/duckdb.js";
import { MillraceError } from "../../client/errors.js";
import { nowMs } from "../report/activity.js";
import type { Catalog, Column } from "./catalog.js";
import type { SqlResult } from "./driver.js";
import { openEngine, queryTexts, quoteName, quoteText, runStatement } from "./duckdb.js";
import { partPath, unfinishedPath } from "./output/parquet.js";

export interface SingleOptions {
  /** One SELECT. */
  sql: string;
  catalog: Catalog;
  threads: number;
  /** Null: DuckDB's own default. */
  memoryBytes: number | null;
  /** Null: it does not spill. */
  spillDirectory: string | null;
  /** Null: the rows are kept. Else one Parquet part in this directory. */
  output: { directory: string } | null;
  signal?: AbortSignal;
}

export interface SingleRun {
  startMs: number;
  endMs: number;
  rows: number;
  /** Null where they went to a directory. */
  result: SqlResult | null;
}

/** Runs a query over the tables' files. SQL_FAILED with DuckDB's words. */
export async function runSingle(options: SingleOptions): Promise<SingleRun> {
  const { sql, catalog, signal } = options;
  const engine = openEngine({
    threads: options.threads,
    memoryBytes: options.memoryBytes ?? 0,
    spillDirectory: options.spillDirectory,
  });
  const cancel = (): void => engine.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (const table of catalog.tables.values()) await runStatement(engine, catalog.singleViewSql(table));
    signal?.throwIfAborted();
    const startMs = nowMs();
    if (options.output !== null) {
      const rows = await writePart(engine, sql, options.output.directory);
      return { startMs, endMs: nowMs(), rows, result: null };
    }
    const rows = await engine.execute(sql, [], 1);
    const endMs = nowMs();
    try {
      return { startMs, endMs, rows: rows.rows, result: await KeptRows.of(rows) };
    } finally {
      rows.close();
    }
  } catch (thrown) {
    signal?.throwIfAborted();
    throw MillraceError.from(thrown);
  } finally {
    signal?.removeEventListener("abort", cancel);
    await engine.close();
  }
}

/** The name of a view that no table has. */
const RESULT = "the result";

async function writePart(engine: DuckDb, sql: string, directory: string): Promise<number> {
  const path = partPath(directory, 0);
  const unfinished = unfinishedPath(path, "single");
  // A view takes the text as it is, a semicolon or a comment at its end included, and makes names unique.
  await runStatement(engine, `CREATE VIEW ${quoteName(RESULT)} AS ${sql}`);
  await runStatement(engine, `COPY (FROM ${quoteName(RESULT)}) TO ${quoteText(unfinished)} (FORMAT parquet)`);
  const [row] = await queryTexts(
    engine,
    `SELECT CAST(num_rows AS VARCHAR) FROM parquet_file_metadata(${quoteText(unfinished)})`,
  );
  await rename(unfinished, path);
  return Number(row?.[0]);
}

/** The rows in memory, and a DuckDB with one thread, which reads them in their order. */
class KeptRows implements SqlResult {
  readonly columns: readonly Column[];
  readonly rows: number;
  readonly #bytes: Uint8Array;
  readonly #engine = openEngine({ threads: 1 });

  private constructor(columns: readonly Column[], rows: number, bytes: Uint8Array) {
    this.columns = columns;
    this.rows = rows;
    this.#bytes = bytes;
  }

  static async of(rows: DuckDbRows): Promise<KeptRows> {
    const columns = rows.names.map((name, i) => ({ name, type: rows.types[i] as string }));
    const bytes = new Uint8Array(rows.bytes);
    if (rows.bytes > 0) await rows.write(bytes);
    return new KeptRows(columns, rows.rows, bytes);
  }

  query(sql: string): Promise<DuckDbRows> {
    const types = this.columns.map(({ type }) => type);
    const extents = this.#bytes.length === 0 ? [] : [this.#bytes];
    return this.#engine.execute(sql, [{ name: "result", types, extents, checksums: null }], 1);
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}
