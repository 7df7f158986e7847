/**
 * The driver of a query: has DuckDB optimise it, lets the planner cut the plan into stages, has function workers run
 * them, and hands over the result. Moves no rows itself but those of the result.
 */
import { rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { availableParallelism, tmpdir, totalmem } from "node:os";
import { basename, join } from "node:path";
import type { DuckDb, DuckDbRows } from "../../client/duckdb.js";
import { MillraceError } from "../../client/errors.js";
import type { ByteSpan, Namespace } from "../../client/index.js";
import { kernels } from "../../client/kernels.js";
import type { Executor } from "../../functions/index.js";
import { nowMs, secondsByActivity } from "../report/activity.js";
import { openExchange, type StoreChoice } from "../stores/open.js";
import type { EnginePlan } from "./calls.js";
import type { Catalog, Column } from "./catalog.js";
import { openEngine, queryTexts, runStatement } from "./duckdb.js";
import { namedSelect, partPath } from "./output/parquet.js";
import { PLAN_SETTINGS, planAndRun, planQuery } from "./plan/plan.js";
import type { Exchanged } from "./plan/stage.js";
import type { SqlMeasurements } from "./run.js";
import { planSizes } from "./sizes.js";
import { SMALL_EXCHANGE_BYTES, SqlStageRunner, WARM } from "./stage_runner.js";
import { DEFAULT_TASK_SIZES, type TaskSizes } from "./tasks.js";

export interface SqlOptions {
  /** One SELECT. */
  sql: string;
  catalog: Catalog;
  store: StoreChoice;
  /** Function workers of the executor. */
  workers: number;
  /** Of every hash exchange; null: by the size of the tables. */
  partitions: number | null;
  /** What is smaller is given to every task whole instead of being exchanged; 0: nothing is; null: the default. */
  broadcastBytes: number | null;
  /** That DuckDB may use in each function worker before it spills; null: DuckDB's own default, divided among them. */
  memoryBytes: number | null;
  /** Threads of DuckDB in each function worker; null: 1, or more where there are more processors than workers. */
  threads: number | null;
  /** Null: the result is read by the driver. Else Parquet parts in this directory: absolute path, exists, empty. */
  output: { directory: string } | null;
  /** Unique name of this run; 1 to 40 of a-z 0-9 -. */
  run: string;
  /** How stages are cut into tasks, where it is not to be by default: tests cut small tables. */
  taskSizes?: Partial<Omit<TaskSizes, "workers">>;
  /** Below this an exchange through Millrace is no shuffle; left out: the default. */
  smallExchangeBytes?: number;
}

export interface SqlSurroundings {
  namespace: Namespace;
  executor: Executor;
  onProgress?: (progress: SqlProgress) => void;
  /** Ends the query with its reason. */
  signal?: AbortSignal;
}

export interface SqlProgress {
  /** Of the planner. */
  stage: number;
  label: string;
  /** 0 to 1. */
  fraction: number;
}

/** The rows of a query. They lie in the store, or in memory read from there: use them before the namespace closes. */
export interface SqlResult {
  /** With the names that the query gives them, in order. */
  readonly columns: readonly Column[];
  readonly rows: number;
  /**
   * Runs a statement in the driver's DuckDB in which the rows are `FROM rows_in('result')`, in the order of the query,
   * with columns c0, c1, … For example everything as text, for printing.
   */
  query(sql: string): Promise<DuckDbRows>;
  /** Lets go of the rows and of DuckDB. */
  close(): Promise<void>;
}

export interface SqlRun extends SqlMeasurements {
  /** Null where the rows went to a directory. */
  result: SqlResult | null;
  /** Rows of the result, wherever they went. */
  rows: number;
  /** File names in the output directory, in order; none without one. */
  parts: { name: string; rows: number; bytes: number }[];
}

/**
 * Gets function workers into the state of a pool that is in use: code and DuckDB loaded, connections open. Not needed
 * for a query to work.
 */
export async function warmUpSql(options: SqlOptions, { executor }: SqlSurroundings): Promise<void> {
  const plan = enginePlan(options);
  const futures = executor.map(
    WARM,
    Array.from({ length: options.workers }, () => plan),
  );
  await Promise.all(futures.map((future) => future.result()));
}

/**
 * Runs a query. The parts in the output directory and the namespace belong to the caller, who removes the first when
 * this fails and the second in any case; exchanges are removed here, or by `result.close`.
 *
 * Rejects with the MillraceError of whatever failed: SQL_FAILED with DuckDB's words for SQL that it cannot plan or
 * run, UNSUPPORTED_OPERATOR where the planner has no translation.
 */
export async function runSql(options: SqlOptions, surroundings: SqlSurroundings): Promise<SqlRun> {
  const query = new Query(options, surroundings);
  try {
    return await query.run();
  } catch (thrown) {
    await query.close(thrown);
    surroundings.signal?.throwIfAborted();
    throw MillraceError.from(thrown);
  }
}

/** Of the memory of the machine, what DuckDB in all function workers may use together where nothing else is said. */
const MEMORY_SHARE = 0.6;

function enginePlan({ workers, threads, memoryBytes, run }: SqlOptions): EnginePlan {
  const constrained = process.constrainedMemory();
  const machineBytes = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  return {
    threads: threads ?? Math.max(1, Math.floor(availableParallelism() / workers)),
    memoryBytes: memoryBytes ?? Math.floor((machineBytes * MEMORY_SHARE) / workers),
    spillDirectory: join(tmpdir(), `millrace-${run}`),
  };
}

class Query {
  readonly #options: SqlOptions;
  readonly #surroundings: SqlSurroundings;
  /** Ends all calls, from outside or because one has failed. */
  readonly #abort = new AbortController();
  readonly #onAbort = (): void => this.#abort.abort(this.#surroundings.signal?.reason);
  /** Where the process ends first: a reader of the result that went away. */
  readonly #onExit = (): void => rmSync(this.#engine.spillDirectory, { recursive: true, force: true });
  readonly #engine: EnginePlan;
  /** Of the driver; with one thread, which reads rows in their order. */
  readonly #planner: DuckDb;
  #runner: SqlStageRunner | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: SqlOptions, surroundings: SqlSurroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
    this.#engine = enginePlan(options);
    process.once("exit", this.#onExit);
    this.#planner = openEngine({ threads: 1 });
    const { signal } = surroundings;
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  async run(): Promise<SqlRun> {
    const { sql, catalog, workers, store, output } = this.#options;
    const { signal } = this.#abort;
    const { namespace, executor, onProgress } = this.#surroundings;
    // Tables are known before the clock starts, as to DuckDB alone.
    await runStatement(this.#planner, "SET parquet_metadata_cache = true");
    for (const table of catalog.tables.values()) await runStatement(this.#planner, catalog.viewSql(table));
    for (const setting of PLAN_SETTINGS) await runStatement(this.#planner, setting);
    signal.throwIfAborted();
    const startMs = nowMs();
    const { partitions, plan } = planSizes(this.#options);
    const [row] = await queryTexts(this.#planner, planQuery(sql));
    // Nobody needs them before there are rows. A failure is seen then.
    const describing = this.#describe();
    describing.catch(() => undefined);
    const plannedMs = nowMs();
    const runner = new SqlStageRunner(
      {
        run: this.#options.run,
        catalog,
        store,
        partitions,
        engine: this.#engine,
        smallExchangeBytes: this.#options.smallExchangeBytes ?? SMALL_EXCHANGE_BYTES,
        sizes: { ...DEFAULT_TASK_SIZES, ...this.#options.taskSizes, workers },
      },
      { namespace, executor, signal, ...(onProgress === undefined ? {} : { onProgress }) },
    );
    this.#runner = runner;
    const planned = await planAndRun(row?.[0] ?? "", catalog, runner, plan);
    const described = await describing;
    const columns = planned.result.types.map((type, i) => described[i] ?? { name: `c${i}`, type });
    const { rows } = planned.result;
    let result: SqlResult | null = null;
    let parts: SqlRun["parts"] = [];
    if (output === null) result = await this.#read(runner, planned.result, columns);
    else {
      const select = namedSelect(columns, "rows_in('result')");
      const done = await runner.writeParts(planned.result, select, (part) =>
        partPath(output.directory, part),
      );
      parts = done.map((part, i) => ({
        name: basename(partPath(output.directory, i)),
        rows: part.rows,
        bytes: part.bytes,
      }));
    }
    const endMs = nowMs();
    if (result === null) await this.close(null);
    const time = secondsByActivity(runner.stages.flatMap(({ calls }) => calls).flatMap(({ spans }) => spans));
    return {
      startMs,
      plannedMs,
      endMs,
      partitions,
      stages: runner.stages,
      time: {
        input: time.input / workers,
        compute: time.compute / workers,
        exchange: time.exchange / workers,
        output: time.output / workers,
      },
      exchange: runner.exchanged,
      retries: runner.retries,
      lostAttempts: runner.lostAttempts,
      result,
      rows,
      parts,
    };
  }

  /** As the query names them, and types as DuckDB writes them. */
  async #describe(): Promise<Column[]> {
    const described = await this.#planner.execute(`DESCRIBE ${this.#options.sql}`, [], 1);
    try {
      const types = described.texts(1, 0, described.rows);
      const names = described.texts(0, 0, described.rows);
      return names.map((name, i) => ({ name: name ?? "", type: types[i] ?? "" }));
    } finally {
      described.close();
    }
  }

  /** The rows of the result, in place where the store allows it. */
  async #read(runner: SqlStageRunner, result: Exchanged, columns: readonly Column[]): Promise<SqlResult> {
    const { namespace } = this.#surroundings;
    const { store } = this.#options;
    const input = await runner.read(result, async ({ exchange: plan, types }) => {
      const exchange = await openExchange(store, plan, namespace);
      try {
        const found = await exchange.readRun(0, plan.partitions, null);
        const damaged = found.maps.filter(
          (_, i) => kernels().crc32c(0, found.extents[i] as ByteSpan) !== found.checksums[i],
        );
        if (damaged.length > 0) throw await exchange.reportLost(damaged);
        runner.count(found.sizeBytes, found.nvmeBytes ?? 0, exchange.transport);
        // Compared once; every statement over the rows need not do it again.
        return { name: "result", types, extents: found.extents, checksums: null };
      } finally {
        await exchange.close();
      }
    });
    return {
      columns,
      rows: result.rows,
      query: (sql) => this.#planner.execute(sql, [input], 1),
      close: async () => {
        for (const extent of input.extents) if ("release" in extent) extent.release();
        input.extents.length = 0;
        await this.close(null);
      },
    };
  }

  /** Ends what still runs, for that reason where there is one, and leaves nothing anywhere. */
  close(reason: unknown): Promise<void> {
    this.#closing ??= this.#close(reason);
    return this.#closing;
  }

  async #close(reason: unknown): Promise<void> {
    process.off("exit", this.#onExit);
    this.#surroundings.signal?.removeEventListener("abort", this.#onAbort);
    this.#abort.abort(reason ?? new MillraceError("CLOSED", "the query has ended"));
    await this.#planner.close();
    await this.#runner?.remove();
    await rm(this.#engine.spillDirectory, { recursive: true, force: true, maxRetries: 3 }).catch(
      () => undefined,
    );
  }
}
