/**
 * What function workers run: a task of a stage, or one part of the result. Each keeps a DuckDB and what it has opened
 * of the query at hand, as caches: any function worker can run any task.
 */
import { mkdirSync, rmdirSync, rmSync } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DuckDb, DuckDbInput, DuckDbRows } from "../../client/duckdb.js";
import { MillraceError } from "../../client/errors.js";
import type { ByteSpan, Namespace } from "../../client/index.js";
import type { CallContext } from "../../functions/index.js";
import { type CallReport, CallWatch } from "../calling/call_report.js";
import type { Activity } from "../report/activity.js";
import { attemptOf, type Exchange, type ExchangePlan, type PartitionExtents } from "../stores/exchange.js";
import { openExchange, type StoreChoice } from "../stores/open.js";
import { openEngine, queryTexts, quoteText, runStatement } from "./duckdb.js";
import { unfinishedPath } from "./output/parquet.js";
import type { OrderKey } from "./plan/stage.js";
import { sortKeySample, withInputs } from "./statement.js";
import type { Slice } from "./tasks.js";

/** DuckDB in a function worker. */
export interface EnginePlan {
  threads: number;
  memoryBytes: number;
  /** Every function worker has a folder of its own in it. */
  spillDirectory: string;
}

/** An exchange that a stage reads. */
export interface InputPlan {
  /** As the SQL names it. */
  name: string;
  /** SQL types of its columns. */
  types: readonly string[];
  exchange: ExchangePlan;
  /** The order of its rows means something. */
  isOrdered: boolean;
}

/** What all tasks of a stage need. */
export interface StagePlan {
  /** Over the names of `tables` and `inputs`; its last column is the partition where there are several. */
  sql: string;
  /** `sql`: the SELECT of the scan, null where each task has its own. */
  tables: { name: string; sql: string | null }[];
  inputs: InputPlan[];
  output: ExchangePlan;
  store: StoreChoice;
  engine: EnginePlan;
  /** Wanted beside the rows: sort keys of some of them. */
  sample: { order: readonly OrderKey[]; count: number } | null;
}

export interface TaskArgument {
  /** Unique name of the run of the query. */
  run: string;
  /** The plan, or its key in the namespace. */
  plan: StagePlan | string;
  /** Its number, and so that of its map output. */
  task: number;
  /** How often the driver has asked for this task before: above 0 after its output was lost. */
  round: number;
  /** SELECT of the scan, for each table that has none in the plan. */
  scans: string[];
  /** For each input, what is read of it. */
  slices: Slice[][];
  /** For each input, how often outputs of it were made again: what was found out before may be out of date. */
  generations: number[];
}

/** What was read from exchanges. */
export interface ReadReport {
  /** Of each input. */
  inputBytes: number[];
  nvmeBytes: number;
  /** How the bytes came: see `Exchange.transport`; null where nothing was read. */
  transport: string | null;
}

export interface TaskDone extends CallReport, ReadReport {
  lost: null;
  /** SQL types of the columns. */
  types: readonly string[];
  rows: number;
  /** Of each partition of the output. */
  partitionBytes: Uint32Array | Float64Array;
  /** Hexadecimal sort keys. */
  sample: string[];
}

/** Outputs that the call wanted to read are gone: to be made again, and the call after them. */
export interface CallLost extends CallReport {
  lost: { input: number; maps: number[] }[];
}

export type TaskResult = TaskDone | CallLost;

export interface PartArgument {
  run: string;
  engine: EnginePlan;
  store: StoreChoice;
  input: InputPlan;
  slices: Slice[];
  generation: number;
  /** SELECT over the rows of the input. */
  sql: string;
  /** Absolute path. */
  path: string;
}

export interface PartDone extends CallReport, ReadReport {
  lost: null;
  rows: number;
  /** Of the file. */
  bytes: number;
}

export type PartResult = PartDone | CallLost;

/** Gets a function worker ready: connection, DuckDB, and code that has run once. */
export async function warmFunctionWorker(engine: EnginePlan, context: CallContext): Promise<void> {
  await context.namespace();
  const rows = await engineOf(engine, context).execute(
    "SELECT range AS c0, (range % 2)::UINTEGER FROM range(10)",
    [],
    2,
  );
  rows.close();
}

