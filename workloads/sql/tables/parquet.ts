/** Parquet tables: columns and row groups, from the files' footers. */
import type { DuckDb } from "../../../client/duckdb.js";
import { MillraceError } from "../../../client/errors.js";
import type { Column, FilePart, Table } from "../catalog.js";
import { queryTexts, quoteText } from "../duckdb.js";
import { folderKeysOf, type TableFiles } from "./files.js";
import { checkColumns, difference, fileList, folderOptions } from "./read.js";

/** The virtual column of DuckDB that cuts a file by rows. */
const ROW_NUMBER = "file_row_number";

/** A statement grows with the files that it names. */
const FILES_PER_STATEMENT = 1000;

export interface ParquetTable {
  table: Table;
  /** Options of `read_parquet`. */
  options: string;
}

/** Reads what the footers say, of all tables at once. */
export async function describeParquet(engine: DuckDb, found: readonly TableFiles[]): Promise<ParquetTable[]> {
  const paths = found.flatMap((table) => table.files.map((file) => file.path));
  if (paths.length === 0) return [];
  const groups = await footers(engine, paths, () => readRowGroups(engine, paths));
  const schemas = await footers(engine, paths, () => readSchemas(engine, paths));
  const columns = await readColumns(engine, found, schemas);
  return found.map((table) => assemble(table, groups, columns));
}

/** Runs a statement over footers. CORRUPT, naming the file, where one cannot be read. */
async function footers<T>(engine: DuckDb, paths: readonly string[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    for (const path of paths) {
      try {
        await queryTexts(engine, `SELECT '' FROM parquet_schema(${fileList([path])}) LIMIT 1`);
        await queryTexts(engine, `SELECT '' FROM parquet_metadata(${fileList([path])}) LIMIT 1`);
      } catch (error) {
        throw new MillraceError("CORRUPT", `${path} is a damaged Parquet file: ${(error as Error).message}`, {
          cause: error,
        });
      }
    }
    throw MillraceError.from(thrown);
  }
}

interface RowGroup {
  rows: number;
  bytes: number;
}

function* chunks(paths: readonly string[]): Generator<readonly string[]> {
  for (let first = 0; first < paths.length; first += FILES_PER_STATEMENT) {
    yield paths.slice(first, first + FILES_PER_STATEMENT);
  }
}

/** By path, in order; a file without rows has none. */
async function readRowGroups(
  engine: DuckDb,
  paths: readonly string[],
): Promise<ReadonlyMap<string, RowGroup[]>> {
  const groups = new Map<string, RowGroup[]>();
  for (const some of chunks(paths)) {
    const rows = await queryTexts(
      engine,
      "SELECT file_name, CAST(any_value(row_group_num_rows) AS VARCHAR), CAST(sum(total_compressed_size) AS VARCHAR) " +
        `FROM parquet_metadata(${fileList(some)}) GROUP BY file_name, row_group_id ORDER BY file_name, row_group_id`,
    );
    for (const [path, count, bytes] of rows) {
      const group = { rows: size(path, count), bytes: size(path, bytes) };
      const known = groups.get(path as string);
      if (known === undefined) groups.set(path as string, [group]);
      else known.push(group);
    }
  }
  return groups;
}

/** A number of a footer: whoever wrote it may have written anything. */
function size(path: string | null | undefined, text: string | null | undefined): number {
  const value = Number(text);
  if (text === null || !Number.isSafeInteger(value) || value < 0) {
    throw new MillraceError("CORRUPT", `${path} is a damaged Parquet file: a row group of size ${text}`);
  }
  return value;
}

/** By path: a text that is equal where the columns are. */
async function readSchemas(engine: DuckDb, paths: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const schemas = new Map<string, string>();
  for (const some of chunks(paths)) {
    const rows = await queryTexts(
      engine,
      "SELECT file_name, string_agg(concat_ws(chr(31), name, type, num_children, duckdb_type, converted_type, scale, " +
        "precision, logical_type), chr(30) ORDER BY column_id) " +
        `FROM parquet_schema(${fileList(some)}) GROUP BY file_name`,
    );
    for (const [path, schema] of rows) schemas.set(path as string, schema ?? "");
  }
  return schemas;
}

interface TableColumns {
  /** Those of the folders included. */
  all: Column[];
  folders: Column[];
}

