/**
 * Reads and writes over TCP: small objects by what they cost the daemon, against Redis with as many requests in
 * flight; large ones against a plain C copy over a loopback socket.
 */
import { cppClient } from "./cpp_client.js";
import type { Daemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns, usedWhile } from "./measure.js";
import { socketCopy } from "./socket_copy.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const KEYS = 10_000;
const SMALL_BYTES = 1024;
const IN_FLIGHT = 64;
const LARGE = [
  { label: "1 MiB", sizeBytes: 1 << 20, inFlight: 4, keys: 16 },
  { label: "64 MiB", sizeBytes: 64 << 20, inFlight: 1, keys: 2 },
];

type Verb = "get" | "put";

export function runGet(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, (workbench) => measure("get", workbench));
}

export function runPut(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, (workbench) => measure("put", workbench));
}

async function measure(verb: Verb, workbench: Workbench): Promise<BenchFigure[]> {
  const daemon = await workbench.daemon();
  const figures = await small(verb, workbench, daemon);
  for (const size of LARGE) figures.push(...(await large(verb, workbench, daemon, size)));
  return figures;
}

async function small(verb: Verb, workbench: Workbench, daemon: Daemon): Promise<BenchFigure[]> {
  const { options } = workbench;
  const redis = await workbench.redis();
  const keys = Math.max(100, Math.round(KEYS * options.scale));
  const load = { keys, sizeBytes: SMALL_BYTES, inFlight: IN_FLIGHT };
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 4 * keys * SMALL_BYTES });
  await client.run("fill", load);
  await redis?.fill({ door: "tcp", keys, sizeBytes: SMALL_BYTES });
  const cpp = cppClient(daemon, options);
  const command = verb === "get" ? "get" : "set";
  const turns = await takeTurns(options, 0.5, {
    cpp: cpp === null ? null : (seconds: number) => cpp({ mode: verb, door: "tcp", ...load }, seconds),
    javascript: (seconds) => usedWhile(daemon.pid, () => client.run(verb, { ...load, seconds })),
    redis:
      redis === null
        ? null
        : (seconds: number) =>
            usedWhile(redis.pid, () =>
              redis.drive(
                { command, door: "tcp", keys, sizeBytes: SMALL_BYTES, pipeline: IN_FLIGHT },
                seconds,
              ),
            ),
  });
  await client.stop();
  await redis?.stop();

  const redisName = (what: string) =>
    redis === null
      ? "Redis is not installed"
      : `Redis ${command.toUpperCase()}, pipeline ${IN_FLIGHT}, ${what}`;
  const perCore = {
    name: redisName("per core"),
    figure: medianOf(turns.redis, ({ result, used }) => rounded(result.operations / used.cpuSeconds)),
  };
  const wall = {
    name: redisName("by the clock"),
    figure: medianOf(turns.redis, ({ result }) => rounded(result.operationsPerSecond)),
  };
  const details = { inFlight: IN_FLIGHT, objects: keys };
  const figures = (
    language: string,
    coreRates: number[],
    wallRates: number[],
    more: object,
  ): BenchFigure[] => [
    comparedFigure(
      `1 KiB per daemon core, ${language} client`,
      rounded(median(coreRates)),
      "ops/s",
      perCore,
      ">= 1.5x (stretch 3x)",
      { ...details, ...more },
    ),
    comparedFigure(
      `1 KiB by the clock, ${language} client`,
      rounded(median(wallRates)),
      "ops/s",
      wall,
      null,
      details,
    ),
  ];
  const operations = turns.javascript.reduce((sum, { result }) => sum + result.operations, 0);
  const faults = turns.javascript.reduce((sum, { used }) => sum + used.pageFaults, 0);
  const found = figures(
    "JavaScript",
    turns.javascript.map(({ result, used }) => result.operations / used.cpuSeconds),
    turns.javascript.map(({ result }) => result.operations / result.seconds),
    { daemonPageFaultsPerOperation: rounded(faults / operations, 3) },
  );
  if (turns.cpp.length > 0) {
    const wallRates = turns.cpp.map((sample) => sample.operationsPerSecond);
    const coreRates = turns.cpp.flatMap((sample) =>
      sample.daemonCpuSeconds === null ? [] : [sample.operations / sample.daemonCpuSeconds],
    );
    const cppFigures = figures("C++", coreRates, wallRates, {});
    if (coreRates.length === 0) {
      options.note("the daemon's time could not be told for the C++ client; run the benchmark again");
      cppFigures.shift();
    }
    found.unshift(...cppFigures);
  }
  return found;
}

async function large(
  verb: Verb,
  workbench: Workbench,
  daemon: Daemon,
  size: (typeof LARGE)[number],
): Promise<BenchFigure[]> {
  const { options } = workbench;
  const { label, ...load } = size;
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 4 * load.keys * load.sizeBytes });
  await client.run("fill", load);
  const copy = socketCopy(options);
  // Reads alone: the C++ client takes a namespace a run, so its large writes would measure the kernel zeroing pages.
  const cpp = verb === "get" ? cppClient(daemon, options) : null;
  const turns = await takeTurns(options, 0.25, {
    cpp: cpp === null ? null : (seconds: number) => cpp({ mode: verb, door: "tcp", ...load }, seconds),
    ours: (seconds) => usedWhile(daemon.pid, () => client.run(verb, { ...load, seconds })),
    copy: copy === null ? null : (seconds: number) => copy(load.sizeBytes, seconds),
  });
  await client.stop();
  const gibibytes = (bytes: number) => bytes / 1024 ** 3;
  const rival = {
    name: copy === null ? "socket_copy is not built" : "plain C socket copy, loopback",
    figure: medianOf(turns.copy, (sample) => rounded(sample)),
  };
  const target = ">= 0.8 (stretch 0.95)";
  const cppRates = turns.cpp.map((sample) => sample.operationsPerSecond * load.sizeBytes);
  const javascript = comparedFigure(
    `${label}, JavaScript client`,
    rounded(median(turns.ours.map(({ result }) => result.bytes / result.seconds))),
    "B/s",
    rival,
    target,
    {
      inFlight: load.inFlight,
      daemonCpuSecondsPerGiB: rounded(
        median(turns.ours.map(({ result, used }) => used.cpuSeconds / gibibytes(result.bytes))),
      ),
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
  if (cppRates.length === 0) return [javascript];
  const details = { inFlight: load.inFlight };
  return [
    comparedFigure(`${label}, C++ client`, rounded(median(cppRates)), "B/s", rival, target, details),
    javascript,
  ];
}
