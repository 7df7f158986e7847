/** The C++ programs of native/bench, built beside the addon. Each prints one JSON document with `--json`. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MillraceError } from "../client/index.js";
import { packageRoot } from "../native/binding/addon.js";
import { runProgram } from "./processes.js";

/** The path of the program, or null where it is not built. MILLRACE_BENCH_PROGRAMS names another folder. */
export function findNativeProgram(name: string): string | null {
  const folder = process.env.MILLRACE_BENCH_PROGRAMS ?? join(packageRoot(), "build", "native");
  const path = join(folder, name);
  return existsSync(path) ? path : null;
}

/** Runs it to its end. INTERNAL where it fails or writes something else. */
export async function runNativeProgram<T>(
  path: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<T> {
  const text = await runProgram([path, ...args], signal);
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new MillraceError("INTERNAL", `${path} wrote something that is not JSON: ${text.slice(0, 300)}`);
  }
}
