/**
 * The processes of a benchmark: started with their output kept for error messages, and gone with the benchmark,
 * however it ends.
 */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { MillraceError } from "../client/index.js";

const STOP_TIMEOUT_MS = 10_000;
const OUTPUT_KEPT_CHARACTERS = 20_000;

const living = new Set<ChildProcess>();
// A benchmark that dies takes its processes along.
process.on("exit", () => {
  for (const child of living) child.kill("SIGKILL");
});

export interface Launched {
  readonly child: ChildProcess;
  readonly pid: number;
  /** The last of what it wrote on stdout (and was not taken by `stdio`). */
  output(): string;
  errors(): string;
  /** Resolves when the process is gone, also where it could not be started. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Asks it to end with `signal`, SIGKILL where that does not help; waits. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts a process. UNSUPPORTED where there is no such program. */
export async function launch(
  command: readonly string[],
  options: { stdio?: SpawnOptions["stdio"]; cwd?: string } = {},
): Promise<Launched> {
  const [program, ...args] = command as [string, ...string[]];
  const child = spawn(program, args, {
    stdio: options.stdio ?? ["ignore", "pipe", "pipe"],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const output = keepTail(child, "stdout");
  const errors = keepTail(child, "stderr");
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once("close", (code, signal) => {
      living.delete(child);
      resolve({ code, signal });
    });
  });
  living.add(child);
  try {
    await once(child, "spawn");
  } catch (thrown) {
    living.delete(child);
    throw new MillraceError("UNSUPPORTED", `cannot start ${program}: ${(thrown as Error).message}`, {
      cause: thrown,
    });
  }
  return {
    child,
    pid: child.pid as number,
    output,
    errors,
    exited,
    stop: async (signal = "SIGTERM") => {
      if (!living.has(child)) return;
      child.kill(signal);
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** Runs a program to its end and returns what it wrote on stdout. INTERNAL where it fails, with its last words. */
export async function runProgram(command: readonly string[], signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  const launched = await launch(command);
  const chunks: string[] = [];
  launched.child.stdout?.on("data", (text: string) => chunks.push(text));
  const abort = () => launched.child.kill("SIGKILL");
  signal.addEventListener("abort", abort, { once: true });
  const { code, signal: killedBy } = await launched.exited;
  signal.removeEventListener("abort", abort);
  signal.throwIfAborted();
  if (code !== 0) {
    throw new MillraceError(
      "INTERNAL",
      `${command[0]} ended with ${killedBy ?? `status ${code}`}: ${launched.errors().trim() || "no message"}`,
    );
  }
  return chunks.join("");
}

/** The command line of a module of this package: compiled with plain node, from sources through tsx. */
export function moduleCommand(base: string, path: string): [string, ...string[]] {
  const isSource = base.endsWith(".ts");
  const file = fileURLToPath(new URL(`${path}${isSource ? ".ts" : ".js"}`, base));
  if (!isSource) return [process.execPath, file];
  return [process.execPath, "--import", pathToFileURL(createRequire(base).resolve("tsx")).href, file];
}

/** The program's path, as the shell would find it, or null. */
export function findProgram(name: string): string | null {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next folder may have it.
    }
  }
  return null;
}

function keepTail(child: ChildProcess, name: "stdout" | "stderr"): () => string {
  let tail = "";
  child[name]?.setEncoding("utf8").on("data", (text: string) => {
    tail = (tail + text).slice(-OUTPUT_KEPT_CHARACTERS);
  });
  return () => tail;
}
