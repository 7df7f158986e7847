/** What every call of a workload tells beside its result. */
import type { CallContext } from "../../functions/index.js";
import { type Activity, nowMs, type Span, Stopwatch } from "../report/activity.js";

/** The part of a result that is about the call. Times are Unix milliseconds. */
export interface CallReport {
  functionWorker: string;
  attempt: number;
  startMs: number;
  endMs: number;
  spans: Span[];
}

/** Watches one call. */
export class CallWatch {
  readonly #watch = new Stopwatch();
  readonly #startMs = nowMs();
  readonly #context: CallContext;

  constructor(context: CallContext) {
    this.#context = context;
  }

  time<T>(activity: Activity, work: () => T | Promise<T>): Promise<T> {
    return this.#watch.time(activity, work);
  }

  report(): CallReport {
    return {
      functionWorker: this.#context.workerId,
      attempt: this.#context.attempt,
      startMs: this.#startMs,
      endMs: nowMs(),
      spans: this.#watch.spans,
    };
  }
}
