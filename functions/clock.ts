/**
 * Milliseconds of the machine's monotonic clock (CLOCK_MONOTONIC), with a fraction. Unlike `performance.now()`
 * it has the same origin in every process of a host, so the start of a user's function can be compared with
 * the moment of its call.
 */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
