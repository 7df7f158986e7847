/**
 * Which calls of a map run so much longer than the others that a second attempt is worth an idle function
 * worker. Pure: the executor brings the facts and the time.
 */
export interface StragglerPolicy {
  /** A call is a straggler when it runs this many times the median of the finished calls of its map. Above 1. */
  readonly factor: number;
  /** Share of the map that must be finished before anything counts as late: 0 to 1. */
  readonly minDoneFraction: number;
  /** No call is a straggler before it has run this long. */
  readonly minRunMs: number;
}

export const defaultStragglerPolicy: StragglerPolicy = { factor: 3, minDoneFraction: 0.75, minRunMs: 1_000 };

/** Milliseconds after which a running call of the map is late, or null where it is too early to tell. */
export function lateAfterMs(
  policy: StragglerPolicy,
  finishedRunMs: readonly number[],
  calls: number,
): number | null {
  if (finishedRunMs.length === 0 || finishedRunMs.length < policy.minDoneFraction * calls) return null;
  return Math.max(policy.minRunMs, policy.factor * median(finishedRunMs));
}

export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] as number;
  return ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