/** Runs a task of a stage and leaves its rows in the exchange. */
export async function runTask(argument: TaskArgument, context: CallContext): Promise<TaskResult> {
  const call = new Call(context);
  const namespace = await context.namespace();
  const opened = openRun(argument.run, context);
  const plan = await call.time("exchange", () => opened.plan(argument.plan, namespace));
  const engine = engineOf(plan.engine, context);
  const scans = [...argument.scans];
  const tables = plan.tables.map(({ name, sql }) => ({ name, sql: sql ?? (scans.shift() as string) }));
  const names = plan.inputs.map((input) => input.name);
  const read = await call.read(
    plan.inputs.map((input, i) => ({
      plan: input,
      slices: argument.slices[i] ?? [],
      open: () => opened.input(plan.store, input.exchange, argument.generations[i] ?? 0, namespace),
    })),
  );
  if (read.lost !== null) return { ...call.report(), lost: read.lost };
  const statement = withInputs(tables, names, plan.sql);
  const threads = threadsFor(plan.engine, plan.inputs);
  const executed = await call.execute("compute", engine, threads, statement, read, plan.output.partitions);
  if (executed.rows === null) return { ...call.report(), lost: executed.lost };
  const { rows } = executed;
  try {
    const exchange = await opened.output(plan.store, plan.output, namespace);
    const attempt = attemptOf(argument.round, context.attempt);
    const output = await call.time("exchange", () => exchange.openOutput(argument.task, attempt, rows.bytes));
    let sample: string[] = [];
    let offsets = new Float64Array(plan.output.partitions + 1);
    try {
      let checksums = new Uint32Array(plan.output.partitions);
      if (rows.bytes > 0) {
        ({ offsets, checksums } = (await call.time("compute", () => rows.write(output.buffer))) as {
          offsets: Float64Array<ArrayBuffer>;
          checksums: Uint32Array<ArrayBuffer>;
        });
        if (plan.sample !== null) {
          const wanted = plan.sample;
          sample = await call.time("compute", () => sampleKeys(engine, rows.types, output.buffer, wanted));
        }
      }
      context.signal.throwIfAborted();
      await call.time("exchange", () => output.commit(offsets, checksums));
    } catch (error) {
      await output.abort().catch(() => undefined);
      throw error;
    }
    return {
      lost: null,
      types: rows.types,
      rows: rows.rows,
      partitionBytes: sizesOf(offsets),
      sample,
      ...read.report,
      ...call.report(),
    };
  } finally {
    rows.close();
  }
}

/** Writes some of the rows of the result into a Parquet file, which is there whole or not at all. */
export async function writePart(argument: PartArgument, context: CallContext): Promise<PartResult> {
  const call = new Call(context);
  const namespace = await context.namespace();
  const engine = engineOf(argument.engine, context);
  const opened = openRun(argument.run, context);
  const { input, slices, generation, store, path } = argument;
  const read = await call.read([
    { plan: input, slices, open: () => opened.input(store, input.exchange, generation, namespace) },
  ]);
  if (read.lost !== null) return { ...call.report(), lost: read.lost };
  const unfinished = unfinishedPath(path, `${context.workerId}.${context.attempt}`);
  const copy =
    `COPY (${withInputs([], [input.name], argument.sql)}) ` + `TO ${quoteText(unfinished)} (FORMAT parquet)`;
  try {
    const threads = threadsFor(argument.engine, [input]);
    const executed = await call.execute("output", engine, threads, copy, read, 1);
    if (executed.rows === null) return { ...call.report(), lost: executed.lost };
    executed.rows.close();
    const counted = `SELECT num_rows::VARCHAR FROM parquet_file_metadata(${quoteText(unfinished)})`;
    const rows = Number((await queryTexts(engine, counted))[0]?.[0]);
    const { size } = await stat(unfinished);
    context.signal.throwIfAborted();
    await rename(unfinished, path);
    return { lost: null, rows, bytes: size, ...read.report, ...call.report() };
  } catch (error) {
    await rm(unfinished, { force: true }).catch(() => undefined);
    throw error;
  }
}

/** One input of a call, and how to get at it. */
interface Wanted {
  plan: InputPlan;
  slices: readonly Slice[];
  open: () => Promise<Exchange>;
}

interface Inputs {
  lost: null;
  inputs: DuckDbInput[];
  /** Of each extent of each input, the map that left it; and of which exchange. */
  origins: { exchange: Exchange | null; maps: number[] }[];
  report: ReadReport;
}

type Lost = { input: number; maps: number[] }[];

class Call extends CallWatch {
  readonly #signal: AbortSignal;

  constructor(context: CallContext) {
    super(context);
    this.#signal = context.signal;
  }

