/** What is to be read of a table, as SQL: which column is the label, and what becomes of the others. Pure. */
import { MillraceError } from "../../../client/errors.js";
import { quoteName } from "../../sql/duckdb.js";
import type { ColumnKind, Dataset } from "../dataset.js";

export interface TableColumn {
  name: string;
  /** SQL type. */
  type: string;
}

/** A column that is read. */
export interface ReadColumn {
  /** As the files call it. */
  name: string;
  kind: ColumnKind;
  /** A DOUBLE, or of a categorical column a VARCHAR. */
  sql: string;
  /** A BOOLEAN: whether a value is there that is no number; null where there cannot be one. */
  isNoNumber: string | null;
}

export interface TablePlan {
  /** Null: there is none. */
  label: ReadColumn | null;
  /** Rows without a label are fine. */
  labelOptional: boolean;
  features: ReadColumn[];
}

export interface TableChoice {
  label: string | null;
  task: "classify" | "regress" | null;
  like: Dataset | null;
  labelOptional: boolean;
}

const LABEL_NAMES = ["label", "target", "class", "y"];
/** Columns that an error names. */
const COLUMNS_NAMED = 40;

export function planTable(columns: readonly TableColumn[], choice: TableChoice): TablePlan {
  const { like, labelOptional } = choice;
  const label = chooseLabel(columns, choice);
  const features =
    like === null
      ? columns.filter((column) => column !== label).map((column) => readColumn(column, null))
      : like.columns.map(({ name, kind }) => {
          const column = findColumn(columns, name);
          if (column !== null) return readColumn(column, kind);
          throw new MillraceError(
            "INVALID_ARGUMENT",
            `there is no column ${name}, which the training data has; there are ${listed(columns)}`,
          );
        });
  if (features.length === 0) {
    throw new MillraceError("INVALID_ARGUMENT", "there is no column beside the label: nothing to learn from");
  }
  return { label: label === null ? null : readLabel(label, choice), labelOptional, features };
}

/** A column of CSV that was guessed to be text, and how many of the values looked at are numbers. */
export interface TextSample {
  name: string;
  /** Values that are there: neither empty nor a word such as NA. */
  values: number;
  numbers: number;
}

/** From this share of numbers on, what is no number in a column is a mistake, and the column none of text. */
const NUMBERS_MIN = 0.95;

/**
 * The types that the columns of CSV are taken for. Text that is nearly all numbers is numbers; what a model knows as
 * categories is read as text, so that `007` stays what it is.
 */
export function csvTypes(
  columns: readonly TableColumn[],
  samples: readonly TextSample[],
  like: Dataset | null,
): TableColumn[] {
  const numbers = new Set(
    samples
      .filter((sample) => sample.numbers > 0 && sample.numbers >= NUMBERS_MIN * sample.values)
      .map(({ name }) => name),
  );
  const categories = new Set<string>();
  for (const { name, kind } of like?.columns ?? []) {
    const column = findColumn(columns, name);
    if (column !== null && kind === "categorical") categories.add(column.name);
  }
  return columns.map(({ name, type }) => {
    if (categories.has(name)) return { name, type: "VARCHAR" };
    return { name, type: type === "VARCHAR" && numbers.has(name) ? NUMBER_TEXT : type };
  });
}

/** Not SQL: text in CSV that is to be read as numbers. */
export const NUMBER_TEXT = "numbers as text";

/** Of text: whether it says that there is no value. */
export function isMissingSql(quoted: string): string {
  return `(upper(trim(${quoted})) IN ('', 'NA', 'N/A', 'NAN', 'NULL', 'NONE', '?', '-'))`;
}

function chooseLabel(
  columns: readonly TableColumn[],
  { label, like, labelOptional }: TableChoice,
): TableColumn | null {
  const named = label ?? like?.labelColumn ?? null;
  if (named !== null) {
    const found = findColumn(columns, named);
    if (found !== null || labelOptional) return found;
    throw new MillraceError(
      "NOT_FOUND",
      `there is no column ${named} that could be the label; there are ${listed(columns)}`,
    );
  }
  const features = new Set(like?.columns.map(({ name }) => name));
  for (const name of LABEL_NAMES) {
    const found = findColumn(columns, name);
    if (found !== null && !features.has(found.name)) return found;
  }
  if (labelOptional) return null;
  throw new MillraceError(
    "INVALID_ARGUMENT",
    `which column is the label? None is called ${LABEL_NAMES.join(", ")}: name one with --label; there are ${listed(columns)}`,
  );
}

/** By its name; where none is called exactly so, without regard to case. */
export function findColumn(columns: readonly TableColumn[], name: string): TableColumn | null {
  return (
    columns.find((column) => column.name === name) ??
    columns.find((column) => column.name.toLowerCase() === name.toLowerCase()) ??
    null
  );
}

function listed(columns: readonly TableColumn[]): string {
  const names = columns.slice(0, COLUMNS_NAMED).map(({ name }) => name);
  return names.join(", ") + (columns.length > COLUMNS_NAMED ? ", …" : "");
}

const WHOLE = /^U?(?:TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)$/;
const NUMBER = /^(?:FLOAT|DOUBLE|DECIMAL\(\d+,\s*\d+\))$/;
const TIME = /^(?:TIMESTAMP|TIMESTAMP_S|TIMESTAMP_MS|TIMESTAMP_NS|TIMESTAMP WITH TIME ZONE|TIME)$/;
const TEXT = /^(?:VARCHAR|UUID|JSON|ENUM\(.*\))$/s;

/** Days or seconds since 1970, seconds of the day, 0 and 1: what a value is as a number. Null: it is none. */
function asNumber(name: string, type: string): string | null {
  const quoted = quoteName(name);
  if (WHOLE.test(type) || NUMBER.test(type)) return `CAST(${quoted} AS DOUBLE)`;
  if (type === "BOOLEAN") return `CAST(CAST(${quoted} AS TINYINT) AS DOUBLE)`;
  if (type === "DATE") return `CAST(epoch(${quoted}) AS DOUBLE) / 86400`;
  if (TIME.test(type)) return `CAST(epoch(${quoted}) AS DOUBLE)`;
  return null;
}

/** `kind` null: by the type. */
function readColumn({ name, type }: TableColumn, kind: ColumnKind | null): ReadColumn {
  const number = asNumber(name, type);
  const quoted = quoteName(name);
  if (number === null && type !== NUMBER_TEXT && !TEXT.test(type)) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `column ${name} is ${type}, which is neither a number, a time nor text: leave it out of the file`,
    );
  }
  if (kind === "categorical" || (kind === null && number === null && type !== NUMBER_TEXT)) {
    return { name, kind: "categorical", sql: `CAST(${quoted} AS VARCHAR)`, isNoNumber: null };
  }
  if (number !== null) return { name, kind: "numeric", sql: number, isNoNumber: null };
  const tried = `TRY_CAST(${quoted} AS DOUBLE)`;
  return {
    name,
    kind: "numeric",
    sql: `CASE WHEN NOT ${isMissingSql(quoted)} THEN ${tried} END`,
    isNoNumber: `(${tried} IS NULL AND NOT ${isMissingSql(quoted)})`,
  };
}

function readLabel(column: TableColumn, { like, task }: TableChoice): ReadColumn {
  if (like === null ? task === "regress" : like.label.kind === "number") return readColumn(column, "numeric");
  // `true` and `false` are better names of classes than 1 and 0.
  return readColumn(column, column.type === "BOOLEAN" ? "categorical" : null);
}
