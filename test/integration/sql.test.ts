/** Queries on real function workers, beside single-node DuckDB. */
import { mkdirSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SqlPlace, sorted } from "./sql_helpers.js";

/** Everything is cut into as many tasks as there can be, and exchanged through shuffles. */
const FORCED = { taskSizes: { taskBytesMin: 1, skewBytesMin: 64 }, smallExchangeBytes: 0 };

const TABLES = {
  "sales.parquet": `SELECT range AS id, nullif((range * 7919) % 97, 13)::INTEGER AS item, (range % 5)::INTEGER AS store,
    (((range * 31) % 10000) / 100)::DECIMAL(9, 2) AS price, DATE '2024-01-01' + (range % 365)::INTEGER AS day FROM range(20000)`,
  "items.parquet": `SELECT range::INTEGER AS item, 'item ' || range AS name, ['a', 'b', 'c'][1 + range % 3] AS class,
    [range, range + 1] AS list, {'x': range, 'y': 'ü' || range} AS pair FROM range(90)`,
  "stores.csv": "SELECT range::INTEGER AS store, 'store ' || range AS name FROM range(4)",
  "returns/part-0.csv": "SELECT range * 3 AS id, range % 7 AS reason FROM range(500)",
  "returns/part-1.csv": "SELECT range * 3 AS id, range % 7 AS reason FROM range(500, 1200)",
  "nothing.parquet": "SELECT range::INTEGER AS item, 'x' AS name FROM range(0)",
  "skewed.parquet":
    "SELECT range AS id, CASE WHEN range % 10 < 9 THEN 1 ELSE range % 50 END AS k FROM range(60000)",
};

let place: SqlPlace;

beforeAll(async () => {
  place = await SqlPlace.open(TABLES);
});

afterAll(async () => {
  await place[Symbol.asyncDispose]();
});

/** Rows in any order. */
const UNORDERED = [
  "SELECT count(*) FROM sales",
  "SELECT item, count(*), sum(price), min(day) FROM sales GROUP BY item",
  "SELECT class, count(DISTINCT store), sum(price) FROM sales JOIN items USING (item) GROUP BY class",
  "SELECT s.id, i.name, r.reason FROM sales s LEFT JOIN items i USING (item) LEFT JOIN returns r USING (id) WHERE s.id < 3000",
  "SELECT * FROM items FULL JOIN stores ON items.item = stores.store",
  "SELECT list, pair, count(*) FROM sales JOIN items USING (item) GROUP BY ALL",
  "SELECT id FROM sales WHERE item NOT IN (SELECT item FROM items WHERE class = 'a')",
  "SELECT item, id, rank() OVER (PARTITION BY item ORDER BY price DESC, id) AS r FROM sales QUALIFY r < 4",
  "SELECT id, price FROM sales WHERE price > (SELECT avg(price) FROM sales)",
  "SELECT id FROM sales WHERE store = 1 UNION ALL SELECT id FROM returns UNION ALL SELECT item FROM items",
  "SELECT item FROM sales INTERSECT SELECT store FROM stores",
  "SELECT store, class, grouping(store), sum(price) FROM sales JOIN items USING (item) GROUP BY ROLLUP (store, class)",
  "WITH big AS (SELECT item, sum(price) AS total FROM sales GROUP BY item) SELECT a.item, b.total FROM big a JOIN big b USING (item)",
  // Nothing to read, and nothing that comes out.
  "SELECT count(*), sum(item) FROM nothing",
  "SELECT * FROM sales JOIN nothing USING (item)",
  "SELECT i.item, n.name FROM items i LEFT JOIN nothing n USING (item)",
  "SELECT item, count(*) FROM nothing GROUP BY item",
  "SELECT 1 AS one, NULL AS two",
];

const ORDERED = [
  "SELECT id, item, day FROM sales ORDER BY day DESC, price, id",
  "SELECT item, count(*) AS n FROM sales GROUP BY item ORDER BY item NULLS FIRST",
  "SELECT id, price FROM sales ORDER BY price DESC, id LIMIT 17 OFFSET 5",
  "SELECT id + 1 FROM (SELECT * FROM sales ORDER BY price DESC, id) LIMIT 3000",
];

describe("answers", () => {
  it.each(UNORDERED)("%s", async (sql) => {
    const expected = sorted(await place.expected(sql));
    const { run, rows } = await place.run(sql, FORCED);
    expect(sorted(rows)).toEqual(expected);
    expect(run.rows).toBe(expected.length);
    // The same through objects, and with what is decided by default.
    const objects = await place.run(sql, { taskSizes: FORCED.taskSizes });
    expect(sorted(objects.rows)).toEqual(expected);
    const plain = await place.run(sql, { partitions: null, broadcastBytes: null });
    expect(sorted(plain.rows)).toEqual(expected);
  });

  it.each(ORDERED)("in order: %s", async (sql) => {
    const expected = await place.expected(sql);
    expect((await place.run(sql, FORCED)).rows).toEqual(expected);
    expect((await place.run(sql, { ...FORCED, threads: 3 })).rows).toEqual(expected);
    expect((await place.run(sql, { partitions: null, broadcastBytes: null })).rows).toEqual(expected);
  });

  it("leave nothing behind", async () => {
    expect(await place.leftovers()).toEqual([]);
  });
});

