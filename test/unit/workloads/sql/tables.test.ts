/** The catalog over directories of every shape, with DuckDB itself reading what it says. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DuckDb } from "../../../../client/index.js";
import type { Catalog, FilePart, Table } from "../../../../workloads/sql/catalog.js";
import { openEngine, queryTexts, quoteText, runStatement } from "../../../../workloads/sql/duckdb.js";
import { openCatalog } from "../../../../workloads/sql/tables.js";

let root: string;
let engine: DuckDb;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "millrace-tables-"));
  engine = openEngine({ threads: 2 });
});

afterAll(async () => {
  await engine.close();
  rmSync(root, { recursive: true, force: true });
});

let directories = 0;

/** A directory of its own for a test. */
function place(): (name: string) => string {
  directories += 1;
  const directory = join(root, `data-${directories}`);
  mkdirSync(directory);
  return (name) => {
    const path = join(directory, name);
    mkdirSync(dirname(path), { recursive: true });
    return path;
  };
}

/** Row groups of 2,048 rows. */
async function parquet(path: string, select: string): Promise<void> {
  await runStatement(engine, `COPY (${select}) TO ${quoteText(path)} (FORMAT parquet, ROW_GROUP_SIZE 2048)`);
}

async function withCatalog(directory: string, work: (catalog: Catalog) => Promise<void>): Promise<void> {
  const catalog = await openCatalog(directory);
  try {
    await work(catalog);
  } finally {
    await catalog.close();
  }
}

function tableOf(catalog: Catalog, name: string): Table {
  const table = catalog.tables.get(name);
  if (table === undefined) throw new Error(`no table ${name} among ${[...catalog.tables.keys()]}`);
  return table;
}

/** Count and sum of column c0 of a scan. */
async function sum(scan: string): Promise<string[]> {
  const [row] = await queryTexts(
    engine,
    `SELECT CAST(count(*) AS VARCHAR), CAST(sum(c0) AS VARCHAR) FROM (${scan})`,
  );
  return row as string[];
}

async function serialised(sql: string): Promise<string> {
  const [row] = await queryTexts(
    engine,
    `SELECT CAST(json_serialize_plan('${sql.replaceAll("'", "''")}', skip_null := true, optimize := true) AS VARCHAR)`,
  );
  return (row as [string])[0];
}

