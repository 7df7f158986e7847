/** How files and rows are cut for function workers. Pure. */

/** Of a block: large enough that what is done once a block costs nothing, small enough to be spread. */
export const BLOCK_BYTES = 32 * 1024 * 1024;

/** So many calls a function worker, that none has to wait long for the last of another. */
const CALLS_PER_WORKER = 4;

export interface RowRange {
  firstRow: number;
  rows: number;
}

export interface ByteRange {
  begin: number;
  end: number;
}

/** Of a dense block. */
export function rowsPerBlock(rows: number, features: number, workers: number): number {
  const rowBytes = 8 + 4 * features;
  const fitting = Math.max(1, Math.floor(BLOCK_BYTES / rowBytes));
  return Math.min(fitting, Math.max(1, Math.ceil(rows / (CALLS_PER_WORKER * workers))));
}

/** Neighbouring ranges of at most `size` rows. */
export function cutRows(rows: number, size: number): RowRange[] {
  return Array.from({ length: Math.ceil(rows / size) }, (_, i) => ({
    firstRow: i * size,
    rows: Math.min(size, rows - i * size),
  }));
}

/** Below this a call costs more than the text it reads. */
const TEXT_BYTES_MIN = 64 * 1024;

/** Of a piece of text, given that of all files. */
export function textBytesPerPiece(totalBytes: number, workers: number): number {
  const share = Math.ceil(totalBytes / (CALLS_PER_WORKER * workers));
  return Math.min(BLOCK_BYTES, Math.max(TEXT_BYTES_MIN, share));
}

export function cutBytes(bytes: number, size: number): ByteRange[] {
  return Array.from({ length: Math.ceil(bytes / size) }, (_, i) => ({
    begin: i * size,
    end: Math.min(bytes, (i + 1) * size),
  }));
}

/** Cuts items into at most `count` neighbouring groups of about equal weight. */
export function groupByWeight<T>(items: readonly T[], weightOf: (item: T) => number, count: number): T[][] {
  const total = items.reduce((sum, item) => sum + weightOf(item), 0);
  const groups: T[][] = [];
  let before = 0;
  let current = -1;
  for (const item of items) {
    // By where the middle of an item lies, so that a heavy one does not drag its neighbours along.
    const middle = total === 0 ? 0 : (before + weightOf(item) / 2) / total;
    const group = Math.min(count - 1, Math.floor(middle * count));
    before += weightOf(item);
    if (group === current) (groups.at(-1) as T[]).push(item);
    else groups.push([item]);
    current = group;
  }
  return groups;
}

export function blockKey(prefix: string, block: number): string {
  return `${prefix}/block-${String(block).padStart(5, "0")}`;
}
