/** Predictions as lines of CSV, in the order of the rows. */
import { once } from "node:events";
import type { Writable } from "node:stream";
import type { Dataset, Label } from "../dataset.js";
import type { ForestPrediction } from "./driver.js";
import type { ForestModel } from "./model.js";

/** Data that is to be predicted is loaded as if it were a part of this. */
export function trainingShape(model: ForestModel): Dataset {
  return {
    rows: 0,
    features: model.columns.length,
    sparse: model.sparse,
    columns: model.columns,
    label: model.label,
    ...(model.labelColumn === undefined ? {} : { labelColumn: model.labelColumn }),
    blocks: [],
    bad: { count: 0, first: [] },
  };
}

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

function quoted(name: string): string {
  return /[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
}

async function write(out: Writable, text: string): Promise<void> {
  if (!out.write(text)) await once(out, "drain");
}
