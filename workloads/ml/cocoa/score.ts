/** What function workers run to predict. */
import { MillraceError } from "../../../client/errors.js";
import type { Namespace } from "../../../client/index.js";
import { learning } from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { quoted } from "../predictions.js";
import { dealInOrder, dealOf } from "./calls.js";

/** As an object of the namespace, `<run>/score`. */
export interface ScorePlan {
  /** Key. */
  weights: string;
  widths: readonly number[];
  unitRows: boolean;
  intercept: boolean;
  /** Number of the class that scores above 0 stand for; null: scores are the prediction. */
  positive: number | null;
  names: { above: string; below: string } | null;
}

export interface ScoreArgument {
  run: string;
  block: string;
  /** Key for the lines of CSV; null: none are wanted. */
  lines: string | null;
}

/** Sums over the rows that have a label. */
export interface ScoreResult {
  rows: number;
  labelled: number;
  right: number;
  squaredError: number;
}

export async function scoreBlock(argument: ScoreArgument, context: CallContext): Promise<ScoreResult> {
  const namespace = await context.namespace();
  const plan = JSON.parse(
    Buffer.from(await read(namespace, `${argument.run}/score`)).toString("utf8"),
  ) as ScorePlan;
  const weights = await read(namespace, plan.weights);
  const block = await read(namespace, argument.block);
  // Labels stay as they are: a row without one is neither of the two.
  const deal = dealOf({ ...plan, partitions: 1, seed: 0, positive: null });
  const { rows, bytes } = await dealInOrder(deal, block);
  const scores = new Float64Array(rows);
  await learning().linearScores(bytes, weights, new Uint8Array(scores.buffer));
  const header = new DataView(block.buffer, block.byteOffset, 64);
  const firstRow = Number(header.getBigUint64(8, true));
  const labels = new Float64Array(bytes.buffer, bytes.byteOffset + 64, rows);
  const result = { rows, labelled: 0, right: 0, squaredError: 0 };
  const lines: string[] = [];
  for (let row = 0; row < rows; row += 1) {
    const score = scores[row] as number;
    const label = labels[row] as number;
    if (!Number.isNaN(label)) {
      result.labelled += 1;
      if (plan.positive !== null && score > 0 === (label === plan.positive)) result.right += 1;
      result.squaredError += (score - label) ** 2;
    }
    if (argument.lines === null) continue;
    const prediction = plan.names === null ? score : quoted(score > 0 ? plan.names.above : plan.names.below);
    lines.push(`${firstRow + row},${score},${prediction}\n`);
  }
  if (argument.lines !== null) await namespace.put(argument.lines, lines.join(""));
  return result;
}

async function read(namespace: Namespace, key: string): Promise<Uint8Array> {
  const bytes = await namespace.get(key);
  if (bytes === null) throw new MillraceError("NOT_FOUND", `${key} is not in namespace ${namespace.name}`);
  return bytes;
}
