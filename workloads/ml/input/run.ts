/** Calls of function workers as loading makes them. */
import type { FunctionRef } from "../../../functions/index.js";
import { callAll } from "../../calling/call_all.js";
import type { CallReport } from "../../calling/call_report.js";
import type { LoadSurroundings } from "./options.js";

/** Calls a function for each argument and waits for all. The first failure ends the others and is thrown. */
export async function runCalls<A, R extends CallReport>(
  { executor, onProgress, onCall, signal }: LoadSurroundings,
  reference: FunctionRef<A, R>,
  callArguments: readonly A[],
  /** The part of the whole that these calls are, from and to. */
  [from, to]: readonly [number, number],
): Promise<R[]> {
  const results = await callAll(executor, reference, callArguments, {
    signal,
    onProgress: (fraction) => onProgress?.(from + fraction * (to - from)),
  });
  for (const result of results) onCall?.(result);
  onProgress?.(to);
  return results;
}
