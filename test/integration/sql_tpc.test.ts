/**
 * All of TPC-DS and TPC-H at scale 0.01 on function workers, beside DuckDB alone: with few partitions, tables and
 * exchanges cut into as many tasks as there can be, and with joins that exchange what they would rather broadcast.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compareAnswers, type Expectation } from "../../bench/sql_answers.js";
import { answerOf, type Distributed, type Keys, runDistributed, SingleNode } from "../../bench/sql_sides.js";
import { type TpcBenchmark, type TpcQuery, tpcExtension, tpcQueries, tpcTables } from "../../bench/tpc.js";
import type { Catalog } from "../../workloads/sql/catalog.js";
import { openCatalog } from "../../workloads/sql/tables.js";
import { SqlPlace } from "./sql_helpers.js";

const SCALE = 0.01;
/** As small as DuckDB makes them. */
const ROW_GROUP = 2048;
const WORKERS = 2;
const SET_UP_MS = 300_000;
const BENCHMARKS: readonly TpcBenchmark[] = ["tpcds", "tpch"];

const WAYS = [
  {
    name: "3 partitions, nothing broadcast",
    partitions: 3,
    broadcastBytes: 0,
    taskSizes: { taskBytesMin: 1, skewBytesMin: 64 },
  },
  {
    name: "4 partitions, small tables broadcast",
    partitions: 4,
    broadcastBytes: 20_000,
    taskSizes: { taskBytesMin: 1 << 10, skewBytesMin: 4 << 10 },
  },
] as const;

interface Side {
  catalog: Catalog;
  single: SingleNode;
}

// The generators come from PyPI. CI must have them.
const missing = await Promise.all(BENCHMARKS.map(tpcExtension)).then(
  () => null,
  (error: unknown) => String(error),
);
if (missing !== null && process.env.CI === "true") throw new Error(missing);
if (missing !== null) console.log(`skipped: TPC-DS and TPC-H: ${missing}`);
const queries: TpcQuery[] = missing === null ? (await Promise.all(BENCHMARKS.map(tpcQueries))).flat() : [];

describe.skipIf(missing !== null)("TPC-DS and TPC-H", () => {
  const sides = new Map<TpcBenchmark, Side>();
  const expectations = new Map<string, Expectation & { keys: Keys }>();
  const counts = { runs: 0, divided: 0, exchanged: 0 };
  let place: SqlPlace;

  beforeAll(async () => {
    const directories = await Promise.all(
      BENCHMARKS.map((benchmark) => tpcTables(benchmark, SCALE, { rowGroup: ROW_GROUP })),
    );
    place = await SqlPlace.open(directories[0] as string, { workers: WORKERS });
    for (const [i, benchmark] of BENCHMARKS.entries()) {
      const catalog = await openCatalog(directories[i] as string);
      sides.set(benchmark, { catalog, single: await SingleNode.open(catalog, WORKERS) });
    }
  }, SET_UP_MS);

  afterAll(async () => {
    for (const { catalog, single } of sides.values()) {
      single.close();
      await catalog.close();
    }
    await place?.[Symbol.asyncDispose]();
  });

  async function expectationOf({ benchmark, name, sql }: TpcQuery) {
    const known = expectations.get(name);
    if (known !== undefined) return known;
    const made = await (sides.get(benchmark) as Side).single.expect(sql);
    expectations.set(name, made);
    return made;
  }

  it("are 99 and 22 queries", () => {
    expect(queries.map(({ name }) => name)).toEqual([
      ...Array.from({ length: 99 }, (_, i) => String(i + 1)),
      ...Array.from({ length: 22 }, (_, i) => `h${i + 1}`),
    ]);
  });

  describe.each(WAYS)("$name", ({ partitions, broadcastBytes, taskSizes }) => {
    it.each(queries)("$name", async (query) => {
      const expected = await expectationOf(query);
      const side: Distributed = {
        catalog: (sides.get(query.benchmark) as Side).catalog,
        workers: WORKERS,
        surroundings: { namespace: place.namespace, executor: place.executor },
        partitions,
        broadcastBytes,
        taskSizes,
      };
      const run = await runDistributed(query.sql, side);
      const { difference } = await compareAnswers(await answerOf(run, expected.keys), expected);
      expect(difference).toBe(null);
      expect(run.retries).toBe(0);
      counts.runs += 1;
      if (run.stages.some(({ tasks }) => tasks > 1)) counts.divided += 1;
      if (run.stages.length > 1) counts.exchanged += 1;
    });
  });

  // One task alone would prove nothing. A few queries read one tiny table.
  it("are divided among tasks, and exchange rows, but for a few", () => {
    expect(counts.divided).toBeGreaterThan(0.95 * counts.runs);
    expect(counts.exchanged).toBeGreaterThan(0.75 * counts.runs);
  });

  it("leave nothing behind", async () => {
    expect(await place.leftovers()).toEqual([]);
  });
});
