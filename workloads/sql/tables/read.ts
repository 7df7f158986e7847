/** SQL that reads files as they are: what the formats have in common. */
import { MillraceError } from "../../../client/errors.js";
import type { Column } from "../catalog.js";
import { quoteName, quoteText } from "../duckdb.js";

/** How DuckDB is told about `year=2000` folders: never by guessing, so that every task sees the same types. */
export function folderOptions(columns: readonly Column[]): string {
  if (columns.length === 0) return "hive_partitioning := false";
  const types = columns.map(({ name, type }) => `${quoteText(name)}: ${type}`).join(", ");
  return `hive_partitioning := true, hive_types := {${types}}`;
}

/** A list of files, exactly these: DuckDB would take `[1]` and `*` in a path for a pattern. */
export function fileList(paths: readonly string[]): string {
  return `[${paths.map((path) => quoteText(path.replace(/[[*?]/g, "[$&]"))).join(", ")}]`;
}

/** Refuses columns that SQL could not tell apart. */
export function checkColumns(path: string, columns: readonly Column[]): void {
  const seen = new Map<string, string>();
  for (const { name } of columns) {
    quoteName(name);
    const same = seen.get(name.toLowerCase());
    if (same !== undefined) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `${path} has two columns of one name: ${same} and ${name} (SQL does not tell upper case from lower)`,
      );
    }
    seen.set(name.toLowerCase(), name);
  }
}

/** How the columns of a file differ from another's: one sentence, or null where they do not. */
export function difference(
  first: { path: string; columns: readonly Column[] },
  other: { path: string; columns: readonly Column[] },
): string | null {
  const known = new Map(first.columns.map((column) => [column.name.toLowerCase(), column]));
  for (const { name, type } of other.columns) {
    const column = known.get(name.toLowerCase());
    if (column === undefined) return `${other.path} has a column ${name} and ${first.path} has none`;
    if (column.type !== type) {
      return `column ${name} is ${column.type} in ${first.path} and ${type} in ${other.path}`;
    }
    known.delete(name.toLowerCase());
  }
  const [missing] = known.values();
  return missing === undefined
    ? null
    : `${first.path} has a column ${missing.name} and ${other.path} has none`;
}
