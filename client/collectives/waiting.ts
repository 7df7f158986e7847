/** How long somebody waits, and what ends it. */
import { MillraceError } from "../errors.js";
import { checkCount } from "../names.js";

export interface WaitOptions {
  /** How long to wait for others; forever where left out. Then DEADLINE_EXCEEDED, which says for whom. */
  timeoutMs?: number;
  /** Ends the wait with CANCELLED, whose `cause` is the signal's reason. */
  signal?: AbortSignal;
}

/** The longest that Node.js timers take. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** One operation's patience: begun once, for all the waits of the operation. */
export class Patience {
  readonly timeoutMs: number | null;
  readonly #endMs: number;
  readonly #signal: AbortSignal | null;

  constructor({ timeoutMs, signal }: WaitOptions) {
    this.timeoutMs = timeoutMs === undefined ? null : checkCount("timeoutMs", timeoutMs, 0, TIMEOUT_MAX_MS);
    this.#endMs = performance.now() + (this.timeoutMs ?? Number.POSITIVE_INFINITY);
    this.#signal = signal ?? null;
    this.check();
  }

  /** CANCELLED where the signal has been aborted. */
  check(): void {
    if (this.#signal?.aborted) throw cancelled(this.#signal);
  }

  /** Calls `end` when patience is over, at most once. Returns what calls it off. */
  watch(end: (error: MillraceError | "late") => void): () => void {
    const signal = this.#signal;
    const onAbort = () => end(cancelled(signal as AbortSignal));
    const leftMs = Math.max(0, this.#endMs - performance.now());
    const timer = Number.isFinite(leftMs) ? setTimeout(() => end("late"), leftMs) : undefined;
    // One that was aborted since the last look tells nobody any more.
    if (signal?.aborted) queueMicrotask(onAbort);
    else signal?.addEventListener("abort", onAbort, { once: true });
    return () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
  }
}

function cancelled(signal: AbortSignal): MillraceError {
  return new MillraceError("CANCELLED", "the wait was cancelled by its signal", { cause: signal.reason });
}
