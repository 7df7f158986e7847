/** `millrace forest`: random forests, on function workers. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError, Option } from "commander";
import { MillraceError } from "../../client/index.js";
import type { Executor } from "../../functions/index.js";
import type { Dataset } from "../../workloads/ml/dataset.js";
import { type ForestRun, predictForest, trainForest, warmUp } from "../../workloads/ml/forest/driver.js";
import { type ForestModel, modelText, parseModel } from "../../workloads/ml/forest/model.js";
import {
  BINS_MAX,
  BINS_MIN,
  DEPTH_MAX,
  FEATURES_MAX,
  type ForestOptions,
  type MaxFeatures,
  ROWS_MAX,
  TREES_MAX,
} from "../../workloads/ml/forest/plan.js";
import { writePredictions } from "../../workloads/ml/forest/predict.js";
import { forestReport } from "../../workloads/ml/forest/report.js";
import {
  describeForest,
  describeMetrics,
  type ForestDocument,
  forestDocument,
} from "../../workloads/ml/forest/result.js";
import { loadDataset } from "../../workloads/ml/input/load.js";
import { trainingShape } from "../../workloads/ml/predictions.js";
import { renderReport } from "../../workloads/report/html.js";
import { UsageError } from "./errors.js";
import { progressBars } from "./progress.js";
import { ReportFile } from "./report_file.js";
import type { HugePages, NvmeDirectory } from "./serve_config.js";
import { ModelFile, SEED_MAX, type TrainerFlags } from "./training.js";
import { parseSize } from "./values.js";
import {
  addWorkloadOptions,
  parseCount,
  readNodeOptions,
  untilInterrupted,
  WorkloadSession,
} from "./workload.js";

const TREES_DEFAULT = 32;
const BINS_DEFAULT = 64;
const MEMORY_DEFAULT = "256MiB";

interface TrainFlags extends TrainerFlags {
  test?: string[];
  task?: "classify" | "regress";
  trees: number;
  maxDepth?: number;
  bins: number;
  seed: number;
  criterion: "gini" | "entropy";
  minLeaf: number;
  maxFeatures?: MaxFeatures;
  classWeight?: "balanced";
  bagging: boolean;
  memory: string;
}

interface PredictFlags extends TrainerFlags {
  output?: string;
}

export function register(program: Command): void {
  const forest = program.command("forest").description("train random forests, and predict with them");
  const train = forest
    .command("train")
    .description(
      "train a random forest: the same for any number of function workers and any cut of the files",
    )
    .requiredOption("--input <path...>", "IDX, libsvm, CSV or Parquet: files or directories")
    .requiredOption("--model <file>", "where the forest goes, as JSON")
    .option("--label <column>", "the column to predict (CSV, Parquet)")
    .option("--test <path...>", "rows to measure the forest on")
    .addOption(
      new Option("--task <task>", "what labels are (default: by the data)").choices(["classify", "regress"]),
    )
    .addOption(
      new Option("--trees <count>", "trees").argParser(parseCount(1, TREES_MAX)).default(TREES_DEFAULT),
    )
    .addOption(
      new Option("--max-depth <count>", `splits above one another (default: ${DEPTH_MAX})`).argParser(
        parseCount(0, DEPTH_MAX),
      ),
    )
    .addOption(
      new Option("--bins <count>", "into which the values of a column are put")
        .argParser(parseCount(BINS_MIN, BINS_MAX))
        .default(BINS_DEFAULT),
    )
    .addOption(
      new Option("--seed <number>", "from which all that is random follows")
        .argParser(parseCount(0, SEED_MAX))
        .default(0),
    )
    .addOption(
      new Option("--criterion <name>", "by which classes are told apart")
        .choices(["gini", "entropy"])
        .default("gini"),
    )
    .addOption(
      new Option("--min-leaf <rows>", "rows of a leaf, at least")
        .argParser(parseCount(1, ROWS_MAX))
        .default(1),
    )
    .addOption(
      new Option(
        "--max-features <count>",
        "columns that a node looks at: a number, sqrt, third or all (default: sqrt, for regression third)",
      ).argParser(parseMaxFeatures),
    )
    .addOption(
      new Option("--class-weight <how>", "balanced: all classes count the same").choices(["balanced"]),
    )
    .option("--no-bagging", "let every tree see every row once")
    .option("--memory <size>", "of a function worker, for histograms", MEMORY_DEFAULT);
  addWorkloadOptions(train).action(async (flags: TrainFlags) => {
    const { document, startUpSeconds } = await untilInterrupted((signal) => runFlags(flags, signal));
    if (flags.json) process.stdout.write(`${JSON.stringify(document)}\n`);
    else process.stdout.write(`${describeForest(document, startUpSeconds)}\n`);
  });
  const predict = forest
    .command("predict")
    .description("predict with a forest: CSV of row and prediction")
    .requiredOption("--model <file>", "as train wrote it")
    .requiredOption("--input <path...>", "IDX, libsvm, CSV or Parquet: files or directories")
    .option("--label <column>", "the column that holds the truth, where there is one")
    .option("--output <file>", "instead of standard output");
  addWorkloadOptions(predict).action((flags: PredictFlags) =>
    untilInterrupted((signal) => runPredict(flags, signal)),
  );
}

function parseMaxFeatures(text: string): MaxFeatures {
  if (text === "sqrt" || text === "third" || text === "all") return text;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > FEATURES_MAX) {
    throw new InvalidArgumentError(
      `It must be a whole number from 1 to ${FEATURES_MAX}, sqrt, third or all.`,
    );
  }
  return count;
}

async function runFlags(flags: TrainFlags, signal: AbortSignal): Promise<TrainOutcome> {
  const report = flags.report === undefined ? null : new ReportFile(flags.report);
  const bars = progressBars(flags.json ?? false);
  try {
    const { bins, trees, criterion, minLeaf, bagging } = flags;
    const outcome = await runForest({
      input: flags.input,
      test: flags.test ?? null,
      label: flags.label ?? null,
      task: flags.task ?? null,
      model: flags.model,
      forest: {
        trees,
        maxDepth: flags.maxDepth ?? null,
        bins,
        seed: flags.seed,
        criterion,
        minLeaf,
        classWeight: flags.classWeight ?? null,
        bagging,
        memoryBytes: parseSize(flags.memory, "--memory"),
        finishRows: null,
      },
      maxFeatures: flags.maxFeatures ?? null,
      workers: flags.workers ?? availableParallelism(),
      endpoint: flags.endpoint ?? null,
      ...readNodeOptions(flags),
      ...(bars === null
        ? {}
        : { onProgress: (stage: string, fraction: number) => bars.show(stage, fraction) }),
      signal,
    });
    const { run, document, startUpSeconds, receipt } = outcome;
    report?.write(
      renderReport(forestReport(run, document, { input: flags.input.join(" "), startUpSeconds, receipt })),
    );
    return outcome;
  } catch (thrown) {
    report?.discard();
    throw thrown;
  } finally {
    bars?.stop();
  }
}

export interface RunForestOptions {
  input: readonly string[];
  test: readonly string[] | null;
  label: string | null;
  task: "classify" | "regress" | null;
  /** File of the model; null: it is kept only in the run. */
  model: string | null;
  forest: Omit<ForestOptions, "maxFeatures">;
  /** Null: by the task. */
  maxFeatures: MaxFeatures | null;
  workers: number;
  /** Null: an embedded node. */
  endpoint: string | null;
  dramBytes: number | null;
  nvme?: NvmeDirectory[];
  hugePages: HugePages;
  onProgress?: (stage: string, fraction: number) => void;
  signal?: AbortSignal;
  /** Called when the rows are loaded and the training begins. */
  onStart?: (executor: Executor) => void;
}

