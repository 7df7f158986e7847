/** The catalog of a directory: a table a file or a folder. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { MillraceError } from "../../client/errors.js";
import type { Catalog, FilePart, Table } from "./catalog.js";
import { openEngine, quoteName } from "./duckdb.js";
import { type CsvTable, describeCsv, scanCsv, writeStandIn } from "./tables/csv.js";
import { findTables } from "./tables/files.js";
import { describeParquet, type ParquetTable, scanParquet } from "./tables/parquet.js";
import { fileList } from "./tables/read.js";
import { type TemporaryFolder, temporaryFolder } from "./temporary.js";

export interface CatalogOptions {
  /**
   * SQL: tables whose names do not occur in it are not looked at, so that a query over two of a hundred does not wait
   * for the others, nor fails for them. Left out: all tables.
   */
  mentionedIn?: string;
}

/**
 * Looks at the tables of a directory; close the catalog. NOT_FOUND where there is no directory or no table in it,
 * CORRUPT for files that are not what they seem, INVALID_ARGUMENT where the files of a table differ or two tables have
 * one name.
 */
export async function openCatalog(directory: string, { mentionedIn }: CatalogOptions = {}): Promise<Catalog> {
  const text = mentionedIn?.toLowerCase();
  // In SQL a quote within a quoted name is written twice.
  const mentioned = (name: string): boolean =>
    text === undefined || text.includes(name.toLowerCase().replaceAll('"', '""'));
  const found = await findTables(directory, mentioned);
  const engine = openEngine({ threads: Math.min(4, availableParallelism()) });
  let standIns: TemporaryFolder | null = null;
  try {
    const parquet = await describeParquet(
      engine,
      found.filter(({ format }) => format === "parquet"),
    );
    const sources: Source[] = parquet.map((each) => ({ ...each, kind: "parquet", standIn: null }));
    for (const files of found.filter(({ format }) => format === "csv")) {
      standIns ??= await temporaryFolder();
      const csv = await describeCsv(engine, files);
      const standIn = join(standIns.path, `${sources.length}.parquet`);
      await writeStandIn(engine, csv.table, standIn);
      sources.push({ ...csv, kind: "csv", standIn });
    }
    return new DirectoryCatalog(sources, standIns);
  } catch (thrown) {
    await standIns?.remove();
    throw thrown;
  } finally {
    await engine.close();
  }
}

type Source =
  | (ParquetTable & { kind: "parquet"; standIn: null })
  | (CsvTable & { kind: "csv" /** See `writeStandIn`. */; standIn: string });

class DirectoryCatalog implements Catalog {
  readonly tables: ReadonlyMap<string, Table>;
  readonly #tables = new Map<string, Table>();
  readonly #sources = new Map<string, Source>();
  /** By each file that a plan may name. */
  readonly #byFile = new Map<string, Source>();
  readonly #folder: TemporaryFolder | null;

  constructor(sources: readonly Source[], folder: TemporaryFolder | null) {
    this.tables = this.#tables;
    this.#folder = folder;
    for (const source of sources) {
      this.#add(source);
      const files = source.standIn === null ? source.table.files : [source.standIn];
      for (const file of files) this.#byFile.set(file, source);
    }
  }

  #add(source: Source): void {
    this.#tables.set(source.table.name, source.table);
    this.#sources.set(source.table.name, source);
  }

  viewSql(table: Table): string {
    const source = this.#source(table);
    if (source.kind === "parquet") return this.singleViewSql(table);
    const rows = `explicit_cardinality := ${table.rows}`;
    const from = `read_parquet(${fileList([source.standIn])}, hive_partitioning := false, ${rows})`;
    return `CREATE VIEW ${quoteName(table.name)} AS SELECT * FROM ${from}`;
  }

  singleViewSql(table: Table): string {
    const { kind, options } = this.#source(table);
    const reader = kind === "parquet" ? "read_parquet" : "read_csv";
    const from = `${reader}(${fileList(table.files)}, ${options})`;
    return `CREATE VIEW ${quoteName(table.name)} AS SELECT * FROM ${from}`;
  }

  tableOfFiles(files: readonly string[]): Table | null {
    const source = this.#byFile.get(files[0] ?? "");
    if (source === undefined) return null;
    const asked = new Set(files);
    for (const file of asked) if (this.#byFile.get(file) !== source) return null;
    if (source.standIn !== null || asked.size === source.table.files.length) return source.table;
    return this.#some(source, asked);
  }

  /** A table of some of the files of another. */
  #some(source: Source & { kind: "parquet" }, asked: ReadonlySet<string>): Table {
    const { table } = source;
    const files = table.files.filter((file) => asked.has(file));
    const key = files.join("\0");
    for (const other of this.#tables.values()) if (other.files.join("\0") === key) return other;
    const parts = table.parts.filter(({ path }) => asked.has(path));
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    // Without row numbers: the share of the bytes says as much as can be known.
    const rows = parts.reduce(
      (sum, { rows, bytes }) =>
        sum + (rows === null ? (table.rows * bytes) / table.bytes : rows.end - rows.first),
      0,
    );
    let name = `${table.name} (${files.length} of ${table.files.length} files)`;
    for (let i = 2; this.#tables.has(name); i += 1) {
      name = `${table.name} (${files.length} of ${table.files.length} files, ${i})`;
    }
    const some: Table = { ...table, name, files, bytes, rows: Math.round(rows), parts };
    this.#add({ ...source, table: some });
    return some;
  }

  scanSql(
    table: Table,
    columns: readonly string[],
    parts: readonly FilePart[],
    filter: string | null,
  ): string {
    const source = this.#source(table);
    const types = new Map(table.columns.map(({ name, type }) => [name, type]));
    const typeOf = (name: string): string => {
      const type = types.get(name);
      if (type === undefined)
        throw new MillraceError("NOT_FOUND", `table ${table.name} has no column ${name}`);
      return type;
    };
    if (parts.length === 0) {
      const nulls = columns.map((name, i) => `CAST(NULL AS ${typeOf(name)}) AS c${i}`);
      return `SELECT ${listOf(nulls)} WHERE false`;
    }
    const list = listOf(
      columns.map((name, i) => {
        typeOf(name);
        return `${quoteName(name)} AS c${i}`;
      }),
    );
    const selects =
      source.kind === "parquet" ? scanParquet(source, list, parts) : scanCsv(source, list, parts);
    const all = selects.join(" UNION ALL ");
    return filter === null ? all : `SELECT * FROM (${all}) WHERE ${filter}`;
  }

  #source(table: Table): Source {
    const source = this.#sources.get(table.name);
    if (source === undefined) throw new MillraceError("NOT_FOUND", `the catalog has no table ${table.name}`);
    return source;
  }

  async close(): Promise<void> {
    await this.#folder?.remove();
  }
}

function listOf(columns: readonly string[]): string {
  return columns.length === 0 ? "0 AS nothing" : columns.join(", ");
}
