/** A result as CSV (RFC 4180). NULL is nothing at all, an empty text is "". */
import type { TextSink } from "./sink.js";
import { type PrintedRows, pages, textsSql } from "./values.js";

export async function writeCsv(result: PrintedRows, sink: TextSink): Promise<void> {
  const rows = await result.query(textsSql(result.columns));
  try {
    await sink.write(record(result.columns.map(({ name }) => name)));
    for (const page of pages(rows)) {
      const count = page[0]?.length ?? 0;
      for (let row = 0; row < count; row += 1) {
        await sink.write(record(page.map((values) => values[row] ?? null)));
      }
    }
  } finally {
    rows.close();
  }
  await sink.end();
}

function record(values: readonly (string | null)[]): string {
  // A line with nothing on it is no record to most readers.
  if (values.length === 1 && values[0] === null) return '""\r\n';
  return `${values.map(field).join(",")}\r\n`;
}

function field(value: string | null): string {
  if (value === null) return "";
  return value === "" || /[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}
