/** A stage: one function, called for each of many arguments. */
import { MillraceError } from "../../client/errors.js";
import type { CallFuture, Executor, FunctionRef } from "../../functions/index.js";

export interface CallAllOptions<R> {
  /** Ends all calls with its reason. */
  signal?: AbortSignal | undefined;
  /** 0 to 1, of all calls. */
  onProgress?: (fraction: number) => void;
  /** As soon as a call is done; `i` is the place of its argument. */
  onResult?: (i: number, result: R) => void;
  /** At the end, whatever it was: told of every call's attempts. */
  onEnd?: (future: CallFuture<unknown>) => void;
}

/**
 * Calls a function for each argument and waits for all. The first failure ends the others and is thrown as the
 * function threw it. Only where map outputs are lost do the others go on: what they achieve counts, and none of them
 * may report an output as lost when it has been made again meanwhile.
 */
export async function callAll<A, R>(
  executor: Executor,
  reference: FunctionRef<A, R>,
  callArguments: readonly A[],
  { signal, onProgress, onResult, onEnd }: CallAllOptions<R> = {},
): Promise<R[]> {
  signal?.throwIfAborted();
  const futures = executor.map(reference, callArguments as never[], {
    onProgress: ({ fraction }) => onProgress?.(fraction),
  }) as CallFuture<R>[];
  const cancelAll = (): void => {
    for (const future of futures) future.cancel();
  };
  signal?.addEventListener("abort", cancelAll, { once: true });
  try {
    const lost = new Set<number>();
    const results = await Promise.all(
      futures.map(async (future, i) => {
        try {
          const result = await future.result();
          onResult?.(i, result);
          return result;
        } catch (thrown) {
          const error = causeOf(thrown);
          if (error.code !== "MAP_OUTPUT_LOST" || error.maps.length === 0) throw error;
          for (const map of error.maps) lost.add(map);
          return null;
        }
      }),
    );
    if (lost.size === 0) return results as R[];
    const maps = [...lost].sort((a, b) => a - b);
    throw new MillraceError("MAP_OUTPUT_LOST", `the outputs of map ${maps.join(", ")} are lost`, { maps });
  } catch (thrown) {
    cancelAll();
    signal?.throwIfAborted();
    throw thrown;
  } finally {
    signal?.removeEventListener("abort", cancelAll);
    if (onEnd !== undefined) for (const future of futures) onEnd(future);
  }
}

/** What the function threw, without the executor's words around it. */
export function causeOf(thrown: unknown): MillraceError {
  const error = MillraceError.from(thrown);
  if (error.code !== "CALL_FAILED" || !(error.cause instanceof Error)) return error;
  return MillraceError.from(error.cause, "CALL_FAILED");
}
