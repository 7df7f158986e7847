/** The C++ client, native/bench/client_bench: the same loads without JavaScript. */
import { ControlChannel } from "../client/control.js";
import { loadContract } from "../proto/load.js";
import type { Daemon } from "./daemon.js";
import type { BenchOptions } from "./figure.js";
import { threadsAreNear, usedWhile } from "./measure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";
import { freshName } from "./workbench.js";

export interface CppLoad {
  mode: "get" | "put" | "meta";
  door: "shm" | "tcp";
  keys: number;
  sizeBytes: number;
  inFlight: number;
}

export interface CppSample {
  operations: number;
  operationsPerSecond: number;
  /** Over shm, of one operation at a time, the clock's own cost taken off; null over TCP. */
  p50Us: number | null;
  p99Us: number | null;
  /** Of the daemon; null where it could not be told apart from filling the keys. */
  daemonCpuSeconds: number | null;
}

/** What the program prints; further fields are not used here. */
interface CppDocument {
  operations: number;
  opsPerSecond: number;
  latency_us_p50?: number;
  latency_us_p99?: number;
  daemonCpuSeconds: number;
}

export type CppClient = (load: CppLoad, seconds: number) => Promise<CppSample>;

const CONTROL_TIMEOUT_MS = 10_000;
const LEASE_MS = 600_000;

/** Null, with a note, where the program is not built. */
export function cppClient(daemon: Daemon, options: BenchOptions): CppClient | null {
  const program = findNativeProgram("client_bench");
  if (program === null) {
    options.note("client_bench is not built (npm run build:native): no figures of the C++ client");
    return null;
  }
  return async (load, seconds) => {
    const { namespaces } = loadContract();
    const channel = new ControlChannel(daemon.endpoint, CONTROL_TIMEOUT_MS);
    // A namespace for each run, so that none finds what another has left.
    const name = freshName();
    try {
      const { token } = await channel.unary(namespaces.CreateNamespace, {
        name,
        leaseMs: LEASE_MS,
        limits: null,
        hint: "HINT_THROUGHPUT",
        expectedBytes: 4 * load.keys * load.sizeBytes,
        atEnd: "drop",
      });
      const door = load.door === "shm" ? ["--socket", daemon.socketPath] : ["--tcp", daemon.dataAddress];
      const { result, used } = await usedWhile(daemon.pid, () =>
        runNativeProgram<CppDocument>(
          program,
          [
            load.mode,
            ...[...door, "--namespace", name, "--token", Buffer.from(token).toString("hex")],
            ...["--daemon-pid", String(daemon.pid), "--seconds", String(seconds)],
            ...["--size", String(load.sizeBytes), "--keys", String(load.keys)],
            ...["--in-flight", String(load.inFlight)],
          ],
          options.signal,
        ),
      );
      return {
        operations: result.operations,
        operationsPerSecond: result.opsPerSecond,
        p50Us: result.latency_us_p50 ?? null,
        p99Us: result.latency_us_p99 ?? null,
        daemonCpuSeconds: load.mode === "get" ? ownCpuSeconds(daemon, result) : used.cpuSeconds,
      };
    } finally {
      await channel.unary(namespaces.DeleteNamespace, { name }).catch(() => {});
      channel.close();
    }
  };
}

/** As the program counted it after filling the keys. It finds a process's threads only where their ids are near. */
function ownCpuSeconds(daemon: Daemon, document: CppDocument): number | null {
  return threadsAreNear(daemon.pid) ? document.daemonCpuSeconds : null;
}
