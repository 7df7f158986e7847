/** Names of sorted parts: one a partition, in the order of the keys. Those of SQL end in `.parquet`. */

const PART = /^part-\d{5,}(?:\.parquet)?$/;

export function partName(partition: number): string {
  return `part-${String(partition).padStart(5, "0")}`;
}

export function isPartName(name: string): boolean {
  return PART.test(name);
}
