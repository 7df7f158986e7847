/** The C++ client, native/bench/client_bench: the same loads without JavaScript. */
import { ControlChannel } from "../client/control.js";
import { loadContract } from "../proto/load.js";
import type { Daemon } from "./daemon.js";
import type { BenchOptions } from "./figure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";
import { freshName } from "./workbench.js";

export interface CppLoad {
  keys: number;
  sizeBytes: number;
  seconds: number;
  /** Requests in flight. */
  pipeline?: number;
}

export interface CppSample {
  operations: number;
  seconds: number;
  operationsPerSecond: number;
  p50Us: number;
  details: object;
}

/** The program's path, or null, with a note, where it is not built. */
export function cppClientUsable(options: BenchOptions): string | null {
  const program = findNativeProgram("client_bench");
  if (program === null) options.note("client_bench is not built (npm run build:native): no figures of the C++ client");
  return program;
}

/** Runs it in a namespace of its own, which is dropped afterwards. */
export async function cppClient(
  program: string,
  daemon: Daemon,
  load: "get-local" | "put-local" | "get-tcp" | "put-tcp" | "metadata",
  { keys, sizeBytes, seconds, pipeline = 1 }: CppLoad,
  options: BenchOptions,
): Promise<CppSample> {
  const { namespaces } = loadContract();
  const channel = new ControlChannel(daemon.endpoint, CONTROL_TIMEOUT_MS);
  const name = freshName();
  try {
    const { token } = await channel.unary(namespaces.CreateNamespace, {
      name,
      leaseMs: LEASE_MS,
      limits: null,
      hint: "HINT_THROUGHPUT",
      expectedBytes: 4 * keys * sizeBytes,
      atEnd: "drop",
    });
    const door = load.endsWith("-local") ? ["--socket", daemon.socketPath] : ["--data", daemon.dataAddress];
    return await runNativeProgram<CppSample>(
      program,
      [
        ...["--json", "--load", load, ...door, "--namespace", name, "--token", Buffer.from(token).toString("hex")],
        ...["--keys", String(keys), "--bytes", String(sizeBytes), "--in-flight", String(pipeline)],
        ...["--seconds", String(seconds)],
      ],
      options.signal,
    );
  } finally {
    await channel.unary(namespaces.DeleteNamespace, { name }).catch(() => {});
    channel.close();
  }
}

const CONTROL_TIMEOUT_MS = 10_000;
const LEASE_MS = 600_000;
