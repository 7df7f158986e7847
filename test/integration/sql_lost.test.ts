/** Function workers that die, outputs that are lost or damaged, and other stores, change nothing about an answer. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Exchanged, ExchangeRead, Output, Share, Stage } from "../../workloads/sql/plan/stage.js";
import { SqlStageRunner } from "../../workloads/sql/stage_runner.js";
import { DEFAULT_TASK_SIZES } from "../../workloads/sql/tasks.js";
import { openExchange, type StoreChoice } from "../../workloads/stores/open.js";
import { type RunChanges, SqlPlace } from "./sql_helpers.js";

/** Everything is cut into as many tasks as there can be, and exchanged through shuffles. */
const SIZES = { taskBytesMin: 1, skewBytesMin: 64 };
const FORCED = { taskSizes: SIZES, smallExchangeBytes: 0 };

const TABLES = {
  "sales.parquet": "SELECT range AS id, (range * 7919) % 997 AS item, range % 5 AS store FROM range(200000)",
  "items.parquet": "SELECT range AS item, 'item ' || range AS name FROM range(990)",
};
const SQL =
  "SELECT name, count(*), sum(id), count(DISTINCT store) FROM sales JOIN items USING (item) GROUP BY name ORDER BY name";

let place: SqlPlace;
let expected: (string | null)[][];

beforeAll(async () => {
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: "ACCESS",
    AWS_SECRET_ACCESS_KEY: "SECRET",
    AWS_REGION: "us-east-1",
  });
  place = await SqlPlace.open(TABLES, {
    daemon: {
      dram: "1GiB",
      args: ["--s3", "127.0.0.1:0", "--access-key", "ACCESS", "--secret-key", "SECRET"],
    },
  });
  expected = await place.expected(SQL);
});

afterAll(async () => {
  await place[Symbol.asyncDispose]();
});

/** Runs the query and kills function workers when a task of its n-th stage has ended. */
async function withKill(stage: number, killed: "one" | "all", changes: RunChanges = {}) {
  let victims: readonly number[] = [];
  const answer = await place.run(SQL, {
    ...FORCED,
    ...changes,
    onProgress: (progress) => {
      if (victims.length > 0 || progress.stage !== stage || progress.fraction === 0) return;
      const { pids } = place.executor.stats();
      victims = killed === "one" ? pids.slice(0, 1) : [...pids];
      for (const pid of victims) process.kill(pid, "SIGKILL");
    },
  });
  expect(victims.length).toBeGreaterThan(0);
  return answer;
}

describe("kill -9 in the middle of a query", () => {
  it.each([
    [0, "one"],
    [0, "all"],
    [1, "one"],
    [2, "all"],
  ] as const)("after a task of stage %i: %s", async (stage, killed) => {
    const { run, rows } = await withKill(stage, killed);
    expect(rows).toEqual(expected);
    expect(run.stages.length).toBeGreaterThan(stage);
    if (killed === "all") expect(run.lostAttempts.some(({ outcome }) => outcome === "lost")).toBe(true);
    expect(await place.leftovers()).toEqual([]);
  });

  it("with the exchange in files", async () => {
    const { rows } = await withKill(1, "all", { store: { kind: "file", directory: place.at("killed") } });
    expect(rows).toEqual(expected);
    expect(readdirSync(place.directory)).not.toContain("killed");
  });
});

