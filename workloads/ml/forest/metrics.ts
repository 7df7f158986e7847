/** How good a forest is, from what its votes came to. Pure. */
import type { ForestTally } from "../../../client/learning.js";
import type { Label } from "../dataset.js";

export interface ForestMetrics {
  /** Rows that have a label, and a vote. */
  rows: number;
  /** Classification: the share of rows taken for what they are. */
  accuracy: number | null;
  /** Regression: root of the mean squared error, and the share of the variance that is explained. */
  rmse: number | null;
  r2: number | null;
  /** Classification: of rows of each class, how many were taken for each. */
  confusion: number[][] | null;
  /** The accuracy, or the RMSE, of the first 1, 2, … trees; null where they vote on no row. */
  byTree: (number | null)[];
}

/** Null where no row has a label. */
export function metricsOf(
  tallies: readonly ForestTally[],
  label: Label,
  trees: number,
): ForestMetrics | null {
  const rows = added(
    tallies.map((tally) => tally.rows),
    trees,
  );
  const voted = rows.at(-1) ?? 0;
  if (voted === 0) return null;
  if (label.kind === "classes") {
    const right = added(
      tallies.map((tally) => tally.right),
      trees,
    );
    const classes = label.classes.length;
    const confusion = added(
      tallies.map((tally) => tally.confusion),
      classes * classes,
    );
    const byTree = right.map((count, tree) => shareOf(count, rows[tree] as number));
    return {
      rows: voted,
      accuracy: byTree.at(-1) ?? null,
      rmse: null,
      r2: null,
      confusion: Array.from({ length: classes }, (_, c) => confusion.slice(c * classes, (c + 1) * classes)),
      byTree,
    };
  }
  const squares = added(
    tallies.map((tally) => tally.squares),
    trees,
  );
  const byTree = squares.map((sum, tree) => {
    const mean = shareOf(sum, rows[tree] as number);
    return mean === null ? null : Math.sqrt(mean);
  });
  const sum = tallies.reduce((total, tally) => total + tally.labelSum, 0);
  const variance = tallies.reduce((total, tally) => total + tally.labelSquares, 0) - (sum * sum) / voted;
  return {
    rows: voted,
    accuracy: null,
    rmse: byTree.at(-1) ?? null,
    r2: variance > 0 ? 1 - (squares.at(-1) as number) / variance : null,
    confusion: null,
    byTree,
  };
}

function added(arrays: readonly Float64Array[], length: number): number[] {
  const sums = new Array<number>(length).fill(0);
  for (const array of arrays) {
    array.forEach((value, i) => {
      sums[i] = (sums[i] as number) + value;
    });
  }
  return sums;
}

function shareOf(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}