describe("Parquet", () => {
  it("is cut by row groups, over several files", async () => {
    const at = place();
    await parquet(at("t/a.parquet"), "SELECT i AS id, 'x' || i AS name FROM range(5000) r(i)");
    await parquet(at("t/b.parquet"), "SELECT i AS id, 'x' || i AS name FROM range(5000, 9000) r(i)");
    await parquet(at("t/none.parquet"), "SELECT 1::BIGINT AS id, '' AS name WHERE false");
    writeFileSync(at("t/_SUCCESS"), "");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      expect(table).toMatchObject({ format: "parquet", rows: 9000 });
      expect(table.columns).toEqual([
        { name: "id", type: "BIGINT" },
        { name: "name", type: "VARCHAR" },
      ]);
      expect(table.files).toHaveLength(3);
      expect(table.parts.length).toBeGreaterThanOrEqual(4);
      const total = table.parts.reduce(
        (rows, part) => rows + (part.rows?.end ?? 0) - (part.rows?.first ?? 0),
        0,
      );
      expect(total).toBe(9000);
      // Whatever subset is read: every row once, in one scan and in many.
      expect(await sum(catalog.scanSql(table, ["id"], table.parts, null))).toEqual(["9000", "40495500"]);
      let rows = 0;
      for (const part of table.parts) {
        const [count] = await sum(catalog.scanSql(table, ["id"], [part], null));
        expect(Number(count)).toBe((part.rows?.end ?? 0) - (part.rows?.first ?? 0));
        rows += Number(count);
      }
      expect(rows).toBe(9000);
      const some = [table.parts[1], table.parts[0], table.parts[3]] as FilePart[];
      const expected = some.reduce(
        (count, part) => count + (part.rows?.end ?? 0) - (part.rows?.first ?? 0),
        0,
      );
      expect((await sum(catalog.scanSql(table, ["id"], some, null)))[0]).toBe(String(expected));
    });
  });

  it("applies a filter beside the cut, and skips the other row groups", async () => {
    const at = place();
    await parquet(at("t.parquet"), "SELECT i AS id, i % 7 AS k FROM range(200000) r(i)");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      const parts = table.parts.slice(3, 5);
      const { first } = parts[0]?.rows ?? { first: 0 };
      const { end } = parts[1]?.rows ?? { end: 0 };
      const scan = catalog.scanSql(table, ["id", "k"], parts, "(c1 = 3)");
      const expected = Array.from({ length: end - first }, (_, i) => first + i).filter((id) => id % 7 === 3);
      expect(await sum(scan)).toEqual([
        String(expected.length),
        String(expected.reduce((total, id) => total + id, 0)),
      ]);
      const analysed = await engine.execute(`EXPLAIN ANALYZE ${scan}`, [], 1);
      const text = analysed.texts(1, 0, 1)[0] ?? "";
      analysed.close();
      // What the scan itself let through, of 200,000 rows.
      const scanned = [...text.matchAll(/([\d,]+) rows/g)].map((match) =>
        Number(match[1]?.replaceAll(",", "")),
      );
      expect(Math.max(...scanned)).toBeLessThanOrEqual(end - first);
    });
  });

  it("reads nothing, of the right types, without parts", async () => {
    const at = place();
    await parquet(
      at("t.parquet"),
      "SELECT 1.5::DECIMAL(9, 2) AS d, {'a b': [1]} AS s, DATE '2000-01-01' AS day",
    );
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      const columns = ["day", "d", "s"];
      const rows = await engine.execute(catalog.scanSql(table, columns, [], "c0 IS NULL"), [], 1);
      const same = await engine.execute(catalog.scanSql(table, columns, table.parts, null), [], 1);
      expect(rows.rows).toBe(0);
      expect(same.rows).toBe(1);
      expect(rows.names).toEqual(["c0", "c1", "c2"]);
      expect(rows.types).toEqual(same.types);
      rows.close();
      same.close();
    });
  });

  it("counts rows of no columns", async () => {
    const at = place();
    await parquet(at("t.parquet"), "SELECT i AS id FROM range(3000) r(i)");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      const count = async (parts: readonly FilePart[]) =>
        (
          await queryTexts(
            engine,
            `SELECT CAST(count(*) AS VARCHAR) FROM (${catalog.scanSql(table, [], parts, null)})`,
          )
        )[0];
      expect(await count(table.parts)).toEqual(["3000"]);
      expect(await count([])).toEqual(["0"]);
    });
  });

  it("is cut by files where a column has the name of DuckDB's own", async () => {
    const at = place();
    await parquet(at("t/a.parquet"), "SELECT i AS id, 7 AS file_row_number FROM range(3000) r(i)");
    await parquet(at("t/b.parquet"), "SELECT i AS id, 7 AS file_row_number FROM range(10) r(i)");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      expect(table.parts.map(({ rows }) => rows)).toEqual([null, null]);
      expect(await sum(catalog.scanSql(table, ["id"], table.parts.slice(1), null))).toEqual(["10", "45"]);
    });
  });

  it("takes any path and any name literally", async () => {
    const at = place();
    await parquet(at("it's [1] *.parquet"), `SELECT i AS "a ""b"" 'c'", 1 AS "select" FROM range(10) r(i)`);
    await parquet(at("it's [1] x.parquet"), "SELECT 1 AS other");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "it's [1] *");
      expect(table.rows).toBe(10);
      expect(await sum(catalog.scanSql(table, [`a "b" 'c'`], table.parts, null))).toEqual(["10", "45"]);
      await runStatement(engine, catalog.viewSql(table));
      const files = /"files":(\[[^\]]*\](?:[^\]]*\])?)/.exec(
        await serialised(`SELECT "select" FROM "it's [1] *"`),
      );
      expect(files?.[1]).toBe(JSON.stringify(table.files));
      expect(catalog.tableOfFiles(table.files)).toBe(table);
      expect(catalog.tableOfFiles(["/nowhere"])).toBeNull();
    });
  });

  it("has the folders' keys as columns, and a table of its own where folders are left out", async () => {
    const at = place();
    for (const year of ["2000", "2001", "2002"]) {
      await parquet(
        at(`sales/year=${year}/region=${year}x/p.parquet`),
        `SELECT i AS id FROM range(${year}) r(i)`,
      );
    }
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "sales");
      expect(table.columns.map(({ name, type }) => `${name} ${type}`)).toEqual([
        "id BIGINT",
        "region VARCHAR",
        "year BIGINT",
      ]);
      const scan = catalog.scanSql(table, ["year"], table.parts.slice(-1), null);
      expect(await sum(scan)).toEqual(["2002", String(2002 * 2002)]);
      await runStatement(engine, catalog.viewSql(table));
      const plan = await serialised("SELECT id FROM sales WHERE year > 2000");
      const files = JSON.parse(/"files":(\[[^\]]*\])/.exec(plan)?.[1] ?? "[]") as string[];
      expect(files).toHaveLength(2);
      const some = catalog.tableOfFiles(files);
      expect(some).toMatchObject({ rows: 4003, files });
      expect(some).toBe(catalog.tableOfFiles([...files].reverse()));
      expect(catalog.tables.get(some?.name ?? "")).toBe(some);
      expect((await sum(catalog.scanSql(some as Table, ["id"], some?.parts ?? [], null)))[0]).toBe("4003");
    });
  });
});

