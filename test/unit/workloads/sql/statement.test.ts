import { DuckDBInstance } from "@duckdb/node-api";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { OrderKey } from "../../../../workloads/sql/plan/stage.js";
import {
  chooseBoundaries,
  partitionedByHash,
  partitionedByRange,
  sortKeySample,
  withInputs,
} from "../../../../workloads/sql/statement.js";

let instance: DuckDBInstance;
let connection: Awaited<ReturnType<DuckDBInstance["connect"]>>;

beforeAll(async () => {
  instance = await DuckDBInstance.create(":memory:");
  connection = await instance.connect();
});

afterAll(() => {
  connection.closeSync();
  instance.closeSync();
});

async function rowsOf(sql: string): Promise<unknown[][]> {
  return (await connection.runAndReadAll(sql)).getRowsJson() as unknown[][];
}

describe("withInputs", () => {
  const tables = [{ name: "table_0", sql: "SELECT range AS c0 FROM range(3)" }];

  it("lets a fragment read tables by name", async () => {
    expect(await rowsOf(withInputs(tables, [], "SELECT sum(c0)::INTEGER FROM table_0"))).toEqual([[3]]);
  });

  it("names exchanges after their rows", () => {
    expect(withInputs([], ["exchange_0"], "SELECT 1")).toBe(
      "WITH exchange_0 AS NOT MATERIALIZED (SELECT * FROM rows_in('exchange_0')) SELECT 1",
    );
  });

  it("keeps the order of a fragment that begins with WITH", async () => {
    const fragment = "WITH a AS (SELECT c0 FROM table_0) SELECT c0::INTEGER AS c0 FROM a ORDER BY c0 DESC";
    expect(await rowsOf(withInputs(tables, [], fragment))).toEqual([[2], [1], [0]]);
  });

  it("leaves a fragment alone that reads nothing", () => {
    expect(withInputs([], [], "SELECT 1")).toBe("SELECT 1");
  });
});

describe("partitionedByHash", () => {
  it("gives equal keys one partition, nulls too, and uses all of them", async () => {
    const fragment = "SELECT nullif(range % 100, 7) AS c0, range AS c1 FROM range(10000)";
    const sql = `SELECT c0, count(DISTINCT p), min(p) FROM (${partitionedByHash(fragment, ["c0"], 8)}) AS t(c0, c1, p) GROUP BY c0`;
    const rows = await rowsOf(sql);
    expect(rows.length).toBe(100);
    expect(rows.every(([, count]) => count === "1")).toBe(true);
    expect(new Set(rows.map(([, , partition]) => partition)).size).toBe(8);
  });

  it("adds no column where there is one partition", () => {
    expect(partitionedByHash("SELECT 1 AS c0", ["c0"], 1)).toBe("SELECT 1 AS c0");
  });
});

describe("partitionedByRange", () => {
  const orders: OrderKey[][] = [
    [{ expression: "c0", descending: false, nullsFirst: false }],
    [{ expression: "c0", descending: true, nullsFirst: true }],
    [
      { expression: "c1", descending: true, nullsFirst: false },
      { expression: "c0 % 10", descending: false, nullsFirst: true },
    ],
  ];

  it.each(orders.map((order) => [order]))("puts partitions in the order of the rows: %j", async (order) => {
    await connection.run(
      "CREATE OR REPLACE TABLE t AS SELECT nullif((range * 7919) % 1000, 5) AS c0, chr(97 + (range % 26)::INTEGER) AS c1 FROM range(5000)",
    );
    const sample = (await rowsOf(sortKeySample("t", order, 300))).map(([key]) => key as string);
    expect(sample.length).toBe(300);
    const boundaries = chooseBoundaries(sample, 6);
    expect(boundaries.length).toBe(5);
    await connection.run(
      `CREATE OR REPLACE TABLE p AS SELECT * FROM (${partitionedByRange("SELECT * FROM t", order, boundaries)}) AS t(c0, c1, partition)`,
    );
    const by = order
      .map(
        ({ expression, descending, nullsFirst }) =>
          `${expression} ${descending ? "DESC" : "ASC"} NULLS ${nullsFirst ? "FIRST" : "LAST"}`,
      )
      .join(", ");
    const [counted] = await rowsOf(
      `SELECT count(*)::INTEGER, count(DISTINCT partition)::INTEGER, count(*) FILTER (partition < before)::INTEGER
       FROM (SELECT partition, lag(partition) OVER (ORDER BY ${by}) AS before FROM p)`,
    );
    expect(counted).toEqual([5000, 6, 0]);
  });

  it("adds no column where there is one range", () => {
    expect(partitionedByRange("SELECT 1 AS c0", orders[0] as OrderKey[], [])).toBe("SELECT 1 AS c0");
  });
});

describe("chooseBoundaries", () => {
  it("gives ascending keys of the sample, each once, none of them the smallest", () => {
    fc.assert(
      fc.property(
        fc.array(fc.stringMatching(/^[0-9A-F]{1,3}$/), { maxLength: 60 }),
        fc.integer({ min: 1, max: 12 }),
        (samples, partitions) => {
          const boundaries = chooseBoundaries(samples, partitions);
          expect(boundaries.length).toBeLessThan(partitions);
          expect(boundaries).toEqual([...new Set(boundaries)].sort());
          const smallest = [...samples].sort()[0];
          for (const boundary of boundaries) {
            expect(samples).toContain(boundary);
            expect(boundary).not.toBe(smallest);
          }
        },
      ),
    );
  });
});
