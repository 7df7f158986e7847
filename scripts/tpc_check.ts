/**
 * Runs all queries of TPC-DS and TPC-H on function workers and in DuckDB alone, with as many threads and over the same
 * files, compares the answers, and prints a table:
 *
 *   scripts/tpc-check --data DIR [--data DIR] [--queries 1,77,h9] [--workers 2] [--rounds 1] [--partitions 16]
 *                     [--broadcast-bytes 8MiB] [--json]
 *
 * --data      what scripts/tpcds-data has made: tables of TPC-DS or of TPC-H; which ones shows
 * --queries   numbers, with an h before those of TPC-H (default: all that there are tables for)
 * --rounds    how often both sides take turns; seconds are medians
 *
 * The queries come from DuckDB's extensions. Exit status 1 where an answer differs or a query fails.
 */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { compareAnswers } from "../bench/sql_answers.js";
import { answerOf, type Distributed, runDistributed, SingleNode, warmUp } from "../bench/sql_sides.js";
import { type TpcBenchmark, type TpcQuery, tpcQueries } from "../bench/tpc.js";
import { MillraceError } from "../client/index.js";
import { printJson, printTable } from "../server/cli/output.js";
import { parseSize } from "../server/cli/values.js";
import { untilInterrupted, WorkloadSession } from "../server/cli/workload.js";
import { formatBytes, formatCount } from "../workloads/report/format.js";
import type { SqlRun } from "../workloads/sql/driver.js";
import { openCatalog } from "../workloads/sql/tables.js";

interface Flags {
  data: string[];
  /** Null: all. */
  queries: string[] | null;
  workers: number;
  rounds: number;
  partitions: number | null;
  broadcastBytes: number | null;
  json: boolean;
}

interface Line {
  query: string;
  equal: boolean;
  /** What is wrong, or what is to be known. */
  note: string;
  stages: number;
  exchanges: number;
  rowsMoved: number;
  bytesMoved: number;
  seconds: number;
  singleSeconds: number;
}

/** A table that tells which benchmark a directory is of. */
const TELLING: Record<TpcBenchmark, string> = { tpcds: "store_sales", tpch: "lineitem" };
const WORKERS_MAX = 1024;
const ROUNDS_MAX = 1000;
const PARTITIONS_MAX = 4096;

function usage(problem: string): never {
  process.stderr.write(`tpc-check: ${problem}\n`);
  process.exit(2);
}

function readFlags(): Flags {
  try {
    const { values } = parseArgs({
      options: {
        data: { type: "string", multiple: true },
        queries: { type: "string" },
        workers: { type: "string" },
        rounds: { type: "string" },
        partitions: { type: "string" },
        "broadcast-bytes": { type: "string" },
        json: { type: "boolean", default: false },
      },
    });
    const broadcast = values["broadcast-bytes"];
    return {
      data: values.data ?? usage("name what scripts/tpcds-data has made with --data DIR"),
      queries: values.queries?.split(",") ?? null,
      workers: count("--workers", values.workers, WORKERS_MAX) ?? availableParallelism(),
      rounds: count("--rounds", values.rounds, ROUNDS_MAX) ?? 1,
      partitions: count("--partitions", values.partitions, PARTITIONS_MAX),
      broadcastBytes: broadcast === undefined ? null : parseSize(broadcast, "--broadcast-bytes"),
      json: values.json,
    };
  } catch (error) {
    return usage((error as Error).message);
  }
}

function count(name: string, text: string | undefined, max: number): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > max)
    usage(`${name} ${text} is not a number from 1 to ${max}`);
  return value;
}

function benchmarkOf(directory: string): TpcBenchmark {
  const found = (Object.keys(TELLING) as TpcBenchmark[]).find((each) =>
    [TELLING[each], `${TELLING[each]}.parquet`].some((name) => existsSync(join(directory, name))),
  );
  return found ?? usage(`${directory} holds no tables of TPC-DS or TPC-H`);
}

async function checkDirectory(
  directory: string,
  flags: Flags,
  session: WorkloadSession,
  signal: AbortSignal,
): Promise<Line[]> {
  const benchmark = benchmarkOf(directory);
  const queries = (await tpcQueries(benchmark)).filter(({ name }) => flags.queries?.includes(name) ?? true);
  const catalog = await openCatalog(directory);
  const single = await SingleNode.open(catalog, flags.workers);
  const side: Distributed = {
    catalog,
    workers: flags.workers,
    surroundings: { namespace: session.namespace, executor: session.executor, signal },
    ...(flags.partitions === null ? {} : { partitions: flags.partitions }),
    ...(flags.broadcastBytes === null ? {} : { broadcastBytes: flags.broadcastBytes }),
  };
  const lines: Line[] = [];
  try {
    await warmUp(side);
    for (const [i, query] of queries.entries()) {
      signal.throwIfAborted();
      if (process.stderr.isTTY && !flags.json) {
        process.stderr.write(`\r${benchmark} ${query.name}: ${i + 1} of ${queries.length}  `);
      }
      lines.push(await checkQuery(query, single, side, flags.rounds));
    }
    if (process.stderr.isTTY && !flags.json) process.stderr.write("\r\x1b[K");
    return lines;
  } finally {
    single.close();
    await catalog.close();
  }
}

