/**
 * The driver of a CoCoA training: deals the rows out, calls the rounds, adds what the partitions found to the model, and
 * stops when the duality gap is small enough. Only the model passes through it, natively.
 */
import { MillraceError } from "../../../client/errors.js";
import type { ByteSpan, Namespace } from "../../../client/index.js";
import { kernels } from "../../../client/kernels.js";
import { learning } from "../../../client/learning.js";
import { type Executor, type FunctionRef, functionRef } from "../../../functions/index.js";
import { callAll } from "../../calling/call_all.js";
import type { CallReport } from "../../calling/call_report.js";
import { moduleBeside } from "../../calling/module.js";
import { nowMs } from "../../report/activity.js";
import type { Dataset } from "../dataset.js";
import type {
  DealArgument,
  DealResult,
  dealPartitions,
  improvePartitions,
  MetricsArgument,
  MetricsResult,
  measureRows,
  PartitionSums,
  RoundArgument,
  RoundResult,
  warmCocoa,
} from "./calls.js";
import { type CocoaPlan, keys, partitionRanges } from "./plan.js";
import { type Loss, lassoObjectives, type Objectives, ridgeObjectives } from "./problem.js";

export interface CocoaOptions {
  /** Unique name of this run; 1 to 63 of a-z 0-9 - . */
  run: string;
  loss: Loss;
  penalty: "l2" | "l1";
  lambda: number;
  /** The rounds end when the duality gap is at most this. */
  gap: number;
  maxRounds: number;
  /** K. */
  partitions: number;
  /** Whether the partitions' updates are added up (CoCoA+) or averaged. */
  mode: "add" | "average";
  /** Over a partition, each round. */
  passes: number;
  seed: number;
  unitRows: boolean;
  intercept: boolean;
  /** Number of the class that is told from all others; null: labels are numbers. */
  positive: number | null;
  /** Function workers of the executor. */
  workers: number;
}

export interface CocoaSurroundings {
  namespace: Namespace;
  executor: Executor;
  onProgress?: (progress: CocoaProgress) => void;
  /** Ends the training with its reason. */
  signal?: AbortSignal;
}

export type CocoaStage = "deal" | "rounds" | "test";

export interface CocoaProgress {
  stage: CocoaStage;
  /** 0 to 1; of rounds, how far the gap has come on a logarithmic scale. */
  fraction: number;
}

/** One point on the way: the model after `round` rounds, and what it cost to go on from there. */
export interface CocoaRound extends Objectives {
  round: number;
  /** From the start of the round's calls until the next model could be read. */
  seconds: number;
  /** Mean over the function workers' time in the solvers. */
  computeSeconds: number;
  /** The calls' reading of the model. */
  broadcastSeconds: number;
  /** The calls' writing of their deltas, and adding them to the model. */
  reduceSeconds: number;
  /** Bytes that the round's calls and the driver took from the store and put into it. */
  bytes: number;
  /** Classification: the share of training rows on the right side. */
  accuracy: number | null;
}

export interface CocoaCall extends CallReport {
  stage: CocoaStage;
  label: string;
}

export interface CocoaRun {
  rounds: CocoaRound[];
  /** Whether the gap was reached. */
  converged: boolean;
  /** One a feature of the model, the intercept last. */
  weights: Float64Array;
  calls: CocoaCall[];
  phases: { name: CocoaStage; startMs: number; endMs: number }[];
  startMs: number;
  endMs: number;
  retries: number;
  exchangedBytes: number;
  transport: string;
  /** Of each partition's block. */
  partitionBytes: number[];
  test: CocoaTest | null;
}

export interface CocoaTest {
  rows: number;
  loss: number;
  /** Classification only. */
  accuracy: number | null;
  /** Regression only: root of the mean squared error. */
  rmse: number | null;
}

const CALLS = moduleBeside(import.meta.url, "calls");
const WARM = functionRef<typeof warmCocoa>(CALLS, "warmCocoa");
const DEAL = functionRef<typeof dealPartitions>(CALLS, "dealPartitions");
const ROUND = functionRef<typeof improvePartitions>(CALLS, "improvePartitions");
const METRICS = functionRef<typeof measureRows>(CALLS, "measureRows");

