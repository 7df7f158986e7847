/** What function workers do with CSV and Parquet: DuckDB reads them, columns become rows. */
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { DuckDb } from "../../../client/duckdb.js";
import { MillraceError } from "../../../client/errors.js";
import { type LabelCodes, type LabelSurvey, trainingInput } from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { type CallReport, CallWatch } from "../../calling/call_report.js";
import { openEngine, queryTexts, quoteName, quoteText, runStatement } from "../../sql/duckdb.js";
import { describeCsv } from "../../sql/tables/csv.js";
import { describeParquet } from "../../sql/tables/parquet.js";
import { fileList } from "../../sql/tables/read.js";
import type { BadRow } from "../dataset.js";
import { BAD_ROWS_NAMED } from "./bad_rows.js";
import { acceptedLines, placesOf } from "./csv_places.js";
import { BLOCK_BYTES } from "./plan.js";
import {
  csvTypes,
  isMissingSql,
  NUMBER_TEXT,
  planTable,
  type ReadColumn,
  type TableChoice,
  type TableColumn,
  type TablePlan,
  type TextSample,
} from "./table_plan.js";
import { writeObject } from "./write_block.js";

/** A file, or rows of one. */
export interface TablePart {
  path: string;
  rows: { first: number; end: number } | null;
  bytes: number;
}

export interface DescribeArgument {
  format: "csv" | "parquet";
  files: { path: string; bytes: number }[];
  choice: TableChoice;
}

/** How the files are read. */
export interface TableSource {
  format: "csv" | "parquet";
  /** Of CSV: what `read_csv` is told. */
  options: string;
  /** Of CSV: lines before the first row. */
  linesBefore: number;
  plan: TablePlan;
}

export interface DescribeResult extends CallReport {
  source: TableSource;
  /** All of the files, in order, in the smallest pieces. */
  parts: TablePart[];
}

export interface ScanArgument {
  source: TableSource;
  /** One CSV file, or parts of Parquet files. */
  parts: TablePart[];
  /** Where the columns go. */
  key: string;
  threads: number;
  /** Which labels are there is of interest, and not only how many rows. */
  surveyLabels: boolean;
  categoriesMax: number;
}

/** Rows that lie together in a scan's object. */
export interface ScanPiece {
  offsetBytes: number;
  lengthBytes: number;
  rows: number;
}

export interface ScanResult extends CallReport {
  rows: number;
  pieces: ScanPiece[];
  /** Of labels that are numbers. */
  labels: LabelSurvey | null;
  /** Of labels that are text, in the order of their numbers in this scan. */
  labelTexts: string[] | null;
  /** Of each feature: null where it is a number, else its texts in the order of their numbers in this scan. */
  categories: (string[] | null)[];
  badCount: number;
  bad: BadRow[];
}

/** Finds out what columns the files have and which of them are read how. */
export async function describeTable(
  argument: DescribeArgument,
  context: CallContext,
): Promise<DescribeResult> {
  const watch = new CallWatch(context);
  const { format, files, choice } = argument;
  const engine = openEngine({ threads: 1 });
  try {
    const found = { name: basename(files[0]?.path ?? ""), format, files, folderKeys: [] };
    if (format === "parquet") {
      const [described] = await watch.time("input", () => describeParquet(engine, [found]));
      if (described === undefined) throw new MillraceError("INTERNAL", "a table was not described");
      const { columns, parts } = described.table;
      const plan = planTable(columns, choice);
      return { ...watch.report(), source: { format, options: "", linesBefore: 0, plan }, parts: [...parts] };
    }
    const { table, dialect } = await watch.time("input", () => describeCsv(engine, found, "tolerant"));
    const reading = (columns: readonly TableColumn[]): string =>
      `auto_detect := false, ${dialect}, hive_partitioning := false, columns := {${columns
        .map(({ name, type }) => `${quoteText(name)}: ${quoteText(type === NUMBER_TEXT ? "VARCHAR" : type)}`)
        .join(", ")}}`;
    const samples = await watch.time("input", () =>
      sampleTexts(engine, files, table.columns, reading(table.columns)),
    );
    const columns = csvTypes(table.columns, samples, choice.like);
    const plan = planTable(columns, choice);
    const source = { format, options: reading(columns), linesBefore: linesBefore(dialect), plan };
    // An empty text is no number: so DuckDB names the line of a label that is missing.
    const type = columns.find(({ name }) => name === plan.label?.name)?.type;
    if (plan.label?.kind === "numeric" && type !== NUMBER_TEXT && !plan.labelOptional)
      source.options += `, force_not_null := [${quoteText(plan.label.name)}]`;
    return { ...watch.report(), source, parts: [...table.parts] };
  } finally {
    await engine.close();
  }
}

