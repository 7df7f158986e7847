/** Writes over shared memory: pipelined small objects against Redis, large ones against memcpy. */
import type { ClientProcess } from "./client_process.js";
import { cppClient } from "./cpp_client.js";
import type { Daemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns, usedWhile } from "./measure.js";
import { countSystemCalls } from "./system_calls.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const KEYS = 10_000;
const SMALL_BYTES = 1024;
const PIPELINE = 64;
/** Where nobody waits for 64 at a time: what pipelining costs. */
const LONG_PIPELINE = 4096;
const LARGE_BYTES = 64 << 20;
/** Overwritten in turn, so that memory is recycled as in a job that drops what it has used. */
const LARGE_KEYS = 2;

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const redis = await workbench.redis();
  const keys = Math.max(100, Math.round(KEYS * options.scale));
  const load = { keys, sizeBytes: SMALL_BYTES };
  const small = await workbench.client(daemon, "shm", { expectedBytes: 4 * keys * SMALL_BYTES });
  const cpp = cppClient(daemon, options);

  const turns = await takeTurns(options, 0.6, {
    put: (seconds) =>
      usedWhile(daemon.pid, () => small.run("putInBatches", { ...load, pipeline: PIPELINE, seconds })),
    long: (seconds) => small.run("putInBatches", { ...load, pipeline: LONG_PIPELINE, seconds: seconds / 2 }),
    cpp:
      cpp === null
        ? null
        : (seconds: number) => cpp({ mode: "put", door: "shm", ...load, inFlight: PIPELINE }, seconds),
    redis:
      redis === null
        ? null
        : (seconds: number) =>
            redis.drive(
              { command: "set", door: "unix", sizeBytes: SMALL_BYTES, pipeline: PIPELINE, keys },
              seconds,
            ),
  });
  const calls = await countSystemCalls(workbench, { client: small.pid, daemon: daemon.pid }, () =>
    small.run("putInBatches", { ...load, pipeline: PIPELINE, seconds: 0.5 }),
  );

  const rival = {
    name: redis === null ? "Redis is not installed" : `Redis SET, Unix socket, pipeline ${PIPELINE}`,
    figure: medianOf(turns.redis, (sample) => rounded(sample.operationsPerSecond)),
  };
  const target = ">= 3x (stretch 10x)";
  const operations = turns.put.reduce((sum, { result }) => sum + result.operations, 0);
  const figures: BenchFigure[] = [
    comparedFigure(
      "1 KiB, sealed, JavaScript",
      rounded(median(turns.put.map(({ result }) => result.operations / result.seconds))),
      "ops/s",
      rival,
      target,
      {
        pipeline: PIPELINE,
        [`operationsPerSecondAtPipeline${LONG_PIPELINE}`]: rounded(
          median(turns.long.map((sample) => sample.operations / sample.seconds)),
        ),
        objects: keys,
        clientPageFaultsPerOperation: rounded(
          sum(turns.put, ({ result }) => result.pageFaults) / operations,
          3,
        ),
        daemonPageFaultsPerOperation: rounded(sum(turns.put, ({ used }) => used.pageFaults) / operations, 3),
        daemonCpu_us_perOperation: rounded(
          (sum(turns.put, ({ used }) => used.cpuSeconds) * 1e6) / operations,
        ),
        ...(calls === null
          ? {}
          : {
              clientSystemCallsPerOperation: rounded((calls.calls.client ?? 0) / calls.result.operations, 3),
              daemonSystemCallsPerOperation: rounded((calls.calls.daemon ?? 0) / calls.result.operations, 3),
            }),
      },
    ),
  ];
  if (turns.cpp.length > 0) {
    figures.push(
      comparedFigure(
        "1 KiB, sealed, C++",
        rounded(median(turns.cpp.map((sample) => sample.operationsPerSecond))),
        "ops/s",
        rival,
        target,
        {
          pipeline: "as deep as the seal ring",
          daemonCpu_us_perOperation: rounded(
            median(
              turns.cpp.map((sample) => ((sample.daemonCpuSeconds ?? Number.NaN) * 1e6) / sample.operations),
            ),
          ),
        },
      ),
    );
  }
  await small.stop();
  const large = await workbench.client(daemon, "shm", { expectedBytes: 4 * LARGE_BYTES });
  figures.push(await putOfLarge(daemon, large, options));
  return figures;
}

async function putOfLarge(
  daemon: Daemon,
  client: ClientProcess,
  options: BenchOptions,
): Promise<BenchFigure> {
  const load = { keys: LARGE_KEYS, sizeBytes: LARGE_BYTES, inFlight: 1 };
  const turns = await takeTurns(options, 0.4, {
    put: (seconds) => usedWhile(daemon.pid, () => client.run("put", { ...load, seconds })),
    memcpy: (seconds) => client.run("memoryCopy", { sizeBytes: LARGE_BYTES, seconds }),
  });
  const operations = sum(turns.put, ({ result }) => result.operations);
  return comparedFigure(
    "64 MiB, sealed, JavaScript",
    rounded(median(turns.put.map(({ result }) => result.bytes / result.seconds))),
    "B/s",
    {
      name: "memcpy into faulted memory",
      figure: rounded(LARGE_BYTES / (median(turns.memcpy.map((sample) => sample.medianUs)) / 1e6)),
    },
    ">= 0.8 (stretch 0.95)",
    {
      clientPageFaultsPerOperation: rounded(
        sum(turns.put, ({ result }) => result.pageFaults) / operations,
        3,
      ),
      daemonPageFaultsPerOperation: rounded(sum(turns.put, ({ used }) => used.pageFaults) / operations, 3),
    },
  );
}

function sum<T>(samples: readonly T[], value: (sample: T) => number): number {
  return samples.reduce((total, sample) => total + value(sample), 0);
}
