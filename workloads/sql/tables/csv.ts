/**
 * CSV tables. DuckDB guesses delimiter, quotes, header and types once, here; whoever reads the files is told them, so
 * that all tasks read alike. Cut by files alone: nobody knows where a row begins but who has read the ones before.
 */
import type { DuckDb } from "../../../client/duckdb.js";
import { MillraceError } from "../../../client/errors.js";
import type { Column, FilePart, Table } from "../catalog.js";
import { queryTexts, quoteName, quoteText, runStatement } from "../duckdb.js";
import { readHead, type TableFile, type TableFiles } from "./files.js";
import { checkColumns, fileList, folderOptions } from "./read.js";

export interface CsvTable {
  table: Table;
  /** Options of `read_csv`: everything that could be guessed. */
  options: string;
  /** Those of them that say how text becomes columns, and not what the columns are. */
  dialect: string;
}

/** Files whose dialect one statement guesses. */
const FILES_PER_STATEMENT = 64;

/** What DuckDB's `sniff_csv` says of one file. */
interface Guess {
  path: string;
  delimiter: string;
  quote: string;
  escape: string;
  comment: string;
  skip: number;
  header: boolean;
  dateFormat: string;
  timestampFormat: string;
  names: string[];
  types: string[];
}

/** What guessing may overlook: nothing, or rows that are not like the others. */
export type Guessing = "strict" | "tolerant";

/** Guesses of a table's files become its options and columns. INVALID_ARGUMENT where the files disagree. */
export async function describeCsv(
  engine: DuckDb,
  found: TableFiles,
  guessing: Guessing = "strict",
): Promise<CsvTable> {
  const files = found.files.filter((file) => file.bytes > 0);
  if (files.length === 0) {
    throw new MillraceError("INVALID_ARGUMENT", `table ${found.name} has no columns: its files are empty`);
  }
  const guesses = await guess(
    engine,
    files.map((file) => file.path),
    guessing,
  );
  const [first] = guesses as [Guess];
  for (const other of guesses.slice(1)) {
    const sentence = disagreement(first, other);
    if (sentence !== null) {
      throw new MillraceError("INVALID_ARGUMENT", `the files of table ${found.name} differ: ${sentence}`);
    }
  }
  const dialect = dialectOf(guesses);
  const folders = found.folderKeys.length === 0 ? folderOptions([]) : "hive_partitioning := true";
  const paths = files.map((file) => file.path);
  // DuckDB knows what types the files have in common.
  const columns = await describeFiles(
    engine,
    found.name,
    paths,
    `${dialect}, ${folders}${toleranceOf(guessing)}`,
  );
  checkColumns(first.path, columns);
  const own = columns.slice(0, first.names.length);
  const ofFolders = columns.slice(first.names.length);
  const types = own.map(({ name, type }) => `${quoteText(name)}: ${quoteText(type)}`).join(", ");
  const options = `auto_detect := false, ${dialect}, columns := {${types}}, ${folderOptions(ofFolders)}`;
  return { table: await assemble(found.name, files, columns), options, dialect };
}

function toleranceOf(guessing: Guessing): string {
  return guessing === "tolerant" ? ", ignore_errors := true" : "";
}

async function guess(engine: DuckDb, paths: readonly string[], guessing: Guessing): Promise<Guess[]> {
  const guesses: Guess[] = [];
  for (let first = 0; first < paths.length; first += FILES_PER_STATEMENT) {
    const some = paths.slice(first, first + FILES_PER_STATEMENT);
    try {
      guesses.push(...(await guessTogether(engine, some, guessing)));
    } catch {
      // One by one, to know which file it is.
      for (const path of some) {
        try {
          guesses.push(...(await guessTogether(engine, [path], guessing)));
        } catch (error) {
          throw new MillraceError("CORRUPT", `${path} cannot be read as CSV: ${firstLines(error)}`, {
            cause: error,
          });
        }
      }
    }
  }
  return guesses;
}

/** DuckDB's advice about its own options is of no use to who cannot set them. */
function firstLines(error: unknown): string {
  return (error as Error).message.split(
    /\n(?:The search space|Possible (?:fixes|solutions))/,
    1,
  )[0] as string;
}

async function guessTogether(engine: DuckDb, paths: readonly string[], guessing: Guessing): Promise<Guess[]> {
  const sql = paths
    .map(
      (path, i) =>
        `SELECT ${i} AS i, * FROM sniff_csv(${quoteText(path.replace(/[[*?]/g, "[$&]"))}, hive_partitioning := false${toleranceOf(guessing)})`,
    )
    .join(" UNION ALL ");
  const rows = await queryTexts(
    engine,
    "SELECT Delimiter, Quote, Escape, Comment, CAST(SkipRows AS VARCHAR), CAST(HasHeader AS VARCHAR), DateFormat, " +
      "TimestampFormat, CAST(to_json(list_transform(Columns, c -> c.name)) AS VARCHAR), " +
      "CAST(to_json(list_transform(Columns, c -> c.type)) AS VARCHAR) " +
      `FROM (${sql}) ORDER BY i`,
  );
  return rows.map(
    ([delimiter, quote, escaping, comment, skip, header, date, timestamp, names, types], i) => ({
      path: paths[i] as string,
      delimiter: delimiter ?? ",",
      quote: orNone(quote),
      escape: orNone(escaping),
      comment: orNone(comment),
      skip: Number(skip),
      header: header === "true",
      dateFormat: date ?? "",
      timestampFormat: timestamp ?? "",
      names: JSON.parse(names ?? "[]") as string[],
      types: JSON.parse(types ?? "[]") as string[],
    }),
  );
}

