/** The gRPC door against bare grpc-js streams: what store, checksum and protobuf add. */
import { MillraceError } from "../client/index.js";
import { CHUNK_BYTES_MAX } from "../proto/load.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, rounded, takeTurns, usedWhile } from "./measure.js";
import { launch, moduleCommand } from "./processes.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const OBJECT_BYTES = 64 << 20;
const KEYS = 2;
const READY_TIMEOUT_MS = 15_000;

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const address = await startBareServer(workbench);
  const chunks = Math.max(4, Math.round((OBJECT_BYTES / CHUNK_BYTES_MAX) * Math.min(1, options.scale)));
  const sizeBytes = chunks * CHUNK_BYTES_MAX;
  const client = await workbench.client(daemon, "grpc", { expectedBytes: 4 * sizeBytes });
  const load = { keys: KEYS, sizeBytes, inFlight: 1 };
  const bare = { address, sizeBytes, chunkBytes: CHUNK_BYTES_MAX };
  await client.run("fill", load);
  const turns = await takeTurns(options, 1, {
    put: (seconds) => usedWhile(daemon.pid, () => client.run("put", { ...load, seconds })),
    barePut: (seconds) => client.run("sendBare", { ...bare, seconds }),
    get: (seconds) => usedWhile(daemon.pid, () => client.run("get", { ...load, seconds })),
    bareGet: (seconds) => client.run("receiveBare", { ...bare, seconds }),
  });
  const figure = (what: "put" | "get", rivals: typeof turns.barePut) =>
    comparedFigure(
      `${what}, 1 MiB chunks`,
      rounded(median(turns[what].map(({ result }) => result.bytes / result.seconds))),
      "B/s",
      {
        name: "bare grpc-js stream, no protobuf",
        figure: rounded(median(rivals.map((sample) => sample.bytes / sample.seconds))),
      },
      ">= 0.8",
      {
        objectBytes: sizeBytes,
        daemonCpuSecondsPerGiB: rounded(
          median(turns[what].map(({ result, used }) => used.cpuSeconds / (result.bytes / 1024 ** 3))),
        ),
      },
    );
  return [figure("put", turns.barePut), figure("get", turns.bareGet)];
}

async function startBareServer(workbench: Workbench): Promise<string> {
  const launched = await launch(moduleCommand(import.meta.url, "./bare_stream_main"));
  workbench.defer(() => launched.stop());
  return new Promise((resolve, reject) => {
    const fail = () =>
      reject(new MillraceError("UNAVAILABLE", `the bare gRPC server did not start: ${launched.errors()}`));
    const timer = setTimeout(fail, READY_TIMEOUT_MS);
    void launched.exited.then(fail);
    launched.child.stdout?.on("data", () => {
      const match = /^ready (\S+)$/m.exec(launched.output());
      if (match === null) return;
      clearTimeout(timer);
      resolve(match[1] as string);
    });
  });
}
