/** Results as text: what DuckDB renders, and how it is laid out. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Catalog } from "../../../../../workloads/sql/catalog.js";
import { openEngine, queryTexts, quoteText } from "../../../../../workloads/sql/duckdb.js";
import { writeCsv } from "../../../../../workloads/sql/output/csv.js";
import { rowsJson, writeJson } from "../../../../../workloads/sql/output/json.js";
import { namedSelect, partPath, unfinishedPath } from "../../../../../workloads/sql/output/parquet.js";
import { TextSink } from "../../../../../workloads/sql/output/sink.js";
import { writeTable } from "../../../../../workloads/sql/output/table.js";
import { type PrintedRows, uniqueNames } from "../../../../../workloads/sql/output/values.js";
import { runSingle } from "../../../../../workloads/sql/single.js";
import { openCatalog } from "../../../../../workloads/sql/tables.js";

let folder: string;
let catalog: Catalog;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "millrace-output-"));
  mkdirSync(join(folder, "data"));
  const engine = openEngine({ threads: 1 });
  const path = quoteText(join(folder, "data", "t.parquet"));
  (
    await engine.execute(`COPY (SELECT i AS id FROM range(100) r(i)) TO ${path} (FORMAT parquet)`, [], 1)
  ).close();
  await engine.close();
  catalog = await openCatalog(join(folder, "data"));
});

afterAll(async () => {
  await catalog.close();
  rmSync(folder, { recursive: true, force: true });
});

const ALONE = { threads: 2, memoryBytes: null, spillDirectory: null, output: null };

async function printed(
  sql: string,
  print: (result: PrintedRows, sink: TextSink) => Promise<void>,
): Promise<string> {
  const { result } = await runSingle({ ...ALONE, sql, catalog });
  if (result === null) throw new Error("no rows were kept");
  const stream = new PassThrough();
  const text = textOf(stream);
  try {
    await print(result, new TextSink(stream));
  } finally {
    await result.close();
    stream.end();
  }
  return text;
}

async function textOf(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

const VALUES =
  "VALUES (1, 'one', 1.50::DECIMAL(5, 2), DATE '2000-01-31'), (20, '日本語', NULL, NULL), (-300, 'a' || chr(10) || 'b', 12.25, NULL)";

describe("table", () => {
  it("aligns columns by what they show", async () => {
    expect(await printed(`SELECT * FROM (${VALUES}) v(n, name, "a price", day)`, writeTable)).toBe(
      [
        "   n  name    a price  day",
        "----  ------  -------  ----------",
        "   1  one        1.50  2000-01-31",
        "  20  日本語     NULL  NULL",
        "-300  a\\nb      12.25  NULL",
        "(3 rows)",
        "",
      ].join("\n"),
    );
  });

  it("prints long results whole, in order", async () => {
    const text = await printed("SELECT 99 - id AS a, 'x' FROM t, range(2000) ORDER BY a", writeTable);
    const lines = text.trimEnd().split("\n");
    expect(lines).toHaveLength(200_003);
    expect(lines.at(-1)).toBe("(200,000 rows)");
    const numbers = lines.slice(2, -1).map((line) => Number.parseInt(line, 10));
    expect(numbers.every((value, i) => value === Math.floor(i / 2000))).toBe(true);
  });

  it("has a head without rows", async () => {
    expect(await printed("SELECT id, 'x' AS y FROM t WHERE id < 0", writeTable)).toBe(
      "id  y\n--  -\n(0 rows)\n",
    );
  });

  it("lets nothing reach the terminal that moves it", async () => {
    const text = await printed("SELECT chr(27) || '[31m' || chr(7) || chr(155) AS s", writeTable);
    expect(text).toContain("\\u001b[31m\\u0007\\u009b");
  });
});

describe("csv", () => {
  it("quotes what needs it, and tells NULL from an empty text", async () => {
    const sql = `SELECT * FROM (VALUES ('a,b', 'say "hi"', NULL, 1), ('', 'x' || chr(10) || 'y', ' z', NULL)) v("q,1", b, c, d)`;
    expect(await printed(sql, writeCsv)).toBe('"q,1",b,c,d\r\n"a,b","say ""hi""",,1\r\n"","x\ny"," z",\r\n');
  });

  it("is read back by the letter of the RFC", async () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
    console.log(`csv: SEED=${seed}`);
    const value = fc.option(
      fc.string({ unit: fc.constantFrom("a", '"', ",", "\n", "\r", " ", "é", ";", "'", "0"), maxLength: 6 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(value, value), { minLength: 1, maxLength: 40 }), async (rows) => {
        const texts = rows.map(
          (row) => `(${row.map((text) => (text === null ? "NULL" : quoteText(text))).join(", ")})`,
        );
        const csv = await printed(`SELECT * FROM (VALUES ${texts.join(", ")}) v(a, b)`, writeCsv);
        expect(parseCsv(csv)).toEqual([["a", "b"], ...rows]);
      }),
      { seed, numRuns: 8 },
    );
  });
});

/** RFC 4180 by the letter; what is not quoted and empty is null. */
function parseCsv(text: string): (string | null)[][] {
  const records: (string | null)[][] = [];
  const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy;
  let record: (string | null)[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    end = match.index + match[0].length;
    const plain = match[2] === "" ? null : (match[2] ?? null);
    record.push(match[1] === undefined ? plain : match[1].replaceAll('""', '"'));
    if (match[3] === ",") continue;
    records.push(record);
    record = [];
  }
  if (end !== text.length) throw new Error(`not CSV from ${end} on: ${JSON.stringify(text)}`);
  return records;
}