function linesBefore(dialect: string): number {
  return Number(/skip := (\d+)/.exec(dialect)?.[1] ?? 0) + (/header := true/.test(dialect) ? 1 : 0);
}

/** Rows of the first file that are looked at to tell numbers from text. */
const SAMPLE_ROWS = 20_000;

async function sampleTexts(
  engine: DuckDb,
  files: readonly { path: string }[],
  columns: readonly TableColumn[],
  options: string,
): Promise<TextSample[]> {
  const texts = columns.filter(({ type }) => type === "VARCHAR").map(({ name }) => name);
  const [first] = files;
  if (texts.length === 0 || first === undefined) return [];
  const list = texts.flatMap((name) => {
    const quoted = quoteName(name);
    const there = `${quoted} IS NOT NULL AND NOT ${isMissingSql(quoted)}`;
    return [
      `CAST(count(*) FILTER (${there}) AS VARCHAR)`,
      `CAST(count(*) FILTER (${there} AND TRY_CAST(${quoted} AS DOUBLE) IS NOT NULL) AS VARCHAR)`,
    ];
  });
  const [counts] = await queryTexts(
    engine,
    `SELECT ${list.join(", ")} FROM (SELECT ${texts.map(quoteName).join(", ")} ` +
      `FROM read_csv(${fileList([first.path])}, ${options}, ignore_errors := true) LIMIT ${SAMPLE_ROWS})`,
  );
  return texts.map((name, i) => ({
    name,
    values: Number(counts?.[2 * i] ?? 0),
    numbers: Number(counts?.[2 * i + 1] ?? 0),
  }));
}

/** What a row is bad for; 0: nothing. Two more for each feature. */
const LABEL_MISSING = 1;
const LABEL_NO_NUMBER = 2;
const FEATURE_NOT_FINITE = 3;
const FEATURE_NO_NUMBER = 4;

/** Reads some files and leaves the columns of their good rows in the store; texts are numbered. */
export async function scanTable(argument: ScanArgument, context: CallContext): Promise<ScanResult> {
  const watch = new CallWatch(context);
  const { source, parts, key, threads } = argument;
  const spillDirectory = await mkdtemp(join(tmpdir(), "millrace-scan-"));
  const engine = openEngine({ threads: Math.min(threads, availableParallelism()), spillDirectory });
  const cancel = (): void => engine.cancel();
  context.signal.addEventListener("abort", cancel, { once: true });
  try {
    await watch.time("input", () => readRows(engine, source, parts));
    context.progress(0.6);
    const [counts] = await queryTexts(
      engine,
      "SELECT CAST(count(*) AS VARCHAR), CAST(count(*) FILTER (bad <> 0) AS VARCHAR) FROM t",
    );
    const total = Number(counts?.[0]);
    const unusable = Number(counts?.[1]);
    const rejected = source.format === "csv" ? await findRejected(engine, parts, source) : NONE_REJECTED;
    const flagged = unusable === 0 ? [] : await findFlagged(engine, source, parts, total, rejected.count);
    const categories = await watch.time("compute", () => numberTexts(engine, argument));
    const label = source.plan.label;
    const labels = label?.kind === "numeric" && argument.surveyLabels ? await surveyNumbers(engine) : null;
    const labelTexts =
      label?.kind === "categorical" ? await numberText(engine, "l", label, distinctMax()) : null;
    const pieces = await watch.time("exchange", () =>
      keepColumns(engine, source.plan, categories, labelTexts, key, context),
    );
    return {
      ...watch.report(),
      rows: total - unusable,
      pieces,
      labels,
      labelTexts,
      categories,
      badCount: rejected.count + unusable,
      bad: [...rejected.bad, ...flagged].sort((a, b) => a.line - b.line).slice(0, BAD_ROWS_NAMED),
    };
  } finally {
    context.signal.removeEventListener("abort", cancel);
    await engine.close();
    await rm(spillDirectory, { recursive: true, force: true });
  }
}

function distinctMax(): number {
  return trainingInput().distinctLabelsMax;
}

/** Finite as a double and not as a float. */
const FLOAT_MAX = "3.4028234663852886e38";

