/** `--explain`: the planner over real tables, with nothing run. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Catalog } from "../../../../workloads/sql/catalog.js";
import { openEngine, quoteText, runStatement } from "../../../../workloads/sql/duckdb.js";
import { explainedStages, explainSql, stageTree } from "../../../../workloads/sql/explain.js";
import { checkSelect } from "../../../../workloads/sql/select.js";
import { planSizes } from "../../../../workloads/sql/sizes.js";
import { openCatalog } from "../../../../workloads/sql/tables.js";

let folder: string;
let catalog: Catalog;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "millrace-explain-"));
  mkdirSync(join(folder, "c"));
  const engine = openEngine({ threads: 1 });
  const copy = (select: string, path: string, format: string) =>
    runStatement(engine, `COPY (${select}) TO ${quoteText(join(folder, path))} (FORMAT ${format})`);
  await copy(
    "SELECT i AS id, i % 100 AS k, random() AS x FROM range(300000) r(i)",
    "fact.parquet",
    "parquet",
  );
  await copy("SELECT i AS k, 'name ' || i AS name FROM range(100) r(i)", "c/1.csv", "csv, HEADER");
  await engine.close();
  catalog = await openCatalog(folder);
});

afterAll(async () => {
  await catalog.close();
  rmSync(folder, { recursive: true, force: true });
});

const SQL =
  "SELECT name, sum(x) FROM fact JOIN c USING (k) WHERE id > 7 GROUP BY name ORDER BY 2 DESC LIMIT 3;";

it("draws every stage and table once, with what is exchanged", async () => {
  const forced = { workers: 2, partitions: 8, broadcastBytes: 0 };
  const explained = await explainSql({ sql: SQL, catalog, ...forced });
  const text = stageTree(explained, catalog);
  const lines = text.trimEnd().split("\n");
  expect(lines[0]).toMatch(/^stage \d+ \(the result, about /);
  for (const { id } of explained.stages) {
    expect(lines.filter((line) => new RegExp(`^[│├└─ ]*stage ${id} \\(`).test(line))).toHaveLength(1);
  }
  expect(text).toMatch(/table fact \([\d.]+ MB, 300,000 rows, split\): id > /);
  expect(text).toMatch(/table c \(/);
  expect(text).toMatch(/hash by c\d+ in 8 partitions/);
  expect(lines.at(-1)).toMatch(/^\d+ stages, \d+ exchanges? of about /);
});

it("follows the sizes: a broadcast where a side is small, an exchange where none is allowed", async () => {
  const kinds = async (broadcastBytes: number | null): Promise<string[]> => {
    const { stages } = await explainSql({ sql: SQL, catalog, workers: 2, partitions: null, broadcastBytes });
    return stages.map(({ output }) => output.kind);
  };
  const forced = await kinds(0);
  const free = await kinds(null);
  expect(forced.filter((kind) => kind === "hash").length).toBeGreaterThan(
    free.filter((kind) => kind === "hash").length,
  );
});

it("says the same to programs", async () => {
  const { stages } = await explainSql({ sql: SQL, catalog, workers: 2, partitions: 8, broadcastBytes: 0 });
  const explained = explainedStages(stages, catalog);
  expect(explained.map(({ id }) => id)).toEqual(stages.map(({ id }) => id));
  const tables = explained.flatMap((stage) => stage.tables.map(({ table }) => table));
  expect(tables.sort()).toEqual(["c", "fact"]);
  const read = explained.flatMap((stage) => stage.exchanges.map(({ stage: from }) => from));
  // Every stage but the last is read by somebody.
  expect(new Set(read)).toEqual(new Set(stages.slice(0, -1).map(({ id }) => id)));
});

it("fails as the run would", async () => {
  const options = { catalog, workers: 2, partitions: null, broadcastBytes: null };
  await expect(explainSql({ ...options, sql: "SELECT nix FROM fact" })).rejects.toMatchObject({
    code: "SQL_FAILED",
    message: expect.stringContaining("nix"),
  });
});

it.each([
  ["SELECT 1; SELECT 2", "INVALID_ARGUMENT", /2 statements/],
  ["  -- nothing\n", "INVALID_ARGUMENT", /no statement/],
  ["CREATE TABLE x (i INT)", "INVALID_ARGUMENT", /only a SELECT/],
  ["COPY fact TO 'x'", "INVALID_ARGUMENT", /only a SELECT/],
  ["SELECT\n  FROM FROM", "SQL_FAILED", /syntax error.*line 2/],
])("refuses %j", async (sql, code, message) => {
  await expect(checkSelect(sql)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
});

it.each(["SELECT 1;", "FROM fact", "WITH x AS (SELECT 1) SELECT * FROM x -- the end", "VALUES (1); ;"])(
  "takes %j",
  async (sql) => {
    await checkSelect(sql);
  },
);

it("plans partitions by the tables and the function workers", () => {
  const sizes = (workers: number, tableBytes: number, partitions: number | null = null) =>
    planSizes({
      catalog: { tables: new Map([["t", { bytes: tableBytes }]]) } as unknown as Catalog,
      workers,
      partitions,
      broadcastBytes: null,
    }).partitions;
  expect(sizes(1, 0)).toBe(sizes(2, 1000));
  expect(sizes(64, 0)).toBeGreaterThanOrEqual(4 * 64);
  expect(sizes(2, 2 ** 40)).toBeLessThanOrEqual(4096);
  for (const bytes of [0, 2 ** 30, 2 ** 33]) expect(Math.log2(sizes(3, bytes)) % 1).toBe(0);
  expect(sizes(2, 2 ** 33, 3)).toBe(3);
});
