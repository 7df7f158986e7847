/**
 * Runs the planner's stages: cuts them into tasks, calls function workers, and leaves the rows in exchanges. Moves no
 * rows itself.
 *
 * A task whose output is lost (or found damaged) is run again, after the tasks whose lost outputs it needs, and then
 * whoever wanted to read it. Rows of a task may come in another order then: whoever has read an output before and
 * whoever reads it after may disagree about rows of a fragment that is not determined by its input, as any
 * system that computes lost data again.
 *
 * An exchange by ranges needs boundaries, which need the rows: the fragment runs into an exchange of one partition,
 * its tasks tell some of the sort keys, and a second, light pass cuts what each task has left into ranges.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "../../client/errors.js";
import type { Namespace } from "../../client/index.js";
import { type CallFuture, type Executor, type FunctionRef, functionRef } from "../../functions/index.js";
import { causeOf } from "../calling/call_all.js";
import { moduleBeside } from "../calling/module.js";
import { nowMs } from "../report/activity.js";
import type { ExchangePlan, ExchangeSetup } from "../stores/exchange.js";
import { type StoreChoice, setUpExchange } from "../stores/open.js";
import type {
  CallLost,
  EnginePlan,
  InputPlan,
  PartArgument,
  PartDone,
  PartResult,
  runTask,
  StagePlan,
  TaskArgument,
  TaskDone,
  TaskResult,
  warmFunctionWorker,
  writePart,
} from "./calls.js";
import type { Catalog, FilePart, Table } from "./catalog.js";
import type { Exchanged, ExchangeRead, OrderKey, Stage, StageRunner } from "./plan/stage.js";
import type { SqlExchangeTotals, SqlInput, SqlLostAttempt, SqlStage } from "./run.js";
import { chooseBoundaries, partitionedByHash, partitionedByRange } from "./statement.js";
import { cutTasks, type Task, type TaskSizes } from "./tasks.js";

export interface StageRunnerOptions {
  /** Unique name of the run of the query. */
  run: string;
  catalog: Catalog;
  store: StoreChoice;
  /** Of exchanges by hash. */
  partitions: number;
  engine: EnginePlan;
  sizes: TaskSizes;
  /** An exchange that is not expected to be larger is made so that it costs few round trips. */
  smallExchangeBytes: number;
}

export const SMALL_EXCHANGE_BYTES = 16 << 20;

export interface StageRunnerSurroundings {
  namespace: Namespace;
  executor: Executor;
  onProgress?: (progress: { stage: number; label: string; fraction: number }) => void;
  /** Ends all calls with its reason. */
  signal: AbortSignal;
}

/** How often what is lost is made again before the query gives up. */
const ROUNDS_MAX = 5;
/** A plan above this travels once, through the namespace, and not with each of its tasks. */
const INLINE_PLAN_CHARACTERS = 4 * 1024;
/** Ranges of about so many bytes, each sorted by one task; below, one task sorts all. */
const RANGE_BYTES = 16 << 20;
const RANGES_MAX = 256;
/** Sort keys looked at to choose the boundaries. */
const SAMPLE_KEYS_PER_RANGE = 64;
const SAMPLE_KEYS_PER_TASK_MAX = 2_000;

const IDLE_WAIT_MS = 5_000;
const IDLE_POLL_MS = 10;

const CALLS = moduleBeside(import.meta.url, "calls");
export const WARM = functionRef<typeof warmFunctionWorker>(CALLS, "warmFunctionWorker");
const TASK = functionRef<typeof runTask>(CALLS, "runTask");
const PART = functionRef<typeof writePart>(CALLS, "writePart");

/** An exchange and the tasks that fill it. */
interface Work {
  /** Of the planner, for reports. */
  record: SqlStage;
  exchange: ExchangePlan;
  isOrdered: boolean;
  plan: StagePlan | string;
  tasks: Pick<TaskArgument, "scans" | "slices">[];
  inputs: Work[];
  /** How often each task was asked for. */
  rounds: number[];
  /** How often outputs were made again. */
  generation: number;
  /** By map: underway. */
  repairs: Map<number, Promise<void>>;
}

