/**
 * The driver of a sort: samples, chooses splitters, calls maps, calls reduces, and adds up what they found. Moves
 * no records itself.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "../../client/errors.js";
import type { Namespace } from "../../client/index.js";
import { kernels } from "../../client/kernels.js";
import { type CallFuture, type Executor, type FunctionRef, functionRef } from "../../functions/index.js";
import { callAll } from "../calling/call_all.js";
import type { CallReport } from "../calling/call_report.js";
import { moduleBeside } from "../calling/module.js";
import { nowMs, secondsByActivity } from "../report/activity.js";
import type { ExchangePlan } from "../stores/exchange.js";
import { type StoreChoice, setUpExchange } from "../stores/open.js";
import type {
  MapArgument,
  MapResult,
  mapSplits,
  ReduceArgument,
  ReduceResult,
  reducePartitions,
  SampleArgument,
  SampleResult,
  sampleInput,
  WarmArgument,
  warmFunctionWorker,
} from "./calls.js";
import { cutSplits, type SortInput, samplePositions, splitSizes } from "./input.js";
import { type OutputPlace, writePart } from "./output.js";
import {
  callRanges,
  defaultPartitions,
  MAP_BYTES_MAX,
  MAP_BYTES_MIN,
  MAPS_PER_CALL_MAX,
  PARTITIONS_PER_CALL_MAX,
  type Range,
  type SamplePlan,
  type SortPlan,
  sampleRecords,
  sampleStretchRecords,
} from "./plan.js";
import {
  EMPTY_SUMMARY,
  joinSummaries,
  KEY_BYTES,
  RECORD_BYTES,
  type StretchSummary,
  totalOf,
} from "./records.js";
import type { SortDocument } from "./result.js";

export interface SortOptions {
  input: SortInput;
  /** For the parts, or null. */
  output: OutputPlace | null;
  store: StoreChoice;
  /** Function workers of the executor. */
  workers: number;
  /** Null: chosen by the size of the input. */
  partitions: number | null;
  /** Unique name of this run; 1 to 63 of a-z 0-9 - . */
  run: string;
}

export interface SortSurroundings {
  namespace: Namespace;
  executor: Executor;
  onProgress?: (progress: SortProgress) => void;
  /** Ends the sort with its reason. */
  signal?: AbortSignal;
}

export type Stage = "sample" | "map" | "reduce";

export interface SortProgress {
  stage: Stage;
  /** 0 to 1. */
  fraction: number;
}

/** A call for the timeline of the report. */
export interface TimelineCall extends CallReport {
  stage: Stage;
  /** The map outputs or the partitions that it worked on. */
  first: number;
  count: number;
  records: number;
}

/** An attempt that came to nothing. */
export interface LostAttempt {
  stage: Stage;
  functionWorker: string;
  attempt: number;
  startMs: number;
  endMs: number;
  outcome: string;
}

export interface SortRun {
  document: SortDocument;
  maps: number;
  startMs: number;
  endMs: number;
  phases: { name: Stage; startMs: number; endMs: number }[];
  calls: TimelineCall[];
  lostAttempts: LostAttempt[];
  /** Of each partition. */
  partitionBytes: number[];
  /** Neighbours with equal keys in the output. */
  duplicates: number;
}

const IDLE_WAIT_MS = 5_000;
const IDLE_POLL_MS = 10;

/** How often a lost map output is made again before the sort gives up. */
const ROUNDS_MAX = 5;

const CALLS = moduleBeside(import.meta.url, "calls");
const SAMPLE = functionRef<typeof sampleInput>(CALLS, "sampleInput");
const MAP = functionRef<typeof mapSplits>(CALLS, "mapSplits");
const REDUCE = functionRef<typeof reducePartitions>(CALLS, "reducePartitions");
const WARM = functionRef<typeof warmFunctionWorker>(CALLS, "warmFunctionWorker");

/** A rehearsal costs some 50 ms, which small inputs should not wait for. */
const REHEARSAL_RECORDS_PER_FUNCTION_WORKER = 10_000;
const REHEARSED_FROM_RECORDS = 1_000_000;