const DOUBLE_BYTES = 8;

/** Gets the function workers ready. */
export async function warmUp({ executor }: CocoaSurroundings): Promise<void> {
  await executor.getResult(executor.map(WARM, new Array<null>(executor.workers).fill(null)));
}

/**
 * Trains on a dataset, and measures the model on another where there is one. Objects of the run stay in the namespace.
 * Rejects with the MillraceError of whatever failed. A run that does not reach the gap within `maxRounds` resolves, with
 * `converged` false.
 */
export async function trainCocoa(
  training: Dataset,
  test: Dataset | null,
  options: CocoaOptions,
  surroundings: CocoaSurroundings,
): Promise<CocoaRun> {
  return new Training(training, options, surroundings).run(test);
}

class Training {
  readonly #options: CocoaOptions;
  readonly #surroundings: CocoaSurroundings;
  readonly #plan: CocoaPlan;
  readonly #calls: CocoaCall[] = [];
  readonly #phases: CocoaRun["phases"] = [];
  #retries = 0;
  #exchangedBytes = 0;
  #modelSize = 0;

  constructor(dataset: Dataset, options: CocoaOptions, surroundings: CocoaSurroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
    const adds = options.mode === "add";
    this.#plan = {
      run: options.run,
      blocks: dataset.blocks.map((block) => block.key),
      rows: dataset.rows,
      widths: dataset.columns.map((column) => (column.kind === "numeric" ? 1 : column.categories.length)),
      unitRows: options.unitRows,
      intercept: options.intercept,
      positive: options.positive,
      partitions: options.partitions,
      loss: options.loss,
      penalty: options.penalty,
      lambda: options.lambda,
      sigma: adds ? options.partitions : 1,
      gamma: adds ? 1 : 1 / options.partitions,
      passes: options.passes,
      seed: options.seed,
    };
  }

  async run(test: Dataset | null): Promise<CocoaRun> {
    const { namespace } = this.#surroundings;
    const startMs = nowMs();
    await namespace.put(keys.plan(this.#plan.run), JSON.stringify(this.#plan));
    const dealt = await this.#phase("deal", () => this.#deal());
    const rounds: CocoaRound[] = [];
    await this.#phase("rounds", () => this.#rounds(rounds));
    const last = rounds.at(-1) as CocoaRound;
    const weights = await this.#weights(last.round);
    const measured = test === null ? null : await this.#phase("test", () => this.#test(test, last.round));
    return {
      rounds,
      converged: last.gap <= this.#options.gap,
      weights,
      calls: this.#calls,
      phases: this.#phases,
      startMs,
      endMs: nowMs(),
      retries: this.#retries,
      exchangedBytes: this.#exchangedBytes,
      transport: namespace.transport,
      partitionBytes: dealt.flatMap((result) => result.sizesBytes),
      test: measured,
    };
  }

  async #deal(): Promise<DealResult[]> {
    const { run, penalty, partitions, rows } = this.#plan;
    const { namespace } = this.#surroundings;
    const ranges = partitionRanges(partitions, this.#options.workers);
    const results = await this.#call<DealArgument, DealResult>(
      "deal",
      DEAL,
      ranges.map((range) => ({ run, ...range })),
      (argument) => `deal ${argument.first}`,
    );
    this.#modelSize = results[0]?.modelSize ?? 0;
    const model = new Float64Array(penalty === "l2" ? this.#modelSize : rows);
    if (penalty === "l1") {
      // Before any weight is more than 0, the residual is what the labels are, the other way round.
      const labels = await this.#get(keys.labels(run));
      const values = new Float64Array(labels.slice().buffer);
      for (let i = 0; i < values.length; i += 1) model[i] = -(values[i] as number);
      this.#modelSize = rows;
    }
    await namespace.put(keys.model(run, 0), new Uint8Array(model.buffer));
    return results;
  }

  async #rounds(rounds: CocoaRound[]): Promise<void> {
    const { run, partitions } = this.#plan;
    const { gap, maxRounds, workers } = this.#options;
    const { onProgress, signal } = this.#surroundings;
    const ranges = partitionRanges(partitions, workers);
    let firstGap = 0;
    for (let round = 0; ; round += 1) {
      signal?.throwIfAborted();
      const startMs = nowMs();
      const results = await this.#call<RoundArgument, RoundResult>(
        "rounds",
        ROUND,
        ranges.map((range) => ({ run, round, ...range })),
        (argument) => `round ${argument.round}`,
      );
      const objectives = await this.#objectives(round, results);
      if (!Number.isFinite(objectives.gap)) {
        throw new MillraceError(
          "INVALID_ARGUMENT",
          `the objective is ${objectives.primal} after ${round} rounds; scale the features, or leave out what is not finite`,
        );
      }
      if (round === 0) firstGap = objectives.gap;
      const done = objectives.gap <= gap || round === maxRounds;
      const reducing = nowMs();
      const modelBytes = done ? 0 : await this.#addDeltas(round);
      const endMs = nowMs();
      const spent = (activity: string): number =>
        results.reduce(
          (sum, { spans }) =>
            sum +
            spans.reduce((s, span) => s + (span.activity === activity ? span.endMs - span.startMs : 0), 0),
          0,
        ) /
        1000 /
        Math.max(1, Math.min(workers, results.length));
      const bytes = results.reduce((sum, { bytesIn, bytesOut }) => sum + bytesIn + bytesOut, 0) + modelBytes;
      this.#exchangedBytes += bytes;
      rounds.push({
        round,
        ...objectives,
        seconds: (endMs - startMs) / 1000,
        computeSeconds: spent("compute"),
        broadcastSeconds: spent("input"),
        reduceSeconds: spent("output") + (endMs - reducing) / 1000,
        bytes,
        accuracy:
          this.#options.positive === null || this.#plan.penalty === "l1"
            ? null
            : addUp(results).right / this.#plan.rows,
      });
      const way = Math.log(firstGap / Math.max(objectives.gap, gap)) / Math.log(firstGap / gap);
      onProgress?.({ stage: "rounds", fraction: done ? 1 : Math.min(1, Math.max(0, way || 0)) });
      await this.#forget(round, done);
      if (done) return;
    }
  }

  async #objectives(round: number, results: readonly RoundResult[]): Promise<Objectives> {
    const { run, rows, lambda, penalty } = this.#plan;
    const model = await this.#get(keys.model(run, round));
    const square = await learning().dot(model, model);
    const sums = addUp(results);
    if (penalty === "l2") return ridgeObjectives(sums, rows, lambda, square);
    const timesLabels = await learning().dot(model, await this.#get(keys.labels(run)));
    return lassoObjectives(sums, rows, lambda, { square, timesLabels });
  }

  /** The next model: this one, and what each partition found, added in the order of the partitions. Returns its bytes. */
  async #addDeltas(round: number): Promise<number> {
    const { run, partitions } = this.#plan;
    const { namespace } = this.#surroundings;
    const model = await this.#get(keys.model(run, round));
    const deltas = await Promise.all(
      Array.from({ length: partitions }, (_, k) => this.#get(keys.delta(run, round + 1, k))),
    );
    const writer = await namespace.openWriter(keys.model(run, round + 1), { sizeBytes: model.length });
    try {
      const next: ByteSpan = await writer.reserve(model.length);
      await kernels().sumArrays("float64", [model, ...deltas], next);
      await writer.seal();
    } catch (error) {
      await writer.abort();
      throw error;
    }
    return model.length * (partitions + 1);
  }

  /** What no call reads any more. Attempts that come late write keys that nobody reads. */
  async #forget(round: number, done: boolean): Promise<void> {
    const { run, partitions } = this.#plan;
    const { namespace } = this.#surroundings;
    const gone = [];
    for (let k = 0; k < partitions; k += 1) {
      gone.push(keys.delta(run, round + 1, k));
      // The lasso's last weights are still to be read.
      gone.push(done ? keys.variables(run, round + 1, k) : keys.variables(run, round, k));
    }
    if (!done) gone.push(keys.model(run, round));
    await Promise.all(gone.map((key) => namespace.delete(key)));
  }

  async #weights(round: number): Promise<Float64Array> {
    const { run, partitions, penalty, widths, intercept } = this.#plan;
    if (penalty === "l2") return doubles(await this.#get(keys.model(run, round)));
    const weights = new Float64Array(widths.reduce((sum, width) => sum + width, intercept ? 1 : 0));
    for (let k = 0; k < partitions; k += 1) {
      const own = doubles(await this.#get(keys.variables(run, round, k)));
      const features = featureNumbers(await this.#get(keys.part(run, k)), own.length);
      for (let i = 0; i < own.length; i += 1) weights[features[i] as number] = own[i] as number;
    }
    return weights;
  }

  async #test(test: Dataset, round: number): Promise<CocoaTest> {
    const { run, penalty } = this.#plan;
    const { workers, positive } = this.#options;
    const { namespace } = this.#surroundings;
    if (penalty === "l1") {
      // Calls measure with weights; what rounds have of the lasso is its residual.
      const weights = await this.#weights(round);
      await namespace.put(keys.model(run, round + 1), new Uint8Array(weights.buffer));
    }
    const shares = partitionRanges(test.blocks.length, workers);
    const results = await this.#call<MetricsArgument, MetricsResult>(
      "test",
      METRICS,
      shares.map(({ first, count }) => ({
        run,
        round: penalty === "l1" ? round + 1 : round,
        blocks: test.blocks.slice(first, first + count).map((block) => block.key),
      })),
      () => "test",
    );
    const sum = (of: (result: MetricsResult) => number) =>
      results.reduce((total, result) => total + of(result), 0);
    const rows = sum((result) => result.rows);
    return {
      rows,
      loss: sum((result) => result.loss) / rows,
      accuracy: positive === null ? null : sum((result) => result.right) / rows,
      rmse: positive === null ? Math.sqrt(sum((result) => result.squaredError) / rows) : null,
    };
  }

  async #get(key: string): Promise<Uint8Array> {
    const bytes = await this.#surroundings.namespace.get(key);
    if (bytes === null) throw new MillraceError("NOT_FOUND", `${key} is gone from the namespace`);
    return bytes;
  }

  async #phase<T>(name: CocoaStage, work: () => Promise<T>): Promise<T> {
    this.#surroundings.signal?.throwIfAborted();
    const startMs = nowMs();
    const result = await work();
    this.#phases.push({ name, startMs, endMs: nowMs() });
    this.#surroundings.onProgress?.({ stage: name, fraction: 1 });
    return result;
  }

  async #call<A, R extends CallReport>(
    stage: CocoaStage,
    reference: FunctionRef<A, R>,
    callArguments: readonly A[],
    label: (argument: A) => string,
  ): Promise<R[]> {
    const { executor, onProgress, signal } = this.#surroundings;
    const results = await callAll(executor, reference, callArguments, {
      signal,
      onProgress: (fraction) => stage !== "rounds" && onProgress?.({ stage, fraction }),
      onEnd: ({ stats }) => {
        this.#retries += stats.history.filter(
          ({ outcome }) => outcome !== "done" && outcome !== "cancelled",
        ).length;
      },
    });
    results.forEach((result, i) => {
      const { functionWorker, attempt, startMs, endMs, spans } = result;
      const call = { functionWorker, attempt, startMs, endMs, spans, stage };
      this.#calls.push({ ...call, label: label(callArguments[i] as A) });
    });
    return results;
  }
}

/** In the order of the partitions, which is that of the calls. */
function addUp(results: readonly RoundResult[]): PartitionSums {
  const total = { loss: 0, dual: 0, right: 0, absolute: 0, steepest: 0 };
  for (const sums of results.flatMap((result) => result.sums)) {
    total.loss += sums.loss;
    total.dual += sums.dual;
    total.right += sums.right;
    total.absolute += sums.absolute;
    total.steepest = Math.max(total.steepest, sums.steepest);
  }
  return total;
}

function doubles(bytes: Uint8Array): Float64Array {
  return new Float64Array(bytes.slice().buffer);
}

/** A block of dealt features has their numbers in the place of labels. */
function featureNumbers(block: Uint8Array, count: number): Float64Array {
  const labelsAt = 64;
  return doubles(block.subarray(labelsAt, labelsAt + count * DOUBLE_BYTES));
}
