/** What is exchanged, and what is not: the shape of the stages. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseJson } from "../../../../../workloads/sql/plan/json.js";
import type { PlanOptions } from "../../../../../workloads/sql/plan/plan.js";
import { type Answer, PlanBench } from "../../../../support/sql_plan.js";

let bench: PlanBench;

beforeAll(async () => {
  bench = await PlanBench.open();
  await bench.table(
    "fact",
    "SELECT i % 50 AS k, i % 7 AS g, i AS v, i % 20 AS w FROM range(4000) AS r(i)",
    6,
  );
  await bench.table("dim", "SELECT i AS k, 'name' || i AS name FROM range(50) AS r(i)", 2);
  await bench.table("narrow", "SELECT 100 + i % 100 AS k, i AS n FROM range(4000) AS r(i)", 1);
  await bench.table("wide", "SELECT i AS k, i AS n FROM range(1000) AS r(i)", 1);
  await bench.table("other", "SELECT i % 50 AS k, i % 7 AS g, i AS v FROM range(3000) AS r(i)", 5);
});
afterAll(() => bench?.close());

function run(sql: string, options: Partial<PlanOptions> = {}): Promise<Answer> {
  return bench.distributed(sql, 4, options);
}

const outputs = (answer: Answer): string[] => answer.stages.map((stage) => stage.output.kind);

describe("exchanges", () => {
  it("scans a star join in one stage, dimensions being read whole", async () => {
    const broadcastBytes = bench.catalog.tables.get("dim")!.bytes;
    const answer = await run("SELECT name, sum(v) FROM fact JOIN dim ON fact.k = dim.k GROUP BY name", {
      broadcastBytes,
    });
    expect(outputs(answer)).toEqual(["hash", "gather"]);
    const [first] = answer.stages;
    expect(first!.tables.map((read) => [read.table, read.share])).toEqual(
      expect.arrayContaining([
        ["fact", "split"],
        ["dim", "whole"],
      ]),
    );
    expect(first!.label).toContain("⋈");
    expect(first!.label).toContain("partial aggregate");
  });

  it("does not exchange again what lies by the keys", async () => {
    const answer = await run(
      "SELECT x.k, x.n, y.n FROM (SELECT k, count(*) AS n FROM fact GROUP BY k) AS x JOIN (SELECT k, sum(v) AS n FROM other GROUP BY k) AS y ON x.k = y.k",
    );
    expect(outputs(answer)).toEqual(["hash", "hash", "gather"]);
  });

  it("aggregates by more groups than it joins by without an exchange", async () => {
    const answer = await run(
      "SELECT fact.k, fact.g, count(*) FROM fact JOIN other ON fact.k = other.k GROUP BY fact.k, fact.g",
    );
    expect(outputs(answer)).toEqual(["hash", "hash", "gather"]);
  });

  it("numbers rows where they lie", async () => {
    const answer = await run(
      "SELECT k, n, row_number() OVER (PARTITION BY k ORDER BY n) FROM (SELECT k, g, count(*) AS n FROM fact GROUP BY k, g) AS s",
    );
    expect(outputs(answer)).toEqual(["hash", "hash", "gather"]);
  });

  it("reads a small result whole, so that all that follows is one task's", async () => {
    const answer = await run(
      "SELECT g, n, rank() OVER (ORDER BY n) FROM (SELECT g, count(*) AS n FROM fact GROUP BY g) AS s ORDER BY g",
      { smallBytes: 2000 },
    );
    expect(outputs(answer)).toEqual(["hash", "gather"]);
    expect(answer.stages[1]!.exchanges.map((read) => read.share)).toEqual(["whole"]);
  });

  it("broadcasts the side that turns out to be small", async () => {
    const answer = await run(
      "SELECT count(*) FROM fact JOIN (SELECT DISTINCT g FROM other) AS s ON fact.g = s.g",
      {
        broadcastBytes: 500,
      },
    );
    expect(answer.stages.filter((stage) => stage.tables.some((read) => read.table === "fact"))).toHaveLength(
      1,
    );
    expect(answer.stages.at(-2)!.exchanges.map((read) => read.share)).toContain("whole");
  });

  it("lets a skewed partition be divided where nothing relies on equal keys meeting", async () => {
    const joined = await run("SELECT sum(fact.v) FROM fact JOIN other ON fact.k = other.k");
    const partial = joined.stages.find((stage) => stage.exchanges.length === 2)!;
    expect(partial.divisible).toMatch(/^exchange_/);
    const grouped = await run(
      "SELECT fact.k, sum(fact.v) FROM fact JOIN other ON fact.k = other.k GROUP BY fact.k",
    );
    const last = grouped.stages.find((stage) => stage.exchanges.length === 2)!;
    expect(last.divisible).toBeNull();
  });

  it("sorts a large result by ranges, a small one in one task", async () => {
    expect(outputs(await run("SELECT v FROM fact ORDER BY w, v"))).toEqual(["range", "sorted"]);
    expect(outputs(await run("SELECT v FROM fact ORDER BY w, v", { broadcastBytes: 1 << 20 }))).toEqual([
      "gather",
      "gather",
    ]);
    expect(outputs(await run("SELECT v FROM fact ORDER BY w, v LIMIT 5"))).toEqual(["gather", "gather"]);
  });

  it("leaves columns out of an exchange that nobody reads behind it", async () => {
    const answer = await run(
      "SELECT dim.name, count(*) FROM fact JOIN other ON fact.k = other.k AND fact.g = other.g JOIN dim ON other.v = dim.k GROUP BY dim.name",
    );
    // Of the five columns of other and dim: the keys of the next join, and the name.
    const joined = answer.stages.find((stage) => stage.exchanges.length === 2 && stage.label.includes("⋈"))!;
    expect(joined.output.kind).toBe("hash");
    expect(joined.width).toBe(3);
  });

  it("materialises a table expression once", async () => {
    const answer = await run(
      "WITH x AS MATERIALIZED (SELECT k, sum(v) AS s FROM fact GROUP BY k) SELECT a.s, b.s FROM x AS a JOIN x AS b ON a.k = b.k",
    );
    expect(answer.stages.filter((stage) => stage.tables.length > 0)).toHaveLength(1);
  });

  it("leaves repetitions out before the rows of a set operation are exchanged", async () => {
    const answer = await run("SELECT g, w FROM fact INTERSECT SELECT g, k FROM other");
    const scans = answer.stages.filter((stage) => stage.tables.length > 0);
    expect(scans.map((stage) => stage.output.kind)).toEqual(["hash", "hash"]);
    for (const { sql } of scans) expect(sql).toContain("SELECT DISTINCT");
    const all = await run("SELECT g, w FROM fact EXCEPT ALL SELECT g, k FROM other");
    for (const { sql } of all.stages) expect(sql).not.toContain("DISTINCT");
  });

  it("expects of a join what the filter of its other side leaves", async () => {
    const answer = await run(
      "SELECT sum(fact.v + other.v) FROM fact JOIN dim ON fact.k = dim.k JOIN other ON fact.v = other.v WHERE dim.name LIKE '%7%'",
      { broadcastBytes: 1500, smallBytes: 0 },
    );
    const joined = answer.stages.find((stage) => stage.label.includes("scan fact ⋈"))!;
    expect(joined.output.kind).toBe("hash");
    expect(joined.estimatedBytes).toBeLessThan(4000 * 16 * 0.35);
  });

  it("shows DuckDB that what is read whole was filtered, and only then", async () => {
    const filtered = await run(
      "SELECT count(*) FROM fact JOIN (SELECT k FROM other WHERE v % 100 = 3) AS s ON fact.k = s.k",
      { broadcastBytes: 1000, smallBytes: 1000 },
    );
    const shown = "IS NOT DISTINCT FROM c0";
    const readsWhole = (answer: Answer): string =>
      answer.stages.find((stage) => stage.exchanges.some((read) => read.share === "whole"))!.sql;
    expect(readsWhole(filtered)).toContain(shown);
    const all = await run("SELECT g, sum(n) FROM (SELECT g, count(*) AS n FROM fact GROUP BY g) GROUP BY g", {
      smallBytes: 2000,
    });
    expect(readsWhole(all)).not.toContain(shown);
  });

  it("keeps to its side of a join what DuckDB took for a filter from the other's statistics", async () => {
    const answer = await run(
      "SELECT sum(narrow.n + wide.n) FROM narrow JOIN wide ON narrow.k = wide.k WHERE wide.n < 900",
    );
    const derived = answer.stages.filter((stage) => stage.sql.includes("IS TRUE"));
    expect(derived.length).toBeGreaterThan(0);
  });

  it("marks the last stage, and no other", async () => {
    const answer = await run("SELECT k, count(*) FROM fact GROUP BY k");
    expect(answer.stages.map((stage) => stage.last)).toEqual([false, true]);
  });
});

describe("parseJson", () => {
  it("keeps integers, infinities and NaN that a double does not hold", () => {
    expect(
      parseJson(
        '{"a": 18446744073709551615, "b": -9007199254740993, "c": [1.5, NaN, -Infinity], "d": "x 12345678901234567 \\" Infinity"}',
      ),
    ).toEqual({
      a: "18446744073709551615",
      b: "-9007199254740993",
      c: [1.5, "NaN", "-Infinity"],
      d: 'x 12345678901234567 " Infinity',
    });
  });

  it("refuses what is no JSON", () => {
    expect(() => parseJson("{")).toThrowError(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});
