/** Empty objects over TCP: what the daemon does for an object when there are no bytes to move. */
import { cppClient, cppClientUsable } from "./cpp_client.js";
import { type BenchFigure, type BenchOptions, plainFigure } from "./figure.js";
import { median, rounded, takeTurns, usedWhile } from "./measure.js";
import { Workbench } from "./workbench.js";

const IN_FLIGHT = 64;
const KEYS = 100_000;
const TARGET = ">= 200,000 ops/s (stretch 1,000,000)";

export async function run(options: BenchOptions): Promise<BenchFigure[]> {
  await using workbench = new Workbench(options);
  const daemon = await workbench.daemon();
  const client = await workbench.client(daemon, "tcp", { expectedBytes: 0 });
  const cpp = cppClientUsable(options);
  const load = { keys: Math.max(1000, Math.round(KEYS * options.scale)), sizeBytes: 0, inFlight: IN_FLIGHT };
  const turns = await takeTurns(options, 1, {
    javascript: (seconds) => usedWhile(daemon.pid, () => client.run("metadata", { ...load, seconds })),
    cpp:
      cpp === null
        ? null
        : (seconds: number) =>
            usedWhile(daemon.pid, () =>
              cppClient(cpp, daemon, "metadata", { ...load, pipeline: IN_FLIGHT, seconds }, options),
            ),
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
        rounded(median(turns.cpp.map(({ result, used }) => result.operations / used.cpuSeconds))),
        "ops/s",
        TARGET,
        {
          wallOperationsPerSecond: rounded(median(turns.cpp.map(({ result }) => result.operationsPerSecond))),
          ...how,
        },
      ),
    );
  }
  return figures;
}