/**
 * Gets function workers into the state of a pool that is in use: code loaded and compiled, connections open,
 * working memory touched; for large inputs by sorting a few records in the same way. Not needed for a sort to work.
 */
export async function warmUp(options: SortOptions, surroundings: SortSurroundings): Promise<void> {
  const { executor } = surroundings;
  const { input, workers } = options;
  const { sizes, partitions } = cut(options);
  const largestPartition = (input.records * RECORD_BYTES * 1.2) / partitions;
  const recordBytes = Math.ceil(
    Math.max(0, largestPartition, ...sizes.map((records) => records * RECORD_BYTES)),
  );
  const argument: WarmArgument = { recordBytes: Math.min(recordBytes, 4 * MAP_BYTES_MAX) };
  const futures = executor.map(
    WARM,
    Array.from({ length: workers }, () => argument),
  );
  await Promise.all(futures.map((future) => future.result()));
  if (input.records < REHEARSED_FROM_RECORDS) return;
  const records = workers * REHEARSAL_RECORDS_PER_FUNCTION_WORKER;
  const { namespace, signal } = surroundings;
  await sort(
    {
      ...options,
      input: { kind: "generated", records, skewed: false },
      output: null,
      partitions: 4 * workers,
      run: `${options.run}-rehearsal`,
    },
    { namespace, executor, ...(signal === undefined ? {} : { signal }) },
  );
}

function cut(options: SortOptions): { sizes: number[]; partitions: number } {
  const { input, workers } = options;
  return {
    sizes: splitSizes(input.records, workers, MAP_BYTES_MAX / RECORD_BYTES, MAP_BYTES_MIN / RECORD_BYTES),
    partitions: options.partitions ?? defaultPartitions(input.records, workers),
  };
}

/**
 * Sorts. The parts in the output, the objects in the namespace and what the store holds belong to the
 * caller, who removes the first when this fails and the second in any case; the third is removed here.
 *
 * Rejects with the MillraceError of whatever failed. A run that does not validate resolves, with
 * `document.validated` false.
 */
export async function sort(options: SortOptions, surroundings: SortSurroundings): Promise<SortRun> {
  const { sizes, partitions } = cut(options);
  const run = new Sort(options, surroundings, sizes, partitions);
  return options.input.records === 0 ? run.nothing() : run.sort();
}

class Sort {
  readonly #options: SortOptions;
  readonly #surroundings: SortSurroundings;
  readonly #sizes: readonly number[];
  readonly #exchange: ExchangePlan;
  readonly #calls: TimelineCall[] = [];
  readonly #lostAttempts: LostAttempt[] = [];
  readonly #phases: { name: Stage; startMs: number; endMs: number }[] = [];
  #retries = 0;

  constructor(
    options: SortOptions,
    surroundings: SortSurroundings,
    sizes: readonly number[],
    partitions: number,
  ) {
    this.#options = options;
    this.#surroundings = surroundings;
    this.#sizes = sizes;
    this.#exchange = { run: options.run, maps: sizes.length, partitions };
  }

  /** There are no records: every part is empty. */
  async nothing(): Promise<SortRun> {
    const startMs = nowMs();
    const { partitions } = this.#exchange;
    const { output } = this.#options;
    for (let partition = 0; output !== null && partition < partitions; partition += 1) {
      await writePart(output, partition, "empty", new Uint8Array(0));
    }
    return this.#result(startMs, nowMs(), [], []);
  }

