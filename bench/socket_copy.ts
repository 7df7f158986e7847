/** The rival of large transfers over TCP: native/bench/socket_copy, plain C over a loopback socket. */
import type { BenchOptions } from "./figure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";

/** Bytes a second, sent and received in pieces of `sizeBytes` for about so long. */
export type SocketCopy = (sizeBytes: number, seconds: number) => Promise<number>;

const FIRST_BYTES_PER_SECOND = 1e9;
/** Fewer, and the first touch of its buffers would count. */
const PIECES_MIN = 16;

/** Null, with a note, where the program is not built. */
export function socketCopy(options: BenchOptions): SocketCopy | null {
  const program = findNativeProgram("socket_copy");
  if (program === null) {
    options.note("socket_copy is not built (npm run build:native): no comparison with a plain copy");
    return null;
  }
  // It copies so many bytes, not for so long: the last run tells how many fit.
  let expected = FIRST_BYTES_PER_SECOND;
  return async (sizeBytes, seconds) => {
    const pieces = Math.max(PIECES_MIN, Math.ceil((expected * seconds) / sizeBytes));
    const { bytesPerSecond } = await runNativeProgram<{ bytesPerSecond: number }>(
      program,
      ["--bytes", String(pieces * sizeBytes), "--size", String(sizeBytes)],
      options.signal,
    );
    expected = bytesPerSecond;
    return bytesPerSecond;
  };
}
