/** A result as JSON. */
import type { TextSink } from "./sink.js";
import { jsonSql, type PrintedRows, pages, uniqueNames } from "./values.js";

/** An array of objects, one a line. */
export async function writeJson(result: PrintedRows, sink: TextSink): Promise<void> {
  const keys = uniqueNames(result.columns, { caseless: false }).map((name) => `${JSON.stringify(name)}:`);
  await sink.write("[");
  let separator = "\n";
  await eachRow(result, async (values) => {
    await sink.write(`${separator}{${values.map((value, column) => keys[column] + value).join(",")}}`);
    separator = ",\n";
  });
  await sink.write(separator === "\n" ? "]\n" : "\n]\n");
  await sink.end();
}

/** The text of an array of arrays, for a document: all of it at once. */
export async function rowsJson(result: PrintedRows): Promise<string> {
  const rows: string[] = [];
  await eachRow(result, async (values) => {
    rows.push(`[${values.join(",")}]`);
  });
  return `[${rows.join(",")}]`;
}

/** Calls for each row with the JSON of its values. */
async function eachRow(result: PrintedRows, work: (values: string[]) => Promise<void>): Promise<void> {
  const rows = await result.query(jsonSql(result.columns));
  try {
    for (const page of pages(rows)) {
      const count = page[0]?.length ?? 0;
      for (let row = 0; row < count; row += 1) await work(page.map((values) => values[row] ?? "null"));
    }
  } finally {
    rows.close();
  }
}
