/** Empty objects over TCP: what the daemon does for an object when there are no bytes to move. */
import { cppClient } from "./cpp_client.js";
import { type BenchFigure, type BenchOptions, plainFigure } from "./figure.js";
import { median, rounded, takeTurns, usedWhile } from "./measure.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const IN_FLIGHT = 64;
const KEYS = 100_000;
const TARGET = ">= 200,000 ops/s (stretch 1,000,000)";

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 0 });
  const cpp = cppClient(daemon, options);
  const load = { keys: Math.max(1000, Math.round(KEYS * options.scale)), sizeBytes: 0, inFlight: IN_FLIGHT };
  const turns = await takeTurns(options, 1, {
    javascript: (seconds) => usedWhile(daemon.pid, () => client.run("metadata", { ...load, seconds })),
    cpp: cpp === null ? null : (seconds: number) => cpp({ mode: "meta", door: "tcp", ...load }, seconds),
  });
  const how = {
    inFlight: IN_FLIGHT,
    counted: "a put (creates and seals), a head and a delete are one operation each",
    pocketOperationsPerSecond: 90_000,
    jiffyOperationsPerSecond: 42_000,
  };
  const figures = [
    plainFigure(
      "per daemon core, JavaScript client",
      rounded(median(turns.javascript.map(({ result, used }) => result.operations / used.cpuSeconds))),
      "ops/s",
      TARGET,
      {
        wallOperationsPerSecond: rounded(
          median(turns.javascript.map(({ result }) => result.operations / result.seconds)),
        ),
        ...how,
      },
    ),
  ];
  if (turns.cpp.length > 0) {
    figures.unshift(
      plainFigure(
        "per daemon core, C++ client",
        rounded(
          median(turns.cpp.map((sample) => sample.operations / (sample.daemonCpuSeconds ?? Number.NaN))),
        ),
        "ops/s",
        TARGET,
        {
          wallOperationsPerSecond: rounded(median(turns.cpp.map((sample) => sample.operationsPerSecond))),
          ...how,
        },
      ),
    );
  }
  return figures;
}
