/** Rows that could not be used: how many, and the first of them by name. */
import { MillraceError } from "../../../client/errors.js";
import type { BadRow, Dataset } from "../dataset.js";

/** Bad rows that are named. */
export const BAD_ROWS_NAMED = 100;

export class BadRows {
  #count = 0;
  readonly #first: BadRow[] = [];

  /** In the order of the files; `named` are the first of them. */
  add(count: number, named: readonly BadRow[]): void {
    this.#count += count;
    this.#first.push(...named.slice(0, BAD_ROWS_NAMED - this.#first.length));
  }

  result(): Dataset["bad"] {
    return { count: this.#count, first: this.#first };
  }

  /** The error where no row is left. */
  noneGood(paths: readonly string[]): MillraceError {
    const [first] = this.#first;
    if (first === undefined) {
      return new MillraceError("INVALID_ARGUMENT", `there are no rows in ${paths.join(", ")}`);
    }
    return new MillraceError(
      "CORRUPT",
      `none of the ${this.#count} rows in ${paths.join(", ")} can be used; the first: ${describeBadRow(first)}`,
    );
  }
}

/** `a.csv, line 3, column 5: the label is missing` */
export function describeBadRow({ file, line, column, why }: BadRow): string {
  const place = [file, ...(line > 0 ? [`line ${line}`] : []), ...(column > 0 ? [`column ${column}`] : [])];
  return `${place.join(", ")}: ${why}`;
}
