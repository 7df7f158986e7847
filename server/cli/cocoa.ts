/** `millrace cocoa`: linear models by CoCoA, on function workers. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError, Option } from "commander";
import { MillraceError, type Receipt } from "../../client/index.js";
import {
  type CocoaOptions,
  type CocoaProgress,
  type CocoaRun,
  trainCocoa,
  warmUp,
} from "../../workloads/ml/cocoa/driver.js";
import { makeModel, parseModel } from "../../workloads/ml/cocoa/model.js";
import { predictCocoa } from "../../workloads/ml/cocoa/predict.js";
import { LOSSES, type Loss } from "../../workloads/ml/cocoa/problem.js";
import { cocoaReport } from "../../workloads/ml/cocoa/report.js";
import { type CocoaDocument, cocoaDocument, describeCocoa } from "../../workloads/ml/cocoa/result.js";
import type { Dataset } from "../../workloads/ml/dataset.js";
import { loadDataset } from "../../workloads/ml/input/load.js";
import { renderReport } from "../../workloads/report/html.js";
import { UsageError } from "./errors.js";
import { progressBars } from "./progress.js";
import { ReportFile } from "./report_file.js";
import { ModelFile, SEED_MAX, type TrainerFlags } from "./training.js";
import {
  addWorkloadOptions,
  parseCount,
  readNodeOptions,
  untilInterrupted,
  WorkloadSession,
} from "./workload.js";

const PARTITIONS_MAX = 65_536;
const ROUNDS_MAX = 1_000_000;
const ROUNDS_DEFAULT = 1_000;
/** A partition is one object that kernels want in one piece, of at most this many bytes. */
const PARTITION_BYTES_MAX = 192 << 20;

interface TrainFlags extends TrainerFlags {
  test?: string[];
  loss: Loss;
  penalty: "l2" | "l1";
  lambda: number;
  gap: number;
  maxRounds: number;
  partitions?: number;
  mode: "add" | "average";
  passes: number;
  positive?: string;
  seed: number;
  intercept?: true;
  unitRows: boolean;
}

interface PredictFlags extends TrainerFlags {
  output?: string;
}

export function register(program: Command): void {
  const cocoa = program.command("cocoa").description("train linear models by CoCoA, and predict with them");
  const train = cocoa
    .command("train")
    .description("train a linear model until its duality gap is small")
    .requiredOption("--input <path...>", "IDX, libsvm, CSV or Parquet: files or directories")
    .requiredOption("--model <file>", "where the model goes, as JSON")
    .addOption(new Option("--loss <loss>", "what is minimised").choices([...LOSSES]).makeOptionMandatory())
    .addOption(
      new Option("--penalty <penalty>", "l1 makes a lasso, for the squared loss")
        .choices(["l2", "l1"])
        .default("l2"),
    )
    .option("--label <column>", "the column to predict (CSV, Parquet)")
    .option("--test <path...>", "rows to measure the model on")
    .addOption(
      new Option("--lambda <number>", "weight of the penalty").argParser(parsePositive).default(1e-4),
    )
    .addOption(
      new Option("--gap <number>", "the rounds end at this duality gap")
        .argParser(parsePositive)
        .default(1e-3),
    )
    .addOption(
      new Option("--max-rounds <count>", "the rounds end here at the latest")
        .argParser(parseCount(1, ROUNDS_MAX))
        .default(ROUNDS_DEFAULT),
    )
    .addOption(
      new Option("--partitions <count>", "of the rows, K (default: one a function worker)").argParser(
        parseCount(1, PARTITIONS_MAX),
      ),
    )
    .addOption(
      new Option("--mode <mode>", "whether partitions' updates are added (CoCoA+) or averaged")
        .choices(["add", "average"])
        .default("add"),
    )
    .addOption(
      new Option("--passes <count>", "over a partition's rows, each round")
        .argParser(parseCount(1, 1000))
        .default(1),
    )
    .option("--positive <class>", "the class that is told from all others")
    .addOption(
      new Option("--seed <number>", "of all that is random").argParser(parseCount(0, SEED_MAX)).default(0),
    )
    .option("--intercept", "one more feature, which is always 1")
    .option("--no-unit-rows", "leave rows as long as they are instead of scaling them to length 1");
  addWorkloadOptions(train).action(async (flags: TrainFlags) => {
    const { document, startUpSeconds } = await untilInterrupted((signal) => runTrain(flags, signal));
    if (flags.json) process.stdout.write(`${JSON.stringify(document)}\n`);
    else process.stdout.write(`${describeCocoa(document, startUpSeconds)}\n`);
    if (!document.converged) {
      throw new MillraceError(
        "DEADLINE_EXCEEDED",
        `the gap is ${document.gap} after ${document.rounds} rounds, not ${flags.gap}; the model is written as it is. ` +
          "Raise --max-rounds or --gap",
        { retryable: false },
      );
    }
  });
  const predict = cocoa
    .command("predict")
    .description("predict with a model: CSV of row, score and prediction")
    .requiredOption("--model <file>", "as train wrote it")
    .requiredOption("--input <path...>", "IDX, libsvm, CSV or Parquet: files or directories")
    .option("--label <column>", "the column that holds the truth, where there is one")
    .option("--output <file>", "instead of standard output");
  addWorkloadOptions(predict).action((flags: PredictFlags) =>
    untilInterrupted((signal) => runPredict(flags, signal)),
  );
}

function parsePositive(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value <= 0) {
    throw new InvalidArgumentError("It must be a number above 0.");
  }
  return value;
}

interface TrainOutcome {
  document: CocoaDocument;
  startUpSeconds: number;
}

