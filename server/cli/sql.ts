/** `millrace sql`: a SELECT over Parquet and CSV, on function workers. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { type Command, Option } from "commander";
import type { Receipt } from "../../client/index.js";
import { formatBytes, formatCount } from "../../workloads/report/format.js";
import { renderReport } from "../../workloads/report/html.js";
import { OutputDirectory } from "../../workloads/sort/output_directory.js";
import type { Catalog } from "../../workloads/sql/catalog.js";
import { DOCUMENT_ROWS_MAX, omitted, type SqlDocument, sqlDocument } from "../../workloads/sql/document.js";
import { runSql, type SqlProgress, type SqlRun, warmUpSql } from "../../workloads/sql/driver.js";
import { explainedStages, explainSql, stageTree } from "../../workloads/sql/explain.js";
import { writeCsv } from "../../workloads/sql/output/csv.js";
import { rowsJson, writeJson } from "../../workloads/sql/output/json.js";
import { TextSink } from "../../workloads/sql/output/sink.js";
import { writeTable } from "../../workloads/sql/output/table.js";
import type { PrintedRows } from "../../workloads/sql/output/values.js";
import { sqlReport } from "../../workloads/sql/report.js";
import { checkSelect } from "../../workloads/sql/select.js";
import { runSingle } from "../../workloads/sql/single.js";
import { openCatalog } from "../../workloads/sql/tables.js";
import { type TemporaryFolder, temporaryFolder } from "../../workloads/sql/temporary.js";
import { parseStore, type StoreChoice } from "../../workloads/stores/open.js";
import { UsageError } from "./errors.js";
import { printJson } from "./output.js";
import { progressBars } from "./progress.js";
import { ReportFile } from "./report_file.js";
import type { HugePages, NvmeDirectory } from "./serve_config.js";
import { parseSize } from "./values.js";
import {
  addWorkloadOptions,
  parseCount,
  readNodeOptions,
  untilInterrupted,
  type WorkloadFlags,
  WorkloadSession,
} from "./workload.js";

/** More would make the tables of a stage larger than its rows. */
const PARTITIONS_MAX = 4096;

const FORMATS = { table: writeTable, csv: writeCsv, json: writeJson };
type Format = keyof typeof FORMATS;

interface Flags extends WorkloadFlags {
  data: string;
  query?: string;
  sql?: string;
  format?: Format;
  output?: string;
  force?: true;
  single?: true;
  explain?: true;
  partitions?: number;
  broadcastBytes?: string;
  memory?: string;
  store?: string;
}

export function register(program: Command): void {
  const command = program
    .command("sql")
    .description("run a SELECT over Parquet and CSV files on function workers")
    .requiredOption("--data <dir>", "directory with a file or a folder for each table")
    .option("--query <file>", "file that holds the SELECT; - is standard input")
    .option("--sql <text>", "the SELECT itself")
    .addOption(
      new Option("--format <format>", "how rows are printed (default: table)").choices(Object.keys(FORMATS)),
    )
    .option("--output <dir>", "write the rows there as Parquet parts instead of printing them")
    .option("--force", "replace the parts that are in the output directory")
    .option("--single", "run DuckDB alone in this process, with as many threads, for comparison")
    .option("--explain", "print the stages and what they exchange, and run nothing")
    .addOption(
      new Option("--partitions <count>", "of every exchange by hash (default: by size)").argParser(
        parseCount(1, PARTITIONS_MAX),
      ),
    )
    .option("--broadcast-bytes <size>", "up to here the smaller side of a join goes to every task; 0: never")
    .option("--memory <size>", "that DuckDB may use in each function worker before it spills")
    .option(
      "--store <url>",
      "exchange through millrace (the default), redis://HOST:PORT, s3://BUCKET/PREFIX or file://DIR",
    );
  addWorkloadOptions(command).action((flags: Flags) => untilInterrupted((signal) => runFlags(flags, signal)));
}

async function runFlags(flags: Flags, signal: AbortSignal): Promise<void> {
  checkFlags(flags);
  const sql = await readSql(flags);
  const shared = {
    data: flags.data,
    sql,
    workers: flags.workers ?? availableParallelism(),
    partitions: flags.partitions ?? null,
    broadcastBytes:
      flags.broadcastBytes === undefined ? null : parseSize(flags.broadcastBytes, "--broadcast-bytes"),
    memoryBytes: flags.memory === undefined ? null : parseSize(flags.memory, "--memory"),
    output: flags.output ?? null,
    force: flags.force ?? false,
    signal,
  };
  const printer = new Printer(flags);
  if (flags.explain) return explain(shared, flags.json ?? false);
  if (flags.single) return single(shared, printer);
  return distributed(shared, flags, printer);
}

