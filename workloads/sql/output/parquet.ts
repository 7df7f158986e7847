/** A result as Parquet parts in a directory: `part-00000.parquet` and so on, written by function workers. */
import { basename, dirname, join } from "node:path";
import { partName } from "../../sort/parts.js";
import type { Column } from "../catalog.js";
import { quoteName } from "../duckdb.js";
import { uniqueNames } from "./values.js";

/** Where a part lies when it is whole. */
export function partPath(directory: string, part: number): string {
  return join(directory, `${partName(part)}.parquet`);
}

/** Where an attempt writes it: under a name that the output directory sweeps when the attempt has died. */
export function unfinishedPath(path: string, attempt: string): string {
  return join(dirname(path), `.${basename(path)}.${attempt}`);
}

/** SELECT of the result's columns, c0, c1, … of `source`, under their own names: each once, as files need it. */
export function namedSelect(columns: readonly Column[], source: string): string {
  const names = uniqueNames(columns, { caseless: true });
  const list = names.map((name, i) => `c${i} AS ${quoteName(name === "" ? `c${i}` : name)}`).join(", ");
  return `SELECT ${list} FROM ${source}`;
}