function orNone(text: string | null | undefined): string {
  return text === "(empty)" || text === null || text === undefined ? "" : text;
}

/** Why two files cannot be read as one table: one sentence, or null. */
function disagreement(first: Guess, other: Guess): string | null {
  if (first.header !== other.header) {
    const [has, lacks] = first.header ? [first, other] : [other, first];
    return `${has.path} begins with the names of its columns and ${lacks.path} does not`;
  }
  if (first.names.length !== other.names.length) {
    return `${first.path} has ${first.names.length} columns and ${other.path} has ${other.names.length}`;
  }
  const at = first.names.findIndex((name, i) => name.toLowerCase() !== other.names[i]?.toLowerCase());
  if (at !== -1) {
    return `column ${at + 1} is ${first.names[at]} in ${first.path} and ${other.names[at]} in ${other.path}`;
  }
  if (first.names.length > 1 && first.delimiter !== other.delimiter) {
    return `${first.path} is delimited by ${JSON.stringify(first.delimiter)} and ${other.path} by ${JSON.stringify(other.delimiter)}`;
  }
  if (first.skip !== other.skip) {
    return `the rows begin after ${first.skip} lines in ${first.path} and after ${other.skip} in ${other.path}`;
  }
  for (const [key, what] of [
    ["dateFormat", "dates"],
    ["timestampFormat", "times"],
    ["quote", "quotes"],
  ] as const) {
    if (first[key] !== "" && other[key] !== "" && first[key] !== other[key]) {
      return `${what} are written ${first[key]} in ${first.path} and ${other[key]} in ${other.path}`;
    }
  }
  return null;
}

function dialectOf(guesses: readonly Guess[]): string {
  const any = (key: "quote" | "escape" | "comment" | "dateFormat" | "timestampFormat"): string =>
    guesses.find((each) => each[key] !== "")?.[key] ?? "";
  const [first] = guesses as [Guess];
  // Where DuckDB saw no quotes there may still be some behind what it looked at.
  const quote = any("quote") || '"';
  const escaping = any("escape") || quote;
  const formats = (["dateFormat", "timestampFormat"] as const).flatMap((key) =>
    any(key) === "" ? [] : [`${key.toLowerCase()} := ${quoteText(any(key))}`],
  );
  return [
    `delim := ${quoteText(first.delimiter)}`,
    `quote := ${quoteText(quote)}`,
    `escape := ${quoteText(escaping)}`,
    `comment := ${quoteText(any("comment"))}`,
    `skip := ${first.skip}`,
    `header := ${first.header}`,
    ...formats,
  ].join(", ");
}

async function describeFiles(
  engine: DuckDb,
  name: string,
  paths: readonly string[],
  options: string,
): Promise<Column[]> {
  try {
    const rows = await queryTexts(
      engine,
      `SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_csv(${fileList(paths)}, ${options}, files_to_sniff := -1))`,
    );
    return rows.map(([column, type]) => ({ name: column as string, type: type as string }));
  } catch (error) {
    throw new MillraceError("CORRUPT", `table ${name} cannot be read as CSV: ${firstLines(error)}`, {
      cause: error,
    });
  }
}

async function assemble(name: string, files: readonly TableFile[], columns: Column[]): Promise<Table> {
  const parts: FilePart[] = files.map(({ path, bytes }) => ({ path, rows: null, bytes }));
  return {
    name,
    format: "csv",
    columns,
    files: files.map((file) => file.path),
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    rows: await estimateRows(files),
    parts,
  };
}

const COMPRESSED = /\.(?:gz|gzip|zst|zstd)$/i;
/** Of text with numbers in it. */
const COMPRESSION_RATIO = 4;
const ROW_BYTES_DEFAULT = 100;
const SAMPLE_BYTES = 64 * 1024;

/** From the length of the first lines of the largest file that is not compressed. */
async function estimateRows(files: readonly TableFile[]): Promise<number> {
  let rowBytes = ROW_BYTES_DEFAULT;
  const plain = files.filter(({ path }) => !COMPRESSED.test(path));
  if (plain.length > 0) {
    const largest = plain.reduce((a, b) => (b.bytes > a.bytes ? b : a));
    const head = await readHead(largest.path, SAMPLE_BYTES);
    let lines = 0;
    for (const byte of head) if (byte === 0x0a) lines += 1;
    rowBytes = head.length / Math.max(1, lines);
  }
  const bytes = files.reduce(
    (sum, file) => sum + file.bytes * (COMPRESSED.test(file.path) ? COMPRESSION_RATIO : 1),
    0,
  );
  return Math.max(1, Math.round(bytes / rowBytes));
}

/** SELECTs of `list` over parts of a table, to be united. */
export function scanCsv({ options }: CsvTable, list: string, parts: readonly FilePart[]): string[] {
  if (parts.length === 0) return [];
  return [`SELECT ${list} FROM read_csv(${fileList(parts.map(({ path }) => path))}, ${options})`];
}

/**
 * Writes an empty Parquet file with the columns of a table: what the planner's DuckDB sees in its place, because it
 * cannot serialise a plan with a scan of CSV in it.
 */
export async function writeStandIn(engine: DuckDb, { columns }: Table, path: string): Promise<void> {
  const list = columns.map(({ name, type }) => `CAST(NULL AS ${type}) AS ${quoteName(name)}`).join(", ");
  await runStatement(engine, `COPY (SELECT ${list} WHERE false) TO ${quoteText(path)} (FORMAT parquet)`);
}