describe("CSV", () => {
  it("is read alike by every task: what the files have in common is found once", async () => {
    const at = place();
    writeFileSync(at("t/1.csv"), "a;b;c\n1;2000-01-01;x\n2;2000-01-02;y\n");
    writeFileSync(at("t/2.csv"), 'a;b;c\n1.5;2000-02-01;"q;""r"\n');
    writeFileSync(at("t/3.csv"), "a;b;c\n");
    writeFileSync(at("t/4.csv"), "");
    writeFileSync(at("t/5.csv.gz"), gzipSync("a;b;c\n10;2000-03-01;z\n"));
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      expect(table.columns.map(({ type }) => type)).toEqual(["DOUBLE", "DATE", "VARCHAR"]);
      expect(table.parts).toHaveLength(4);
      expect(await sum(catalog.scanSql(table, ["a"], table.parts, null))).toEqual(["4", "14.5"]);
      expect(await sum(catalog.scanSql(table, ["a", "b"], table.parts, "c1 > DATE '2000-01-15'"))).toEqual([
        "2",
        "11.5",
      ]);
      // A task that has only the first file sees the types of all.
      const first = await engine.execute(catalog.scanSql(table, ["a"], table.parts.slice(0, 1), null), [], 1);
      expect(first.types).toEqual(["DOUBLE"]);
      first.close();
      const quoted = catalog.scanSql(table, ["c"], table.parts.slice(1, 2), null);
      expect(await queryTexts(engine, quoted)).toEqual([['q;"r']]);
    });
  });

  it("shows the planner a stand-in, which goes with the catalog", async () => {
    const at = place();
    writeFileSync(at("c.csv"), `a,b\n${"1,x\n".repeat(1000)}`);
    const catalog = await openCatalog(at("."));
    const table = tableOf(catalog, "c");
    expect(table.rows).toBeGreaterThan(900);
    expect(table.rows).toBeLessThan(1100);
    await runStatement(engine, catalog.viewSql(table));
    // Not answered from the empty file's footer.
    const plan = await serialised("SELECT count(*), min(a) FROM c WHERE a > 0");
    const files = JSON.parse(/"files":(\[[^\]]*\])/.exec(plan)?.[1] ?? "[]") as string[];
    expect(files).toHaveLength(1);
    expect(existsSync(files[0] as string)).toBe(true);
    expect(catalog.tableOfFiles(files)).toBe(table);
    expect(plan).toContain(`"explicit_cardinality":${table.rows}`);
    await catalog.close();
    expect(existsSync(dirname(files[0] as string))).toBe(false);
    await runStatement(engine, "DROP VIEW c");
    await runStatement(engine, catalog.singleViewSql(table));
    expect(await queryTexts(engine, "SELECT CAST(count(*) AS VARCHAR) FROM c")).toEqual([["1000"]]);
  });

  it("has the folders' keys as columns", async () => {
    const at = place();
    writeFileSync(at("h/y=1/f.csv"), "a,b\r\n1,x\r\n2,y\r\n");
    writeFileSync(at("h/y=2/f.csv"), "a,b\r\n3,z\r\n");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "h");
      expect(table.columns).toContainEqual({ name: "y", type: "BIGINT" });
      expect(await sum(catalog.scanSql(table, ["y"], table.parts.slice(1), null))).toEqual(["1", "2"]);
    });
  });

  it("is told by content, whatever the name", async () => {
    const at = place();
    await parquet(at("liar.csv"), "SELECT 1 AS a");
    await withCatalog(at("."), async (catalog) => {
      expect(tableOf(catalog, "liar").format).toBe("parquet");
    });
  });
});

