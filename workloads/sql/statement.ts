/** The SQL text that a function worker is given for a stage. Pure. */
import type { OrderKey } from "./plan/stage.js";

/** Puts a fragment over what it reads: tables by the SELECT of their scan, exchanges by their rows. */
export function withInputs(
  tables: readonly { name: string; sql: string }[],
  exchanges: readonly string[],
  fragment: string,
): string {
  const inputs = [
    ...tables.map(({ name, sql }) => `${name} AS NOT MATERIALIZED (${sql})`),
    ...exchanges.map((name) => `${name} AS NOT MATERIALIZED (SELECT * FROM rows_in('${name}'))`),
  ];
  if (inputs.length === 0) return fragment;
  // A fragment may begin with a WITH of its own.
  const body = /^\s*WITH\b/i.test(fragment) ? `SELECT * FROM (${fragment}) AS fragment` : fragment;
  return `WITH ${inputs.join(", ")} ${body}`;
}

/**
 * A fragment with the partition of each row as its last column. Hashed once more, because DuckDB's own hash tables go
 * by the same hash: all rows of a partition would have its lowest bits in common, and so meet in few of their slots.
 */
export function partitionedByHash(fragment: string, keys: readonly string[], partitions: number): string {
  if (partitions === 1) return fragment;
  return `SELECT *, (hash(hash(${keys.join(", ")})) % ${partitions})::UINTEGER FROM (${fragment}) AS fragment`;
}

/**
 * A BLOB whose order, byte by byte, is that of the keys. The text at the end keeps DuckDB from giving small keys as
 * a number.
 */
export function sortKey(order: readonly OrderKey[]): string {
  const keys = order.map(
    ({ expression, descending, nullsFirst }) =>
      `${expression}, '${descending ? "DESC" : "ASC"} NULLS ${nullsFirst ? "FIRST" : "LAST"}'`,
  );
  return `create_sort_key(${[...keys, "'', 'ASC NULLS LAST'"].join(", ")})`;
}

/** Some rows' sort keys, hexadecimal, as one VARCHAR column: at most `count`, always the same ones. */
export function sortKeySample(source: string, order: readonly OrderKey[], count: number): string {
  return (
    `SELECT hex(sort_key) FROM (SELECT ${sortKey(order)} AS sort_key FROM ${source}) AS keys ` +
    `USING SAMPLE reservoir(${count} ROWS) REPEATABLE (1)`
  );
}

/** The boundaries between `partitions` ranges with about as many of the sampled keys each; fewer where keys repeat. */
export function chooseBoundaries(samples: readonly string[], partitions: number): string[] {
  const sorted = [...samples].sort();
  const boundaries = new Set<string>();
  for (let partition = 1; partition < partitions; partition += 1) {
    const key = sorted[Math.floor((partition * sorted.length) / partitions)];
    if (key !== undefined && key !== sorted[0]) boundaries.add(key);
  }
  return [...boundaries];
}

/** As `partitionedByHash`, by ranges: the partition is the number of boundaries that are not above the key. */
export function partitionedByRange(
  fragment: string,
  order: readonly OrderKey[],
  boundaries: readonly string[],
): string {
  if (boundaries.length === 0) return fragment;
  return (
    `SELECT * EXCLUDE (sort_key), (${search(boundaries, 0, boundaries.length)})::UINTEGER ` +
    `FROM (SELECT *, ${sortKey(order)} AS sort_key FROM (${fragment}) AS fragment) AS keyed`
  );
}

/** Binary search, so that a row is compared with few of the boundaries. */
function search(boundaries: readonly string[], from: number, to: number): string {
  if (from === to) return String(from);
  const middle = (from + to) >> 1;
  const below = search(boundaries, from, middle);
  const above = search(boundaries, middle + 1, to);
  return `CASE WHEN sort_key < from_hex('${boundaries[middle]}') THEN ${below} ELSE ${above} END`;
}