/** The table `t`: why a row is bad, the label, the features. */
async function readRows(engine: DuckDb, source: TableSource, parts: readonly TablePart[]): Promise<void> {
  const { label, labelOptional, features } = source.plan;
  const inner: string[] = [];
  const cases: string[] = [];
  const outer: string[] = [];
  if (label !== null) {
    const isNumber = label.kind === "numeric";
    const finite = (sql: string): string => `CASE WHEN isfinite(${sql}) THEN ${sql} END`;
    inner.push(`${isNumber && labelOptional ? finite(label.sql) : label.sql} AS l`);
    if (!labelOptional) {
      if (label.isNoNumber !== null) {
        inner.push(`${label.isNoNumber} AS ln`);
        cases.push(`WHEN ln THEN ${LABEL_NO_NUMBER}`);
      }
      cases.push(`WHEN l IS NULL THEN ${LABEL_MISSING}`);
      if (isNumber) cases.push(`WHEN NOT isfinite(l) THEN ${LABEL_NO_NUMBER}`);
    }
    outer.push("l");
  }
  features.forEach(({ kind, sql, isNoNumber }, i) => {
    inner.push(`${sql} AS x${i}`);
    if (isNoNumber !== null) {
      inner.push(`${isNoNumber} AS n${i}`);
      cases.push(`WHEN n${i} THEN ${FEATURE_NO_NUMBER + 2 * i}`);
    }
    if (kind === "categorical") {
      outer.push(`x${i} AS f${i}`);
      return;
    }
    const beyond = `isinf(x${i}) OR (NOT isnan(x${i}) AND abs(x${i}) > ${FLOAT_MAX})`;
    cases.push(`WHEN ${beyond} THEN ${FEATURE_NOT_FINITE + 2 * i}`);
    outer.push(`TRY_CAST(x${i} AS FLOAT) AS f${i}`);
  });
  const bad = cases.length === 0 ? "0" : `CASE ${cases.join(" ")} ELSE 0 END`;
  const select = `SELECT CAST(${bad} AS INTEGER) AS bad, ${outer.join(", ")} FROM (SELECT ${inner.join(", ")} FROM`;
  let exists = false;
  for (const part of parts) {
    await runStatement(
      engine,
      `${exists ? "INSERT INTO t" : "CREATE TEMP TABLE t AS"} ${select} ${sourceOf(source, part)})`,
    ).catch((error: unknown) => {
      throw damaged(part, error);
    });
    exists = true;
  }
}

function sourceOf({ format, options }: TableSource, { path, rows }: TablePart): string {
  if (format === "csv") {
    return `read_csv(${fileList([path])}, ${options}, store_rejects := true, rejects_limit := 0)`;
  }
  const where = rows === null ? "" : ` WHERE file_row_number BETWEEN ${rows.first} AND ${rows.end - 1}`;
  return `read_parquet(${fileList([path])}, hive_partitioning := false)${where}`;
}

function damaged({ path }: TablePart, thrown: unknown): MillraceError {
  const error = MillraceError.from(thrown);
  if (error.code !== "SQL_FAILED") return error;
  return new MillraceError("CORRUPT", `${path} is damaged: ${error.message}`, { cause: error });
}

const NONE_REJECTED = { count: 0, bad: [] as BadRow[] };

/** Rows of CSV that DuckDB could not read. */
async function findRejected(
  engine: DuckDb,
  parts: readonly TablePart[],
  { plan }: TableSource,
): Promise<{ count: number; bad: BadRow[] }> {
  const [part] = parts;
  if (part === undefined) return NONE_REJECTED;
  const [counted] = await queryTexts(
    engine,
    "SELECT CAST(count(DISTINCT line) AS VARCHAR) FROM reject_errors",
  );
  const count = Number(counted?.[0] ?? 0);
  if (count === 0) return NONE_REJECTED;
  const rows = await queryTexts(
    engine,
    "SELECT CAST(line AS VARCHAR), CAST(coalesce(byte_position, line_byte_position) AS VARCHAR), column_name, " +
      "CAST(error_type AS VARCHAR), error_message FROM (SELECT *, row_number() OVER (PARTITION BY line " +
      `ORDER BY byte_position, column_idx) AS nth FROM reject_errors) WHERE nth = 1 ORDER BY CAST(line AS BIGINT) LIMIT ${BAD_ROWS_NAMED}`,
  );
  const places = await placesOf(
    part.path,
    rows.map(([line, position]) => ({ line: Number(line), position: Number(position ?? 0) })),
  );
  const bad = rows.map(([, , column, kind, message], i): BadRow => {
    const { line, column: at } = places[i] as { line: number; column: number };
    return {
      file: part.path,
      line,
      column: at,
      why: whyRejected(column ?? null, kind ?? "", message ?? "", plan),
    };
  });
  return { count, bad };
}

