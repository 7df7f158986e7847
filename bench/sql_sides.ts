/** The two sides of a comparison: DuckDB alone, and Millrace's function workers, over the same files. */
import { randomBytes } from "node:crypto";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import type { Catalog } from "../workloads/sql/catalog.js";
import {
  runSql,
  type SqlOptions,
  type SqlRun,
  type SqlSurroundings,
  warmUpSql,
} from "../workloads/sql/driver.js";
import type { Expectation, SqlAnswer } from "./sql_answers.js";
import { orderingOf, quoted } from "./sql_syntax.js";

/** What an answer is ordered by, in SQL, over columns with the answer's names; a number: that column. */
export type Keys = readonly (string | number)[];

export interface SingleRun {
  seconds: number;
  rows: number;
}

/** DuckDB alone, in this process, through its own package. */
export class SingleNode {
  readonly #instance: DuckDBInstance;
  readonly #connection: DuckDBConnection;

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection) {
    this.#instance = instance;
    this.#connection = connection;
  }

  static async open(catalog: Catalog, threads: number): Promise<SingleNode> {
    const instance = await DuckDBInstance.create(":memory:", { threads: String(threads) });
    const connection = await instance.connect();
    for (const table of catalog.tables.values()) await connection.run(catalog.singleViewSql(table));
    return new SingleNode(instance, connection);
  }

  get connection(): DuckDBConnection {
    return this.#connection;
  }

  /** Runs a query to its end; the rows stay where they are. */
  async run(sql: string): Promise<SingleRun> {
    const startMs = performance.now();
    const { rowCount } = await this.#connection.run(sql);
    return { seconds: (performance.now() - startMs) / 1000, rows: rowCount };
  }

  /** What the answer must be, and how its rows are to be ordered. */
  async expect(sql: string): Promise<Expectation & { keys: Keys; seconds: number }> {
    const described = (await this.#connection.runAndReadAll(`DESCRIBE ${sql}`)).getRows() as string[][];
    const names = described.map(([name]) => name as string);
    const types = described.map(([, type]) => type as string);
    const { keys, limited, unlimited } = await orderingOf(this.#connection, sql, names);
    const startMs = performance.now();
    await this.#connection.run(`CREATE OR REPLACE TEMP TABLE ${ANSWER} AS ${sql}`);
    const seconds = (performance.now() - startMs) / 1000;
    const { answer, keyTypes } = await this.#read(names, types, keys);
    return {
      answer,
      keyTypes,
      keys,
      limited,
      seconds,
      unlimited: async () => {
        await this.#connection.run(`CREATE OR REPLACE TEMP TABLE ${ANSWER} AS ${unlimited ?? sql}`);
        return (await this.#read(names, types, keys)).answer;
      },
    };
  }

  async #read(names: readonly string[], types: readonly string[], keys: Keys) {
    const columns = (await this.#connection.runAndReadAll(`DESCRIBE ${ANSWER}`)).getRows() as string[][];
    const source = columns.map(([name], i) => `${quoted(name as string)} AS c${i}`).join(", ");
    const from = `(SELECT ${source} FROM ${ANSWER})`;
    const result = await this.#connection.runAndReadAll(answerSql(names, keys, from));
    const rows = result.getRows() as (string | null)[][];
    const typed = await this.#connection.runAndReadAll(`DESCRIBE ${keySql(names, keys, from)}`);
    const keyTypes =
      keys.length === 0 ? [] : (typed.getRows() as string[][]).map(([, type]) => type as string);
    return { answer: split(names, types, rows), keyTypes };
  }

  /** Ends what runs; it rejects. */
  interrupt(): void {
    this.#connection.interrupt();
  }

  close(): void {
    this.#connection.closeSync();
    this.#instance.closeSync();
  }
}

/** A name that no table has. */
const ANSWER = '"the answer"';

export interface Distributed {
  catalog: Catalog;
  workers: number;
  surroundings: SqlSurroundings;
  /** Where it is not to be by default. */
  partitions?: number;
  broadcastBytes?: number;
  threads?: number;
  taskSizes?: SqlOptions["taskSizes"];
}

/** Runs a query on function workers. */
export async function runDistributed(sql: string, side: Distributed): Promise<SqlRun> {
  return runSql(optionsOf(sql, side), side.surroundings);
}

export async function warmUp(side: Distributed): Promise<void> {
  await warmUpSql(optionsOf("", side), side.surroundings);
}

function optionsOf(sql: string, side: Distributed): SqlOptions {
  return {
    sql,
    catalog: side.catalog,
    store: { kind: "millrace" },
    workers: side.workers,
    partitions: side.partitions ?? null,
    broadcastBytes: side.broadcastBytes ?? null,
    memoryBytes: null,
    threads: side.threads ?? 1,
    output: null,
    run: `sql-${randomBytes(6).toString("hex")}`,
    ...(side.taskSizes === undefined ? {} : { taskSizes: side.taskSizes }),
  };
}

/** The rows of a run, which are gone from the store afterwards. */
export async function answerOf({ result }: SqlRun, keys: Keys): Promise<SqlAnswer> {
  if (result === null) throw new Error("the rows went to a directory");
  try {
    const names = result.columns.map(({ name }) => name);
    const types = result.columns.map(({ type }) => type);
    const read = await result.query(answerSql(names, keys, "rows_in('result')"));
    try {
      const columns = read.names.map((_, column) => read.texts(column, 0, read.rows));
      const rows = Array.from({ length: read.rows }, (_, row) =>
        columns.map((column) => column[row] ?? null),
      );
      return split(names, types, rows);
    } finally {
      read.close();
    }
  } finally {
    await result.close();
  }
}

/** All as text: the columns c0, c1, … of a relation, and then the keys. */
function answerSql(names: readonly string[], keys: Keys, from: string): string {
  const columns = names.map((_, i) => `CAST(c${i} AS VARCHAR)`);
  const ordered = keySql(names, keys, from, (key) => `CAST(${key} AS VARCHAR)`, columns);
  return ordered;
}

function keySql(
  names: readonly string[],
  keys: Keys,
  from: string,
  asWritten = (key: string): string => key,
  before: readonly string[] = [],
): string {
  // A key that is SQL uses names, of which any may be there twice: the first one counts.
  const named = names.flatMap((name, i) =>
    names.findIndex((other) => other.toLowerCase() === name.toLowerCase()) === i
      ? [`c${i} AS ${quoted(name)}`]
      : [],
  );
  const selected = keys.map((key) => asWritten(typeof key === "number" ? `c${key}` : `(${key})`));
  const plain = keys.every((key) => typeof key === "number");
  const source = plain ? from : `(SELECT *, ${named.join(", ")} FROM ${from})`;
  return `SELECT ${[...before, ...selected].join(", ") || "0"} FROM ${source}`;
}

function split(names: readonly string[], types: readonly string[], rows: (string | null)[][]): SqlAnswer {
  return {
    names,
    types,
    rows: rows.map((row) => row.slice(0, names.length)),
    keys: rows.map((row) => row.slice(names.length)),
  };
}
