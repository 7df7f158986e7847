/**
 * The executor: runs exported functions on stateless function workers, as Lithops does for Python.
 *
 *     await using executor = createExecutor({ workers: 4, endpoint: "localhost:7400" });
 *     const parts = executor.map(functionRef<typeof count>(import.meta.url, "count"), ["a.txt", "b.txt"]);
 *     const total = await executor.callAsync(functionRef<typeof sum>(import.meta.url, "sum"), parts);
 */
import { randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import { MillraceError } from "../client/errors.js";
import { checkCount } from "../client/names.js";
import type { Backend } from "./backends/backend.js";
import { localBackend } from "./backends/local.js";
import { Call, CallGroup, type CallSettings, type MapProgress } from "./call.js";
import { CallFuture, callOf, type FutureOwner, isFuture, ownerOf } from "./future.js";
import { limits } from "./limits.js";
import type { EncodedValue } from "./protocol.js";
import { type Callable, type FunctionName, referenceOf } from "./reference.js";
import { Scheduler, type SchedulerStats } from "./scheduler.js";
import { CallStore } from "./store.js";
import { defaultStragglerPolicy, type StragglerPolicy } from "./stragglers.js";
import { encodeArgument, encodeResult, findInArgument, type Hole, withHoles } from "./values.js";

export interface CallOptions {
  /** Per attempt; one that takes longer is killed and tried again. 0: no limit. Default 900,000 (15 minutes). */
  timeoutMs?: number;
  /**
   * Fresh attempts after the first. Lost processes and timeouts are tried again; an error that the function
   * threw only where it has `retryable: true` or `retryOn` says so. Default 2. So functions must bear being
   * run more than once.
   */
  retries?: number;
  /** Whether to try again after an error of the user's function; `error.cause` is what it threw. */
  retryOn?: (error: MillraceError) => boolean;
}

export interface MapOptions extends CallOptions {
  /** When a call of the map gets a second run on an idle function worker; false: never. */
  stragglers?: Partial<StragglerPolicy> | false;
  /** Called as calls end and report progress. */
  onProgress?: (progress: MapProgress) => void;
}

export interface ExecutorOptions extends CallOptions {
  /** What runs the functions. Default 'local': processes of this host. */
  backend?: "local" | Backend;
  /** Function workers, all started at once. Default: one a processor. */
  workers?: number;
  /** A node's gRPC door, HOST:PORT. Without one, arguments and results above 8 KiB are OBJECT_TOO_LARGE. */
  endpoint?: string;
  /** A namespace that exists. Default: one of the executor's own, dropped when it closes. */
  namespace?: string;
  /** Default for maps: factor 3, minDoneFraction 0.75, minRunMs 1,000. */
  stragglers?: Partial<StragglerPolicy> | false;
  /** Calls accepted and not yet ended; more are RESOURCE_EXHAUSTED. Default 100,000. */
  maxInFlight?: number;
  /** A cancelled function that does not end within this time is killed. Default 1,000. */
  cancelGraceMs?: number;
  /** Wait before a fresh attempt after an error; doubles each time, up to 5 s. Default 100. */
  retryDelayMs?: number;
}

export type ReturnWhen = "ALL_COMPLETED" | "ANY_COMPLETED" | "ALWAYS";

export interface WaitOptions {
  /** `ALWAYS` only looks. Default `ALL_COMPLETED`. */
  returnWhen?: ReturnWhen;
  /** After which `wait` returns what there is. Default: no limit. */
  timeoutMs?: number;
}

/** An argument, or a future of it, or arrays and plain objects with futures in them. */
export type ArgumentWithFutures<A> =
  | A
  | CallFuture<A>
  | (A extends readonly (infer E)[]
      ? readonly ArgumentWithFutures<E>[]
      : A extends object
        ? { readonly [K in keyof A]: ArgumentWithFutures<A[K]> }
        : never);

/** Stored results that `getResult` fetches at a time. */
const FETCHES_AT_A_TIME = 16;

/**
 * Starts a pool of function workers and returns at once; calls made before they are ready wait for them.
 * INVALID_ARGUMENT for options out of range.
 */
export function createExecutor(options: ExecutorOptions = {}): Executor {
  return new Executor(options);
}

export class Executor {
  /** Function workers. */
  readonly workers: number;
  readonly #id = randomUUID();
  readonly #defaults: CallSettings;
  readonly #stragglers: StragglerPolicy | null;
  readonly #maxInFlight: number;
  readonly #store: CallStore | null;
  readonly #scheduler: Scheduler;
  readonly #inFlight = new Set<Call>();
  readonly #owner: FutureOwner;
  #callsMade = 0;
  #closing: Promise<void> | null = null;

  /** Use `createExecutor`. */
  constructor(options: ExecutorOptions) {
    const { backend = "local", endpoint, namespace } = options;
    this.workers = checkCount(
      "workers",
      options.workers ?? availableParallelism(),
      1,
      limits.functionWorkersMax,
    );
    this.#defaults = settingsOf(options, { timeoutMs: 900_000, retries: 2, retryOn: null });
    this.#stragglers = stragglersOf(options.stragglers, defaultStragglerPolicy);
    const inFlight = options.maxInFlight ?? limits.callsInFlightDefault;
    this.#maxInFlight = checkCount("maxInFlight", inFlight, 1, limits.callsInFlightMax);
    const cancelGraceMs = checkCount("cancelGraceMs", options.cancelGraceMs ?? 1_000, 0, limits.timeoutMsMax);
    const retryDelayMs = checkCount("retryDelayMs", options.retryDelayMs ?? 100, 0, limits.timeoutMsMax);
    checkText("endpoint", endpoint, limits.endpointMax);
    checkText("namespace", namespace, limits.namespaceNameMax);
    if (namespace !== undefined && endpoint === undefined) throw invalid("a namespace needs an endpoint");
    if (
      backend !== "local" &&
      (typeof backend !== "object" || typeof backend?.startFunctionWorker !== "function")
    ) {
      throw invalid(`backend ${JSON.stringify(backend)}: give 'local' or a Backend`);
    }
    this.#store = endpoint === undefined ? null : new CallStore(endpoint, namespace ?? null, this.#id);
    this.#owner = {
      fetch: (value) => this.#fetch(value),
      cancel: (call, reason) => this.#scheduler.cancel(call, reason),
    };
    this.#scheduler = new Scheduler({
      backend: backend === "local" ? localBackend() : backend,
      workers: this.workers,
      store: this.#store,
      encodeArgument: (call) => this.#encodeArgument(call),
      cancelGraceMs,
      retryDelayMs,
    });
  }

  /** The namespace of arguments, results and `context.namespace()`; null without an endpoint. */
  get namespaceName(): string | null {
    return this.#store?.namespaceName ?? null;
  }

  /**
   * Calls a function once. The argument is read when the call is sent, so leave it unchanged until then; it
   * reaches the function as a copy. Throws CLOSED, RESOURCE_EXHAUSTED (maxInFlight) and INVALID_ARGUMENT.
   */
  callAsync<A, R>(
    fn: Callable<A, R>,
    argument: ArgumentWithFutures<NoInfer<A>>,
    options: CallOptions = {},
  ): CallFuture<Awaited<R>> {
    this.#admit(1);
    return this.#call(referenceOf(fn), argument, settingsOf(options, this.#defaults), null);
  }

  /** Calls a function once for each argument. The futures are in the order of the arguments. */
  map<A, R>(
    fn: Callable<A, R>,
    args: readonly ArgumentWithFutures<NoInfer<A>>[],
    options: MapOptions = {},
  ): CallFuture<Awaited<R>>[] {
    if (!Array.isArray(args)) throw invalid("map takes an array of arguments");
    const reference = referenceOf(fn);
    const settings = settingsOf(options, this.#defaults);
    const stragglers =
      options.stragglers === undefined
        ? this.#stragglers
        : stragglersOf(options.stragglers, this.#stragglers ?? defaultStragglerPolicy);
    this.#admit(args.length);
    const group = new CallGroup(args.length, stragglers, options.onProgress ?? null);
    return args.map((argument: unknown) => this.#call(reference, argument, settings, group));
  }

  /** Calls `mapFn` for each argument and then `reduceFn` once, with the array of the results. */
  mapReduce<A, B, R>(
    mapFn: Callable<A, B>,
    args: readonly ArgumentWithFutures<NoInfer<A>>[],
    reduceFn: Callable<Awaited<B>[], R>,
    options: MapOptions = {},
  ): CallFuture<Awaited<R>> {
    const reference = referenceOf(reduceFn);
    const settings = settingsOf(options, this.#defaults);
    this.#admit((Array.isArray(args) ? args.length : 0) + 1);
    return this.#call(reference, this.map(mapFn, args, options), settings, null);
  }

  /** Sorts futures into those that have ended (done, failed or cancelled) and those that have not. */
  async wait<R>(
    futures: readonly CallFuture<R>[],
    options: WaitOptions = {},
  ): Promise<{ done: CallFuture<R>[]; notDone: CallFuture<R>[] }> {
    const { returnWhen = "ALL_COMPLETED", timeoutMs } = options;
    if (returnWhen !== "ALL_COMPLETED" && returnWhen !== "ANY_COMPLETED" && returnWhen !== "ALWAYS") {
      throw invalid(`returnWhen ${JSON.stringify(returnWhen)}: give ALL_COMPLETED, ANY_COMPLETED or ALWAYS`);
    }
    if (timeoutMs !== undefined) checkCount("timeoutMs", timeoutMs, 0, limits.timeoutMsMax);
    const calls = futures.map(callOf);
    if (returnWhen !== "ALWAYS") {
      const open = calls.filter((call) => !call.settled);
      const enough =
        returnWhen === "ALL_COMPLETED"
          ? open.length
          : Math.min(1, calls.length - open.length > 0 ? 0 : open.length);
      await someSettled(open, enough, false, timeoutMs);
    }
    return {
      done: futures.filter((_, index) => calls[index]?.settled),
      notDone: futures.filter((_, index) => !calls[index]?.settled),
    };
  }

  /** The results, in order. Rejects with the error of the first call that fails, without waiting for the rest. */
  getResult<R>(futures: CallFuture<R>): Promise<R>;
  getResult<R>(futures: readonly CallFuture<R>[]): Promise<R[]>;
  async getResult<R>(futures: CallFuture<R> | readonly CallFuture<R>[]): Promise<R | R[]> {
    if (isFuture(futures)) return (futures as CallFuture<R>).result();
    const all = futures as readonly CallFuture<R>[];
    const calls = all.map(callOf);
    const open = calls.filter((call) => !call.settled);
    const failed = () => calls.findIndex(({ outcome }) => outcome !== null && "error" in outcome);
    if (failed() === -1) await someSettled(open, open.length, true, undefined);
    const first = failed();
    if (first !== -1) await all[first];
    const results: R[] = new Array(all.length);
    let next = 0;
    const fetchSome = async () => {
      for (let index = next++; index < all.length; index = next++)
        results[index] = await (all[index] as CallFuture<R>);
    };
    await Promise.all(Array.from({ length: FETCHES_AT_A_TIME }, fetchSome));
    return results;
  }

  stats(): SchedulerStats {
    return this.#scheduler.stats();
  }

  /**
   * Cancels what has not ended, ends all function workers, deletes arguments and results from the store (with
   * the namespace, where it is the executor's own), and resolves when all of that is done. Results above 8 KiB
   * that nobody has asked for are gone then.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    for (const call of [...this.#inFlight])
      this.#scheduler.cancel(call, "was cancelled because its executor was closed");
    await this.#scheduler.close();
    await this.#store?.close();
  }

  #admit(calls: number): void {
    if (this.#closing !== null) throw new MillraceError("CLOSED", "the executor is closed; create another");
    if (this.#inFlight.size + calls > this.#maxInFlight) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `${this.#inFlight.size} calls are in flight and ${calls} more would exceed maxInFlight (${this.#maxInFlight}); ` +
          "wait for some, or raise it",
      );
    }
  }

  #call<R>(
    reference: FunctionName,
    argument: unknown,
    settings: CallSettings,
    group: CallGroup | null,
  ): CallFuture<R> {
    const inputs = findInArgument(argument, isFuture).map(({ path, item }) => ({
      path,
      call: callOf(item),
      // Results of another executor lie in a namespace that this one's function workers may not reach.
      fetchForeign: ownerOf(item) === this.#owner ? null : () => item.result(),
    }));
    const call = new Call(`c${++this.#callsMade}`, reference, argument, inputs, settings, group);
    this.#inFlight.add(call);
    call.whenSettled(() => this.#inFlight.delete(call));
    let missing = inputs.length;
    if (missing === 0) this.#scheduler.submit(call);
    for (const { call: input } of inputs) {
      input.whenSettled(() => {
        if (call.settled) return;
        const { outcome } = input;
        if (outcome !== null && "error" in outcome)
          call.settle(input.state === "cancelled" ? "cancelled" : "failed", {
            error: inputFailed(call, input, outcome.error),
          });
        else if (--missing === 0) this.#scheduler.submit(call);
      });
    }
    return new CallFuture<R>(call, this.#owner);
  }

  #encodeArgument(call: Call): EncodedValue | Promise<EncodedValue> {
    if (call.inputs.some(({ fetchForeign }) => fetchForeign !== null)) {
      return this.#fetchHoles(call).then((holes) => this.#pack(call, holes));
    }
    return this.#pack(
      call,
      call.inputs.map((input) => ({ path: input.path, value: resultOf(input.call) })),
    );
  }

  #fetchHoles(call: Call): Promise<Hole[]> {
    return Promise.all(
      call.inputs.map(async (input) => ({
        path: input.path,
        value:
          input.fetchForeign === null
            ? resultOf(input.call)
            : { inline: encodeResult(await input.fetchForeign()) },
      })),
    );
  }

  #pack(call: Call, holes: Hole[]): EncodedValue | Promise<EncodedValue> {
    const paths = holes.map(({ path }) => path);
    const bytes = encodeArgument(holes.length === 0 ? call.argument : withHoles(call.argument, paths), holes);
    call.argumentBytes = bytes.length;
    if (bytes.length <= limits.inlineBytesMax) {
      call.dropArgument();
      return { inline: bytes };
    }
    const store = this.#store;
    if (store === null) {
      throw new MillraceError(
        "OBJECT_TOO_LARGE",
        `the argument of call ${call.id} (${call.reference.name}) has ${bytes.length} bytes; without a store an ` +
          `argument may have ${limits.inlineBytesMax}. Give createExecutor an endpoint`,
      );
    }
    const key = store.argumentKey(call.id);
    return store.put(key, bytes).then(() => {
      call.dropArgument();
      return { key, sizeBytes: bytes.length };
    });
  }

  async #fetch(value: EncodedValue): Promise<Uint8Array> {
    if ("inline" in value) return value.inline;
    if (this.#store === null || this.#closing !== null) {
      throw new MillraceError(
        "CLOSED",
        "the executor is closed and its stored results are gone; ask for results before",
      );
    }
    return this.#store.get(value.key);
  }
}

function resultOf(call: Call): EncodedValue {
  if (call.outcome === null || "error" in call.outcome)
    throw new MillraceError("INTERNAL", `call ${call.id} has no result`);
  return call.outcome.value;
}

function inputFailed(call: Call, input: Call, error: MillraceError): MillraceError {
  return new MillraceError(
    error.code,
    `call ${call.id} (${call.reference.name}) was not run because its input, call ${input.id} ` +
      `(${input.reference.name}), failed: ${error.message}`,
    { retryable: error.retryable, maps: error.maps, cause: error },
  );
}

/** Resolves when `enough` of the calls have ended, or one has failed where that matters, or time is up. */
function someSettled(
  calls: readonly Call[],
  enough: number,
  stopAtFailure: boolean,
  timeoutMs: number | undefined,
): Promise<void> {
  if (enough === 0) return Promise.resolve();
  return new Promise((resolve) => {
    let settled = 0;
    const finish = () => {
      clearTimeout(timer);
      for (const { call, onSettled } of watched) call.forget(onSettled);
      resolve();
    };
    const timer = timeoutMs === undefined ? undefined : setTimeout(finish, timeoutMs);
    const watched = calls.map((call) => ({
      call,
      onSettled: () => {
        settled++;
        if (settled === enough || (stopAtFailure && call.state !== "done")) finish();
      },
    }));
    for (const { call, onSettled } of watched) call.whenSettled(onSettled);
  });
}

function settingsOf(options: CallOptions, defaults: CallSettings): CallSettings {
  const { timeoutMs, retries, retryOn } = options;
  if (retryOn !== undefined && typeof retryOn !== "function") throw invalid("retryOn must be a function");
  return {
    timeoutMs:
      timeoutMs === undefined
        ? defaults.timeoutMs
        : checkCount("timeoutMs", timeoutMs, 0, limits.timeoutMsMax),
    retries: retries === undefined ? defaults.retries : checkCount("retries", retries, 0, limits.retriesMax),
    retryOn: retryOn ?? defaults.retryOn,
  };
}

function stragglersOf(
  given: Partial<StragglerPolicy> | false | undefined,
  defaults: StragglerPolicy,
): StragglerPolicy | null {
  if (given === false) return null;
  const policy = { ...defaults, ...given };
  if (!(policy.factor > 1)) throw invalid(`stragglers.factor must be above 1, not ${policy.factor}`);
  if (!(policy.minDoneFraction >= 0 && policy.minDoneFraction <= 1)) {
    throw invalid(`stragglers.minDoneFraction must be from 0 to 1, not ${policy.minDoneFraction}`);
  }
  checkCount("stragglers.minRunMs", policy.minRunMs, 0, limits.timeoutMsMax);
  return policy;
}

/** What they name is checked by the node; that they fit in a message, here. */
function checkText(what: string, value: string | undefined, charactersMax: number): void {
  if (value === undefined) return;
  if (typeof value !== "string" || value.length === 0 || value.length > charactersMax) {
    throw invalid(`${what} must be a string of 1 to ${charactersMax} characters`);
  }
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