  /** Reads what there is of all inputs, so that what is lost is known of all of them when the call ends. */
  async read(wanted: readonly Wanted[]): Promise<Inputs | { lost: Lost }> {
    const settled = await this.time("exchange", () => Promise.allSettled(wanted.map(readInput)));
    const lost: Lost = [];
    let failed: PromiseRejectedResult | null = null;
    for (const [input, result] of settled.entries()) {
      if (result.status === "fulfilled") continue;
      const error = MillraceError.from(result.reason);
      if (error.code === "MAP_OUTPUT_LOST") lost.push({ input, maps: [...error.maps] });
      else failed ??= result;
    }
    const read = settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    if (failed !== null || lost.length > 0) {
      for (const { found } of read) for (const { extents } of found) releaseAll(extents);
      if (failed !== null) throw failed.reason;
      return { lost };
    }
    return {
      lost: null,
      inputs: read.map(({ found }, i) => ({
        name: wanted[i]?.plan.name as string,
        types: wanted[i]?.plan.types as readonly string[],
        extents: found.flatMap(({ extents }) => extents),
        checksums: Uint32Array.from(found.flatMap(({ checksums }) => [...checksums])),
      })),
      origins: read.map(({ exchange, found }) => ({ exchange, maps: found.flatMap(({ maps }) => maps) })),
      report: {
        inputBytes: read.map(({ found }) => found.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
        nvmeBytes: read.flatMap(({ found }) => found).reduce((sum, each) => sum + (each.nvmeBytes ?? 0), 0),
        transport: read.find(({ exchange }) => exchange !== null)?.exchange?.transport ?? null,
      },
    };
  }

  /** Runs a statement over what was read, which is let go of then. */
  async execute(
    activity: Activity,
    engine: DuckDb,
    threads: Threads,
    sql: string,
    { inputs, origins }: Inputs,
    partitions: number,
  ): Promise<{ rows: DuckDbRows } | { rows: null; lost: Lost }> {
    const signal = this.#signal;
    const cancel = (): void => engine.cancel();
    signal.throwIfAborted();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      if (threads.wanted !== threads.usual) await runStatement(engine, `SET threads = ${threads.wanted}`);
      return { rows: await this.time(activity, () => engine.execute(sql, inputs, partitions)) };
    } catch (thrown) {
      signal.throwIfAborted();
      const damaged = (thrown as { extents?: unknown }).extents;
      const error = MillraceError.from(thrown);
      if (error.code === "CHECKSUM_MISMATCH" && Array.isArray(damaged)) {
        return { rows: null, lost: await reportDamaged(damaged as [number, number][], origins) };
      }
      // DuckDB has spilled what it could: more attempts would end in the same way.
      throw new MillraceError(error.code, error.message, { retryable: false, cause: error });
    } finally {
      signal.removeEventListener("abort", cancel);
      for (const { extents } of inputs) releaseAll(extents);
      // Statements run in turn.
      if (threads.wanted !== threads.usual) {
        runStatement(engine, `SET threads = ${threads.usual}`).catch(() => undefined);
      }
    }
  }
}

interface Threads {
  wanted: number;
  usual: number;
}

/** Several threads take rows as they come: what is to be read in order is read by one. */
function threadsFor({ threads }: EnginePlan, inputs: readonly InputPlan[]): Threads {
  return { wanted: inputs.some(({ isOrdered }) => isOrdered) ? 1 : threads, usual: threads };
}

async function readInput({
  slices,
  open,
}: Wanted): Promise<{ exchange: Exchange | null; found: PartitionExtents[] }> {
  if (slices.length === 0) return { exchange: null, found: [] };
  const exchange = await open();
  const found = await Promise.all(
    slices.map(({ first, count, maps }) => exchange.readRun(first, count, maps)),
  );
  return { exchange, found };
}

async function reportDamaged(
  damaged: readonly [input: number, extent: number][],
  origins: Inputs["origins"],
): Promise<Lost> {
  const mapsByInput = new Map<number, Set<number>>();
  for (const [input, extent] of damaged) {
    const map = origins[input]?.maps[extent];
    if (map === undefined) throw new MillraceError("INTERNAL", `no extent ${extent} of input ${input}`);
    const maps = mapsByInput.get(input) ?? new Set();
    mapsByInput.set(input, maps.add(map));
  }
  return Promise.all(
    [...mapsByInput].map(async ([input, maps]) => {
      const { exchange } = origins[input] as Inputs["origins"][number];
      const error = await (exchange as Exchange).reportLost([...maps]);
      return { input, maps: [...error.maps] };
    }),
  );
}

/** A span would hold its segment until it is collected. */
function releaseAll(extents: readonly ByteSpan[]): void {
  for (const extent of extents) if ("release" in extent) extent.release();
}

async function sampleKeys(
  engine: DuckDb,
  types: readonly string[],
  output: ByteSpan,
  { order, count }: { order: readonly OrderKey[]; count: number },
): Promise<string[]> {
  const input = { name: "output", types, extents: [output], checksums: null };
  const rows = await engine.execute(sortKeySample("rows_in('output')", order, count), [input], 1);
  try {
    return rows.texts(0, 0, rows.rows).filter((key) => key !== null);
  } finally {
    rows.close();
  }
}