describe("what is wrong is said", () => {
  const failing = async (directory: string): Promise<{ code: string; message: string }> => {
    const outcome = await openCatalog(directory).then(
      () => null,
      (error: Error & { code: string }) => error,
    );
    if (outcome === null) throw new Error("the catalog opened");
    return outcome;
  };

  it("no directory, a file, an address", async () => {
    const at = place();
    writeFileSync(at("f.csv"), "a\n1\n");
    expect(await failing(at("nix"))).toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining("nix"),
    });
    expect(await failing(at("f.csv"))).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await failing("s3://bucket/data")).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining("local directory"),
    });
  });

  it("no tables", async () => {
    const at = place();
    writeFileSync(at("README.md"), "hello");
    writeFileSync(at("queries/1.sql"), "select 1");
    expect(await failing(at("."))).toMatchObject({ code: "NOT_FOUND" });
  });

  it("two tables of one name", async () => {
    const at = place();
    writeFileSync(at("Sales.csv"), "a\n1\n");
    writeFileSync(at("sales/1.csv"), "a\n1\n");
    const { code, message } = await failing(at("."));
    expect(code).toBe("INVALID_ARGUMENT");
    expect(message).toMatch(/Sales\.csv.*sales/);
  });

  it.each([
    ["short", Buffer.from("PAR1")],
    ["no footer", Buffer.concat([Buffer.from("PAR1"), Buffer.alloc(500, 1)])],
    [
      "footer of rubbish",
      Buffer.concat([
        Buffer.from("PAR1"),
        Buffer.alloc(500, 7),
        Buffer.from([80, 0, 0, 0]),
        Buffer.from("PAR1"),
      ]),
    ],
    ["not Parquet at all", Buffer.from("hello")],
    ["nothing", Buffer.alloc(0)],
  ])("damaged Parquet: %s", async (_, bytes) => {
    const at = place();
    await parquet(at("t/a.parquet"), "SELECT 1 AS a");
    writeFileSync(at("t/b.parquet"), bytes);
    const { code, message } = await failing(at("."));
    expect(code).toBe("CORRUPT");
    expect(message).toContain("b.parquet");
    expect(message).not.toContain("a.parquet is");
  });

  it.each([
    [
      "SELECT 1::BIGINT AS a, 2 AS b",
      "SELECT 1::INTEGER AS a, 2 AS b",
      /column a is BIGINT in .*1\.parquet and INTEGER in .*2\.parquet/,
    ],
    ["SELECT 1 AS a", "SELECT 1 AS a, 2 AS extra", /2\.parquet has a column extra/],
    ["SELECT 1 AS a, 2 AS gone", "SELECT 1 AS a", /1\.parquet has a column gone/],
    ["SELECT {'x': 1} AS s", "SELECT {'x': 1::BIGINT} AS s", /column s is STRUCT/],
  ])("files that differ: %s and %s", async (one, two, expected) => {
    const at = place();
    await parquet(at("t/1.parquet"), one);
    await parquet(at("t/2.parquet"), two);
    const { code, message } = await failing(at("."));
    expect(code).toBe("INVALID_ARGUMENT");
    expect(message).toMatch(expected);
  });

  it("files with their columns in another order are one table", async () => {
    const at = place();
    await parquet(at("t/1.parquet"), "SELECT 1 AS a, 'x' AS b");
    await parquet(at("t/2.parquet"), "SELECT 'y' AS b, 2 AS a");
    await withCatalog(at("."), async (catalog) => {
      const table = tableOf(catalog, "t");
      expect(await sum(catalog.scanSql(table, ["a"], table.parts, null))).toEqual(["2", "3"]);
    });
  });

  it.each([
    ["a,b\n1,2\n", "a,c\n1,2\n", /column 2 is b in .*1\.csv and c in .*2\.csv/],
    ["a,b\n1,2\n", "a,b,c\n1,2,3\n", /1\.csv has 2 columns and .*2\.csv has 3/],
    ["a,b\n1,2\n3,4\n", "a;b\n1;2\n3;4\n", /delimited/],
    ["a,b\n1,2\n3,4\n", "5,6\n7,8\n", /1\.csv begins with the names of its columns and .*2\.csv does not/],
  ])("CSV that differs: %j and %j", async (one, two, expected) => {
    const at = place();
    writeFileSync(at("t/1.csv"), one);
    writeFileSync(at("t/2.csv"), two);
    const { code, message } = await failing(at("."));
    expect(code).toBe("INVALID_ARGUMENT");
    expect(message).toMatch(expected);
  });

  it("formats that are mixed, and CSV that is none", async () => {
    const mixed = place();
    writeFileSync(mixed("t/1.csv"), "a\n1\n");
    await parquet(mixed("t/2.parquet"), "SELECT 1 AS a");
    expect((await failing(mixed("."))).message).toMatch(/1\.csv is csv, .*2\.parquet is parquet/);
    const binary = place();
    writeFileSync(binary("t.csv"), Buffer.from([65, 0, 66]));
    expect(await failing(binary("."))).toMatchObject({ code: "CORRUPT" });
    const packed = place();
    writeFileSync(packed("t.csv"), gzipSync("a\n1\n"));
    expect((await failing(packed("."))).message).toContain(".gz");
  });
});

it("does not look at tables that the SQL does not mention", async () => {
  const at = place();
  await parquet(at("good.parquet"), "SELECT 1 AS a");
  await parquet(at(`a "b".parquet`), "SELECT 1 AS a");
  writeFileSync(at("bad.parquet"), "rubbish");
  const catalog = await openCatalog(at("."), { mentionedIn: `SELECT * FROM GOOD, "a ""b"""` });
  expect([...catalog.tables.keys()].sort()).toEqual([`a "b"`, "good"]);
  await catalog.close();
  const none = await openCatalog(at("."), { mentionedIn: "SELECT 1" });
  expect(none.tables.size).toBe(0);
  await none.close();
});