  async sort(): Promise<SortRun> {
    const { namespace } = this.#surroundings;
    const startMs = nowMs();
    const setup = await setUpExchange(this.#options.store, this.#exchange, namespace);
    try {
      const plan = await this.#phase("sample", () => this.#plan());
      const maps = await this.#phase("map", () =>
        this.#map(plan, callRanges(this.#sizes, this.#options.workers, MAPS_PER_CALL_MAX), 0),
      );
      const reduces = await this.#phase("reduce", () => this.#reduceAll(plan));
      const endMs = nowMs();
      return this.#result(startMs, endMs, maps, reduces);
    } finally {
      // A call that was given up may still be writing; Millrace itself drops whatever comes with the namespace.
      if (this.#options.store.kind !== "millrace") await this.#untilIdle();
      // Whatever failed before matters more than what is left in somebody else's store.
      await setup.remove().catch(() => undefined);
    }
  }

  /** Until no function worker runs anything any more; the executor kills those that go on with a cancelled call. */
  async #untilIdle(): Promise<void> {
    const until = performance.now() + IDLE_WAIT_MS;
    while (this.#surroundings.executor.stats().busy > 0 && performance.now() < until)
      await sleep(IDLE_POLL_MS);
  }

  async #phase<T>(name: Stage, work: () => Promise<T>): Promise<T> {
    this.#surroundings.signal?.throwIfAborted();
    const startMs = nowMs();
    const result = await work();
    this.#phases.push({ name, startMs, endMs: nowMs() });
    this.#surroundings.onProgress?.({ stage: name, fraction: 1 });
    return result;
  }