/** Of a message as small as can be: sizes above 4 GiB are rare. */
function sizesOf(offsets: Float64Array): Uint32Array | Float64Array {
  const sizes = offsets.subarray(1).map((end, partition) => end - (offsets[partition] as number));
  return sizes.some((size) => size > 0xffff_ffff) ? sizes : Uint32Array.from(sizes);
}

// ---- caches: of one query, a pool of function workers may serve many, one after another

let engineAtHand: { key: string; engine: DuckDb } | null = null;

function engineOf(plan: EnginePlan, context: CallContext): DuckDb {
  const key = JSON.stringify(plan);
  if (engineAtHand?.key === key) return engineAtHand.engine;
  // Whatever ran in it has ended: calls come one at a time. Its files go with it.
  void engineAtHand?.engine.close();
  engineAtHand = null;
  const spillDirectory = join(plan.spillDirectory, context.workerId);
  mkdirSync(plan.spillDirectory, { recursive: true });
  if (spillDirectories.size === 0) process.once("exit", removeSpillDirectories);
  spillDirectories.add(spillDirectory);
  const engine = openEngine({ ...plan, spillDirectory });
  // Tasks read the same files again and again. Statements run in turn: whatever comes next comes after it.
  runStatement(engine, "SET parquet_metadata_cache = true").catch(() => undefined);
  // For few rows, whose number it knows of an exchange, DuckDB 1.5.5 takes a join that cannot compare intervals.
  runStatement(engine, "SET nested_loop_join_threshold = 0").catch(() => undefined);
  engineAtHand = { key, engine };
  return engine;
}

const spillDirectories = new Set<string>();

function removeSpillDirectories(): void {
  for (const directory of spillDirectories) {
    rmSync(directory, { recursive: true, force: true });
    try {
      // The driver removes the folder of all of them; where it was killed, the last one does.
      rmdirSync(dirname(directory));
    } catch {
      // Others are still there, or it is gone.
    }
  }
}

/** What a function worker has opened and read of a run. */
class OpenRun {
  readonly #plans = new Map<string, StagePlan>();
  readonly #inputs = new Map<string, { generation: number; exchange: Promise<Exchange> }>();
  /** The one that is being written: others keep the memory of their outputs for nothing. */
  #output: { name: string; exchange: Promise<Exchange> } | null = null;

  async plan(plan: StagePlan | string, namespace: Namespace): Promise<StagePlan> {
    if (typeof plan !== "string") return plan;
    let known = this.#plans.get(plan);
    if (known === undefined) {
      const bytes = await namespace.get(plan);
      known = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString()) as StagePlan;
      this.#plans.set(plan, known);
    }
    return known;
  }

  async input(
    store: StoreChoice,
    plan: ExchangePlan,
    generation: number,
    namespace: Namespace,
  ): Promise<Exchange> {
    const known = this.#inputs.get(plan.run);
    if (known !== undefined && known.generation === generation) return known.exchange;
    this.#inputs.delete(plan.run);
    await closeQuietly(known?.exchange);
    const exchange = openExchange(store, plan, namespace);
    this.#inputs.set(plan.run, { generation, exchange });
    exchange.catch(() => this.#inputs.delete(plan.run));
    return exchange;
  }

  async output(store: StoreChoice, plan: ExchangePlan, namespace: Namespace): Promise<Exchange> {
    const known = this.#output;
    if (known?.name === plan.run) return known.exchange;
    this.#output = null;
    await closeQuietly(known?.exchange);
    const exchange = openExchange(store, plan, namespace);
    this.#output = { name: plan.run, exchange };
    exchange.catch(() => {
      this.#output = null;
    });
    return exchange;
  }

  async close(): Promise<void> {
    const exchanges = [...this.#inputs.values(), ...(this.#output === null ? [] : [this.#output])];
    await Promise.all(exchanges.map(({ exchange }) => closeQuietly(exchange)));
  }
}

async function closeQuietly(exchange: Promise<Exchange> | undefined): Promise<void> {
  await exchange?.then((opened) => opened.close()).catch(() => undefined);
}

let runAtHand: { key: string; run: OpenRun } | null = null;

function openRun(name: string, context: CallContext): OpenRun {
  const key = `${context.endpoint}/${context.namespaceName}/${name}`;
  if (runAtHand?.key === key) return runAtHand.run;
  void runAtHand?.run.close();
  const run = new OpenRun();
  runAtHand = { key, run };
  return run;
}