function whyRejected(column: string | null, kind: string, message: string, { label }: TablePlan): string {
  const sentence = message.split("\n")[0]?.trim() ?? "";
  const converted = /Could not convert string (".*") to '(.*)'$/s.exec(message.trim());
  if (kind === "CAST" && column !== null) {
    if (converted !== null) return `column ${column} holds ${converted[1]}, which is no ${converted[2]}`;
    if (column === label?.name) return "the label is missing";
  }
  return sentence === "" ? kind.toLowerCase() : sentence;
}

/** Rows that were read and are of no use, with their lines where each row is a line. */
async function findFlagged(
  engine: DuckDb,
  { format, linesBefore: before, plan }: TableSource,
  parts: readonly TablePart[],
  total: number,
  rejectedCount: number,
): Promise<BadRow[]> {
  const rows = await queryTexts(
    engine,
    "SELECT CAST(rowid AS VARCHAR), CAST(bad AS VARCHAR) FROM t WHERE bad <> 0 ORDER BY rowid " +
      `LIMIT ${BAD_ROWS_NAMED}`,
  );
  const numbers = rows.map(([row]) => Number(row));
  const whys = rows.map(([, bad]) => whyFlagged(Number(bad), plan));
  if (format === "csv") {
    const { path } = parts[0] as TablePart;
    const rejected = await queryTexts(engine, "SELECT DISTINCT CAST(line AS VARCHAR) FROM reject_errors");
    const lines = await acceptedLines(path, {
      linesBefore: before,
      accepted: total,
      rejectedLines: rejectedCount === rejected.length ? rejected.map(([line]) => Number(line)) : null,
      rows: numbers,
    });
    return whys.map((why, i) =>
      lines === null
        ? {
            file: path,
            line: 0,
            column: 0,
            why: `${why} (row ${(numbers[i] as number) + 1} of those that could be read)`,
          }
        : { file: path, line: lines[i] as number, column: 0, why },
    );
  }
  return whys.map((why, i) => {
    const { path, row } = rowOf(parts, numbers[i] as number);
    return { file: path, line: 0, column: 0, why: `${why} (row ${row + 1})` };
  });
}

/** Which row of which file the `number`-th row of all parts is. */
function rowOf(parts: readonly TablePart[], number: number): { path: string; row: number } {
  let left = number;
  for (const { path, rows } of parts) {
    if (rows === null) return { path, row: left };
    if (left < rows.end - rows.first) return { path, row: rows.first + left };
    left -= rows.end - rows.first;
  }
  throw new MillraceError("INTERNAL", `there is no row ${number}`);
}

function whyFlagged(bad: number, { features }: TablePlan): string {
  if (bad === LABEL_MISSING) return "the label is missing";
  if (bad === LABEL_NO_NUMBER) return "the label is not a finite number";
  const feature = Math.floor((bad - FEATURE_NOT_FINITE) / 2);
  const what = (bad - FEATURE_NOT_FINITE) % 2 === 0 ? "not finite" : "not a number";
  return `column ${features[feature]?.name} is ${what}`;
}

/** Numbers the texts of all categorical features. */
async function numberTexts(
  engine: DuckDb,
  { source, categoriesMax }: ScanArgument,
): Promise<(string[] | null)[]> {
  const lists: (string[] | null)[] = [];
  for (const [i, feature] of source.plan.features.entries()) {
    lists.push(
      feature.kind === "categorical" ? await numberText(engine, `f${i}`, feature, categoriesMax) : null,
    );
  }
  return lists;
}

/** Makes the type `e_<column>` of the texts of a column; they are numbered in its order. */
async function numberText(
  engine: DuckDb,
  column: string,
  { name }: ReadColumn,
  max: number,
): Promise<string[]> {
  const texts = await queryTexts(
    engine,
    `SELECT DISTINCT ${column} FROM t WHERE bad = 0 AND ${column} IS NOT NULL ORDER BY 1 LIMIT ${max + 1}`,
  );
  if (texts.length > max) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `column ${name} has more than ${max} distinct texts, and so hardly categories: leave it out of the file`,
    );
  }
  if (texts.length > 0) {
    await runStatement(
      engine,
      `CREATE TEMP TYPE e_${column} AS ENUM (SELECT DISTINCT ${column} FROM t WHERE bad = 0 AND ${column} IS NOT NULL ORDER BY 1)`,
    );
  }
  return texts.map(([text]) => text as string);
}

