/** The tables of a query: what lies in `--data`, and how it can be divided among tasks. */

export interface Column {
  name: string;
  /** SQL type. */
  type: string;
}

/** A stretch of one file of a table. */
export interface FilePart {
  path: string;
  /** Rows from `firstRow` to `endRow`, whole row groups; null: the file as a whole (CSV cannot be cut). */
  rows: { first: number; end: number } | null;
  /** Of the file, compressed as it is. */
  bytes: number;
}

export interface Table {
  name: string;
  format: "parquet" | "csv";
  columns: readonly Column[];
  /** Absolute paths, or URLs. */
  files: readonly string[];
  /** Bytes of the files. */
  bytes: number;
  /** Exact for Parquet, estimated for CSV. */
  rows: number;
  /** All of it, in its smallest pieces, in order. */
  parts: readonly FilePart[];
}

export interface Catalog {
  readonly tables: ReadonlyMap<string, Table>;
  /**
   * The statement that makes a table known to the planner's DuckDB under its own name. What the view reads need not be
   * the table's files (DuckDB cannot serialise a scan of CSV), but `tableOfFiles` knows it again.
   */
  viewSql(table: Table): string;
  /** The same over the real files: for running SQL in one process. */
  singleViewSql(table: Table): string;
  /**
   * The table that a scan of exactly these files belongs to, or null. Where DuckDB has left files of a table out (a
   * filter on a folder's `year=2000`), a table of its own that has only the others: it is in `tables` from then on.
   */
  tableOfFiles(files: readonly string[]): Table | null;
  /**
   * SELECT of `columns` as c0, c1, … over `parts` of a table (no parts: no rows, same types), with a filter on c0, c1,
   * … where given. No columns at all: one column that means nothing, a row for each row.
   */
  scanSql(
    table: Table,
    columns: readonly string[],
    parts: readonly FilePart[],
    filter: string | null,
  ): string;
  /** Removes what it has put into the temporary folder. Views made from `viewSql` are void from then on. */
  close(): Promise<void>;
}
