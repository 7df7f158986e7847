/** DuckDB as SQL on function workers needs it: which library, and how statements and their rows are put to it. */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { type DuckDb, openDuckDb } from "../../client/duckdb.js";
import { MillraceError } from "../../client/errors.js";

/** Names another libduckdb.so than npm's. */
const LIBRARY_VARIABLE = "MILLRACE_DUCKDB";

/** npm packages that bring the library, one a platform; the one for musl is installed where glibc is not. */
function packages(): string[] {
  const name = `@duckdb/node-bindings-${process.platform}-${process.arch}`;
  return [name, `${name}-musl`];
}

/** Path of libduckdb, or null where npm has not installed it for this platform. */
export function findLibrary(): string | null {
  const given = process.env[LIBRARY_VARIABLE];
  if (given !== undefined && given !== "") return existsSync(given) ? given : null;
  const require = createRequire(import.meta.url);
  for (const name of packages()) {
    try {
      const path = join(dirname(require.resolve(`${name}/package.json`)), "libduckdb.so");
      if (existsSync(path)) return path;
    } catch {
      // The next one.
    }
  }
  return null;
}

/** As `findLibrary`. UNSUPPORTED, and what to do, where there is none. */
export function requireLibrary(): string {
  const path = findLibrary();
  if (path !== null) return path;
  const given = process.env[LIBRARY_VARIABLE];
  throw new MillraceError(
    "UNSUPPORTED",
    given !== undefined && given !== ""
      ? `SQL needs DuckDB, and ${LIBRARY_VARIABLE} names ${given}, which is not there`
      : `SQL needs DuckDB's library, and ${packages()[0]} is not installed: run \`npm install\` (optional packages ` +
          `included), or name a libduckdb.so in ${LIBRARY_VARIABLE}`,
  );
}

export interface EngineOptions {
  threads: number;
  /** 0: DuckDB's own default, most of the machine. */
  memoryBytes?: number;
  /** Left out: DuckDB does not spill. */
  spillDirectory?: string | null;
}

/** A DuckDB of its own; close it. */
export function openEngine({ threads, memoryBytes = 0, spillDirectory = null }: EngineOptions): DuckDb {
  return openDuckDb({ library: requireLibrary(), threads, memoryBytes, spillDirectory });
}

/** The version of the library, and so of the SQL that is understood: `v1.5.5`. */
export async function engineVersion(): Promise<string> {
  const engine = openEngine({ threads: 1 });
  try {
    return engine.version;
  } finally {
    await engine.close();
  }
}

/** Runs a statement whose rows nobody wants. */
export async function runStatement(engine: DuckDb, sql: string): Promise<void> {
  (await engine.execute(sql, [], 1)).close();
}

/** The rows of a query whose columns are all VARCHAR; few rows, for catalogs and plans. */
export async function queryTexts(engine: DuckDb, sql: string): Promise<(string | null)[][]> {
  const rows = await engine.execute(sql, [], 1);
  try {
    const columns = rows.names.map((_, column) => rows.texts(column, 0, rows.rows));
    return Array.from({ length: rows.rows }, (_, row) => columns.map((column) => column[row] ?? null));
  } finally {
    rows.close();
  }
}

/** `'it''s'` */
export function quoteText(text: string): string {
  if (text.includes("\0"))
    throw new MillraceError("INVALID_ARGUMENT", "SQL text cannot hold a NUL character");
  return `'${text.replaceAll("'", "''")}'`;
}

/** `"a ""name"""` */
export function quoteName(name: string): string {
  if (name === "" || name.includes("\0")) {
    throw new MillraceError("INVALID_ARGUMENT", `${JSON.stringify(name)} cannot be a name in SQL`);
  }
  return `"${name.replaceAll('"', '""')}"`;
}