/** What does not go together is refused, not ignored. */
function checkFlags(flags: Flags): void {
  if ((flags.query === undefined) === (flags.sql === undefined)) {
    throw new UsageError("give the SELECT with --query FILE or with --sql TEXT, one of them");
  }
  if (flags.json && flags.format !== undefined) {
    throw new UsageError("--json prints one document about the run, rows included: leave --format out");
  }
  if (flags.output !== undefined && flags.format !== undefined) {
    throw new UsageError("with --output no rows are printed: leave --format out");
  }
  if (flags.force && flags.output === undefined) throw new UsageError("--force is about --output DIR");
  if (flags.output !== undefined && /^[a-z][a-z0-9+.-]*:\/\//i.test(flags.output)) {
    throw new UsageError(`--output ${flags.output} is no directory: write to one and copy the parts`);
  }
  const mode = flags.explain ? "explain" : flags.single ? "single" : null;
  if (mode === null) return;
  if (flags.explain && flags.single) throw new UsageError("give --single or --explain, one of them");
  const meaningless: (keyof Flags)[] = ["store", "report", "dram", "nvme", "hugePages"];
  if (mode === "explain") meaningless.push("output", "format", "memory");
  else meaningless.push("partitions", "broadcastBytes");
  const given = meaningless.find((flag) => flags[flag] !== undefined);
  if (given === undefined) return;
  const name = given.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UsageError(`--${name} means nothing with --${mode}: leave it out`);
}

async function readSql({ query, sql }: Flags): Promise<string> {
  if (query === undefined) return sql as string;
  try {
    if (query !== "-") return await readFile(query, "utf8");
    const chunks: Buffer[] = [];
    for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8");
  } catch (error) {
    throw new UsageError(`the query cannot be read: ${(error as Error).message}`);
  }
}

interface Shared {
  data: string;
  sql: string;
  workers: number;
  partitions: number | null;
  broadcastBytes: number | null;
  memoryBytes: number | null;
  output: string | null;
  force: boolean;
  signal?: AbortSignal;
}

/** Checks the SQL and opens the tables that it mentions. */
async function open({ data, sql }: Shared): Promise<Catalog> {
  await checkSelect(sql);
  return openCatalog(data, { mentionedIn: sql });
}

async function explain(options: Shared, json: boolean): Promise<void> {
  const catalog = await open(options);
  try {
    const explained = await explainSql({ ...options, catalog });
    if (json) {
      const { stages, partitions } = explained;
      printJson({ workload: "sql", explain: true, partitions, stages: explainedStages(stages, catalog) });
    } else process.stdout.write(stageTree(explained, catalog));
  } finally {
    await catalog.close();
  }
}

