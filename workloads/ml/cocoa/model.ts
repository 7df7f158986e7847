/** A linear model as a file: JSON, described in docs/ml.md. Read with suspicion. */
import { MillraceError } from "../../../client/errors.js";
import type { Dataset, FeatureColumn, Label } from "../dataset.js";
import { LOSSES, type Loss } from "./problem.js";

const FORMAT = "millrace-cocoa";
const VERSION = 1;
const FEATURES_MAX = 2 ** 32;

export interface CocoaModel {
  format: typeof FORMAT;
  version: typeof VERSION;
  loss: Loss;
  penalty: "l2" | "l1";
  lambda: number;
  columns: readonly FeatureColumn[];
  /** Whether rows came as pairs of column and value (libsvm). */
  sparse: boolean;
  label: Label;
  /** Where it came from a table. */
  labelColumn?: string;
  /** Of `label.classes`: the one whose scores are above 0. Null: scores are what is predicted. */
  positive: string | null;
  unitRows: boolean;
  intercept: boolean;
  /** One a numeric column, one a category of the others, in the order of the columns; the intercept last. */
  weights: readonly number[];
  trained: {
    rows: number;
    rounds: number;
    partitions: number;
    mode: "add" | "average";
    seed: number;
    primal: number;
    dual: number;
    gap: number;
  };
}

export function makeModel(
  dataset: Dataset,
  model: Omit<CocoaModel, "format" | "version" | "columns" | "sparse" | "label" | "labelColumn">,
): CocoaModel {
  const { columns, sparse, label, labelColumn } = dataset;
  const named = labelColumn === undefined ? {} : { labelColumn };
  return { format: FORMAT, version: VERSION, columns, sparse, label, ...named, ...model };
}

/** CORRUPT, with what is wrong, where the text is no model of this version. */
export function parseModel(text: string, path: string): CocoaModel {
  const wrong = (what: string) => new MillraceError("CORRUPT", `${path}: ${what}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`it is no JSON: ${(error as Error).message}`);
  }
  if (!isObject(value) || value.format !== FORMAT) throw wrong("it is no CoCoA model");
  if (value.version !== VERSION) throw wrong(`version ${value.version} of the format is not known here`);
  if (!LOSSES.includes(value.loss as Loss)) throw wrong("loss must be hinge, logistic or squared");
  if (value.penalty !== "l2" && value.penalty !== "l1") throw wrong("penalty must be l2 or l1");
  if (
    typeof value.unitRows !== "boolean" ||
    typeof value.intercept !== "boolean" ||
    typeof value.sparse !== "boolean"
  ) {
    throw wrong("sparse, unitRows and intercept must be booleans");
  }
  if (!Array.isArray(value.columns) || !value.columns.every(isColumn)) throw wrong("columns are wrong");
  const columns = value.columns as FeatureColumn[];
  if (!isLabel(value.label)) throw wrong("label is wrong");
  if (value.labelColumn !== undefined && typeof value.labelColumn !== "string")
    throw wrong("labelColumn is wrong");
  const { positive } = value;
  if (positive !== null) {
    if (
      value.label.kind !== "classes" ||
      typeof positive !== "string" ||
      !value.label.classes.includes(positive)
    )
      throw wrong("positive must be one of the label's classes");
  }
  const width = columns.reduce(
    (sum, { kind, categories }) => sum + (kind === "numeric" ? 1 : categories.length),
    value.intercept ? 1 : 0,
  );
  if (width > FEATURES_MAX) throw wrong("it has too many features");
  if (!Array.isArray(value.weights) || value.weights.length !== width) {
    throw wrong(`it needs ${width} weights for its columns`);
  }
  if (!value.weights.every((weight) => typeof weight === "number" && Number.isFinite(weight))) {
    throw wrong("weights must be finite numbers");
  }
  if (!isObject(value.trained)) throw wrong("trained is missing");
  return value as unknown as CocoaModel;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isColumn(value: unknown): boolean {
  if (!isObject(value) || typeof value.name !== "string") return false;
  if (value.kind !== "numeric" && value.kind !== "categorical") return false;
  return isTexts(value.categories) && (value.kind === "categorical" || value.categories.length === 0);
}

function isLabel(value: unknown): value is Label {
  if (!isObject(value)) return false;
  return value.kind === "number" || (value.kind === "classes" && isTexts(value.classes));
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