describe.each([
  ["shuffles", 0],
  ["objects", 16 << 20],
] as const)("outputs in %s that are gone when they are to be read", (kind, smallExchangeBytes) => {
  let runner: SqlStageRunner;
  let stages = 0;
  const run = `lost-${kind}`;

  beforeAll(() => {
    runner = new SqlStageRunner(
      {
        run,
        catalog: place.catalog,
        store: { kind: "millrace" },
        partitions: 4,
        smallExchangeBytes,
        engine: { threads: 1, memoryBytes: 0, spillDirectory: join(tmpdir(), `millrace-${run}`) },
        sizes: { ...DEFAULT_TASK_SIZES, ...SIZES, workers: availableParallelism() },
      },
      { namespace: place.namespace, executor: place.executor, signal: new AbortController().signal },
    );
  });

  afterAll(async () => {
    await runner.remove();
    rmSync(join(tmpdir(), `millrace-${run}`), { recursive: true });
    expect(await place.leftovers()).toEqual([]);
  });

  function stage(
    sql: string,
    output: Output,
    reads: [Exchanged, Share][],
    table: string | null,
  ): Promise<Exchanged> {
    const exchanges = reads.map(
      ([exchange, share], i): ExchangeRead => ({ name: `exchange_${i}`, exchange, share }),
    );
    const read = { name: "table_0", columns: ["id", "item"], filter: null, share: "split" as const };
    const asked: Stage = {
      id: stages++,
      label: "test",
      sql,
      width: 2,
      tables: table === null ? [] : [{ ...read, table }],
      exchanges,
      output,
      ordered: false,
      last: false,
      estimatedBytes: 0,
      divisible: null,
    };
    return runner.run(asked);
  }

  const hash: Output = { kind: "hash", keys: ["c1"] };
  const gather: Output = { kind: "gather" };

  async function forget(exchange: Exchanged, maps: RegExp): Promise<number> {
    let forgotten = 0;
    for await (const { key } of place.namespace.list({ prefix: "" })) {
      if (!key.includes(`${run}-s${exchange.stage}`) || !maps.test(`${key}.`)) continue;
      if (await place.namespace.delete(key)) forgotten += 1;
    }
    return forgotten;
  }

  async function countOf(exchange: Exchanged): Promise<string> {
    const counted = await stage(
      "SELECT count(*) AS c0, sum(c0)::BIGINT AS c1 FROM exchange_0",
      gather,
      [[exchange, "whole"]],
      null,
    );
    expect(counted.rows).toBe(1);
    return runner.read(counted, async ({ exchange: plan }) => `${plan.maps} ${counted.bytes}`);
  }

  it("are made again, and what they were made of before", async () => {
    const scanned = await stage("SELECT * FROM table_0", hash, [], "sales");
    const rehashed = await stage(
      "SELECT * FROM exchange_0",
      { kind: "hash", keys: ["c0"] },
      [[scanned, "split"]],
      null,
    );
    expect([scanned.rows, rehashed.rows]).toEqual([200_000, 200_000]);
    const { retries } = runner;
    expect(await forget(scanned, /\/m[01]\./)).toBe(2);
    expect(await forget(rehashed, /\/m[12]\./)).toBe(2);
    const counted = await stage(
      "SELECT count(*) AS c0, sum(c0) AS c1 FROM exchange_0",
      gather,
      [[rehashed, "split"]],
      null,
    );
    expect(counted.rows).toBeGreaterThan(1);
    // Two of each kind, and every task that wanted to read them.
    expect(runner.retries - retries).toBeGreaterThanOrEqual(6);
    const again = runner.stages.find(({ id }) => id === scanned.stage);
    expect(again?.calls.filter(({ task }) => task === 0).length).toBe(2);
    const all = await stage("SELECT c0, c1 FROM exchange_0", gather, [[rehashed, "split"]], null);
    expect(all).toMatchObject({ rows: 200_000 });
  });

  it("are made again where there is only one", async () => {
    const one = await stage("SELECT 1 AS c0, 2 AS c1", gather, [], null);
    expect(await forget(one, /./)).toBe(1);
    expect(await countOf(one)).toMatch(/^1 /);
    expect(await forget(one, /./)).toBe(1);
    const read = runner.read(one, async ({ exchange: plan }) => {
      return (await openExchange({ kind: "millrace" }, plan, place.namespace)).readRun(0, 1, null);
    });
    expect((await read).sizeBytes).toBe(one.bytes);
  });

  it("are made again for ranges", async () => {
    const order = [{ expression: "c1", descending: false, nullsFirst: false }];
    const ranges = await stage(
      "SELECT c0, c1, repeat('x', 300) AS c2 FROM table_0",
      { kind: "range", order },
      [],
      "sales",
    );
    expect(ranges.partitions).toBeGreaterThan(1);
    expect(ranges.rows).toBe(200_000);
    expect(await forget(ranges, /\/m0\./)).toBe(2);
    const all = await stage("SELECT c0, c1 FROM exchange_0", gather, [[ranges, "split"]], null);
    expect(all.rows).toBe(200_000);
  });
});

describe("a flipped byte", () => {
  /** Runs the query through files, and damages what a stage has left as soon as all of it is there. */
  async function withDamage(stage: number) {
    const directory = place.at("damaged");
    const run = "sql-damage";
    let damaged = 0;
    const answer = await place.run(SQL, {
      run,
      store: { kind: "file", directory },
      ...FORCED,
      onProgress: (progress) => {
        if (progress.stage !== stage || progress.fraction < 1 || damaged > 0) return;
        const folder = join(directory, `millrace-${run}-s${stage}`);
        for (const name of readdirSync(folder).filter((each) => each.endsWith(".data"))) {
          const bytes = readFileSync(join(folder, name));
          if (bytes.length === 0) continue;
          bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 4;
          writeFileSync(join(folder, name), bytes);
          damaged += 1;
        }
      },
    });
    expect(damaged).toBeGreaterThan(0);
    return answer;
  }

  it.each([0, 1, 2])("in everything that stage %i left is noticed, and made good", async (stage) => {
    const { run, rows } = await withDamage(stage);
    expect(rows).toEqual(expected);
    expect(run.retries).toBeGreaterThan(0);
  });
});

describe("other stores", () => {
  let server: ChildProcess;
  let redis: Redis;
  const choices: Record<string, StoreChoice> = {};

  beforeAll(async () => {
    choices.file = { kind: "file", directory: place.at("store") };
    const port = await freePort();
    const flags = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    server = spawn("redis-server", flags, { stdio: "ignore" });
    choices.redis = { kind: "redis", url: `redis://127.0.0.1:${port}` };
    redis = new Redis(choices.redis.url, { retryStrategy: () => 50 });
    redis.on("error", () => undefined);
    await redis.ping();
    await place.client.createNamespace("sql-bucket");
    choices.s3 = { kind: "s3", url: "s3://sql-bucket/below" };
  });

  afterAll(async () => {
    redis.disconnect();
    server.kill("SIGTERM");
    await once(server, "exit");
  });

  it.each(["file", "redis", "s3"])("%s", async (kind) => {
    const store = choices[kind] as StoreChoice;
    const { run, rows } = await place.run(SQL, { store, ...FORCED });
    expect(rows).toEqual(expected);
    expect(run.exchange.byTransport).toEqual({ shm: 0, tcp: 0, grpc: 0, [kind]: run.exchange.bytes });
    expect(run.exchange.byTier).toEqual({ dram: 0, nvme: 0 });
    expect(await place.leftovers()).toEqual([]);
    expect(readdirSync(place.directory)).not.toContain("store");
    expect(await redis.keys("*")).toEqual([]);
    await using bucket = await place.client.openNamespace("sql-bucket");
    expect((await bucket.listPage()).objects).toEqual([]);
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}
