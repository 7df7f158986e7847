/**
 * The table of limits of the executor. Everything that arrives from a caller or from a function worker is
 * checked against it before it is used.
 */
export const limits = {
  /** bytes: a call's argument, or its result, that travels inside the message. As `kInlineArgumentBytesMax` of
   * native/base/limits.h; the addon may be absent here, a test compares the two. */
  inlineBytesMax: 8 * 1024,
  /** bytes: one frame of the channel. The largest is a chain of errors at all of their limits. */
  frameBytesMax: 512 * 1024,
  /** characters of an error's message, and of its stack, that travel; the rest is cut off. */
  errorTextMax: 8 * 1024,
  errorNameMax: 256,
  /** errors of a chain of causes that travel. */
  errorCausesMax: 4,
  /** map tasks that a MAP_OUTPUT_LOST error may name in one frame. */
  errorMapsMax: 4096,
  /** characters of a module's URL and of an export's name. */
  moduleNameMax: 4096,
  exportNameMax: 256,
  /** characters of HOST:PORT, and of a namespace's name. */
  endpointMax: 512,
  namespaceNameMax: 63,
  /** processes of one executor. */
  functionWorkersMax: 1024,
  /** fresh attempts after the first. */
  retriesMax: 100,
  /** calls accepted and not finished, of one executor. */
  callsInFlightMax: 10_000_000,
  callsInFlightDefault: 100_000,
  /** levels of arrays and objects of an argument that are searched for futures. */
  argumentDepthMax: 256,
  /** ms: the longest delay of a timer. */
  timeoutMsMax: 2 ** 31 - 1,
  /** starts in a row that fail before the executor gives up. */
  failedStartsMax: 5,
} as const;
