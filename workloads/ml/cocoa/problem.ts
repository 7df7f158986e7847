/** What is minimised, and how far from the minimum a point is at most. Pure. */

export const LOSSES = ["hinge", "logistic", "squared"] as const;
export type Loss = (typeof LOSSES)[number];

export interface Objectives {
  primal: number;
  /** No point has a lower primal. */
  dual: number;
  gap: number;
}

/**
 * P(w) = 1/n sum loss(x_i w; y_i) + lambda/2 |w|^2 and its dual at (w, alpha), where `loss` and `dual` are sums over all
 * rows (native/kernels/dual_ascent.h).
 */
export function ridgeObjectives(
  sums: { loss: number; dual: number },
  rows: number,
  lambda: number,
  squareOfWeights: number,
): Objectives {
  const penalty = (lambda / 2) * squareOfWeights;
  const primal = sums.loss / rows + penalty;
  const dual = sums.dual / rows - penalty;
  return { primal, dual, gap: primal - dual };
}

/**
 * P(w) = 1/(2n) |r|^2 + lambda |w|_1 with the residual r = A w - y. A dual point is u = -s r / n, where s is the largest
 * number of at most 1 that keeps every |a_j u| within lambda; there D(u) = u y - n/2 |u|^2.
 */
export function lassoObjectives(
  sums: { absolute: number; steepest: number },
  rows: number,
  lambda: number,
  residual: { square: number; timesLabels: number },
): Objectives {
  const primal = residual.square / (2 * rows) + lambda * sums.absolute;
  const scale = sums.steepest > lambda ? lambda / sums.steepest : 1;
  const dual = (-scale * residual.timesLabels) / rows - (scale * scale * residual.square) / (2 * rows);
  return { primal, dual, gap: primal - dual };
}
