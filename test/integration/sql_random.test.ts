/**
 * Random SELECTs over random tables on function workers, beside DuckDB alone. For about a minute; MILLRACE_SQL_QUERIES
 * says how many others are wanted, MILLRACE_SEED from which seed on.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compareAnswers } from "../../bench/sql_answers.js";
import { answerOf, type Distributed, runDistributed, SingleNode } from "../../bench/sql_sides.js";
import { MillraceError } from "../../client/index.js";
import type { Catalog } from "../../workloads/sql/catalog.js";
import { openCatalog } from "../../workloads/sql/tables.js";
import { printedSeed, type Random, randomOf } from "../support/random.js";
import { type GeneratedTable, generateTables, SqlGenerator } from "../support/sql_generator.js";
import { reduceSql } from "../support/sql_reducer.js";
import { SqlPlace } from "./sql_helpers.js";

/** Null: as many as there is time for. */
const QUERIES =
  process.env.MILLRACE_SQL_QUERIES === undefined ? null : Number(process.env.MILLRACE_SQL_QUERIES);
const BUDGET_MS = 30_000;
const QUERIES_PER_SCHEMA = 25;
/** Fewer would say nothing. */
const QUERIES_MIN = 20;
/** DuckDB alone is given no longer, nor an answer larger: such queries are left out. */
const SINGLE_MS_MAX = 3_000;
const ROWS_MAX = 20_000;
const REDUCE_MS = 60_000;
const UNSUPPORTED_SHARE_MAX = 0.1;
/** DuckDB alone must have an answer to most queries, or the generator generates nonsense. */
const LEFT_OUT_SHARE_MAX = 0.5;
/** Queries of no rows, or of one stage, hold little to account. */
const ANSWERED_SHARE_MIN = 0.4;
const EXCHANGED_SHARE_MIN = 0.5;
/** Chance, among few queries. */
const SLACK = 10;
const WORKERS = 2;
const FAULTS_MAX = Number(process.env.MILLRACE_SQL_FAULTS ?? 1);

let place: SqlPlace;

beforeAll(async () => {
  place = await SqlPlace.open({ "nothing.parquet": "SELECT 1 AS one" }, { workers: WORKERS });
});

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
});

