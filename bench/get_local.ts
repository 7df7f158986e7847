/**
 * Reads over shared memory, timed inside of a client process of its own. The daemon has no part in them, which
 * the count of system calls shows (`--syscalls`).
 */
import type { ClientProcess } from "./client_process.js";
import { cppClient } from "./cpp_client.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns } from "./measure.js";
import { countSystemCalls } from "./system_calls.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const KEYS = 10_000;
const SMALL_BYTES = 1024;
const LARGE_BYTES = 64 << 20;
const LARGE_KEYS = 2;

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const redis = await workbench.redis();
  const keys = Math.max(100, Math.round(KEYS * options.scale));
  const small = await workbench.client(daemon, "shm", { expectedBytes: keys * SMALL_BYTES });
  await small.run("fill", { keys, sizeBytes: SMALL_BYTES });
  await redis?.fill({ door: "unix", sizeBytes: SMALL_BYTES, keys });
  const load = { keys, sizeBytes: SMALL_BYTES };
  const cpp = cppClient(daemon, options);

  const turns = await takeTurns(options, 0.7, {
    view: (seconds) => small.run("viewOneByOne", { ...load, seconds }),
    loop: (seconds) => small.run("viewInLoop", { ...load, seconds }),
    get: (seconds) => small.run("getInTurn", { ...load, seconds }),
    cpp:
      cpp === null
        ? null
        : (seconds: number) => cpp({ mode: "get", door: "shm", ...load, inFlight: 1 }, seconds),
    redis:
      redis === null
        ? null
        : (seconds: number) =>
            redis.drive({ command: "get", door: "unix", sizeBytes: SMALL_BYTES, pipeline: 1, keys }, seconds),
  });
  const calls = await countSystemCalls(workbench, { client: small.pid, daemon: daemon.pid }, () =>
    small.run("viewInLoop", { ...load, seconds: 0.5 }),
  );

  const rival = {
    name: redis === null ? "Redis is not installed" : "Redis GET, Unix socket, p50",
    figure: medianOf(turns.redis, (sample) => sample.p50Us),
  };
  const figures: BenchFigure[] = [
    comparedFigure(
      "1 KiB, JavaScript, one at a time, p50",
      rounded(median(turns.view.map((sample) => sample.p50Us))),
      "us",
      rival,
      "<= 2 us (stretch 1 us)",
      {
        latency_us_p99: rounded(median(turns.view.map((sample) => sample.p99Us))),
        clockIncluded_us: rounded(median(turns.view.map((sample) => sample.clockUs))),
        amortised_us: rounded(median(turns.loop.map((sample) => (sample.seconds * 1e6) / sample.operations))),
        awaitedGet_us: rounded(median(turns.get.map((sample) => (sample.seconds * 1e6) / sample.operations))),
        objects: keys,
        pageFaultsPerOperation: perOperation(turns.loop, (sample) => sample.pageFaults),
        ...(calls === null
          ? {}
          : {
              clientSystemCallsPerOperation: rounded((calls.calls.client ?? 0) / calls.result.operations, 3),
              daemonSystemCalls: calls.calls.daemon,
            }),
      },
    ),
  ];
  if (turns.cpp.length > 0) {
    figures.push(
      comparedFigure(
        "1 KiB, C++, one at a time, p50",
        rounded(median(turns.cpp.map((sample) => sample.p50Us ?? Number.NaN))),
        "us",
        rival,
        "<= 0.5 us (stretch 0.2 us)",
        {
          latency_us_p99: rounded(median(turns.cpp.map((sample) => sample.p99Us ?? Number.NaN))),
          amortised_us: rounded(median(turns.cpp.map((sample) => 1e6 / sample.operationsPerSecond))),
        },
      ),
    );
  }
  await small.stop();
  const large = await workbench.client(daemon, "shm", { expectedBytes: LARGE_KEYS * LARGE_BYTES });
  figures.push(await viewOfLarge(large, options));
  return figures;
}

async function viewOfLarge(client: ClientProcess, options: BenchOptions): Promise<BenchFigure> {
  const load = { keys: LARGE_KEYS, sizeBytes: LARGE_BYTES };
  await client.run("fill", load);
  const first = await client.run("viewLarge", { ...load, seconds: 0 });
  const turns = await takeTurns(options, 0.3, {
    view: (seconds) => client.run("viewLarge", { ...load, seconds }),
    memcpy: (seconds) => client.run("memoryCopy", { sizeBytes: LARGE_BYTES, seconds }),
  });
  return comparedFigure(
    "64 MiB, JavaScript, to a readable view",
    rounded(median(turns.view.map((sample) => sample.medianUs))),
    "us",
    {
      name: "memcpy of 64 MiB, faulted in",
      figure: rounded(median(turns.memcpy.map((sample) => sample.medianUs))),
    },
    "<= 1/1000 (stretch: the same at any size)",
    {
      firstView_us: rounded(first.firstUs),
      pageFaultsPerOperation: perOperation(turns.view, (sample) => sample.pageFaults),
    },
  );
}

function perOperation<T extends { operations: number }>(
  samples: readonly T[],
  value: (sample: T) => number,
): number {
  const operations = samples.reduce((sum, sample) => sum + sample.operations, 0);
  return rounded(samples.reduce((sum, sample) => sum + value(sample), 0) / operations, 3);
}
