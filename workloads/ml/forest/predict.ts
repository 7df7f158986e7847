/** Predictions as lines of CSV, in the order of the rows. */
import { once } from "node:events";
import type { Writable } from "node:stream";
import type { Label } from "../dataset.js";
import { quoted } from "../predictions.js";
import type { ForestPrediction } from "./driver.js";

/** Writes `row,prediction`. Rows are counted from 0, bad ones left out. */
export async function writePredictions(
  { predictions }: ForestPrediction,
  label: Label,
  out: Writable,
): Promise<void> {
  const names = label.kind === "classes" ? label.classes.map(quoted) : null;
  await write(out, "row,prediction\n");
  let row = 0;
  for (const block of predictions) {
    const lines: string[] = [];
    for (const prediction of block) {
      lines.push(`${row},${names === null ? prediction : names[prediction]}\n`);
      row += 1;
    }
    await write(out, lines.join(""));
  }
}

async function write(out: Writable, text: string): Promise<void> {
  if (!out.write(text)) await once(out, "drain");
}