async function surveyNumbers(engine: DuckDb): Promise<LabelSurvey> {
  const rows = await queryTexts(
    engine,
    `SELECT CAST(v AS VARCHAR) FROM (SELECT DISTINCT l + 0.0 AS v FROM t WHERE bad = 0 AND l IS NOT NULL LIMIT ${distinctMax() + 1})`,
  );
  const tooMany = rows.length > distinctMax();
  const [whole] = await queryTexts(
    engine,
    "SELECT CAST(coalesce(bool_and(l = floor(l)), true) AS VARCHAR) FROM t WHERE bad = 0",
  );
  const distinct = tooMany ? [] : rows.map(([text]) => Number(text) + 0);
  return { distinct: Float64Array.from(new Set(distinct)).sort(), tooMany, allWhole: whole?.[0] === "true" };
}

/** Columns are kept in pieces, so that a block of rows is made from little more than its own. */
const PIECE_BYTES = BLOCK_BYTES / 4;

async function keepColumns(
  engine: DuckDb,
  { label, features }: TablePlan,
  categories: readonly (readonly string[] | null)[],
  labelTexts: readonly string[] | null,
  key: string,
  context: CallContext,
): Promise<ScanPiece[]> {
  const numbered = (column: string, texts: readonly string[], type: string): string =>
    texts.length === 0
      ? `CAST(NULL AS ${type})`
      : `CAST(enum_code(CAST(${column} AS e_${column})) AS ${type})`;
  const list = features.map((_, i) => {
    const texts = categories[i];
    return texts === null || texts === undefined ? `f${i}` : numbered(`f${i}`, texts, "FLOAT");
  });
  if (label !== null) list.unshift(labelTexts === null ? "l" : numbered("l", labelTexts, "DOUBLE"));
  const [counted] = await queryTexts(engine, "SELECT CAST(count(*) AS VARCHAR) FROM t");
  const rowBytes = 8 + 4 * features.length;
  const pieceRows = Math.max(1, Math.floor(PIECE_BYTES / rowBytes));
  const count = Math.max(1, Math.ceil(Number(counted?.[0]) / pieceRows));
  if (count > PIECES_MAX) {
    throw new MillraceError(
      "OBJECT_TOO_LARGE",
      "a file has too many rows to be read at once: cut it into several",
    );
  }
  if (count > 1) list.push(`CAST(rowid // ${pieceRows} AS UINTEGER)`);
  const rows = await engine.execute(`SELECT ${list.join(", ")} FROM t WHERE bad = 0`, [], count);
  try {
    const sizeBytes = rows.bytes;
    if (sizeBytes === 0) return [];
    const namespace = await context.namespace();
    let offsets: ArrayLike<number> = [];
    await writeObject(namespace, key, sizeBytes, async (out) => {
      offsets = (await rows.write(out)).offsets;
    });
    return Array.from(rows.partitionRows, (pieceCount, i) => ({
      offsetBytes: offsets[i] as number,
      lengthBytes: (offsets[i + 1] as number) - (offsets[i] as number),
      rows: pieceCount,
    })).filter((piece) => piece.rows > 0);
  } finally {
    rows.close();
  }
}

const PIECES_MAX = 65_536;

/** What becomes of the numbers that a scan has given to texts. */
export interface ScanCodes {
  labels: LabelCodes | null;
  categories: (Float32Array | null)[];
}

export interface TableStretchRef {
  /** Of the scan's object. */
  key: string;
  /** Index into `codes`. */
  scan: number;
  piece: ScanPiece;
  first: number;
  count: number;
}

export interface TableWrite {
  blocks: { key: string; firstRow: number; rows: number; stretches: TableStretchRef[] }[];
  features: number;
  hasLabel: boolean;
  codes: Record<number, ScanCodes>;
}

/** Makes blocks of the columns that scans have left. */
export async function writeTableBlocks(argument: TableWrite, context: CallContext): Promise<CallReport> {
  const watch = new CallWatch(context);
  const { blocks, features, hasLabel, codes } = argument;
  const namespace = await watch.time("exchange", () => context.namespace());
  let done = 0;
  for (const { key, firstRow, rows, stretches } of blocks) {
    context.signal.throwIfAborted();
    const shape = { firstRow, rows, features, nonZeros: 0, sparse: false };
    const scans = await watch.time("exchange", () =>
      Promise.all(
        stretches.map(({ key: scan, piece }) =>
          namespace.get(scan, { offset: piece.offsetBytes, length: piece.lengthBytes }),
        ),
      ),
    );
    await watch.time("compute", () =>
      writeObject(namespace, key, trainingInput().blockBytes(shape), (out) =>
        trainingInput().writeTableBlock(
          shape,
          hasLabel,
          stretches.map(({ scan, first, count }, i) => ({
            scan: scans[i] as Uint8Array,
            first,
            count,
            ...(codes[scan] as ScanCodes),
          })),
          out,
        ),
      ),
    );
    done += 1;
    context.progress(done / blocks.length);
  }
  return watch.report();
}
