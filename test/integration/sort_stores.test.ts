/** The same sort with its exchange through other stores. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import { examine, makeRecords, readParts, sortDocument, startSort, Workplace } from "./sort_helpers.js";

const RECORDS = 100_000;

function shuffled(): Buffer {
  return makeRecords(RECORDS, (i) => {
    const key = Buffer.alloc(10);
    key.writeUInt32BE(Math.imul(i, 2_654_435_761) >>> 0, 0);
    return key;
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

describe("file://", () => {
  it("exchanges through files and removes them", async () => {
    using place = new Workplace();
    const records = shuffled();
    const input = place.write("input", records);
    const store = `file://${place.at("deep/store")}`;
    const document = await sortDocument(place, [
      "--input",
      input,
      "--output",
      place.at("out"),
      "--workers",
      "2",
      "--partitions",
      "5",
      "--store",
      store,
    ]);
    expect(document).toMatchObject({ validated: true, store: "file" });
    expect(document.exchange).toEqual({
      bytes: records.length,
      byTransport: { shm: 0, tcp: 0, grpc: 0, file: records.length },
      byTier: { dram: 0, nvme: 0 },
    });
    expect(examine(readParts(place.at("out")))).toEqual({ ...examine([records]), unordered: 0 });
    expect(existsSync(place.at("deep"))).toBe(false);
  });

  it("leaves a directory that was there", async () => {
    using place = new Workplace();
    mkdirSync(place.at("store"));
    await sortDocument(place, ["--input", "gen:1000", "--store", `file://${place.at("store")}`]);
    expect(readdirSync(place.at("store"))).toEqual([]);
  });

  it("says where it cannot write", async () => {
    using place = new Workplace();
    place.write("file", Buffer.alloc(1));
    const { code, stderr } = await startSort(place, [
      "--input",
      "gen:1000",
      "--store",
      `file://${place.at("file/below")}`,
    ]).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/the exchange in .* failed/);
  });
});

describe("redis://", () => {
  let server: ChildProcess;
  let url: string;
  let redis: Redis;

  beforeAll(async () => {
    const port = await freePort();
    server = spawn(
      "redis-server",
      ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
      {
        stdio: "ignore",
      },
    );
    url = `redis://127.0.0.1:${port}`;
    redis = new Redis(url, { retryStrategy: () => 50 });
    redis.on("error", () => undefined);
    await redis.ping();
  });

  afterAll(async () => {
    redis.disconnect();
    server.kill("SIGTERM");
    await once(server, "exit");
  });

  it("exchanges through keys and removes them", async () => {
    using place = new Workplace();
    const records = shuffled();
    const input = place.write("input", records);
    await redis.set("somebody else's", "key");
    const document = await sortDocument(place, [
      "--input",
      input,
      "--output",
      place.at("out"),
      "--workers",
      "2",
      "--partitions",
      "5",
      "--store",
      url,
    ]);
    expect(document).toMatchObject({ validated: true, store: "redis" });
    expect(document.exchange.byTransport).toEqual({ shm: 0, tcp: 0, grpc: 0, redis: records.length });
    expect(examine(readParts(place.at("out")))).toEqual({ ...examine([records]), unordered: 0 });
    expect(await redis.keys("*")).toEqual(["somebody else's"]);
  });

  it("says when Redis is full, and leaves nothing in it", async () => {
    using place = new Workplace();
    await redis.config("SET", "maxmemory", "20mb");
    try {
      const { code, stderr } = await startSort(place, [
        "--input",
        "gen:500000",
        "--workers",
        "2",
        "--store",
        url,
      ]).ended;
      expect(code).toBe(1);
      expect(stderr).toMatch(/Redis at redis:\/\/127.0.0.1:\d+ is full/);
      expect((await redis.keys("millrace:*")).length).toBe(0);
    } finally {
      await redis.config("SET", "maxmemory", "0");
    }
  });
});

/** An S3 server by others; `.ci/run` installs it. */
const motoServer = join(packageRoot(), "build", "moto", "bin", "moto_server");

describe.skipIf(!existsSync(motoServer))("s3://", () => {
  let server: ChildProcess;
  let environment: Record<string, string>;
  beforeAll(async () => {
    const port = await freePort();
    server = spawn(motoServer, ["-H", "127.0.0.1", "-p", String(port)], { stdio: "ignore" });
    const endpoint = `http://127.0.0.1:${port}`;
    environment = {
      AWS_ENDPOINT_URL: endpoint,
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_REGION: "us-east-1",
    };
    for (;;) {
      const made = await fetch(`${endpoint}/sort-bucket`, { method: "PUT" }).catch(() => null);
      if (made?.ok) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
  afterAll(async () => {
    server.kill();
    await once(server, "exit");
  });

  it("exchanges through objects", async () => {
    using place = new Workplace();
    const records = shuffled();
    const input = place.write("input", records);
    Object.assign(process.env, environment);
    const document = await sortDocument(place, [
      "--input",
      input,
      "--output",
      place.at("out"),
      "--workers",
      "2",
      "--partitions",
      "5",
      "--store",
      "s3://sort-bucket/exchange",
    ]);
    expect(document).toMatchObject({ validated: true, store: "s3" });
    expect(document.exchange.byTransport.s3).toBe(records.length);
    expect(examine(readParts(place.at("out")))).toEqual({ ...examine([records]), unordered: 0 });
  });
});
