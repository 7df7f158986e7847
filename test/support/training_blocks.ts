/** Training blocks made in a test, byte by byte as workloads/ml/dataset.ts describes them. */
import type { Namespace } from "../../client/index.js";
import { BLOCK_MAGIC, type Dataset, type Label } from "../../workloads/ml/dataset.js";

export interface Rows {
  labels: readonly number[];
  /** Row after row. */
  values: readonly (readonly number[])[];
}

const align = (offset: number) => Math.ceil(offset / 64) * 64;

/** A dense block. */
export function denseBlock(firstRow: number, { labels, values }: Rows): Uint8Array {
  const features = values[0]?.length ?? 0;
  const valuesAt = align(64 + labels.length * 8);
  const block = new Uint8Array(align(valuesAt + labels.length * features * 4));
  const view = new DataView(block.buffer);
  [BLOCK_MAGIC, BigInt(firstRow), BigInt(labels.length), BigInt(features), 0n, 0n].forEach((word, i) => {
    view.setBigUint64(8 * i, word, true);
  });
  labels.forEach((label, i) => {
    view.setFloat64(64 + 8 * i, label, true);
  });
  values.flat().forEach((value, i) => {
    view.setFloat32(valuesAt + 4 * i, value, true);
  });
  return block;
}

/** Puts rows into a namespace in blocks of at most `rowsPerBlock`. */
export async function putRows(
  namespace: Namespace,
  prefix: string,
  rows: Rows,
  label: Label,
  rowsPerBlock: number,
): Promise<Dataset> {
  const blocks = [];
  for (let first = 0; first < rows.labels.length; first += rowsPerBlock) {
    const part = {
      labels: rows.labels.slice(first, first + rowsPerBlock),
      values: rows.values.slice(first, first + rowsPerBlock),
    };
    const block = denseBlock(first, part);
    const key = `${prefix}/block-${first}`;
    await namespace.put(key, block);
    blocks.push({ key, firstRow: first, rows: part.labels.length, nonZeros: 0, bytes: block.length });
  }
  const features = rows.values[0]?.length ?? 0;
  return {
    rows: rows.labels.length,
    features,
    sparse: false,
    columns: Array.from({ length: features }, (_, i) => ({ name: `f${i}`, kind: "numeric", categories: [] })),
    label,
    blocks,
    bad: { count: 0, first: [] },
  };
}