async function runTrain(flags: TrainFlags, signal: AbortSignal): Promise<TrainOutcome> {
  if (flags.penalty === "l1" && flags.loss !== "squared") {
    throw new UsageError("--penalty l1 goes with --loss squared");
  }
  const workers = flags.workers ?? availableParallelism();
  const report = flags.report === undefined ? null : new ReportFile(flags.report);
  const file = new ModelFile(flags.model);
  const bars = progressBars(flags.json ?? false);
  const startMs = performance.now();
  let session: WorkloadSession | null = null;
  try {
    session = await open(flags, workers);
    const { namespace, executor } = session;
    const run = `cocoa-${randomBytes(6).toString("hex")}`;
    const surroundings = {
      namespace,
      executor,
      signal,
      onProgress: ({ stage, fraction }: CocoaProgress) => bars?.show(stage, fraction),
    };
    const loading = {
      namespace,
      executor,
      signal,
      onProgress: (fraction: number) => bars?.show("load", fraction),
    };
    await warmUp(surroundings);
    const classifies = flags.loss !== "squared" || flags.positive !== undefined;
    const dataset = await loadDataset(
      {
        paths: flags.input,
        label: flags.label ?? null,
        task: classifies ? "classify" : "regress",
        role: "train",
        like: null,
        prefix: `${run}/train`,
      },
      loading,
    );
    const test =
      flags.test === undefined
        ? null
        : await loadDataset(
            {
              paths: flags.test,
              label: flags.label ?? null,
              task: classifies ? "classify" : "regress",
              role: "test",
              like: dataset,
              prefix: `${run}/test`,
            },
            loading,
          );
    const positive = classifies ? positiveClass(dataset, flags.positive) : null;
    const options: CocoaOptions = {
      run,
      loss: flags.loss,
      penalty: flags.penalty,
      lambda: flags.lambda,
      gap: flags.gap,
      maxRounds: flags.maxRounds,
      partitions: flags.partitions ?? defaultPartitions(dataset, workers),
      mode: flags.mode,
      passes: flags.passes,
      seed: flags.seed,
      unitRows: flags.unitRows,
      intercept: flags.intercept ?? false,
      positive: positive?.number ?? null,
      workers,
    };
    const startUpSeconds = (performance.now() - startMs) / 1000;
    const trained = await trainCocoa(dataset, test, options, surroundings);
    const document = cocoaDocument(trained, dataset, options);
    const written = modelOf(dataset, trained, document, options, positive?.name ?? null);
    file.write([`${JSON.stringify(written)}\n`]);
    const receipt: Receipt | null = await session.close();
    report?.write(
      renderReport(cocoaReport(trained, document, { input: flags.input.join(" "), startUpSeconds, receipt })),
    );
    return { document, startUpSeconds };
  } catch (thrown) {
    report?.discard();
    file.discard();
    await session?.close().catch(() => undefined);
    throw thrown;
  } finally {
    bars?.stop();
  }
}

async function runPredict(flags: PredictFlags, signal: AbortSignal): Promise<void> {
  if (flags.report !== undefined) throw new UsageError("--report is about training");
  const model = parseModel(readFileSync(flags.model, "utf8"), flags.model);
  const workers = flags.workers ?? availableParallelism();
  const out = flags.output === undefined ? process.stdout : createWriteStream(flags.output);
  if (flags.output !== undefined) await once(out, "open");
  const session = await open(flags, workers);
  try {
    const { namespace, executor } = session;
    const summary = await predictCocoa(
      model,
      { paths: flags.input, label: flags.label ?? null, run: `cocoa-${randomBytes(6).toString("hex")}` },
      { namespace, executor, signal },
      // With --json standard output holds the one document; predictions then go to a file or nowhere.
      flags.json && flags.output === undefined ? null : out,
    );
    if (flags.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  } finally {
    if (flags.output !== undefined) {
      out.end();
      await once(out, "close");
    }
    await session.close();
  }
}

function open(flags: TrainerFlags, workers: number): Promise<WorkloadSession> {
  return WorkloadSession.open({
    name: "cocoa",
    endpoint: flags.endpoint ?? null,
    ...readNodeOptions(flags),
    workers,
    expectedBytes: 0,
  });
}

function defaultPartitions(dataset: Dataset, workers: number): number {
  const bytes = dataset.blocks.reduce((sum, block) => sum + block.bytes, 0);
  return Math.min(PARTITIONS_MAX, Math.max(1, workers, Math.ceil(bytes / PARTITION_BYTES_MAX)));
}

/** The class that becomes 1. Of two, the later one where nothing is said. */
function positiveClass(dataset: Dataset, wanted: string | undefined): { name: string; number: number } {
  const { label } = dataset;
  if (label.kind !== "classes")
    throw new UsageError("the labels are numbers: use --loss squared without --positive");
  const { classes } = label;
  const name = wanted ?? (classes.length === 2 ? (classes[1] as string) : undefined);
  if (name === undefined) {
    throw new UsageError(
      `there are ${classes.length} classes: say with --positive which is told from the others`,
    );
  }
  const number = classes.indexOf(name);
  if (number === -1) {
    throw new UsageError(
      `--positive ${name}: there is no such class, only ${classes.slice(0, 20).join(", ")}`,
    );
  }
  return { name, number };
}

function modelOf(
  dataset: Dataset,
  run: CocoaRun,
  document: CocoaDocument,
  options: CocoaOptions,
  positive: string | null,
) {
  return makeModel(dataset, {
    loss: options.loss,
    penalty: options.penalty,
    lambda: options.lambda,
    positive,
    unitRows: options.unitRows,
    intercept: options.intercept,
    weights: Array.from(run.weights),
    trained: {
      rows: document.rows,
      rounds: document.rounds,
      partitions: options.partitions,
      mode: options.mode,
      seed: options.seed,
      primal: document.primal,
      dual: document.dual,
      gap: document.gap,
    },
  });
}
