/** TPC-DS and TPC-H: their queries and tables, as DuckDB's extensions make them. Neither is part of this repository. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { DuckDBInstance } from "@duckdb/node-api";
import { packageRoot } from "../native/binding/addon.js";

export type TpcBenchmark = "tpcds" | "tpch";

export interface TpcQuery {
  benchmark: TpcBenchmark;
  /** `77` of TPC-DS, `h9` of TPC-H. */
  name: string;
  sql: string;
}

const run = promisify(execFile);

/** All 99 queries, or all 22, in order. */
export async function tpcQueries(benchmark: TpcBenchmark): Promise<TpcQuery[]> {
  const extension = await tpcExtension(benchmark);
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  try {
    await connection.run(`LOAD '${extension.replaceAll("'", "''")}'`);
    const result = await connection.runAndReadAll(
      `SELECT query_nr::VARCHAR, query FROM ${benchmark}_queries() ORDER BY query_nr`,
    );
    return (result.getRows() as [string, string][]).map(([number, sql]) => ({
      benchmark,
      name: benchmark === "tpch" ? `h${number}` : number,
      sql,
    }));
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

/** Path of the extension. Rejects, with what to do, where it neither is here nor can be had. */
export async function tpcExtension(benchmark: TpcBenchmark): Promise<string> {
  const script = join(packageRoot(), "scripts", "duckdb-extension");
  const { stdout } = await run(process.execPath, [script, benchmark]);
  return stdout.trim();
}

export interface TpcTablesOptions {
  signal?: AbortSignal;
  /** Rows in each row group, where tables that are too small to be cut by default are to be cut. */
  rowGroup?: number;
}

/** The directory with the tables at a scale, which are made where they are not there yet: below build/tpc. */
export async function tpcTables(
  benchmark: TpcBenchmark,
  scale: number,
  { signal, rowGroup }: TpcTablesOptions = {},
): Promise<string> {
  const folder = join(packageRoot(), "build", "tpc");
  const cut = rowGroup === undefined ? "" : `-${rowGroup}`;
  const directory = join(folder, `${benchmark}-sf${scale}${cut}`);
  if (existsSync(directory)) return directory;
  const unfinished = `${directory}.unfinished-${process.pid}`;
  const flags = benchmark === "tpch" ? ["--tpch"] : [];
  if (rowGroup !== undefined) flags.push("--row-group", String(rowGroup));
  await mkdir(folder, { recursive: true });
  try {
    const script = join(packageRoot(), "scripts", "tpcds-data");
    await run(process.execPath, [script, ...flags, "--scale", String(scale), unfinished], {
      ...(signal === undefined ? {} : { signal }),
    });
    await rename(unfinished, directory).catch((error: unknown) => {
      // Another process has made it meanwhile.
      if (!existsSync(directory)) throw error;
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  return directory;
}
