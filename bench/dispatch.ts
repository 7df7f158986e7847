/**
 * How long a warm function worker takes from `callAsync` to the start of the user's function, one call at a
 * time; and beside it how many tiny calls a second the pool takes. Both with no store: what is measured is
 * the executor, the channel and the host.
 */
import { createExecutor, type Executor, workerFunction } from "../functions/index.js";
import type { BenchFigure } from "./figure.js";

export interface DispatchOptions {
  /** Calls measured, after a tenth as many that are not. Default 3,000. */
  calls?: number;
  /** Function workers. Default 2. */
  workers?: number;
}

/** Does nothing, so that everything measured is the way to it. */
export const nothing = workerFunction(import.meta.url, "nothing", (argument: unknown) => argument);

export async function run(options: DispatchOptions = {}): Promise<BenchFigure[]> {
  const executor = createExecutor({ workers: options.workers ?? 2 });
  try {
    return await measure(executor, options.calls ?? 3_000);
  } finally {
    await executor.close();
  }
}

async function measure(executor: Executor, calls: number): Promise<BenchFigure[]> {
  const argument = { path: "part-00017", offset: 1_048_576, length: 65_536 };
  await executor.getResult(executor.map(nothing, new Array(executor.workers * 50).fill(argument)));
  const startMs: number[] = [];
  const roundTripMs: number[] = [];
  for (let call = -calls / 10; call < calls; call++) {
    const future = executor.callAsync(nothing, argument);
    await future;
    if (call < 0) continue;
    const { stats } = future;
    startMs.push(stats.startMs);
    roundTripMs.push(stats.totalMs);
  }
  const beganMs = performance.now();
  await executor.getResult(executor.map(nothing, new Array(calls).fill(argument)));
  const mapSeconds = (performance.now() - beganMs) / 1_000;
  const start = percentilesUs(startMs);
  return [
    {
      name: "dispatch",
      figure: start.p50,
      unit: "us",
      rival: null,
      rivalName: null,
      ratio: null,
      target: "<= 1000 us (stretch 200 us): call to start of the user's function, p50, warm",
      details: {
        calls,
        workers: executor.workers,
        latency_us_p50: start.p50,
        latency_us_p99: start.p99,
        roundTrip_us_p50: percentilesUs(roundTripMs).p50,
        roundTrip_us_p99: percentilesUs(roundTripMs).p99,
        mapCallsPerSecond: Math.round(calls / mapSeconds),
        argumentBytes: JSON.stringify(argument).length,
      },
    },
  ];
}

function percentilesUs(timesMs: readonly number[]): { p50: number; p99: number } {
  const sorted = Float64Array.from(timesMs).sort();
  const at = (share: number) =>
    Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) * 10_000) / 10;
  return { p50: at(0.5), p99: at(0.99) };
}
