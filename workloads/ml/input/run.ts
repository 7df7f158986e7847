/** Calls of function workers as loading makes them. */
import { MillraceError } from "../../../client/errors.js";
import type { FunctionRef } from "../../../functions/index.js";
import type { CallReport } from "../call_report.js";
import type { LoadSurroundings } from "./options.js";

/** Calls a function for each argument and waits for all. The first failure ends the others and is thrown. */
export async function runCalls<A, R extends CallReport>(
  surroundings: LoadSurroundings,
  reference: FunctionRef<A, R>,
  callArguments: readonly A[],
  /** The part of the whole that these calls are, from and to. */
  [from, to]: readonly [number, number],
): Promise<R[]> {
  const { executor, onProgress, onCall, signal } = surroundings;
  signal?.throwIfAborted();
  const futures = executor.map<A, R>(reference, callArguments as never, {
    onProgress: ({ fraction }) => onProgress?.(from + fraction * (to - from)),
  });
  const cancelAll = (): void => {
    for (const future of futures) future.cancel();
  };
  signal?.addEventListener("abort", cancelAll, { once: true });
  try {
    const results = await Promise.all(futures.map((future) => future.result()));
    for (const result of results) onCall?.(result as R);
    onProgress?.(to);
    return results as R[];
  } catch (thrown) {
    cancelAll();
    signal?.throwIfAborted();
    throw causeOf(thrown);
  } finally {
    signal?.removeEventListener("abort", cancelAll);
  }
}

/** What the function threw, without the executor's words around it. */
function causeOf(thrown: unknown): MillraceError {
  const error = MillraceError.from(thrown);
  if (error.code !== "CALL_FAILED" || !(error.cause instanceof Error)) return error;
  return MillraceError.from(error.cause, "CALL_FAILED");
}
