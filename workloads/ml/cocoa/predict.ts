/** Predicting with a linear model: calls score the blocks and write lines of CSV, the driver passes them on in order. */
import { once } from "node:events";
import type { Writable } from "node:stream";
import { MillraceError } from "../../../client/errors.js";
import type { Namespace } from "../../../client/index.js";
import { type Executor, functionRef } from "../../../functions/index.js";
import { moduleBeside } from "../../calling/module.js";
import { loadDataset } from "../input/load.js";
import { trainingShape } from "../predictions.js";
import type { CocoaModel } from "./model.js";
import type { ScorePlan, scoreBlock } from "./score.js";

export interface PredictOptions {
  paths: readonly string[];
  /** The column that holds the truth. */
  label: string | null;
  /** Unique name of this run. */
  run: string;
}

export interface PredictSurroundings {
  namespace: Namespace;
  executor: Executor;
  signal?: AbortSignal;
}

export interface PredictSummary {
  workload: "cocoa";
  rows: number;
  badRows: number;
  /** Of the rows that have a label, where there are any. */
  labelled: number;
  accuracy: number | null;
  rmse: number | null;
}

const SCORE = functionRef<typeof scoreBlock>(moduleBeside(import.meta.url, "score"), "scoreBlock");

/** Lines `row,score,prediction` to `out`, in the order of the rows; null: only the summary. */
export async function predictCocoa(
  model: CocoaModel,
  options: PredictOptions,
  surroundings: PredictSurroundings,
  out: Writable | null,
): Promise<PredictSummary> {
  const { namespace, executor, signal } = surroundings;
  const { run } = options;
  const dataset = await loadDataset(
    {
      paths: options.paths,
      label: options.label,
      task: model.positive === null ? "regress" : "classify",
      role: "test",
      like: trainingShape(model),
      prefix: `${run}/rows`,
      labelOptional: true,
    },
    { namespace, executor, ...(signal === undefined ? {} : { signal }) },
  );
  await namespace.put(`${run}/weights`, new Uint8Array(Float64Array.from(model.weights).buffer));
  await namespace.put(`${run}/score`, JSON.stringify(scorePlan(model, run)));
  const futures = executor.map(
    SCORE,
    dataset.blocks.map((block, i) => ({
      run,
      block: block.key,
      lines: out === null ? null : `${run}/lines/${i}`,
    })),
  );
  const summary = { rows: 0, labelled: 0, right: 0, squaredError: 0 };
  await write(out, "row,score,prediction\n");
  for (const [i, future] of futures.entries()) {
    signal?.throwIfAborted();
    const result = await future.result();
    summary.rows += result.rows;
    summary.labelled += result.labelled;
    summary.right += result.right;
    summary.squaredError += result.squaredError;
    if (out === null) continue;
    const lines = await namespace.get(`${run}/lines/${i}`);
    if (lines === null) throw new MillraceError("NOT_FOUND", `the predictions of block ${i} are gone`);
    await write(out, lines);
    await namespace.delete(`${run}/lines/${i}`);
  }
  const classifies = model.positive !== null && summary.labelled > 0;
  return {
    workload: "cocoa",
    rows: summary.rows,
    badRows: dataset.bad.count,
    labelled: summary.labelled,
    accuracy: classifies ? summary.right / summary.labelled : null,
    rmse:
      model.positive === null && summary.labelled > 0
        ? Math.sqrt(summary.squaredError / summary.labelled)
        : null,
  };
}

async function write(out: Writable | null, data: string | Uint8Array): Promise<void> {
  if (out !== null && !out.write(typeof data === "string" ? data : Buffer.from(data)))
    await once(out, "drain");
}

function scorePlan(model: CocoaModel, run: string): ScorePlan {
  const { label, positive } = model;
  const classes = label.kind === "classes" ? label.classes : [];
  return {
    weights: `${run}/weights`,
    widths: model.columns.map(({ kind, categories }) => (kind === "numeric" ? 1 : categories.length)),
    unitRows: model.unitRows,
    intercept: model.intercept,
    positive: positive === null ? null : classes.indexOf(positive),
    names:
      positive === null
        ? null
        : {
            above: positive,
            below:
              classes.length === 2
                ? (classes.find((name) => name !== positive) as string)
                : `not ${positive}`,
          },
  };
}
