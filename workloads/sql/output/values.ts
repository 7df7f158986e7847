/** How values of a result become text. DuckDB renders them; this is the SQL that asks for it. */
import type { DuckDbRows } from "../../../client/duckdb.js";
import type { Column } from "../catalog.js";

/** Rows to print: a result of the driver, or of DuckDB alone. `query` as the driver's `SqlResult` has it. */
export interface PrintedRows {
  readonly columns: readonly Column[];
  readonly rows: number;
  query(sql: string): Promise<DuckDbRows>;
}

const INTEGERS = /^(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER)$/;
const SAFE_INTEGERS = /^(?:U?(?:TINY|SMALL)INT|U?INTEGER)$/;
const FLOATS = /^(?:FLOAT|DOUBLE)$/;
const DECIMAL = /^DECIMAL\((\d+),\s*(\d+)\)$/;
const NESTED = /^(?:STRUCT|MAP|UNION)\b|\]$/;

/** Whether a column is printed to the right. */
export function isNumeric(type: string): boolean {
  return INTEGERS.test(type) || FLOATS.test(type) || DECIMAL.test(type);
}

/** Every column as text; NULL stays NULL. */
export function textsSql(columns: readonly Column[]): string {
  return select(columns.map((_, i) => `CAST(c${i} AS VARCHAR)`));
}

/** Every column as a JSON value; none is NULL. */
export function jsonSql(columns: readonly Column[]): string {
  return select(columns.map(({ type }, i) => `coalesce(${jsonValue(`c${i}`, type)}, 'null')`));
}

function select(expressions: readonly string[]): string {
  const list = expressions.map((expression, i) => `${expression} AS c${i}`).join(", ");
  return `SELECT ${list} FROM rows_in('result')`;
}

/** Integers up to here are the same in every JSON reader. */
const SAFE = "9007199254740991";
/** So many digits survive a double. */
const DIGITS_SAFE = 15;

/** Numbers are JSON numbers where every reader reads the same number, else strings. */
function jsonValue(column: string, type: string): string {
  const text = `CAST(${column} AS VARCHAR)`;
  const string = `CAST(to_json(${text}) AS VARCHAR)`;
  if (SAFE_INTEGERS.test(type) || type === "BOOLEAN" || type === "JSON") return text;
  if (INTEGERS.test(type)) {
    const low = type.startsWith("U") ? "0" : `-${SAFE}`;
    return `CASE WHEN ${column} BETWEEN ${low} AND ${SAFE} THEN ${text} ELSE ${string} END`;
  }
  if (FLOATS.test(type)) return `CASE WHEN isfinite(${column}) THEN ${text} ELSE ${string} END`;
  const decimal = DECIMAL.exec(type);
  if (decimal !== null) {
    const [width, scale] = [Number(decimal[1]), Number(decimal[2])];
    if (width <= DIGITS_SAFE) return text;
    // Digits before the point that leave room for those behind it.
    const whole = DIGITS_SAFE - scale;
    const bound = whole >= 0 ? `1${"0".repeat(whole)}` : `0.${"0".repeat(-whole - 1)}1`;
    return `CASE WHEN abs(${column}) < ${bound} THEN ${text} ELSE ${string} END`;
  }
  return NESTED.test(type) ? `CAST(to_json(${column}) AS VARCHAR)` : string;
}

/** Values read at once: enough that reading costs little, few enough that memory does not grow with the result. */
const VALUES_PER_PAGE = 1 << 16;

/** Rows of a query whose columns are all VARCHAR, some at a time: `page[column][row]`. */
export function* pages(rows: DuckDbRows): Generator<(string | null)[][]> {
  const count = Math.max(1, Math.floor(VALUES_PER_PAGE / Math.max(1, rows.names.length)));
  for (let first = 0; first < rows.rows; first += count) {
    yield rows.names.map((_, column) => rows.texts(column, first, Math.min(count, rows.rows - first)));
  }
}

/** The names, each once: a second `a` becomes `a_1`. */
export function uniqueNames(columns: readonly Column[], { caseless }: { caseless: boolean }): string[] {
  const fold = (name: string): string => (caseless ? name.toLowerCase() : name);
  const taken = new Set(columns.map(({ name }) => fold(name)));
  const used = new Set<string>();
  return columns.map(({ name }) => {
    let unique = name;
    for (let i = 1; used.has(fold(unique)) || (unique !== name && taken.has(fold(unique))); i += 1) {
      unique = `${name}_${i}`;
    }
    used.add(fold(unique));
    return unique;
  });
}