  /** Samples the input, chooses the splitters, and leaves the plan in the namespace. Returns its key. */
  async #plan(): Promise<string> {
    const { input, store, output, workers } = this.#options;
    const { namespace } = this.#surroundings;
    const { partitions, run } = this.#exchange;
    const wanted = sampleRecords(partitions);
    const each = sampleStretchRecords(input);
    const stretches = wanted === 0 ? [] : samplePositions(input.records, Math.ceil(wanted / each), each);
    let keys = new Uint8Array(0);
    if (stretches.length > 0) {
      const samplePlan: SamplePlan = { input, stretches, calls: Math.min(workers, stretches.length) };
      const key = `${run}/sample`;
      await namespace.put(key, JSON.stringify(samplePlan));
      const samples = await this.#call<SampleArgument, SampleResult>(
        "sample",
        SAMPLE,
        Array.from({ length: samplePlan.calls }, (_, call) => ({ plan: key, call })),
      );
      keys = Buffer.concat(samples.map((sample) => sample.keys));
      samples.forEach((sample, call) => {
        this.#note(sample, {
          stage: "sample",
          first: call,
          count: 1,
          records: sample.keys.length / KEY_BYTES,
        });
      });
    }
    const splitters = kernels().chooseSplitters(RECORD_BYTES, KEY_BYTES, keys, partitions);
    const plan: SortPlan = {
      store,
      exchange: this.#exchange,
      splits: cutSplits(input, this.#sizes),
      splitters: Buffer.from(splitters).toString("base64"),
      output,
    };
    const key = `${run}/plan`;
    await namespace.put(key, JSON.stringify(plan));
    return key;
  }

  async #map(plan: string, ranges: readonly Range[], round: number): Promise<MapResult[]> {
    const results = await this.#call<MapArgument, MapResult>(
      "map",
      MAP,
      ranges.map((range) => ({ plan, ...range, round })),
    );
    results.forEach((result, i) => {
      const { first, count } = ranges[i] as Range;
      this.#note(result, { stage: "map", first, count, records: result.records });
    });
    return results;
  }

  /** Reduces everything; map outputs that were lost meanwhile are made again. Results in the order of the partitions. */
  async #reduceAll(plan: string): Promise<ReduceResult[]> {
    const equal = new Array<number>(this.#exchange.partitions).fill(1);
    const ranges = callRanges(equal, this.#options.workers, PARTITIONS_PER_CALL_MAX);
    const results = new Map<number, ReduceResult>();
    for (let round = 1; ; round += 1) {
      const missing = ranges.filter((range) => !results.has(range.first));
      try {
        await this.#call<ReduceArgument, ReduceResult>(
          "reduce",
          REDUCE,
          missing.map((range) => ({ plan, ...range })),
          (argument, result) => {
            results.set(argument.first, result);
            this.#note(result, {
              stage: "reduce",
              first: argument.first,
              count: argument.count,
              records: result.summary.records,
            });
          },
        );
        return ranges.map((range) => results.get(range.first) as ReduceResult);
      } catch (thrown) {
        const error = MillraceError.from(thrown);
        if (error.code !== "MAP_OUTPUT_LOST" || round === ROUNDS_MAX) throw error;
        this.#retries += error.maps.length;
        const lost = error.maps.map((first) => ({ first, count: 1 }));
        await this.#map(plan, lost, round);
      }
    }
  }

  #call<A, R>(
    stage: Stage,
    reference: FunctionRef<A, R>,
    callArguments: readonly A[],
    onResult: (argument: A, result: R) => void = () => undefined,
  ): Promise<R[]> {
    const { executor, onProgress, signal } = this.#surroundings;
    return callAll(executor, reference, callArguments, {
      signal,
      onProgress: (fraction) => onProgress?.({ stage, fraction }),
      onResult: (i, result) => onResult(callArguments[i] as A, result),
      onEnd: (future) => this.#noteAttempts(stage, future),
    });
  }

  #noteAttempts(stage: Stage, future: CallFuture<unknown>): void {
    for (const attempt of future.stats.history) {
      if (attempt.outcome === "done" || attempt.outcome === "cancelled") continue;
      this.#retries += 1;
      this.#lostAttempts.push({
        stage,
        functionWorker: attempt.workerId,
        attempt: attempt.attempt,
        startMs: attempt.sentUnixMs,
        endMs: attempt.endedUnixMs,
        outcome: attempt.outcome,
      });
    }
  }

  #note(report: CallReport, what: Omit<TimelineCall, keyof CallReport>): void {
    const { functionWorker, attempt, startMs, endMs, spans } = report;
    this.#calls.push({ functionWorker, attempt, startMs, endMs, spans, ...what });
  }

  #result(
    startMs: number,
    endMs: number,
    maps: readonly MapResult[],
    reduces: readonly ReduceResult[],
  ): SortRun {
    const { input, store, workers } = this.#options;
    const { partitions } = this.#exchange;
    const given = totalOf(maps);
    const sorted = reduces.reduce<StretchSummary>(
      (sum, result) => joinSummaries(sum, result.summary),
      EMPTY_SUMMARY,
    );
    const partitionBytes = reduces.flatMap((result) => result.sizesBytes);
    const bytes = input.records * RECORD_BYTES;
    const byTransport: SortDocument["exchange"]["byTransport"] = { shm: 0, tcp: 0, grpc: 0 };
    for (const result of reduces) {
      const moved = result.sizesBytes.reduce((sum, size) => sum + size, 0);
      byTransport[result.transport] = (byTransport[result.transport] ?? 0) + moved;
    }
    const moved = Object.values(byTransport).reduce((sum, size) => sum + size, 0);
    const nvmeBytes = reduces.reduce((sum, result) => sum + result.nvmeBytes, 0);
    const time = secondsByActivity(this.#calls.flatMap((call) => call.spans));
    const phase = (name: Stage): number => {
      const found = this.#phases.find((candidate) => candidate.name === name);
      return found === undefined ? 0 : (found.endMs - found.startMs) / 1000;
    };
    return {
      document: {
        workload: "sort",
        records: input.records,
        bytes,
        workers,
        partitions,
        seconds: (endMs - startMs) / 1000,
        phases: { sample: phase("sample"), map: phase("map"), reduce: phase("reduce") },
        time: {
          input: time.input / workers,
          compute: time.compute / workers,
          exchange: time.exchange / workers,
          output: time.output / workers,
        },
        exchange: {
          bytes: moved,
          byTransport,
          // What went through another store lay in no tier of ours.
          byTier: { dram: store.kind === "millrace" ? moved - nvmeBytes : 0, nvme: nvmeBytes },
        },
        partitionSkew: bytes === 0 ? 1 : (Math.max(...partitionBytes) * partitions) / bytes,
        retries: this.#retries,
        validated:
          given.records === input.records &&
          sorted.records === given.records &&
          sorted.checksum === given.checksum &&
          sorted.unordered === 0,
        checksum: sorted.checksum,
        store: store.kind,
      },
      maps: this.#exchange.maps,
      startMs,
      endMs,
      phases: this.#phases,
      calls: this.#calls,
      lostAttempts: this.#lostAttempts,
      partitionBytes,
      duplicates: sorted.duplicates,
    };
  }
}
