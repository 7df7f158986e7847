/**
 * Whether two answers to one query are equal, as far as SQL says what they must be: rows in the order of ORDER BY,
 * where it says nothing as multisets, and where LIMIT cuts through rows that ORDER BY does not tell apart, any of them.
 */

export type Cell = string | null;

export interface SqlAnswer {
  /** Column names, and SQL types. */
  names: readonly string[];
  types: readonly string[];
  rows: readonly (readonly Cell[])[];
  /** For each row, the values of what it is ordered by. */
  keys: readonly (readonly Cell[])[];
}

export interface Expectation {
  answer: SqlAnswer;
  /** Types of the keys. */
  keyTypes: readonly string[];
  /** Whether the query ends with LIMIT or OFFSET. */
  limited: boolean;
  /** The answer without them; asked for only where it matters. */
  unlimited: () => Promise<SqlAnswer>;
}

export interface Verdict {
  /** What differs, or null. */
  difference: string | null;
  /** Whether LIMIT left open which of several rows belong to the answer, and another choice was made. */
  otherChoice: boolean;
}

/** Of sums of floating-point numbers, which depend on the order of their terms. */
const RELATIVE_TOLERANCE = 1e-9;
const ABSOLUTE_TOLERANCE = 1e-9;
const INEXACT = /DOUBLE|FLOAT|DECIMAL/;
const NUMBER = /-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi;

export async function compareAnswers(found: SqlAnswer, expected: Expectation): Promise<Verdict> {
  const { answer, limited } = expected;
  const differs = (difference: string): Verdict => ({ difference, otherChoice: false });
  if (found.types.join() !== answer.types.join()) {
    return differs(`types are ${found.types.join(", ")} instead of ${answer.types.join(", ")}`);
  }
  if (found.names.join() !== answer.names.join()) {
    return differs(`names are ${found.names.join(", ")} instead of ${answer.names.join(", ")}`);
  }
  if (found.rows.length !== answer.rows.length) {
    const wrong = wrongRows(found.rows, answer.rows, answer.types);
    return differs(`${found.rows.length} rows instead of ${answer.rows.length}: ${wrong}`);
  }
  for (const [i, key] of answer.keys.entries()) {
    if (!rowsNear(found.keys[i] ?? [], key, expected.keyTypes)) {
      return differs(`row ${i} has ${show(found.keys[i])} in the place of ${show(key)}`);
    }
  }
  let otherChoice = false;
  for (const { first, end } of ties(expected)) {
    const wrong = wrongRows(found.rows.slice(first, end), answer.rows.slice(first, end), answer.types);
    if (wrong === null) continue;
    // Only at its ends does LIMIT cut through rows that are alike.
    if (!limited || (first > 0 && end < answer.rows.length)) return differs(wrong);
    const candidates = await candidateRows(expected, answer.keys[first] ?? []);
    const { extra } = matchRows(found.rows.slice(first, end), candidates, answer.types);
    if (extra.length > 0) return differs(`not a row of the answer without LIMIT: ${show(extra[0])}`);
    otherChoice = true;
  }
  return { difference: null, otherChoice };
}

/** Stretches of rows with equal keys: all of them where there are no keys. */
function ties({ answer: { keys, rows }, keyTypes }: Expectation): { first: number; end: number }[] {
  const found: { first: number; end: number }[] = [];
  for (let i = 0; i < rows.length; i += 1) {
    const last = found.at(-1);
    if (last !== undefined && rowsNear(keys[i - 1] ?? [], keys[i] ?? [], keyTypes)) last.end = i + 1;
    else found.push({ first: i, end: i + 1 });
  }
  return found;
}

async function candidateRows(
  { unlimited, keyTypes }: Expectation,
  key: readonly Cell[],
): Promise<SqlAnswer["rows"]> {
  const { rows, keys } = await unlimited();
  return rows.filter((_, i) => rowsNear(keys[i] ?? [], key, keyTypes));
}

/** What is too much and what is missing, or null where two multisets of rows are equal. */
function wrongRows(
  found: SqlAnswer["rows"],
  wanted: SqlAnswer["rows"],
  types: readonly string[],
): string | null {
  const { extra, missing } = matchRows(found, wanted, types);
  if (extra.length + missing.length === 0) return null;
  const parts: string[] = [];
  if (extra.length > 0) parts.push(`${extra.length} too many, such as ${show(extra[0])}`);
  if (missing.length > 0) parts.push(`${missing.length} missing, such as ${show(missing[0])}`);
  return parts.join("; ");
}

/** Pairs rows off; what is left on either side. */
function matchRows(found: SqlAnswer["rows"], wanted: SqlAnswer["rows"], types: readonly string[]) {
  const open = new Map<string, (readonly Cell[])[]>();
  for (const row of wanted) {
    const text = JSON.stringify(row);
    const same = open.get(text);
    if (same === undefined) open.set(text, [row]);
    else same.push(row);
  }
  const unmatched = found.filter((row) => open.get(JSON.stringify(row))?.pop() === undefined);
  const missing = [...open.values()].flat();
  // What is not the same to the last digit may still be near.
  const extra = unmatched.filter((row) => {
    const at = missing.findIndex((candidate) => rowsNear(row, candidate, types));
    if (at >= 0) missing.splice(at, 1);
    return at < 0;
  });
  return { extra, missing };
}

function rowsNear(a: readonly Cell[], b: readonly Cell[], types: readonly string[]): boolean {
  return a.length === b.length && a.every((cell, i) => cellsNear(cell, b[i] ?? null, types[i] ?? ""));
}

function cellsNear(a: Cell, b: Cell, type: string): boolean {
  if (a === b) return true;
  if (a === null || b === null || !INEXACT.test(type)) return false;
  // Lists and structs may have numbers anywhere in them.
  if (a.replace(NUMBER, "#") !== b.replace(NUMBER, "#")) return false;
  const others = b.match(NUMBER) ?? [];
  return (a.match(NUMBER) ?? []).every((text, i) => numbersNear(Number(text), Number(others[i])));
}

function numbersNear(a: number, b: number): boolean {
  const difference = Math.abs(a - b);
  return (
    difference <= ABSOLUTE_TOLERANCE || difference <= RELATIVE_TOLERANCE * Math.max(Math.abs(a), Math.abs(b))
  );
}

const SHOWN_CHARACTERS_MAX = 400;

function show(row: readonly Cell[] | undefined): string {
  const text = JSON.stringify(row ?? null);
  return text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text;
}