export interface TrainOutcome {
  run: ForestRun;
  document: ForestDocument;
  /** Node, function workers, and rows into the store. */
  startUpSeconds: number;
  receipt: Awaited<ReturnType<WorkloadSession["close"]>>;
}

/** One training from nothing to nothing: whatever it starts is ended, and a failed one leaves no model. */
export async function runForest(options: RunForestOptions): Promise<TrainOutcome> {
  const { signal, onProgress, workers } = options;
  const startMs = performance.now();
  const file = options.model === null ? null : new ModelFile(options.model);
  let session: WorkloadSession | null = null;
  try {
    session = await WorkloadSession.open({
      name: "forest",
      endpoint: options.endpoint,
      dramBytes: options.dramBytes,
      nvme: options.nvme ?? [],
      hugePages: options.hugePages,
      workers,
      expectedBytes: 0,
    });
    const { namespace, executor } = session;
    const name = `forest-${randomBytes(6).toString("hex")}`;
    const surroundings = {
      namespace,
      executor,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined
        ? {}
        : {
            onProgress: ({ stage, fraction }: { stage: string; fraction: number }) =>
              onProgress(stage, fraction),
          }),
    };
    const load = (paths: readonly string[], role: "train" | "test", like: Dataset | null): Promise<Dataset> =>
      loadDataset(
        { paths, label: options.label, task: options.task, role, like, prefix: `${name}/${role}` },
        {
          namespace,
          executor,
          ...(signal === undefined ? {} : { signal }),
          ...(onProgress === undefined
            ? {}
            : { onProgress: (fraction: number) => onProgress("load", fraction) }),
        },
      );
    await warmUp({ executor });
    const training = await load(options.input, "train", null);
    const test = options.test === null ? null : await load(options.test, "test", training);
    const maxFeatures = options.maxFeatures ?? (training.label.kind === "classes" ? "sqrt" : "third");
    const forest = { ...options.forest, maxFeatures };
    const startUpSeconds = (performance.now() - startMs) / 1000;
    options.onStart?.(executor);
    const run = await trainForest(training, test, name, forest, surroundings);
    file?.write(modelText(run.model));
    const document = forestDocument(run, training, forest, workers);
    return { run, document, startUpSeconds, receipt: await session.close() };
  } catch (thrown) {
    file?.discard();
    await session?.close().catch(() => undefined);
    throw thrown;
  }
}

