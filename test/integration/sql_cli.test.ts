/** `millrace sql` as users run it: what it prints, what it refuses, and what is left behind. */
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import { openEngine, queryTexts, quoteText, runStatement } from "../../workloads/sql/duckdb.js";
import { millraceCommand } from "../support/daemon.js";

let folder: string;
let temporary: string;
let data: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "millrace-sql-cli-"));
  temporary = join(folder, "tmp");
  data = join(folder, "data");
  mkdirSync(temporary);
  mkdirSync(join(data, "sales"), { recursive: true });
  const engine = openEngine({ threads: 1 });
  for (const part of [0, 1, 2]) {
    const select = `SELECT i AS id, i % 5 AS shop, ((i % 1000) / 10)::DECIMAL(9, 2) AS price FROM range(${part} * 9000, ${part + 1} * 9000) r(i)`;
    const path = quoteText(join(data, "sales", `${part}.parquet`));
    await runStatement(engine, `COPY (${select}) TO ${path} (FORMAT parquet, ROW_GROUP_SIZE 2048)`);
  }
  await engine.close();
  writeFileSync(join(data, "shops.csv"), 'shop,name\n0,Äpfel\n1,"B, C"\n2,\n3,D\n4,E\n');
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function millraceSql(
  args: readonly string[],
  input = "",
  env: Record<string, string> = {},
): Promise<Outcome> {
  const [program, ...leading] = millraceCommand();
  return new Promise((resolve) => {
    const child = spawn(program, [...leading, "sql", ...args], {
      cwd: packageRoot(),
      env: { ...process.env, TMPDIR: temporary, ...env },
    });
    const outcome: Outcome = { code: null, stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      outcome.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      outcome.stderr += text;
    });
    child.on("close", (code) => resolve({ ...outcome, code }));
    child.stdin.end(input);
  });
}

/** What the command left in its temporary folder, but for the caches of the TypeScript loader. */
function leftovers(): string[] {
  return readdirSync(temporary).filter((name) => !name.startsWith("tsx-") && name !== "node-compile-cache");
}

const NODE = ["--dram", "1GiB", "--huge-pages", "off", "--workers", "2"] as const;
const SQL =
  "SELECT name, count(*) AS n, sum(price) AS total FROM sales JOIN shops USING (shop) GROUP BY name ORDER BY total DESC, name";

async function good(args: readonly string[], input = ""): Promise<string> {
  const { code, stdout, stderr } = await millraceSql(args, input);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(leftovers()).toEqual([]);
  return stdout;
}

describe("prints", () => {
  it("the same on function workers as DuckDB alone, in every format", async () => {
    for (const format of ["table", "csv", "json"]) {
      const args = ["--data", data, "--sql", SQL, "--format", format];
      const distributed = await good([...args, ...NODE, "--broadcast-bytes", "0", "--partitions", "3"]);
      expect(distributed).toBe(await good([...args, "--single", "--workers", "2"]));
      expect(distributed.split("\n").length).toBeGreaterThan(5);
    }
  });

  it("a query from a file, and from standard input, whatever ends it", async () => {
    const file = join(folder, "query.sql");
    writeFileSync(file, "SELECT count(*) AS n FROM sales; -- all\n");
    expect(await good(["--data", data, "--query", file, "--format", "csv", ...NODE])).toBe("n\r\n27000\r\n");
    const text = "SELECT max(id) AS m FROM sales;\n";
    expect(await good(["--data", data, "--query", "-", "--format", "csv", ...NODE], text)).toBe(
      "m\r\n26999\r\n",
    );
  });

  it("one document with --json", async () => {
    const report = join(folder, "report.html");
    const text = await good(["--data", data, "--sql", SQL, "--json", "--report", report, ...NODE]);
    const document = JSON.parse(text) as Record<string, unknown> & { stages: object[]; result: unknown[][] };
    expect(document).toMatchObject({ workload: "sql", rows: 5, workers: 2, retries: 0, store: "millrace" });
    expect(document.columns).toEqual([
      { name: "name", type: "VARCHAR" },
      { name: "n", type: "BIGINT" },
      { name: "total", type: "DECIMAL(38,2)" },
    ]);
    expect(document.result).toHaveLength(5);
    expect(document.result.map((row) => row[0])).toContain(null);
    expect(document.stages.length).toBeGreaterThan(0);
    for (const key of ["id", "label", "output", "tasks", "rows", "bytes", "seconds", "skew"]) {
      expect(document.stages[0]).toHaveProperty(key);
    }
    expect(document).toHaveProperty("exchange.byTransport.shm");
    expect(document).toHaveProperty("exchange.byTier.dram");
    expect(Object.keys(document.time as object).sort()).toEqual(["compute", "exchange", "input", "output"]);
    expect(readFileSync(report, "utf8")).toContain('class="stage"');
  });

  it("no rows in a document where there are many", async () => {
    const text = await good(["--data", data, "--sql", "SELECT id FROM sales", "--json", ...NODE]);
    const document = JSON.parse(text) as Record<string, unknown>;
    expect(document.rows).toBe(27_000);
    expect(document).not.toHaveProperty("result");
    expect(document.resultOmitted).toContain("27000");
  });

  it("the stages with --explain, and runs nothing", async () => {
    const text = await good(["--data", data, "--sql", SQL, "--explain", "--broadcast-bytes", "0"]);
    expect(text).toMatch(/table sales \(.*27,000 rows/);
    const document = JSON.parse(await good(["--data", data, "--sql", SQL, "--explain", "--json"])) as {
      explain: boolean;
      stages: object[];
    };
    expect(document.explain).toBe(true);
    expect(document.stages.length).toBeGreaterThan(0);
  });
});

describe("writes Parquet parts", () => {
  it("in the order of the query, and only into a directory of its own", async () => {
    const output = join(folder, "out");
    const sql = "SELECT id, shop AS s, 1 AS S FROM sales ORDER BY id DESC";
    const args = ["--data", data, "--sql", sql, "--output", output, ...NODE];
    const document = JSON.parse(await good([...args, "--json"])) as {
      rows: number;
      output: { parts: object[] };
    };
    expect(document.rows).toBe(27_000);
    const names = readdirSync(output).sort();
    expect(names[0]).toBe("part-00000.parquet");
    expect(document.output.parts).toHaveLength(names.length);
    const engine = openEngine({ threads: 1 });
    const files = names.map((name) => quoteText(join(output, name))).join(", ");
    const read = `SELECT CAST(id AS VARCHAR), CAST(s AS VARCHAR), CAST("S_1" AS VARCHAR) FROM read_parquet([${files}])`;
    const rows = await queryTexts(engine, read);
    await engine.close();
    expect(rows.map(([id]) => Number(id))).toEqual(Array.from({ length: 27_000 }, (_, i) => 26_999 - i));
    const again = await millraceSql(args);
    expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining("--force") });
    writeFileSync(join(output, "notes.txt"), "mine");
    await good([...args, "--force"]);
    await good(["--data", data, "--sql", sql, "--output", output, "--force", "--single"]);
    expect(readdirSync(output).sort()).toEqual(["notes.txt", "part-00000.parquet"]);
  });

  it("leaves no directory when the query fails", async () => {
    const output = join(folder, "never");
    const sql = "SELECT CAST(CAST(id AS VARCHAR) || 'x' AS INTEGER) FROM sales";
    for (const mode of [NODE, ["--single"]]) {
      const { code, stderr, stdout } = await millraceSql([
        "--data",
        data,
        "--sql",
        sql,
        "--output",
        output,
        ...mode,
      ]);
      expect(code).toBe(1);
      expect(stderr).toContain("Conversion Error");
      expect(stdout).toBe("");
      expect(existsSync(output)).toBe(false);
      expect(leftovers()).toEqual([]);
    }
  });
});