/** Tables in a directory of their own, in some of the shapes that they may have. */
async function writeTables(directory: string, tables: readonly GeneratedTable[]): Promise<void> {
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  try {
    for (const { name, files } of tables) {
      mkdirSync(join(directory, name), { recursive: true });
      for (const [i, select] of files.entries()) {
        const path = join(directory, name, `${i}.parquet`);
        await connection.run(`COPY (${select}) TO '${path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)`);
      }
    }
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

type Outcome =
  | { kind: "equal"; rows: number; stages: number }
  | { kind: "unsupported" | "left out" }
  /** `what` tells a fault from others: an error's code, or that answers differ. */
  | { kind: "fault"; what: string; message: string };

async function examine(sql: string, single: SingleNode, side: Distributed): Promise<Outcome> {
  const timer = setTimeout(() => single.interrupt(), SINGLE_MS_MAX);
  const expected = await single
    .expect(sql)
    .catch(() => null)
    .finally(() => clearTimeout(timer));
  if (expected === null || expected.answer.rows.length > ROWS_MAX) return { kind: "left out" };
  // Without its LIMIT, which tells what else the answer may be, DuckDB alone may not be able to run it.
  let isUnknown = false;
  const unlimited = () =>
    expected.unlimited().catch((thrown: unknown) => {
      isUnknown = true;
      throw thrown;
    });
  try {
    const run = await runDistributed(sql, side);
    const { difference } = await compareAnswers(await answerOf(run, expected.keys), {
      ...expected,
      unlimited,
    });
    return difference === null
      ? { kind: "equal", rows: run.rows, stages: run.stages.length }
      : { kind: "fault", what: "difference", message: difference };
  } catch (thrown) {
    if (isUnknown) return { kind: "left out" };
    const { code, message } = MillraceError.from(thrown);
    if (code === "UNSUPPORTED_OPERATOR") return { kind: "unsupported" };
    // Joins of everything with everything in between; DuckDB alone need not keep what comes of them.
    if (code === "RESOURCE_EXHAUSTED" && message.includes("dram is full")) return { kind: "left out" };
    return { kind: "fault", what: code, message };
  }
}

function howToRun(random: Random): Pick<Distributed, "partitions" | "broadcastBytes" | "taskSizes"> {
  return {
    partitions: random.pick([1, 2, 3, 4, 16]),
    broadcastBytes: random.pick([0, 0, 0, 500, 1 << 20]),
    taskSizes: random.pick([
      { taskBytesMin: 1, skewBytesMin: 1 },
      { taskBytesMin: 1, skewBytesMin: 64 },
      { taskBytesMin: 1 << 10, skewBytesMin: 1 << 10 },
    ]),
  };
}

class Tally {
  readonly counts = { equal: 0, unsupported: 0, "left out": 0, fault: 0 };
  /** Of the equal ones: with rows, and with an exchange between function workers. */
  answered = 0;
  exchanged = 0;
  readonly faults: string[] = [];

  get asked(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }
}

/** Some queries over the tables of one seed. */
async function runSchema(seed: number, count: number, endMs: number, tally: Tally): Promise<void> {
  const random = randomOf(seed);
  const directory = place.at(`data-${seed}`);
  const tables = generateTables(random);
  await writeTables(directory, tables);
  const catalog: Catalog = await openCatalog(directory);
  const single = await SingleNode.open(catalog, WORKERS);
  try {
    const generator = new SqlGenerator(random, tables);
    for (let i = 0; i < count && performance.now() < endMs && tally.faults.length < FAULTS_MAX; i += 1) {
      const sql = generator.query();
      const side: Distributed = {
        catalog,
        workers: WORKERS,
        surroundings: { namespace: place.namespace, executor: place.executor },
        ...howToRun(random),
      };
      const outcome = await examine(sql, single, side);
      tally.counts[outcome.kind] += 1;
      if (outcome.kind === "equal") {
        if (outcome.rows > 0) tally.answered += 1;
        if (outcome.stages > 1) tally.exchanged += 1;
      }
      if (outcome.kind !== "fault") continue;
      const isSameFault = async (text: string): Promise<boolean> => {
        const again = await examine(text, single, side);
        return again.kind === "fault" && again.what === outcome.what;
      };
      const small = await reduceSql(single.connection, sql, isSameFault, REDUCE_MS);
      const found = await examine(small, single, side);
      const how = JSON.stringify({ ...side, catalog: undefined, surroundings: undefined });
      tally.faults.push(
        [
          `MILLRACE_SEED=${seed}, query ${i}, ${how}`,
          sql,
          `made smaller: ${small}`,
          `${outcome.what}: ${found.kind === "fault" ? found.message : outcome.message}`,
          ...tables.map(({ name, files }) => `${name}: ${files.join(" UNION ALL ")}`),
        ].join("\n"),
      );
    }
  } finally {
    single.close();
    await catalog.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

describe("random queries", () => {
  it(
    "give DuckDB's answers",
    async () => {
      const first = printedSeed("random SQL");
      const tally = new Tally();
      const endMs = QUERIES === null ? performance.now() + BUDGET_MS : Number.POSITIVE_INFINITY;
      const wanted = QUERIES ?? Number.POSITIVE_INFINITY;
      for (let seed = first; tally.asked < wanted && performance.now() < endMs; seed += 1) {
        await runSchema(seed, Math.min(QUERIES_PER_SCHEMA, wanted - tally.asked), endMs, tally);
        if (tally.faults.length >= FAULTS_MAX) break;
      }
      const { counts, answered, exchanged } = tally;
      console.log(`random SQL: ${JSON.stringify({ ...counts, answered, exchanged })}`);
      expect(tally.faults.join("\n\n")).toBe("");
      const known = counts.equal + counts.unsupported;
      if (QUERIES === null) expect(known).toBeGreaterThanOrEqual(QUERIES_MIN);
      expect(counts.unsupported).toBeLessThanOrEqual(UNSUPPORTED_SHARE_MAX * known + SLACK);
      expect(counts["left out"]).toBeLessThanOrEqual(LEFT_OUT_SHARE_MAX * tally.asked + SLACK);
      expect(answered).toBeGreaterThanOrEqual(ANSWERED_SHARE_MIN * counts.equal - SLACK);
      expect(exchanged).toBeGreaterThanOrEqual(EXCHANGED_SHARE_MIN * counts.equal - SLACK);
    },
    QUERIES === null ? 5 * BUDGET_MS : 0,
  );

  it("leave nothing behind", async () => {
    expect(await place.leftovers()).toEqual([]);
  });
});
