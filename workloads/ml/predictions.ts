/** What predicting with every kind of model has in common. */
import type { Dataset } from "./dataset.js";

/** Data that is to be predicted is loaded as if it were a part of this. */
export function trainingShape(model: Pick<Dataset, "columns" | "sparse" | "label" | "labelColumn">): Dataset {
  const { columns, sparse, label, labelColumn } = model;
  return {
    rows: 0,
    features: columns.length,
    sparse,
    columns,
    label,
    ...(labelColumn === undefined ? {} : { labelColumn }),
    blocks: [],
    bad: { count: 0, first: [] },
  };
}

/** A field of CSV, as RFC 4180 has it. */
export function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
