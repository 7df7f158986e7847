/** What loading is told, and where it takes place. */
import type { Namespace } from "../../../client/index.js";
import type { Executor } from "../../../functions/index.js";
import type { CallReport } from "../../calling/call_report.js";
import type { Dataset } from "../dataset.js";

export interface LoadOptions {
  /** Files and directories. */
  paths: readonly string[];
  /** Name of the label's column in CSV and Parquet. Null: the one called label, target, class or y. */
  label: string | null;
  /** Null: by the data: labels that are no whole numbers, or more than 100 distinct ones, are for regression. */
  task: "classify" | "regress" | null;
  /** Which files of a directory: see `idx_pairs.ts`. */
  role: "train" | "test";
  /**
   * The training data, for data to test or predict: columns, categories and classes are taken from it. Categories that
   * it does not know become missing.
   */
  like: Dataset | null;
  /** Of the keys of the blocks. */
  prefix: string;
  /** Data without labels is fine, and so are labels that `like` does not have: they are NaN. */
  labelOptional?: boolean;
}

export interface LoadSurroundings {
  namespace: Namespace;
  executor: Executor;
  /** Ends the loading with its reason. */
  signal?: AbortSignal;
  /** 0 to 1. */
  onProgress?: (fraction: number) => void;
  /** Told of each call, for timelines. */
  onCall?: (report: CallReport) => void;
}