/** By name of the table. Asks DuckDB once for each layout that the files of a table have, which should be one. */
async function readColumns(
  engine: DuckDb,
  found: readonly TableFiles[],
  schemas: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, TableColumns>> {
  const asked: { table: TableFiles; path: string; sql: string }[] = [];
  for (const table of found) {
    const layouts = new Map<string, string>();
    for (const { path } of table.files) {
      const schema = schemas.get(path);
      if (schema === undefined)
        throw new MillraceError("CORRUPT", `${path} is a damaged Parquet file: no schema`);
      if (!layouts.has(schema)) layouts.set(schema, path);
    }
    const folders = table.folderKeys.length === 0 ? folderOptions([]) : "hive_partitioning := true";
    for (const path of layouts.values()) {
      asked.push({ table, path, sql: `read_parquet(${fileList([path])}, hive_partitioning := false)` });
    }
    if (table.folderKeys.length > 0) {
      const all = fileList(table.files.map((file) => file.path));
      asked.push({ table, path: "", sql: `read_parquet(${all}, ${folders})` });
    }
  }
  const described = await describe(
    engine,
    asked.map(({ sql }) => sql),
  );
  const columns = new Map<string, TableColumns>();
  for (const table of found) {
    const answers = asked.flatMap((ask, i) =>
      ask.table === table ? [{ path: ask.path, columns: described[i] as Column[] }] : [],
    );
    const withFolders = table.folderKeys.length > 0 ? (answers.pop()?.columns ?? []) : null;
    columns.set(table.name, joinColumns(table, answers, withFolders));
  }
  return columns;
}

function joinColumns(
  table: TableFiles,
  layouts: readonly { path: string; columns: Column[] }[],
  withFolders: Column[] | null,
): TableColumns {
  const [first] = layouts as [{ path: string; columns: Column[] }];
  checkColumns(first.path, first.columns);
  for (const other of layouts.slice(1)) {
    const sentence = difference(first, other);
    if (sentence !== null) {
      throw new MillraceError("INVALID_ARGUMENT", `the files of table ${table.name} differ: ${sentence}`);
    }
  }
  if (withFolders === null) return { all: first.columns, folders: [] };
  checkColumns(first.path, withFolders);
  // DuckDB looks at the whole path, so a folder above the table may add a column too.
  const keys = new Set(folderKeysOf(first.path));
  return { all: withFolders, folders: withFolders.filter(({ name }) => keys.has(name)) };
}

/** The columns of each of some table functions. */
async function describe(engine: DuckDb, functions: readonly string[]): Promise<Column[][]> {
  const columns: Column[][] = functions.map(() => []);
  const rows = await queryTexts(
    engine,
    functions
      .map(
        (sql, i) =>
          `SELECT ${quoteText(String(i))}, column_name, column_type FROM (DESCRIBE SELECT * FROM ${sql})`,
      )
      .join(" UNION ALL "),
  );
  for (const [i, name, type] of rows) {
    columns[Number(i)]?.push({ name: name as string, type: type as string });
  }
  return columns;
}

function assemble(
  found: TableFiles,
  groups: ReadonlyMap<string, RowGroup[]>,
  columns: ReadonlyMap<string, TableColumns>,
): ParquetTable {
  const { all, folders } = columns.get(found.name) as TableColumns;
  // A column of that name hides DuckDB's own, and the file cannot be cut.
  const cuttable = !all.some(({ name }) => name.toLowerCase() === ROW_NUMBER);
  const parts: FilePart[] = [];
  let rows = 0;
  for (const { path } of found.files) {
    let first = 0;
    for (const group of groups.get(path) ?? []) {
      const end = first + group.rows;
      if (cuttable && group.rows > 0) parts.push({ path, rows: { first, end }, bytes: group.bytes });
      first = end;
    }
    rows += first;
    if (!cuttable && first > 0) parts.push({ path, rows: null, bytes: groupBytes(groups.get(path)) });
  }
  const table: Table = {
    name: found.name,
    format: "parquet",
    columns: all,
    files: found.files.map((file) => file.path),
    bytes: found.files.reduce((sum, file) => sum + file.bytes, 0),
    rows,
    parts,
  };
  return { table, options: folderOptions(folders) };
}

function groupBytes(groups: readonly RowGroup[] | undefined): number {
  return (groups ?? []).reduce((sum, group) => sum + group.bytes, 0);
}

/**
 * SELECTs of `list` over parts of a table, to be united. Neighbouring stretches of a file become one, and whole files
 * are read by one `read_parquet`.
 */
export function scanParquet(
  { table, options }: ParquetTable,
  list: string,
  parts: readonly FilePart[],
): string[] {
  const whole = new Map(table.files.map((path) => [path, 0]));
  for (const { path, rows } of table.parts) whole.set(path, rows?.end ?? 0);
  const files: string[] = [];
  const stretches: { path: string; first: number; end: number }[] = [];
  for (const { path, rows } of parts) {
    const last = stretches.at(-1);
    if (rows === null) files.push(path);
    else if (last !== undefined && last.path === path && last.end === rows.first) last.end = rows.end;
    else stretches.push({ path, ...rows });
  }
  const cut = stretches.filter(({ path, first, end }) => {
    if (first > 0 || end !== whole.get(path)) return true;
    files.push(path);
    return false;
  });
  const selects = cut.map(({ path, first, end }) => {
    // DuckDB compares the number of every row with each bound, also where whole row groups are within them.
    const bounds = [
      ...(first > 0 ? [`${ROW_NUMBER} >= ${first}`] : []),
      ...(end < (whole.get(path) as number) ? [`${ROW_NUMBER} < ${end}`] : []),
    ];
    return `SELECT ${list} FROM read_parquet(${fileList([path])}, ${options}) WHERE ${bounds.join(" AND ")}`;
  });
  if (files.length > 0) selects.push(`SELECT ${list} FROM read_parquet(${fileList(files)}, ${options})`);
  return selects;
}