function readModel(path: string): ForestModel {
  try {
    return parseModel(readFileSync(path, "utf8"), path);
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError("NOT_FOUND", `--model ${path}: ${(error as Error).message}`);
  }
}

async function runPredict(flags: PredictFlags, signal: AbortSignal): Promise<void> {
  if (flags.report !== undefined) throw new UsageError("--report is about training");
  const model = readModel(flags.model);
  const isQuiet = flags.json === true && flags.output === undefined;
  const out = flags.output === undefined ? process.stdout : createWriteStream(flags.output);
  if (flags.output !== undefined) await once(out, "open");
  const session = await WorkloadSession.open({
    name: "forest",
    endpoint: flags.endpoint ?? null,
    ...readNodeOptions(flags),
    workers: flags.workers ?? availableParallelism(),
    expectedBytes: 0,
  });
  try {
    const { namespace, executor } = session;
    const name = `forest-${randomBytes(6).toString("hex")}`;
    const dataset = await loadDataset(
      {
        paths: flags.input,
        label: flags.label ?? null,
        task: model.label.kind === "classes" ? "classify" : "regress",
        role: "test",
        like: trainingShape(model),
        prefix: `${name}/rows`,
        labelOptional: true,
      },
      { namespace, executor, signal },
    );
    const prediction = await predictForest(model, dataset, name, { namespace, executor, signal });
    // With --json standard output holds the one document; predictions then go to a file or nowhere.
    if (!isQuiet) await writePredictions(prediction, model.label, out);
    const { metrics } = prediction;
    if (flags.json) {
      const { count } = dataset.bad;
      process.stdout.write(
        `${JSON.stringify({ workload: "forest", rows: dataset.rows, badRows: count, metrics })}\n`,
      );
    } else if (metrics !== null && flags.output !== undefined) {
      process.stdout.write(`${describeMetrics(metrics)}\n`);
    }
  } finally {
    if (flags.output !== undefined) {
      out.end();
      await once(out, "close");
    }
    await session.close();
  }
}
