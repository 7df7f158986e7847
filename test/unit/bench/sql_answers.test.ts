import { DuckDBInstance } from "@duckdb/node-api";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Cell, compareAnswers, type Expectation, type SqlAnswer } from "../../../bench/sql_answers.js";
import { SingleNode } from "../../../bench/sql_sides.js";
import { orderingOf } from "../../../bench/sql_syntax.js";
import type { Catalog } from "../../../workloads/sql/catalog.js";

const NO_TABLES = { tables: new Map() } as unknown as Catalog;

function answer(rows: Cell[][], keys: number[], types = ["INTEGER", "DOUBLE"]): SqlAnswer {
  return {
    names: types.map((_, i) => `n${i}`),
    types,
    rows,
    keys: rows.map((row) => keys.map((key) => row[key] ?? null)),
  };
}

function expectation(rows: Cell[][], keys: number[], all: Cell[][] | null = null): Expectation {
  const made = answer(rows, keys);
  return {
    answer: made,
    keyTypes: keys.map((key) => made.types[key] as string),
    limited: all !== null,
    unlimited: async () => answer(all ?? rows, keys),
  };
}

async function difference(found: Cell[][], expected: Expectation, keys: number[]): Promise<string | null> {
  return (await compareAnswers(answer(found, keys), expected)).difference;
}

const ROWS = [
  ["1", "0.5"],
  ["1", "0.75"],
  ["2", null],
];

describe("answers without order", () => {
  it("are multisets", async () => {
    const expected = expectation(ROWS, []);
    expect(await difference([...ROWS].reverse(), expected, [])).toBe(null);
    expect(await difference([ROWS[0]!, ROWS[0]!, ROWS[2]!], expected, [])).toContain("1 too many");
    expect(await difference(ROWS.slice(1), expected, [])).toContain("2 rows instead of 3");
    expect(await difference([ROWS[0]!, ROWS[1]!, ["2", "0"]], expected, [])).toContain("missing");
    expect(await difference([ROWS[0]!, ROWS[1]!, ["3", null]], expected, [])).toContain("missing");
  });

  it("may differ in the last digits of floating-point numbers alone", async () => {
    const expected = expectation([["1", "1000.1"]], []);
    expect(await difference([["1", "1000.1000000001"]], expected, [])).toBe(null);
    expect(await difference([["1", "1000.1001"]], expected, [])).not.toBe(null);
    expect(await difference([["1.0000000000001", "1000.1"]], expected, [])).not.toBe(null);
    expect(await difference([["1", "nan"]], expected, [])).not.toBe(null);
  });

  it("have types and names", async () => {
    const expected = expectation(ROWS, []);
    const types = answer(ROWS, [], ["BIGINT", "DOUBLE"]);
    expect((await compareAnswers(types, expected)).difference).toContain("types");
    const names = { ...answer(ROWS, []), names: ["x", "y"] };
    expect((await compareAnswers(names, expected)).difference).toContain("names");
  });
});

describe("answers in order", () => {
  it("may differ only among rows that are not told apart", async () => {
    const expected = expectation(ROWS, [0]);
    expect(await difference([ROWS[1]!, ROWS[0]!, ROWS[2]!], expected, [0])).toBe(null);
    expect(await difference([ROWS[2]!, ROWS[0]!, ROWS[1]!], expected, [0])).toContain("row 0");
    expect(await difference([ROWS[0]!, ROWS[0]!, ROWS[2]!], expected, [0])).toContain("too many");
  });

  it("may hold other rows where LIMIT cuts through equals", async () => {
    const all = [...ROWS, ["2", "4"], ["3", "9"]];
    const expected = expectation(ROWS, [0], all);
    const found = [ROWS[0]!, ROWS[1]!, ["2", "4"]];
    expect(await compareAnswers(answer(found, [0]), expected)).toEqual({
      difference: null,
      otherChoice: true,
    });
    expect(await difference([ROWS[0]!, ROWS[1]!, ["2", "5"]], expected, [0])).toContain("without LIMIT");
    // Rows in the middle are not left open.
    const middle = expectation([["0", null], ...ROWS], [0], [["0", null], ["1", "7"], ...all]);
    expect(await difference([["0", null], ["1", "7"], ROWS[0]!, ROWS[2]!], middle, [0])).not.toBe(null);
  });
});

describe("what a query says of order", () => {
  let instance: DuckDBInstance;

  beforeAll(async () => {
    instance = await DuckDBInstance.create(":memory:");
  });

  afterAll(() => instance.closeSync());

  it.each([
    ["SELECT a, b FROM t", ["a", "b"], [], false],
    ["SELECT a, b FROM t ORDER BY 2 DESC, t.A NULLS FIRST", ["a", "b"], [1, 0], false],
    ["SELECT a, sum(b) AS s FROM t GROUP BY a ORDER BY sum(b), a LIMIT 3", ["a", "s"], [1, 0], true],
    ["SELECT a, b FROM t ORDER BY ALL", ["a", "b"], [0, 1], false],
    ["SELECT a FROM t ORDER BY hidden, a LIMIT 3 OFFSET 2", ["a"], [], true],
    ["SELECT a FROM t GROUP BY a ORDER BY a, sum(a)", ["a"], [0], false],
    ["SELECT a FROM t UNION ALL SELECT b FROM u ORDER BY a", ["a"], [0], false],
  ])("%s", async (sql, names, keys, limited) => {
    const connection = await instance.connect();
    const found = await orderingOf(connection, sql, names);
    expect(found.keys).toEqual(keys);
    expect(found.limited).toBe(limited);
    if (limited) expect(found.unlimited).not.toMatch(/LIMIT|OFFSET/);
    else expect(found.unlimited).toBe(null);
    connection.closeSync();
  });

  it("may be an expression over the answer", async () => {
    const connection = await instance.connect();
    const sql = "SELECT a, b FROM t ORDER BY CASE WHEN t.a = 0 THEN b END, b";
    const { keys } = await orderingOf(connection, sql, ["a", "b"]);
    expect(keys).toEqual([expect.stringContaining("CASE"), 1]);
    connection.closeSync();
  });

  it("is what DuckDB's answer goes by", async () => {
    const single = await SingleNode.open(NO_TABLES, 1);
    const sql =
      "SELECT i % 2 AS a, i AS b, 36028797018963969 + i AS large FROM range(6) r(i) ORDER BY -(i % 2), a + 1 LIMIT 2";
    const expected = await single.expect(sql);
    expect(expected.answer.rows).toHaveLength(2);
    expect(expected.answer.rows.every(([a]) => a === "1")).toBe(true);
    const all = await expected.unlimited();
    expect(all.rows).toHaveLength(6);
    expect(all.rows.map(([, , large]) => large)).toContain("36028797018963970");
    single.close();
  });
});