export class SqlStageRunner implements StageRunner {
  readonly real = true;
  readonly stages: SqlStage[] = [];
  readonly lostAttempts: SqlLostAttempt[] = [];
  readonly exchanged: SqlExchangeTotals = {
    bytes: 0,
    byTransport: { shm: 0, tcp: 0, grpc: 0 },
    byTier: { dram: 0, nvme: 0 },
  };
  retries = 0;
  readonly #options: StageRunnerOptions;
  readonly #surroundings: StageRunnerSurroundings;
  /** By the planner's number of the stage. */
  readonly #works = new Map<number, Work>();
  /** In the store, or on their way there. */
  readonly #setups: Promise<ExchangeSetup>[] = [];
  readonly #plans: { key: string; put: Promise<unknown> }[] = [];
  /** Calls that have not ended, of all stages that run. */
  readonly #underway = new Set<CallFuture<unknown>>();

  constructor(options: StageRunnerOptions, surroundings: StageRunnerSurroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
    surroundings.signal.addEventListener("abort", () => {
      for (const future of this.#underway) future.cancel();
    });
  }

  async run(stage: Stage): Promise<Exchanged> {
    const { signal } = this.#surroundings;
    signal.throwIfAborted();
    const record: SqlStage = {
      id: stage.id,
      label: stage.label,
      output: stage.output.kind,
      tasks: 0,
      rows: 0,
      bytes: 0,
      partitionBytes: [],
      startMs: nowMs(),
      endMs: 0,
      calls: [],
      inputs: [],
    };
    this.stages.push(record);
    const tables = stage.tables.map(({ table }) => this.#table(table));
    const inputs = stage.exchanges.map((read) => this.#workOf(read));
    const tasks = this.#cut(stage, tables, inputs);
    record.tasks = tasks.length;
    record.inputs = [...tableEdges(tables, tasks), ...inputs.map((input) => stageEdge(input))];
    const { output } = stage;
    const partitions = output.kind === "hash" ? this.#options.partitions : 1;
    const order = output.kind === "range" ? output.order : null;
    const name = `${this.#options.run}-s${stage.id}`;
    const work: Work = {
      record,
      exchange: {
        run: order === null ? name : `${name}-unsorted`,
        maps: tasks.length,
        partitions,
        isSmall: this.#isSmall(stage, tables),
      },
      isOrdered: stage.ordered,
      plan: "",
      tasks: tasks.map((task) => ({ scans: this.#ownScans(stage, tables, task), slices: task.slices })),
      inputs,
      rounds: tasks.map(() => 0),
      generation: 0,
      repairs: new Map(),
    };
    const sampled = Math.ceil((RANGES_MAX * SAMPLE_KEYS_PER_RANGE) / tasks.length);
    const plan: StagePlan = {
      sql: output.kind === "hash" ? partitionedByHash(stage.sql, output.keys, partitions) : stage.sql,
      tables: stage.tables.map(({ name: table }, i) => ({
        name: table,
        sql: this.#sharedScan(stage, tables, i),
      })),
      inputs: stage.exchanges.map(({ name: input, exchange: { types } }, i) => ({
        name: input,
        types,
        exchange: (inputs[i] as Work).exchange,
        isOrdered: (inputs[i] as Work).isOrdered,
      })),
      output: work.exchange,
      store: this.#options.store,
      engine: this.#options.engine,
      sample: order === null ? null : { order, count: Math.min(sampled, SAMPLE_KEYS_PER_TASK_MAX) },
    };
    work.plan = await this.#setUp(work.exchange, plan);
    const results = await this.#runTasks(work, allOf(tasks));
    const [done, finished] =
      order === null ? [results, work] : await this.#cutIntoRanges(name, work, results, order);
    this.#works.set(stage.id, finished);
    return this.#exchanged(stage, finished, done);
  }

  /** A lost part of the result is made again, as for tasks. The rows, wherever they are read, stay in their order. */
  async read<T>(result: Exchanged, read: (input: InputPlan, generation: number) => Promise<T>): Promise<T> {
    const work = this.#works.get(result.stage) as Work;
    const { exchange, isOrdered } = work;
    const input = { name: "result", types: result.types, exchange, isOrdered };
    for (let round = 0; ; round += 1) {
      try {
        return await read(input, work.generation);
      } catch (thrown) {
        const error = MillraceError.from(thrown);
        if (error.code !== "MAP_OUTPUT_LOST" || round === ROUNDS_MAX) throw error;
        await this.#repair(work, error.maps);
      }
    }
  }

  /** Has function workers write the result as files: neighbouring maps of it each. Results in order. */
  async writeParts(result: Exchanged, sql: string, paths: (part: number) => string): Promise<PartDone[]> {
    const work = this.#works.get(result.stage) as Work;
    const { run, store, engine, sizes } = this.#options;
    const { maps } = work.exchange;
    const count = Math.max(1, Math.min(maps, Math.ceil(result.bytes / sizes.taskBytesMin)));
    const record: SqlStage = {
      id: Math.max(...this.stages.map(({ id }) => id)) + 1,
      label: "write Parquet parts",
      output: null,
      tasks: count,
      rows: result.rows,
      bytes: 0,
      partitionBytes: [],
      startMs: nowMs(),
      endMs: 0,
      calls: [],
      inputs: [stageEdge(work)],
    };
    this.stages.push(record);
    const { exchange, isOrdered } = work;
    const input = { name: "result", types: result.types, exchange, isOrdered };
    const ranges = Array.from({ length: count }, (_, part) => {
      const first = Math.floor((part * maps) / count);
      return { first, count: Math.floor(((part + 1) * maps) / count) - first };
    });
    const results = await this.#untilNothingIsLost<PartArgument, PartResult, PartDone>(
      record,
      PART,
      [work],
      allOf(ranges),
      (part) => ({
        run,
        engine,
        store,
        input,
        slices: [{ first: 0, count: 1, maps: ranges[part] as { first: number; count: number } }],
        generation: work.generation,
        sql,
        path: paths(part),
      }),
    );
    record.bytes = results.reduce((sum, { bytes }) => sum + bytes, 0);
    record.endMs = nowMs();
    return results;
  }

  /** Counts what was read of an exchange. */
  count(bytes: number, nvmeBytes: number, transport: string): void {
    this.exchanged.bytes += bytes;
    this.exchanged.byTransport[transport] = (this.exchanged.byTransport[transport] ?? 0) + bytes;
    this.exchanged.byTier.nvme += nvmeBytes;
    // What went through another store lay in no tier of ours.
    if (this.#options.store.kind === "millrace") this.exchanged.byTier.dram += bytes - nvmeBytes;
  }

  /** Leaves nothing in the store. When all calls have ended, or were given up. */
  async remove(): Promise<void> {
    const { namespace, executor } = this.#surroundings;
    // A call that was given up may still be writing; the executor kills those that go on.
    const until = performance.now() + IDLE_WAIT_MS;
    while (executor.stats().busy > 0 && performance.now() < until) await sleep(IDLE_POLL_MS);
    // Whatever failed before matters more than what is left in somebody else's store.
    await Promise.allSettled(this.#plans.map(({ key, put }) => put.then(() => namespace.delete(key))));
    for (const setup of this.#setups.reverse()) {
      await setup.then((made) => made.remove()).catch(() => undefined);
    }
  }

  #table(name: string): Table {
    const table = this.#options.catalog.tables.get(name);
    if (table === undefined) throw new MillraceError("INTERNAL", `there is no table ${name}`);
    return table;
  }

  #workOf({ exchange }: ExchangeRead): Work {
    const work = this.#works.get(exchange.stage);
    if (work === undefined) throw new MillraceError("INTERNAL", `stage ${exchange.stage} has not run`);
    return work;
  }

  #cut(stage: Stage, tables: readonly Table[], inputs: readonly Work[]): Task[] {
    return cutTasks(
      {
        tables: stage.tables.map(({ share, columns }, i) => {
          const table = tables[i] as Table;
          // Of Parquet, only the columns that are asked for are read; to unpack a byte of it takes about as long as to
          // read a byte of an exchange.
          const part =
            table.format === "parquet" ? Math.max(1, columns.length) / Math.max(1, table.columns.length) : 1;
          return { share, partBytes: table.parts.map(({ bytes }) => bytes * part) };
        }),
        exchanges: stage.exchanges.map(({ name, share, exchange }, i) => ({
          name,
          share,
          maps: (inputs[i] as Work).exchange.maps,
          partitionBytes: exchange.partitionBytes,
        })),
        single: stage.ordered && stage.output.kind !== "sorted",
        divisible: stage.divisible,
      },
      this.#options.sizes,
    );
  }

  /** Whether little is likely to come out of a stage: it is expected, or little goes in. */
  #isSmall(stage: Stage, tables: readonly Table[]): boolean {
    const ofTables = tables.reduce((sum, { bytes }) => sum + bytes, 0);
    const bytesRead = stage.exchanges.reduce((sum, { exchange }) => sum + exchange.bytes, ofTables);
    return Math.min(stage.estimatedBytes, bytesRead) < this.#options.smallExchangeBytes;
  }

  /** The scan of a table that is the same for all tasks, or null. */
  #sharedScan(stage: Stage, tables: readonly Table[], i: number): string | null {
    const read = stage.tables[i] as Stage["tables"][number];
    const table = tables[i] as Table;
    return read.share === "whole" ? this.#scan(read, table, table.parts) : null;
  }

  #ownScans(stage: Stage, tables: readonly Table[], task: Task): string[] {
    return stage.tables.flatMap((read, i) => {
      if (read.share === "whole") return [];
      const table = tables[i] as Table;
      const { first, count } = task.parts[i] as { first: number; count: number };
      return [this.#scan(read, table, table.parts.slice(first, first + count))];
    });
  }

  #scan(read: Stage["tables"][number], table: Table, parts: readonly FilePart[]): string {
    return this.#options.catalog.scanSql(table, read.columns, parts, read.filter);
  }

  /** Makes the exchange, and gives the plan as it is to travel. */
  async #setUp(exchange: ExchangePlan, plan: StagePlan): Promise<StagePlan | string> {
    const { namespace } = this.#surroundings;
    const setup = setUpExchange(this.#options.store, exchange, namespace);
    this.#setups.push(setup);
    const text = JSON.stringify(plan);
    if (text.length <= INLINE_PLAN_CHARACTERS) {
      await setup;
      return plan;
    }
    const key = `sql/${exchange.run}`;
    const put = namespace.put(key, text);
    this.#plans.push({ key, put });
    await Promise.all([setup, put]);
    return key;
  }

  async #cutIntoRanges(
    name: string,
    unsorted: Work,
    results: readonly TaskDone[],
    order: readonly OrderKey[],
  ): Promise<[TaskDone[], Work]> {
    const bytes = results.reduce((sum, result) => sum + totalOf(result.partitionBytes), 0);
    const wanted = Math.min(RANGES_MAX, Math.ceil(bytes / RANGE_BYTES));
    const samples = results.flatMap(({ sample }) => sample);
    const boundaries = chooseBoundaries(samples, wanted);
    if (boundaries.length === 0) return [[...results], unsorted];
    const { maps } = unsorted.exchange;
    const input = "exchange_0";
    const exchange = { run: name, maps, partitions: boundaries.length + 1 };
    const work: Work = {
      record: unsorted.record,
      exchange,
      isOrdered: false,
      plan: "",
      tasks: Array.from({ length: maps }, (_, map) => ({
        scans: [],
        slices: [[{ first: 0, count: 1, maps: { first: map, count: 1 } }]],
      })),
      inputs: [unsorted],
      rounds: new Array<number>(maps).fill(0),
      generation: 0,
      repairs: new Map(),
    };
    work.plan = await this.#setUp(exchange, {
      sql: partitionedByRange(`SELECT * FROM ${input}`, order, boundaries),
      tables: [],
      inputs: [
        { name: input, types: (results[0] as TaskDone).types, exchange: unsorted.exchange, isOrdered: false },
      ],
      output: exchange,
      store: this.#options.store,
      engine: this.#options.engine,
      sample: null,
    });
    return [await this.#runTasks(work, allOf(work.tasks)), work];
  }

  #exchanged(stage: Stage, work: Work, done: readonly TaskDone[]): Exchanged {
    const { partitions } = work.exchange;
    const partitionBytes = new Array<number>(partitions).fill(0);
    for (const result of done) {
      for (let partition = 0; partition < partitions; partition += 1) {
        partitionBytes[partition] =
          (partitionBytes[partition] as number) + (result.partitionBytes[partition] as number);
      }
    }
    const { record } = work;
    record.rows = done.reduce((sum, { rows }) => sum + rows, 0);
    record.partitionBytes = partitionBytes;
    record.bytes = totalOf(partitionBytes);
    record.endMs = nowMs();
    const { types } = done[0] as TaskDone;
    const { rows, bytes } = record;
    return { stage: stage.id, output: stage.output, types, partitions, rows, bytes, partitionBytes };
  }

  /** Runs tasks of a work, and before, again, whatever they find lost. Results in the order of `numbers`. */
  #runTasks(work: Work, numbers: readonly number[]): Promise<TaskDone[]> {
    return this.#untilNothingIsLost<TaskArgument, TaskResult, TaskDone>(
      work.record,
      TASK,
      work.inputs,
      numbers,
      (task) => {
        const round = work.rounds[task] as number;
        work.rounds[task] = round + 1;
        const { scans, slices } = work.tasks[task] as Work["tasks"][number];
        return {
          run: this.#options.run,
          plan: work.plan,
          task,
          round,
          scans,
          slices,
          generations: work.inputs.map(({ generation }) => generation),
        };
      },
    );
  }

  async #untilNothingIsLost<A, R extends CallLost | D, D extends TaskDone | PartDone>(
    record: SqlStage,
    reference: FunctionRef<A, R>,
    inputs: readonly Work[],
    numbers: readonly number[],
    argumentOf: (task: number) => A,
  ): Promise<D[]> {
    const done = new Map<number, D>();
    for (let round = 0; ; round += 1) {
      const missing = numbers.filter((task) => !done.has(task));
      const lost = new Map<number, Set<number>>();
      const results = await this.#call(record, reference, missing.map(argumentOf));
      results.forEach((result, i) => {
        const task = missing[i] as number;
        if (result.lost === null) {
          done.set(task, result as D);
          this.#note(record, task, result as D, inputs);
          return;
        }
        for (const { input, maps } of (result as CallLost).lost) {
          lost.set(input, new Set([...(lost.get(input) ?? []), ...maps]));
        }
      });
      if (lost.size === 0) return numbers.map((task) => done.get(task) as D);
      this.retries += missing.length - results.filter((result) => result.lost === null).length;
      if (round === ROUNDS_MAX) throw lostError(record, inputs, lost);
      await Promise.all([...lost].map(([input, maps]) => this.#repair(inputs[input] as Work, [...maps])));
    }
  }

  /** Runs tasks again whose outputs are lost. Those that are underway already are only waited for. */
  async #repair(work: Work, maps: readonly number[]): Promise<void> {
    const fresh = maps.filter((map) => !work.repairs.has(map));
    if (fresh.length > 0) {
      this.retries += fresh.length;
      const repair = this.#runTasks(work, fresh)
        .then(() => {
          work.generation += 1;
        })
        .finally(() => {
          for (const map of fresh) work.repairs.delete(map);
        });
      for (const map of fresh) work.repairs.set(map, repair);
    }
    await Promise.all(maps.map((map) => work.repairs.get(map)));
  }

  /** Calls a function for each argument and waits for all. The first failure ends the others and is thrown. */
  async #call<A, R>(
    record: SqlStage,
    reference: FunctionRef<A, R>,
    callArguments: readonly A[],
  ): Promise<R[]> {
    const { executor, onProgress, signal } = this.#surroundings;
    signal.throwIfAborted();
    const { id: stage, label } = record;
    const futures = executor.map(reference, callArguments as never[], {
      // Where the first output does not win, a second run could replace what is being read.
      ...(this.#options.store.kind === "millrace" ? {} : { stragglers: false }),
      onProgress: ({ fraction }) => onProgress?.({ stage, label, fraction }),
    }) as CallFuture<R>[];
    for (const future of futures) this.#underway.add(future);
    try {
      return await Promise.all(futures.map((future) => future.result()));
    } catch (thrown) {
      for (const future of futures) future.cancel();
      signal.throwIfAborted();
      throw causeOf(thrown);
    } finally {
      for (const future of futures) {
        this.#underway.delete(future);
        this.#noteAttempts(stage, future);
      }
    }
  }

  #note(record: SqlStage, task: number, result: TaskDone | PartDone, inputs: readonly Work[]): void {
    const { functionWorker, attempt, startMs, endMs, spans, rows, inputBytes, nvmeBytes, transport } = result;
    const bytes = "partitionBytes" in result ? totalOf(result.partitionBytes) : result.bytes;
    const exchangedBytes = totalOf(inputBytes);
    record.calls.push({ task, functionWorker, attempt, startMs, endMs, spans, rows, bytes, exchangedBytes });
    inputs.forEach((input, i) => {
      const edge = record.inputs.find(
        ({ from }) => from.kind === "stage" && from.stage === input.record.id && input.record !== record,
      );
      if (edge !== undefined) edge.bytes += inputBytes[i] ?? 0;
    });
    if (transport !== null) this.count(exchangedBytes, nvmeBytes, transport);
  }

  #noteAttempts(stage: number, future: CallFuture<unknown>): void {
    for (const attempt of future.stats.history) {
      if (attempt.outcome === "done" || attempt.outcome === "cancelled") continue;
      this.retries += 1;
      this.lostAttempts.push({
        stage,
        functionWorker: attempt.workerId,
        attempt: attempt.attempt,
        startMs: attempt.sentUnixMs,
        endMs: attempt.endedUnixMs,
        outcome: attempt.outcome,
      });
    }
  }
}

