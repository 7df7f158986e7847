/**
 * TPC-DS 77, which moves few rows in many stages, and queries that exchange much, on function workers beside DuckDB
 * alone with as many threads and over the same files. Answers are compared before anything is timed.
 */
import { WorkloadSession } from "../server/cli/workload.js";
import { openCatalog } from "../workloads/sql/tables.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { compareAnswers } from "./sql_answers.js";
import { answerOf, type Distributed, runDistributed, SingleNode, warmUp } from "./sql_sides.js";
import { type TpcBenchmark, type TpcQuery, tpcQueries, tpcTables } from "./tpc.js";

export interface SqlBenchOptions
  extends Pick<BenchOptions, "seconds" | "rounds" | "hugePages" | "signal" | "note"> {
  /** Of the data: 1 is about 1 GB before compression. Its tables are made below build/tpc where they are not there. */
  scale: number;
  /** Function workers here, threads there. Default 2. */
  workers?: number;
}

/** What waits for dispatch rather than for data. */
const SMALL = "77";
const SHUFFLE_HEAVY = ["95", "78", "80", "93", "14", "h9", "h13"];
const BENCHMARKS: readonly TpcBenchmark[] = ["tpcds", "tpch"];
const TITLES: Record<TpcBenchmark, string> = { tpcds: "TPC-DS", tpch: "TPC-H" };
/** From this scale on exchanges are large enough that the rest must not count. */
const TARGET_SCALE = 10;
const TARGET = "<= 1.10x";

interface Timed {
  query: TpcQuery;
  seconds: number[];
  singleSeconds: number[];
  stages: number;
  rowsMoved: number;
  bytesMoved: number;
}

export async function run(options: SqlBenchOptions): Promise<BenchFigure[]> {
  const { scale, workers = 2, signal } = options;
  const directories: string[] = [];
  for (const benchmark of BENCHMARKS) directories.push(await tpcTables(benchmark, scale, { signal }));
  const session = await WorkloadSession.open({
    name: "bench-sql",
    endpoint: null,
    dramBytes: null,
    nvme: [],
    hugePages: options.hugePages,
    workers,
    expectedBytes: 0,
  });
  const timed: Timed[] = [];
  try {
    for (const [i, benchmark] of BENCHMARKS.entries()) {
      timed.push(...(await timeBenchmark(benchmark, directories[i] as string, session, options)));
    }
  } finally {
    await session.close();
  }
  const rounds = Math.min(...timed.map(({ seconds }) => seconds.length));
  if (rounds < options.rounds) {
    options.note(
      `time for ${rounds} of ${options.rounds} rounds of the longest query; --seconds gives it more`,
    );
  }
  return figures(timed, scale, workers);
}

async function timeBenchmark(
  benchmark: TpcBenchmark,
  directory: string,
  session: WorkloadSession,
  { workers = 2, signal, seconds, rounds }: SqlBenchOptions,
): Promise<Timed[]> {
  const wanted = [SMALL, ...SHUFFLE_HEAVY];
  const queries = (await tpcQueries(benchmark)).filter(({ name }) => wanted.includes(name));
  const catalog = await openCatalog(directory);
  const single = await SingleNode.open(catalog, workers);
  const { namespace, executor } = session;
  const side: Distributed = { catalog, workers, surroundings: { namespace, executor, signal } };
  const timed: Timed[] = [];
  try {
    await warmUp(side);
    for (const query of queries) {
      timed.push(await timeQuery(query, single, side, rounds, (seconds * 1000) / wanted.length));
    }
  } finally {
    single.close();
    await catalog.close();
  }
  return timed;
}

async function timeQuery(
  query: TpcQuery,
  single: SingleNode,
  side: Distributed,
  rounds: number,
  budgetMs: number,
): Promise<Timed> {
  const { sql, name } = query;
  const expected = await single.expect(sql);
  const first = await runDistributed(sql, side);
  const { difference } = await compareAnswers(await answerOf(first, expected.keys), expected);
  if (difference !== null) throw new Error(`the answer to query ${name} is wrong: ${difference}`);
  const timed: Timed = {
    query,
    seconds: [],
    singleSeconds: [],
    stages: first.stages.length,
    rowsMoved: first.stages.reduce((sum, { rows }) => sum + rows, 0),
    bytesMoved: first.exchange.bytes,
  };
  const endMs = performance.now() + budgetMs;
  while (timed.seconds.length < rounds && (timed.seconds.length === 0 || performance.now() < endMs)) {
    side.surroundings.signal?.throwIfAborted();
    const done = await runDistributed(sql, side);
    await done.result?.close();
    timed.seconds.push((done.endMs - done.startMs) / 1000);
    timed.singleSeconds.push((await single.run(sql)).seconds);
  }
  return timed;
}

function figures(timed: readonly Timed[], scale: number, workers: number): BenchFigure[] {
  const rivalName = `DuckDB alone, ${workers} threads`;
  const target = scale >= TARGET_SCALE ? TARGET : null;
  const each = timed.map(({ query, seconds, singleSeconds, stages, rowsMoved, bytesMoved }) =>
    comparedFigure(
      `${TITLES[query.benchmark]} ${query.name.replace("h", "")}, scale ${scale}, ${workers} function workers`,
      median(seconds),
      "s",
      { name: rivalName, figure: median(singleSeconds) },
      query.name === SMALL ? null : target,
      {
        stages,
        rowsMoved,
        bytesMoved,
        rounds: seconds.length,
        allSeconds: seconds,
        allRivalSeconds: singleSeconds,
      },
    ),
  );
  const heavy = timed.filter(({ query }) => query.name !== SMALL);
  const sum = (of: (each: Timed) => readonly number[]) =>
    heavy.reduce((total, one) => total + median(of(one)), 0);
  return [
    ...each,
    comparedFigure(
      `all ${heavy.length} that exchange much, scale ${scale}`,
      sum(({ seconds }) => seconds),
      "s",
      { name: rivalName, figure: sum(({ singleSeconds }) => singleSeconds) },
      target,
      { bytesMoved: heavy.reduce((total, { bytesMoved }) => total + bytesMoved, 0) },
    ),
  ];
}

/** The middle one, or the lower of the two in the middle: a value that was really seen. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}
