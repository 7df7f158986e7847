/** A result as a table with aligned columns, for people. */
import stringWidth from "string-width";
import { formatCount } from "../../report/format.js";
import type { TextSink } from "./sink.js";
import { isNumeric, type PrintedRows, pages, textsSql } from "./values.js";

const GAP = "  ";

/** Prints all rows; columns are as wide as their widest value. */
export async function writeTable(result: PrintedRows, sink: TextSink): Promise<void> {
  const { columns } = result;
  const names = columns.map(({ name }) => shown(name));
  const right = columns.map(({ type }) => isNumeric(type));
  const rows = await result.query(textsSql(columns));
  try {
    const widths = names.map(widthOf);
    for (const page of pages(rows)) {
      for (const [column, values] of page.entries()) {
        let width = widths[column] as number;
        for (const value of values) width = Math.max(width, widthOf(shown(value)));
        widths[column] = width;
      }
    }
    const line = (cells: readonly string[]): string =>
      `${cells
        .map((cell, column) => {
          const padding = " ".repeat((widths[column] as number) - widthOf(cell));
          return right[column] ? padding + cell : cell + padding;
        })
        .join(GAP)
        .trimEnd()}\n`;
    await sink.write(line(names));
    await sink.write(`${widths.map((width) => "-".repeat(width)).join(GAP)}\n`);
    for (const page of pages(rows)) {
      const count = page[0]?.length ?? 0;
      for (let row = 0; row < count; row += 1) {
        await sink.write(line(page.map((values) => shown(values[row]))));
      }
    }
    await sink.write(`(${formatCount(rows.rows)} ${rows.rows === 1 ? "row" : "rows"})\n`);
  } finally {
    rows.close();
  }
  await sink.end();
}

const ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** One line, whatever the value holds. */
function shown(value: string | null | undefined): string {
  if (value === null || value === undefined) return "NULL";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  return value.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    return ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Cells of a terminal. */
function widthOf(text: string): number {
  return /^[\x20-\x7e]*$/.test(text) ? text.length : stringWidth(text);
}