function tableEdges(tables: readonly Table[], tasks: readonly Task[]): SqlInput[] {
  return tables.map(({ name, parts }, i) => ({
    from: { kind: "table", table: name },
    bytes: tasks.reduce((sum, task) => {
      const { first, count } = task.parts[i] as { first: number; count: number };
      return sum + totalOf(parts.slice(first, first + count).map(({ bytes }) => bytes));
    }, 0),
  }));
}

function stageEdge({ record }: Work): SqlInput {
  return { from: { kind: "stage", stage: record.id }, bytes: 0 };
}

function allOf(items: readonly unknown[]): number[] {
  return items.map((_, i) => i);
}

function totalOf(sizes: Iterable<number>): number {
  let total = 0;
  for (const size of sizes) total += size;
  return total;
}

function lostError(
  record: SqlStage,
  inputs: readonly Work[],
  lost: ReadonlyMap<number, ReadonlySet<number>>,
): MillraceError {
  const what = [...lost].map(
    ([input, maps]) => `${[...maps].join(", ")} of stage ${inputs[input]?.record.id}`,
  );
  return new MillraceError(
    "MAP_OUTPUT_LOST",
    `stage ${record.id} cannot go on: the outputs of tasks ${what.join(" and ")} are lost again and again`,
  );
}
