/** The rival of large transfers over TCP: native/bench/socket_copy, plain C over a loopback socket. */
import type { BenchOptions } from "./figure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";

/** The program's path, or null, with a note, where it is not built. */
export function socketCopyUsable(options: BenchOptions): string | null {
  const program = findNativeProgram("socket_copy");
  if (program === null) options.note("socket_copy is not built (npm run build:native): no comparison with a plain copy");
  return program;
}

/** Bytes a second of messages of `sizeBytes`, for about so long. */
export async function socketCopy(
  program: string,
  sizeBytes: number,
  seconds: number,
  options: BenchOptions,
): Promise<number> {
  const { bytesPerSecond } = await runNativeProgram<{ bytesPerSecond: number }>(
    program,
    ["--json", "--bytes", String(sizeBytes), "--seconds", String(seconds)],
    options.signal,
  );
  return bytesPerSecond;
}
