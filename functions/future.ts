/** What a caller holds of a call. */
import { MillraceError } from "../client/errors.js";
import type { Call, CallState, CallStats } from "./call.js";
import type { EncodedValue } from "./protocol.js";
import { decodeResult } from "./values.js";

/** What a future needs of its executor. */
export interface FutureOwner {
  /** The bytes of a result that lies in the store. */
  fetch(value: EncodedValue): Promise<Uint8Array>;
  cancel(call: Call, reason: string): boolean;
}

const internals = new WeakMap<object, { call: Call; owner: FutureOwner }>();

/**
 * The result of a call, now or later. It can be awaited, and it can be (part of) the argument of another call,
 * which then starts when this one is done. A failed call that nobody awaits is no unhandled rejection.
 */
export class CallFuture<R = unknown> implements PromiseLike<R> {
  readonly callId: string;
  /** Name of the export that was called. */
  readonly functionName: string;
  #result: Promise<R> | undefined;

  /** Made by an executor. */
  constructor(call: Call, owner: FutureOwner) {
    this.callId = call.id;
    this.functionName = call.reference.name;
    internals.set(this, { call, owner });
  }

  /** `waiting` for inputs, `queued` for a function worker, `running`, `done`, `failed` or `cancelled`. */
  get state(): CallState {
    return callOf(this).state;
  }

  /** True when done, failed or cancelled. */
  get settled(): boolean {
    return callOf(this).settled;
  }

  /** What the function last reported through `context.progress`, 0 to 1. */
  get progress(): number {
    return callOf(this).progress;
  }

  get stats(): CallStats {
    return callOf(this).stats();
  }

  /**
   * The result; every call gives the same promise. A result above 8 KiB is fetched from the store when first
   * asked for, so ask before the executor is closed.
   *
   * Rejects with a MillraceError: CALL_FAILED (the function threw; `cause` is its error), CALL_TIMED_OUT,
   * WORKER_LOST (its process ended, `retries` times over), ABORTED (cancelled), NOT_FOUND (no such module or
   * export), INVALID_ARGUMENT or OBJECT_TOO_LARGE (an argument or result that cannot travel).
   */
  result(): Promise<R> {
    this.#result ??= this.#fetch();
    return this.#result;
  }

  /**
   * Gives the call up; false where it has ended already. A running function sees its `signal` abort, and is
   * killed where it goes on.
   */
  cancel(): boolean {
    const { call, owner } = internalsOf(this);
    return owner.cancel(call, "was cancelled");
  }

  /** An own property and a function, so that serializing a future by mistake fails instead of giving `{}`. */
  // biome-ignore lint/suspicious/noThenProperty: futures are awaited
  readonly then = <A = R, B = never>(
    onDone?: ((value: R) => A | PromiseLike<A>) | null,
    onFailed?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> => this.result().then(onDone, onFailed);

  async #fetch(): Promise<R> {
    const { call, owner } = internalsOf(this);
    if (!call.settled) await new Promise<void>((resolve) => call.whenSettled(resolve));
    const outcome = call.outcome;
    if (outcome === null) throw new MillraceError("INTERNAL", `call ${call.id} settled without an outcome`);
    if ("error" in outcome) throw outcome.error;
    return decodeResult(await owner.fetch(outcome.value)) as R;
  }
}

export function callOf(future: CallFuture<unknown>): Call {
  return internalsOf(future).call;
}

export function ownerOf(future: CallFuture<unknown>): FutureOwner {
  return internalsOf(future).owner;
}

export function isFuture(value: unknown): value is CallFuture<unknown> {
  return typeof value === "object" && value !== null && internals.has(value);
}

function internalsOf(future: object): { call: Call; owner: FutureOwner } {
  const found = internals.get(future);
  if (found === undefined) throw new MillraceError("INVALID_ARGUMENT", "not a future of an executor");
  return found;
}