async function single(options: Shared, printer: Printer): Promise<void> {
  const catalog = await open(options);
  let spill: TemporaryFolder | null = null;
  let output: OutputDirectory | null = null;
  try {
    spill = await temporaryFolder();
    output = options.output === null ? null : await OutputDirectory.open(options.output, options.force);
    const run = await runSingle({
      sql: options.sql,
      catalog,
      threads: options.workers,
      memoryBytes: options.memoryBytes,
      spillDirectory: spill.path,
      output: output === null ? null : { directory: output.path },
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    try {
      const seconds = (run.endMs - run.startMs) / 1000;
      const columns = run.result?.columns ?? [];
      const large = run.result !== null && run.rows > DOCUMENT_ROWS_MAX;
      const document = {
        workload: "sql",
        single: true,
        seconds,
        rows: run.rows,
        columns,
        workers: options.workers,
        ...(output === null ? {} : { output: { directory: output.path } }),
        ...(large ? { resultOmitted: omitted(run.rows) } : {}),
      };
      await printer.print(run.result, document, "DuckDB alone");
    } finally {
      await run.result?.close();
    }
    await output?.keep();
  } catch (thrown) {
    await output?.remove().catch(() => undefined);
    throw thrown;
  } finally {
    await spill?.remove();
    await catalog.close();
  }
}

async function distributed(options: Shared, flags: Flags, printer: Printer): Promise<void> {
  const report = flags.report === undefined ? null : new ReportFile(flags.report);
  const bars = progressBars(flags.json ?? false);
  const onProgress = ({ stage, label, fraction }: SqlProgress): void => {
    const name = `${String(stage).padStart(2)} ${label.slice(0, BAR_CHARACTERS).padEnd(BAR_CHARACTERS)}`;
    if (fraction < 1) bars?.show(name, fraction);
    else bars?.hide(name);
  };
  try {
    const outcome = await runSqlJob({
      ...options,
      store: parseStore(flags.store ?? "millrace"),
      endpoint: flags.endpoint ?? null,
      ...readNodeOptions(nodeFlags(flags)),
      ...(bars === null ? {} : { onProgress }),
      use: async (run, document) => {
        bars?.stop();
        const exchanged = formatBytes(document.exchange.bytes);
        await printer.print(run.result, document, `${run.stages.length} stages, ${exchanged} exchanged`);
      },
    });
    const { run, document, startUpSeconds, receipt } = outcome;
    report?.write(
      renderReport(sqlReport(run, { data: flags.data, sql: options.sql, document, startUpSeconds, receipt })),
    );
  } catch (thrown) {
    report?.discard();
    throw thrown;
  } finally {
    bars?.stop();
  }
}

const BAR_CHARACTERS = 40;

/** The node's flags alone: its `--data` is another than this command's. */
function nodeFlags({ dram, nvme, hugePages }: Flags): Parameters<typeof readNodeOptions>[0] {
  return {
    ...(dram === undefined ? {} : { dram }),
    ...(nvme === undefined ? {} : { nvme }),
    ...(hugePages === undefined ? {} : { hugePages }),
  };
}

export interface RunSqlJobOptions extends Shared {
  store: StoreChoice;
  /** Null: an embedded node. */
  endpoint: string | null;
  dramBytes: number | null;
  nvme: NvmeDirectory[];
  hugePages: HugePages;
  onProgress?: (progress: SqlProgress) => void;
  /** Called with the rows for as long as they are there. */
  use: (run: SqlRun, document: SqlDocument) => Promise<void>;
}

export interface SqlJobOutcome {
  run: SqlRun;
  document: SqlDocument;
  startUpSeconds: number;
  receipt: Receipt | null;
}

/** Of the bytes of the tables, what exchanges may come to: they are not compressed, and not of all columns. */
const ROOM_FACTOR = 1;

/** One query from nothing to nothing: whatever it starts is ended, and a failed one leaves no output. */
export async function runSqlJob(options: RunSqlJobOptions): Promise<SqlJobOutcome> {
  const { store, workers, signal } = options;
  const startMs = performance.now();
  const catalog = await open(options);
  let output: OutputDirectory | null = null;
  let session: WorkloadSession | null = null;
  try {
    if (options.output !== null) output = await OutputDirectory.open(options.output, options.force);
    const tableBytes = [...catalog.tables.values()].reduce((sum, table) => sum + table.bytes, 0);
    const expectedBytes = store.kind === "millrace" ? Math.ceil(tableBytes * ROOM_FACTOR) : 0;
    session = await WorkloadSession.open({
      name: "sql",
      endpoint: options.endpoint,
      dramBytes: options.dramBytes,
      nvme: options.nvme,
      hugePages: options.hugePages,
      workers,
      expectedBytes,
    });
    const surroundings = {
      namespace: session.namespace,
      executor: session.executor,
      ...(signal === undefined ? {} : { signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    };
    const sqlOptions = {
      sql: options.sql,
      catalog,
      store,
      workers,
      partitions: options.partitions,
      broadcastBytes: options.broadcastBytes,
      memoryBytes: options.memoryBytes,
      threads: null,
      output: output === null ? null : { directory: output.path },
      run: `sql-${randomBytes(6).toString("hex")}`,
    };
    await Promise.all([session.memoryReady(expectedBytes), warmUpSql(sqlOptions, surroundings)]);
    signal?.throwIfAborted();
    const startUpSeconds = (performance.now() - startMs) / 1000;
    const run = await runSql(sqlOptions, surroundings);
    const document = sqlDocument(run, { workers, store, directory: output?.path ?? null });
    try {
      await options.use(run, document);
    } finally {
      await run.result?.close();
    }
    const receipt = await session.close();
    // Only when no function worker is left is it certain that nobody writes any more.
    await output?.keep();
    return { run, document, startUpSeconds, receipt };
  } catch (thrown) {
    await session?.close().catch(() => undefined);
    await output?.remove().catch(() => undefined);
    throw thrown;
  } finally {
    await catalog.close();
  }
}

/** What goes to stdout: rows, or the document. What is worth knowing besides goes to a terminal's stderr. */
class Printer {
  readonly #json: boolean;
  readonly #format: Format;

  constructor(flags: Flags) {
    this.#json = flags.json ?? false;
    this.#format = flags.format ?? "table";
  }

  async print(
    result: PrintedRows | null,
    document: { seconds: number; rows: number; output?: { directory: string }; resultOmitted?: string },
    what: string,
  ): Promise<void> {
    if (this.#json) {
      const rows = result === null || document.resultOmitted !== undefined ? null : await rowsJson(result);
      // Rows are JSON already, with numbers that JavaScript would round.
      const text = JSON.stringify(document);
      process.stdout.write(rows === null ? `${text}\n` : `${text.slice(0, -1)},"result":${rows}}\n`);
      return;
    }
    if (result !== null) await FORMATS[this.#format](result, new TextSink(process.stdout));
    const time = `${document.seconds.toFixed(3)} s (${what})`;
    if (result === null) {
      process.stdout.write(`${formatCount(document.rows)} rows in ${document.output?.directory}, ${time}\n`);
    } else if (process.stderr.isTTY === true) process.stderr.write(`${time}\n`);
  }
}