it("a reader that goes away is no failure, and nothing is left", async () => {
  const [program, ...leading] = millraceCommand();
  const sql = "SELECT shops.*, id FROM sales, shops, range(20)";
  const child = spawn(
    program,
    [...leading, "sql", "--data", data, "--sql", sql, "--format", "csv", ...NODE],
    {
      cwd: packageRoot(),
      env: { ...process.env, TMPDIR: temporary },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  child.stdout.once("data", () => child.stdout.destroy());
  expect(await new Promise((resolve) => child.once("exit", resolve))).toBe(0);
  await expect.poll(leftovers, { timeout: 10_000 }).toEqual([]);
});

describe("refuses", () => {
  it.each<[string, string[], number, RegExp]>([
    ["no query", [], 2, /--query FILE or with --sql TEXT/],
    ["two queries", ["--sql", "SELECT 1", "--query", "x"], 2, /one of them/],
    ["a file that is not there", ["--query", "/nix.sql"], 2, /cannot be read/],
    ["several statements", ["--sql", "SELECT 1; SELECT 2"], 2, /2 statements/],
    ["what is no SELECT", ["--sql", "DROP TABLE sales"], 2, /only a SELECT/],
    ["what is no SQL", ["--sql", "SELEC 1"], 1, /syntax error.*line 1/],
    ["an unknown table", ["--sql", "SELECT * FROM nix"], 1, /nix/],
    ["an unknown column", ["--sql", "SELECT nix FROM sales", "--single"], 1, /nix/],
    ["an unknown format", ["--sql", "SELECT 1", "--format", "xml"], 2, /table, csv, json/],
    ["a format of a document", ["--sql", "SELECT 1", "--json", "--format", "csv"], 2, /--format/],
    ["flags that mean nothing", ["--sql", "SELECT 1", "--single", "--store", "file:///x"], 2, /--store/],
    ["both modes", ["--sql", "SELECT 1", "--single", "--explain"], 2, /one of them/],
    ["no partitions", ["--sql", "SELECT 1", "--partitions", "0"], 2, /1 to 4096/],
    ["a size that is none", ["--sql", "SELECT 1", "--memory", "much"], 2, /--memory/],
    ["an unknown store", ["--sql", "SELECT 1", "--store", "ftp://x"], 2, /ftp/],
    ["output elsewhere", ["--sql", "SELECT 1", "--output", "s3://b/x"], 2, /no directory/],
  ])("%s", async (_, args, expected, message) => {
    const { code, stdout, stderr } = await millraceSql(["--data", data, ...args]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(code).toBe(expected);
    expect(leftovers()).toEqual([]);
  });

  it("data that is not there, or elsewhere, and a machine without DuckDB", async () => {
    const nowhere = await millraceSql(["--data", join(folder, "nix"), "--sql", "SELECT 1"]);
    expect(nowhere).toMatchObject({ code: 1, stderr: expect.stringContaining("no such directory") });
    const elsewhere = await millraceSql(["--data", "s3://bucket/x", "--sql", "SELECT 1"]);
    expect(elsewhere).toMatchObject({ code: 1, stderr: expect.stringContaining("local directory") });
    const without = await millraceSql(["--data", data, "--sql", "SELECT 1"], "", {
      MILLRACE_DUCKDB: "/nix.so",
    });
    expect(without).toMatchObject({ code: 1, stderr: expect.stringContaining("MILLRACE_DUCKDB") });
  });
});