describe("what a run tells", () => {
  const sql = "SELECT class, sum(price) FROM sales JOIN items USING (item) GROUP BY class";

  it("adds up", async () => {
    const { run } = await place.run(sql, FORCED);
    for (const stage of run.stages) {
      expect(stage.calls.map(({ task }) => task).sort((a, b) => a - b)).toEqual(
        Array.from({ length: stage.tasks }, (_, task) => task),
      );
      expect(stage.calls.reduce((sum, { rows }) => sum + rows, 0)).toBe(stage.rows);
      expect(stage.calls.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(stage.bytes);
      expect(stage.partitionBytes.reduce((sum, bytes) => sum + bytes, 0)).toBe(stage.bytes);
      expect(stage.endMs).toBeGreaterThanOrEqual(stage.startMs);
    }
    const byStages = run.stages
      .flatMap(({ inputs }) => inputs)
      .reduce((sum, { from, bytes }) => sum + (from.kind === "stage" ? bytes : 0), 0);
    const last = run.stages.at(-1);
    expect(run.exchange.bytes).toBe(byStages + (last?.bytes ?? 0));
    expect(run.exchange.byTransport.shm).toBe(run.exchange.bytes);
    expect(run.exchange.byTier).toEqual({ dram: run.exchange.bytes, nvme: 0 });
    const sales = run.stages.flatMap(({ inputs }) => inputs).filter(({ from }) => from.kind === "table");
    expect(sales.map(({ bytes }) => bytes)).toContain(
      place.catalog.tables.get("sales")?.parts.reduce((sum, { bytes }) => sum + bytes, 0),
    );
    expect(run).toMatchObject({ retries: 0, lostAttempts: [], partitions: 4 });
    expect(run.time.compute).toBeGreaterThan(0);
  });

  it("tells of progress by stage", async () => {
    const ended = new Set<number>();
    const { run } = await place.run(sql, {
      onProgress: ({ stage, fraction }) => {
        if (fraction === 1) ended.add(stage);
      },
    });
    expect([...ended].sort((a, b) => a - b)).toEqual(run.stages.map(({ id }) => id).sort((a, b) => a - b));
  });
});

describe("a skewed key", () => {
  it("is divided among tasks", async () => {
    const sql =
      "SELECT a.id % 7, count(*), max(b.name) FROM skewed a JOIN items b ON a.k = b.item GROUP BY 1";
    const { run, rows } = await place.run(sql, {
      taskSizes: { taskBytesMin: 16 << 10, skewBytesMin: 16 << 10 },
    });
    expect(sorted(rows)).toEqual(sorted(await place.expected(sql)));
    // Of four tasks for four partitions, the one with the key would read most.
    const exchange = run.stages.find(({ rows: count, output }) => count === 60_000 && output === "hash");
    const join = run.stages.find(({ inputs }) =>
      inputs.some(({ from }) => from.kind === "stage" && from.stage === exchange?.id),
    );
    expect(join?.tasks).toBe(4);
    const read = (join?.calls ?? []).map(({ exchangedBytes }) => exchangedBytes);
    const total = read.reduce((sum, bytes) => sum + bytes, 0);
    expect(Math.max(...read)).toBeLessThan(total / 2);
  });
});

it("compares intervals of few rows, which DuckDB by its defaults does not", async () => {
  const intervals = (table: string) => `(SELECT to_minutes(store) AS i FROM ${table} WHERE store < 4)`;
  const sql = `SELECT count(*) FROM ${intervals("stores")} a SEMI JOIN ${intervals("stores")} b ON a.i < b.i`;
  const { rows } = await place.run(sql, FORCED);
  expect(rows).toEqual([["3"]]);
});

describe("output as Parquet parts", () => {
  it.each([
    ["in any order", "SELECT item, name, pair FROM items JOIN sales USING (item)", false],
    ["in the order of the query", "SELECT id, day FROM sales ORDER BY price DESC, id", true],
    ["of no rows", "SELECT id, id AS ID FROM sales WHERE price < 0", false],
  ])("%s", async (name, sql, isOrdered) => {
    const directory = place.at(`out ${name}`);
    mkdirSync(directory);
    const { run } = await place.run(sql, { ...FORCED, threads: 3, output: { directory } });
    expect(run.result).toBe(null);
    expect(readdirSync(directory).sort()).toEqual(run.parts.map((part) => part.name));
    const instance = await DuckDBInstance.create(":memory:");
    const connection = await instance.connect();
    const files = run.parts.map((part) => `'${join(directory, part.name)}'`).join(", ");
    const read = await connection.runAndReadAll(`SELECT COLUMNS(*)::VARCHAR FROM read_parquet([${files}])`);
    const rows = read.getRows() as (string | null)[][];
    const expected = await place.expected(sql);
    expect(isOrdered ? rows : sorted(rows)).toEqual(isOrdered ? expected : sorted(expected));
    expect(run.rows).toBe(expected.length);
    expect(run.parts.reduce((sum, part) => sum + part.rows, 0)).toBe(expected.length);
    connection.closeSync();
    instance.closeSync();
    expect(await place.leftovers()).toEqual([]);
  });
});

describe("what fails", () => {
  it("SQL that cannot be planned", async () => {
    await expect(place.run("SELECT nonsense FROM sales")).rejects.toMatchObject({
      code: "SQL_FAILED",
      message: expect.stringContaining("nonsense"),
    });
  });

  it("SQL that fails on a function worker, with DuckDB's words, once", async () => {
    const sql = "SELECT sum(CASE WHEN id = 17000 THEN error('stop here') ELSE id END) FROM sales";
    await expect(place.run(sql, FORCED)).rejects.toMatchObject({
      code: "SQL_FAILED",
      retryable: false,
      message: expect.stringContaining("stop here"),
    });
    expect(await place.leftovers()).toEqual([]);
    expect((await place.run("SELECT count(*) FROM sales")).rows).toEqual([["20000"]]);
  });

  it("is cancelled in the middle, and leaves nothing", async () => {
    const abort = new AbortController();
    const sql = "SELECT count(*) FROM sales a, sales b, sales c WHERE (a.id * b.id + c.id) % 1000003 = 5";
    const reason = new Error("enough");
    const running = place.run(sql, { signal: abort.signal, ...FORCED });
    setTimeout(() => abort.abort(reason), 500);
    await expect(running).rejects.toBe(reason);
    expect(await place.leftovers()).toEqual([]);
    expect(place.executor.stats().busy).toBe(0);
    expect((await place.run("SELECT count(*) FROM items")).rows).toEqual([["90"]]);
  });

  it("is cancelled before it begins", async () => {
    const reason = new Error("no");
    await expect(place.run("SELECT 1", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe("memory", () => {
  it("is held to a limit by spilling", async () => {
    const sql =
      "SELECT count(*), sum(n) FROM (SELECT a.id * 90 + i.item AS k, count(*) AS n, max('text ' || a.id || i.name) AS t " +
      "FROM sales a, items i GROUP BY k)";
    const run = "sql-0123456789ab";
    let spilledFiles = 0;
    const directory = join(tmpdir(), `millrace-${run}`);
    const watching = setInterval(() => {
      try {
        spilledFiles += readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((name) =>
          /duckdb_temp/.test(name),
        ).length;
      } catch {
        // It is not there yet, or changes underfoot.
      }
    }, 5);
    try {
      const { rows } = await place.run(sql, {
        run,
        memoryBytes: 32 << 20,
        broadcastBytes: null,
        partitions: 4,
      });
      expect(rows).toEqual(await place.expected(sql));
    } finally {
      clearInterval(watching);
    }
    expect(spilledFiles).toBeGreaterThan(0);
    expect(await place.leftovers()).toEqual([]);
  });

  it("that does not suffice is said once, with DuckDB's words", async () => {
    const sql = "SELECT list(name ORDER BY a.id) FROM sales a, items i";
    await expect(place.run(sql, { memoryBytes: 8 << 20 })).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      retryable: false,
    });
  });

  it("an output larger than any segment is exchanged all the same", async () => {
    const sql = "SELECT id, repeat(chr(65 + (id % 26)::INTEGER), 16000) AS text FROM sales";
    const { run, rows } = await place.run(
      `SELECT id, md5(text), length(text) FROM (${sql}) ORDER BY id LIMIT 3`,
      {
        broadcastBytes: null,
      },
    );
    expect(rows.length).toBe(3);
    expect(run.retries).toBe(0);
    const whole = await place.run(sql, { taskSizes: { taskBytesMin: 1 << 30, taskBytesMax: 1 << 30 } });
    expect(whole.run.stages.at(-1)).toMatchObject({ tasks: 1, rows: 20_000 });
    expect(whole.run.stages.at(-1)?.bytes).toBeGreaterThan(300_000_000);
    expect(whole.rows.length).toBe(20_000);
    expect(new Set(whole.rows.map(([, text]) => text?.length))).toEqual(new Set([16_000]));
  });
});