describe("json", () => {
  it.each([
    ["42::INTEGER", 42],
    ["9007199254740991", 9007199254740991],
    ["9007199254740992", "9007199254740992"],
    ["-9007199254740992", "-9007199254740992"],
    ["170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"],
    ["18446744073709551615::UBIGINT", "18446744073709551615"],
    ["7::UBIGINT", 7],
    ["1.50::DECIMAL(5, 2)", 1.5],
    ["123456789012.345::DECIMAL(38, 3)", 123456789012.345],
    ["1234567890123456.789::DECIMAL(38, 3)", "1234567890123456.789"],
    ["0.00000000000000000001::DECIMAL(38, 20)", 1e-20],
    ["0.12345678901234567890::DECIMAL(38, 20)", "0.12345678901234567890"],
    ["-0.000001::DECIMAL(38, 20)", -0.000001],
    ["-0.1::DECIMAL(38, 20)", "-0.10000000000000000000"],
    ["0.1::DOUBLE", 0.1],
    ["1e300::DOUBLE", 1e300],
    ["'nan'::DOUBLE", "nan"],
    ["'-infinity'::FLOAT", "-inf"],
    ["true", true],
    ["NULL", null],
    [`'a "b" \\ ' || chr(1) || 'é'`, 'a "b" \\ \u0001é'],
    ["DATE '2000-01-31'", "2000-01-31"],
    ["TIMESTAMPTZ '2000-01-31 12:00:00+00'", expect.stringMatching(/^2000-01-31/)],
    ["INTERVAL 3 DAY", "3 days"],
    ["[1, NULL, 3]", [1, null, 3]],
    ["{'a': 1, 'b': ['x']}", { a: 1, b: ["x"] }],
    ["MAP {'k': 1.5::DECIMAL(3, 1)}", { k: 1.5 }],
    ["'\\xAA'::BLOB", "\\xAA"],
  ])("%s", async (expression, expected) => {
    const text = await printed(`SELECT ${expression} AS v`, writeJson);
    expect(JSON.parse(text)).toEqual([{ v: expected }]);
  });

  it("keeps every column of a name, and says rows as arrays too", async () => {
    const sql = `SELECT id AS a, id + 1 AS a, 'x' AS "A" FROM t ORDER BY id LIMIT 2`;
    expect(JSON.parse(await printed(sql, writeJson))).toEqual([
      { a: 0, a_1: 1, A: "x" },
      { a: 1, a_1: 2, A: "x" },
    ]);
    const rows = await printed(sql, async (result, sink) => {
      await sink.write(await rowsJson(result));
      await sink.end();
    });
    expect(JSON.parse(rows)).toEqual([
      [0, 1, "x"],
      [1, 2, "x"],
    ]);
    expect(JSON.parse(await printed("SELECT id FROM t WHERE id < 0", writeJson))).toEqual([]);
  });
});

it("makes names unique", () => {
  const columns = ["a", "a", "a_1", "A", "b"].map((name) => ({ name, type: "INTEGER" }));
  expect(uniqueNames(columns, { caseless: false })).toEqual(["a", "a_2", "a_1", "A", "b"]);
  expect(uniqueNames(columns, { caseless: true })).toEqual(["a", "a_2", "a_1", "A_3", "b"]);
});

describe("parquet", () => {
  it("names parts so that the output directory knows them", () => {
    expect(partPath("/d", 3)).toBe("/d/part-00003.parquet");
    expect(unfinishedPath("/d/part-00003.parquet", "w1.0")).toBe("/d/.part-00003.parquet.w1.0");
    expect(
      namedSelect(
        [
          { name: 'a"b', type: "" },
          { name: 'A"B', type: "" },
        ],
        "x",
      ),
    ).toBe('SELECT c0 AS "a""b", c1 AS "A""B_1" FROM x');
  });

  it("holds what the query gives, under its names", async () => {
    const directory = join(folder, "out");
    mkdirSync(directory);
    const sql = "SELECT id AS a, 2 * id AS A, {'x': id} AS s FROM t ORDER BY id DESC";
    const run = await runSingle({ ...ALONE, sql, catalog, output: { directory } });
    expect(run).toMatchObject({ rows: 100, result: null });
    expect(readdirSync(directory)).toEqual(["part-00000.parquet"]);
    const engine = openEngine({ threads: 1 });
    const read = `SELECT CAST(a AS VARCHAR), CAST("A_1" AS VARCHAR), CAST(s.x AS VARCHAR) FROM read_parquet(${quoteText(partPath(directory, 0))}) LIMIT 1`;
    expect(await queryTexts(engine, read)).toEqual([["99", "198", "99"]]);
    await engine.close();
  });
});

it("fails in DuckDB's words", async () => {
  await expect(runSingle({ ...ALONE, sql: "SELECT nix FROM t", catalog })).rejects.toMatchObject({
    code: "SQL_FAILED",
    message: expect.stringContaining("nix"),
  });
  expect(existsSync(join(folder, "nix"))).toBe(false);
});
