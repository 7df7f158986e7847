/** The rival Redis: a server of its own, without persistence, driven by redis-benchmark. */
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MillraceError } from "../client/index.js";
import { findProgram, launch, runProgram } from "./processes.js";

export interface Redis {
  readonly pid: number;
  readonly socketPath: string;
  stop(): Promise<void>;
  /** About `seconds` of one connection with `pipeline` requests in flight over `keys` keys. */
  drive(load: RedisLoad, seconds: number): Promise<RedisSample>;
  /** Sets all keys. */
  fill(load: Pick<RedisLoad, "door" | "sizeBytes" | "keys">): Promise<void>;
}

export interface RedisLoad {
  command: "set" | "get";
  door: "unix" | "tcp";
  sizeBytes: number;
  pipeline: number;
  keys: number;
}

export interface RedisSample {
  operations: number;
  operationsPerSecond: number;
  /** Of a whole pipeline. */
  p50Us: number;
}

const START_TIMEOUT_MS = 10_000;
const PROBE_REQUESTS = 20_000;
const REQUESTS_MAX = 20_000_000;

/** Null, with a note, where Redis is not installed. */
export async function startRedis(
  folder: string,
  signal: AbortSignal,
  note: (sentence: string) => void,
): Promise<Redis | null> {
  const server = findProgram("redis-server");
  const benchmark = findProgram("redis-benchmark");
  if (server === null || benchmark === null) {
    note(
      `${server === null ? "redis-server" : "redis-benchmark"} is not installed: no comparison with Redis`,
    );
    return null;
  }
  const socketPath = join(folder, "redis.sock");
  const port = await freePort();
  const launched = await launch([
    server,
    ...["--port", String(port), "--bind", "127.0.0.1", "--unixsocket", socketPath, "--dir", folder],
    ...["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"],
  ]);
  const until = performance.now() + START_TIMEOUT_MS;
  while (!(await answers(socketPath))) {
    if (signal.aborted || launched.child.exitCode !== null || performance.now() > until) {
      await launched.stop("SIGKILL");
      signal.throwIfAborted();
      throw new MillraceError(
        "UNAVAILABLE",
        `redis-server did not start: ${launched.output()}${launched.errors()}`,
      );
    }
    await sleep(20);
  }

  const requestsPerSecond = new Map<string, number>();
  const run = async (load: RedisLoad, requests: number): Promise<RedisSample> => {
    const door = load.door === "unix" ? ["-s", socketPath] : ["-h", "127.0.0.1", "-p", String(port)];
    const text = await runProgram(
      [
        benchmark,
        ...door,
        ...["-t", load.command, "-d", String(load.sizeBytes), "-P", String(load.pipeline)],
        ...["-c", "1", "-n", String(requests), "-r", String(load.keys), "--csv", "--precision", "3"],
      ],
      signal,
    );
    return { operations: requests, ...parseCsv(text) };
  };
  return {
    pid: launched.pid,
    socketPath,
    stop: () => launched.stop(),
    async drive(load, seconds) {
      // redis-benchmark counts requests, not time: the last run tells how many fit.
      const kind = JSON.stringify(load);
      const known = requestsPerSecond.get(kind) ?? (await run(load, PROBE_REQUESTS)).operationsPerSecond;
      const requests = Math.round(Math.min(REQUESTS_MAX, Math.max(PROBE_REQUESTS, known * seconds)));
      const sample = await run(load, requests);
      requestsPerSecond.set(kind, sample.operationsPerSecond);
      return sample;
    },
    async fill(load) {
      // Keys are drawn at random: of n keys, 1 in e^12 stays unset.
      await run({ ...load, command: "set", pipeline: 256 }, load.keys * 12);
    },
  };
}

/** "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms",... and a line of values. */
function parseCsv(text: string): { operationsPerSecond: number; p50Us: number } {
  const rows = text
    .trim()
    .split("\n")
    .map((line) => line.split(",").map((cell) => cell.replaceAll('"', "").trim()));
  const [names, values] = rows.slice(-2);
  const value = (name: string) => Number(values?.[names?.indexOf(name) ?? -1]);
  const operationsPerSecond = value("rps");
  if (!(operationsPerSecond > 0)) {
    throw new MillraceError("INTERNAL", `redis-benchmark wrote something unknown: ${text.slice(0, 300)}`);
  }
  return { operationsPerSecond, p50Us: value("p50_latency_ms") * 1000 };
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((answer) => {
    const probe = connect(socketPath);
    probe.once("connect", () => {
      probe.destroy();
      answer(true);
    });
    probe.once("error", () => answer(false));
  });
}

/** Redis cannot say which port it picked, so one is picked for it. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