async function checkQuery(
  { name, sql }: TpcQuery,
  single: SingleNode,
  side: Distributed,
  rounds: number,
): Promise<Line> {
  const expected = await single.expect(sql);
  const singleSeconds: number[] = [];
  const seconds: number[] = [];
  let run: SqlRun | null = null;
  let note = "";
  let isEqual = true;
  try {
    for (let round = 0; round < rounds; round += 1) {
      const done = await runDistributed(sql, side);
      seconds.push((done.endMs - done.startMs) / 1000);
      const verdict = await compareAnswers(await answerOf(done, expected.keys), expected);
      if (verdict.otherChoice) note = "another choice of rows that ORDER BY does not tell apart";
      if (verdict.difference !== null) {
        isEqual = false;
        note = verdict.difference;
      }
      run = done;
      singleSeconds.push((await single.run(sql)).seconds);
    }
  } catch (thrown) {
    side.surroundings.signal?.throwIfAborted();
    const { code, message } = MillraceError.from(thrown);
    isEqual = false;
    note = `${code}: ${message}`;
  }
  const stages = run?.stages ?? [];
  const read = stages.flatMap(({ inputs }) => inputs.map(({ from }) => from));
  return {
    query: name,
    equal: isEqual,
    note,
    stages: stages.length,
    exchanges: new Set(read.flatMap((from) => (from.kind === "stage" ? [from.stage] : []))).size,
    rowsMoved: stages.reduce((sum, { rows }) => sum + rows, 0),
    bytesMoved: run?.exchange.bytes ?? 0,
    seconds: median(seconds),
    singleSeconds: median(singleSeconds.length > 0 ? singleSeconds : [expected.seconds]),
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

function totals(lines: readonly Line[]) {
  const sum = (of: (line: Line) => number) => lines.reduce((total, line) => total + of(line), 0);
  const complete = lines.filter(({ seconds }) => seconds > 0);
  return {
    queries: lines.length,
    equal: lines.filter(({ equal }) => equal).length,
    stages: sum(({ stages }) => stages),
    exchanges: sum(({ exchanges }) => exchanges),
    rowsMoved: sum(({ rowsMoved }) => rowsMoved),
    bytesMoved: sum(({ bytesMoved }) => bytesMoved),
    /** Of the queries that came to an end. */
    seconds: complete.reduce((total, { seconds }) => total + seconds, 0),
    singleSeconds: complete.reduce((total, { singleSeconds }) => total + singleSeconds, 0),
  };
}

function print(lines: readonly Line[]): void {
  const total = totals(lines);
  const cells = (line: Omit<Line, "query" | "equal" | "note">): string[] => [
    String(line.stages),
    String(line.exchanges),
    formatCount(line.rowsMoved),
    formatBytes(line.bytesMoved),
    line.seconds.toFixed(3),
    line.singleSeconds.toFixed(3),
    line.seconds === 0 ? "-" : `${(line.seconds / line.singleSeconds).toFixed(2)}x`,
  ];
  printTable([
    ["query", "equal", "stages", "exchanges", "rows moved", "bytes moved", "seconds", "alone", "ratio"],
    ...lines.map((line) => [line.query, line.equal ? "yes" : "NO", ...cells(line)]),
    ["total", `${total.equal}/${total.queries}`, ...cells(total)],
  ]);
  for (const { query, note } of lines) if (note !== "") process.stdout.write(`\n${query}: ${note}\n`);
}

async function main(): Promise<void> {
  const flags = readFlags();
  const lines = await untilInterrupted(async (signal) => {
    const session = await WorkloadSession.open({
      name: "tpc-check",
      endpoint: null,
      dramBytes: null,
      nvme: [],
      hugePages: "auto",
      workers: flags.workers,
      expectedBytes: 0,
    });
    try {
      const found: Line[] = [];
      for (const each of flags.data)
        found.push(...(await checkDirectory(resolve(each), flags, session, signal)));
      return found;
    } finally {
      await session.close();
    }
  });
  const unknown = flags.queries?.filter((name) => !lines.some(({ query }) => query === name)) ?? [];
  if (unknown.length > 0) usage(`there are no tables for, or there is no, query ${unknown.join(", ")}`);
  if (flags.json) printJson({ queries: lines, total: totals(lines) });
  else print(lines);
  if (lines.some(({ equal }) => !equal)) process.exitCode = 1;
}

await main().catch((thrown: unknown) => {
  process.stderr.write(`tpc-check: ${MillraceError.from(thrown).message}\n`);
  process.exitCode = 1;
});
