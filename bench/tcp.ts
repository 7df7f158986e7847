/**
 * Reads and writes over TCP: small objects by what they cost the daemon, against Redis with as many requests in
 * flight; large ones against a plain C copy over a loopback socket.
 */
import { cppClient, cppClientUsable } from "./cpp_client.js";
import type { Daemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns, usedWhile } from "./measure.js";
import { socketCopy, socketCopyUsable } from "./socket_copy.js";
import { Workbench } from "./workbench.js";

const KEYS = 10_000;
const SMALL_BYTES = 1024;
const IN_FLIGHT = 64;
const LARGE = [
  { label: "1 MiB", sizeBytes: 1 << 20, inFlight: 4, keys: 16 },
  { label: "64 MiB", sizeBytes: 64 << 20, inFlight: 1, keys: 2 },
];

type Verb = "get" | "put";

export function runGet(options: BenchOptions): Promise<BenchFigure[]> {
  return run("get", options);
}

export function runPut(options: BenchOptions): Promise<BenchFigure[]> {
  return run("put", options);
}

async function run(verb: Verb, options: BenchOptions): Promise<BenchFigure[]> {
  await using workbench = new Workbench(options);
  const daemon = await workbench.daemon();
  const figures = await small(verb, workbench, daemon);
  for (const size of LARGE) figures.push(await large(verb, workbench, daemon, size));
  return figures;
}

async function small(verb: Verb, workbench: Workbench, daemon: Daemon): Promise<BenchFigure[]> {
  const { options } = workbench;
  const redis = await workbench.redis();
  const keys = Math.max(100, Math.round(KEYS * options.scale));
  const load = { keys, sizeBytes: SMALL_BYTES };
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 4 * keys * SMALL_BYTES });
  await client.run("fill", { ...load, seconds: options.seconds });
  await redis?.fill({ door: "tcp", ...load });
  const cpp = cppClientUsable(options);
  const command = verb === "get" ? "get" : "set";
  const turns = await takeTurns(options, 0.5, {
    javascript: (seconds) =>
      usedWhile(daemon.pid, () => client.run(verb, { ...load, inFlight: IN_FLIGHT, seconds })),
    cpp:
      cpp === null
        ? null
        : (seconds: number) =>
            usedWhile(daemon.pid, () =>
              cppClient(cpp, daemon, `${verb}-tcp`, { ...load, pipeline: IN_FLIGHT, seconds }, options),
            ),
    redis:
      redis === null
        ? null
        : (seconds: number) =>
            usedWhile(redis.pid, () => redis.drive({ command, door: "tcp", pipeline: IN_FLIGHT, ...load }, seconds)),
  });
  await client.stop();
  await redis?.stop();

  const redisName = (what: string) =>
    redis === null ? "Redis is not installed" : `Redis ${command.toUpperCase()}, pipeline ${IN_FLIGHT}, ${what}`;
  const perCore = {
    name: redisName("per core"),
    figure: medianOf(turns.redis, ({ result, used }) => rounded(result.operations / used.cpuSeconds)),
  };
  const wall = {
    name: redisName("wall"),
    figure: medianOf(turns.redis, ({ result }) => rounded(result.operationsPerSecond)),
  };
  const figures: BenchFigure[] = [];
  const contenders = [
    ["C++", turns.cpp.map(({ result, used }) => ({ used, ...result }))],
    ["JavaScript", turns.javascript.map(({ result, used }) => ({ used, ...result }))],
  ] as const;
  for (const [language, samples] of contenders) {
    if (samples.length === 0) continue;
    const operations = samples.reduce((sum, sample) => sum + sample.operations, 0);
    const faults = samples.reduce((sum, sample) => sum + sample.used.pageFaults, 0);
    const details = {
      inFlight: IN_FLIGHT,
      objects: keys,
      daemonPageFaultsPerOperation: rounded(faults / operations, 3),
    };
    const rates = samples.map((sample) => ({
      perCore: sample.operations / sample.used.cpuSeconds,
      wall: sample.operations / sample.seconds,
    }));
    figures.push(
      comparedFigure(
        `1 KiB per daemon core, ${language} client`,
        rounded(median(rates.map((rate) => rate.perCore))),
        "ops/s",
        perCore,
        ">= 1.5x (stretch 3x)",
        details,
      ),
      comparedFigure(
        `1 KiB by the clock, ${language} client`,
        rounded(median(rates.map((rate) => rate.wall))),
        "ops/s",
        wall,
        null,
        details,
      ),
    );
  }
  return figures;
}

async function large(
  verb: Verb,
  workbench: Workbench,
  daemon: Daemon,
  size: (typeof LARGE)[number],
): Promise<BenchFigure> {
  const { options } = workbench;
  const { label, ...load } = size;
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 4 * load.keys * load.sizeBytes });
  await client.run("fill", { ...load, seconds: options.seconds });
  const program = socketCopyUsable(options);
  const turns = await takeTurns(options, 0.25, {
    ours: (seconds) => usedWhile(daemon.pid, () => client.run(verb, { ...load, seconds })),
    copy: program === null ? null : (seconds: number) => socketCopy(program, load.sizeBytes, seconds, options),
  });
  await client.stop();
  const gibibytes = (bytes: number) => bytes / 1024 ** 3;
  return comparedFigure(
    `${label}, JavaScript client`,
    rounded(median(turns.ours.map(({ result }) => result.bytes / result.seconds))),
    "B/s",
    {
      name: program === null ? "socket_copy is not built" : "plain C socket copy, loopback",
      figure: medianOf(turns.copy, (sample) => rounded(sample)),
    },
    ">= 0.8 (stretch 0.95)",
    {
      inFlight: load.inFlight,
      daemonCpuSecondsPerGiB: rounded(median(turns.ours.map(({ result, used }) => used.cpuSeconds / gibibytes(result.bytes)))),
      clientPageFaultsPerMiB: rounded(
        median(turns.ours.map(({ result }) => (result.pageFaults * 1024 ** 2) / result.bytes)),
        3,
      ),
      daemonPageFaultsPerMiB: rounded(
        median(turns.ours.map(({ result, used }) => (used.pageFaults * 1024 ** 2) / result.bytes)),
        3,
      ),
    },
  );
}
