/** How commands end: 0 done, 1 the work failed, 2 the command was used wrongly. */
import { CommanderError } from "commander";

/** The command was used wrongly; the message says how to use it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

// Codes that only a mistaken command line can cause.
const USAGE_CODES = new Set(["INVALID_ARGUMENT", "KEY_TOO_LONG"]);

/** The exit code for what a command threw, after one clear sentence on stderr. */
export function reportFailure(thrown: unknown): number {
  if (thrown instanceof CommanderError) {
    // Commander has printed its own message; help and --version end this way too, with 0.
    return thrown.exitCode === 0 ? 0 : 2;
  }
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  process.stderr.write(`millrace: ${error.message}\n`);
  const debug = process.env.MILLRACE_DEBUG;
  if (debug !== undefined && debug !== "" && debug !== "0") process.stderr.write(`${error.stack}\n`);
  const { code } = error as { code?: unknown };
  return error instanceof UsageError || (typeof code === "string" && USAGE_CODES.has(code)) ? 2 : 1;
}
