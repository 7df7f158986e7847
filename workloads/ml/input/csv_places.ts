/** Where in a CSV file a row is: DuckDB knows bytes and rows, people look for lines. */
import { openBytes } from "./bytes.js";
import { isGzip } from "./files.js";

const NEWLINE = 0x0a;
const CHUNK_BYTES = 1024 * 1024;

export interface Place {
  line: number;
  column: number;
}

/** The lines and columns of bytes counted from 1, in ascending order; `line` is what is said where there is no such byte. */
export async function placesOf(
  path: string,
  positions: readonly { line: number; position: number }[],
): Promise<Place[]> {
  const places = positions.map(({ line }): Place => ({ line, column: 0 }));
  const wanted = positions
    .map(({ position }, i) => ({ offset: position - 1, i }))
    .filter(({ offset }) => offset >= 0)
    .sort((a, b) => a.offset - b.offset);
  const source = await openBytes({ path, gzip: await isGzip(path) });
  try {
    let line = 1;
    let lineBegin = 0;
    let before = 0;
    for (let next = 0; next < wanted.length; ) {
      const chunk = await source.read(CHUNK_BYTES);
      if (chunk.length === 0) break;
      let at = 0;
      for (; next < wanted.length; next += 1) {
        const { offset, i } = wanted[next] as { offset: number; i: number };
        if (offset >= before + chunk.length) break;
        for (;;) {
          const newline = chunk.indexOf(NEWLINE, at);
          if (newline === -1 || before + newline >= offset) break;
          line += 1;
          at = newline + 1;
          lineBegin = before + at;
        }
        places[i] = { line, column: offset - lineBegin + 1 };
      }
      for (;;) {
        const newline = chunk.indexOf(NEWLINE, at);
        if (newline === -1) break;
        line += 1;
        at = newline + 1;
        lineBegin = before + at;
      }
      before += chunk.length;
    }
  } finally {
    await source.close();
  }
  return places;
}

export interface ReadRows {
  /** Lines before the first row: a header, what was skipped. */
  linesBefore: number;
  /** Rows that could be read. */
  accepted: number;
  /** Lines of those that could not; null: unknown. */
  rejectedLines: readonly number[] | null;
  /** Rows that are asked for, counted from 0 among those that could be read, ascending. */
  rows: readonly number[];
}

/** The lines of rows, or null where a row may be more than a line, or less. */
export async function acceptedLines(path: string, read: ReadRows): Promise<number[] | null> {
  const { linesBefore, accepted, rejectedLines, rows } = read;
  if (rejectedLines === null) return null;
  if ((await countLines(path)) !== linesBefore + accepted + rejectedLines.length) return null;
  const rejected = [...rejectedLines].sort((a, b) => a - b);
  let passed = 0;
  return rows.map((row) => {
    let line = linesBefore + 1 + row + passed;
    while (passed < rejected.length && (rejected[passed] as number) <= line) {
      passed += 1;
      line += 1;
    }
    return line;
  });
}

async function countLines(path: string): Promise<number> {
  const source = await openBytes({ path, gzip: await isGzip(path) });
  try {
    let lines = 0;
    let last = NEWLINE;
    for (;;) {
      const chunk = await source.read(CHUNK_BYTES);
      if (chunk.length === 0) return last === NEWLINE ? lines : lines + 1;
      for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) lines += 1;
      last = chunk.at(-1) as number;
    }
  } finally {
    await source.close();
  }
}
