/**
 * CoCoA as it is cut into calls. All that lies in the store between calls, under the run's name:
 *
 *     plan              what every call needs
 *     labels            the lasso's: one number a training row
 *     part/<k>          the rows (the lasso: the features) of partition k, as a block
 *     model/<t>         w after t rounds (the lasso: the residual A w - y)
 *     variables/<t>/<k> alpha of partition k after t rounds (the lasso: its weights)
 *     delta/<t>/<k>     what partition k adds to the model in round t
 *
 * Every object is written by one call (or attempts of it, which write the same bytes), so a call that is done again
 * counts once.
 */
import type { Loss } from "./problem.js";

export interface CocoaPlan {
  run: string;
  /** Keys of the blocks of training rows. */
  blocks: readonly string[];
  /** Training rows. */
  rows: number;
  /** As `DealOptions.widths`. */
  widths: readonly number[];
  unitRows: boolean;
  intercept: boolean;
  positive: number | null;
  /** K. */
  partitions: number;
  loss: Loss;
  penalty: "l2" | "l1";
  lambda: number;
  sigma: number;
  gamma: number;
  /** Over a partition, each round. */
  passes: number;
  seed: number;
}

/** Neighbouring partitions of one call. */
export interface PartitionRange {
  first: number;
  count: number;
}

export const keys = {
  plan: (run: string) => `${run}/plan`,
  labels: (run: string) => `${run}/labels`,
  part: (run: string, k: number) => `${run}/part/${k}`,
  model: (run: string, round: number) => `${run}/model/${round}`,
  variables: (run: string, round: number, k: number) => `${run}/variables/${round}/${k}`,
  delta: (run: string, round: number, k: number) => `${run}/delta/${round}/${k}`,
};

/** As even as can be: one range a function worker, or one a partition where there are fewer. */
export function partitionRanges(partitions: number, workers: number): PartitionRange[] {
  const calls = Math.min(partitions, workers);
  return Array.from({ length: calls }, (_, call) => {
    const first = Math.floor((call * partitions) / calls);
    return { first, count: Math.floor(((call + 1) * partitions) / calls) - first };
  });
}

/** Of the order of rows (or features) in a round: different for every round and partition. Below 2^53. */
export function orderSeed(plan: Pick<CocoaPlan, "seed" | "partitions">, round: number, k: number): number {
  return (plan.seed % 2 ** 20) * 2 ** 32 + ((round * plan.partitions + k) % 2 ** 32);
}
