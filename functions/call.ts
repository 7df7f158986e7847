/**
 * One call inside the executor: what was asked, what has been tried, how it ended. The scheduler moves it
 * along; `CallFuture` is its public face.
 *
 *     waiting --inputs done--> queued --function worker free--> running --> done
 *        |                        ^                                |
 *        |                        +----------- next attempt -------+
 *        +--------------------> failed | cancelled (from every state before done)
 */
import type { MillraceError } from "../client/errors.js";
import { monotonicMs } from "./clock.js";
import type { AttemptTimes, EncodedValue } from "./protocol.js";
import type { FunctionName } from "./reference.js";
import type { StragglerPolicy } from "./stragglers.js";
import type { Path } from "./values.js";

export type CallState = "waiting" | "queued" | "running" | "done" | "failed" | "cancelled";

/** How one attempt went; together with its times a bar of a timeline. */
export interface AttemptStats {
  readonly attempt: number;
  readonly workerId: string;
  /** Unix time when the call was sent to the function worker, with a fraction. */
  readonly sentUnixMs: number;
  readonly endedUnixMs: number;
  readonly outcome: "done" | "failed" | "lost" | "timed-out" | "cancelled";
}

/** Durations are 0 until they are known. */
export interface CallStats {
  readonly callId: string;
  /** Name of the export. */
  readonly functionName: string;
  readonly submittedUnixMs: number;
  /** From the call until its inputs were done. */
  readonly waitedMs: number;
  /** From then until the winning attempt was sent to a function worker. */
  readonly queuedMs: number;
  /** From then until the user's function was entered: the channel, loading its module, fetching its argument. */
  readonly dispatchMs: number;
  /** From the call until the user's function was entered. */
  readonly startMs: number;
  readonly importMs: number;
  readonly inputMs: number;
  readonly runMs: number;
  readonly outputMs: number;
  /** From the call until its end was known to the driver. */
  readonly totalMs: number;
  /** Attempts started, second runs of stragglers included. */
  readonly attempts: number;
  /** Of the winning attempt; null until there is one. */
  readonly workerId: string | null;
  readonly argumentBytes: number;
  readonly resultBytes: number;
  readonly history: readonly AttemptStats[];
}

/** The options of a call with every default filled in. */
export interface CallSettings {
  readonly timeoutMs: number;
  readonly retries: number;
  readonly retryOn: ((error: MillraceError) => boolean) | null;
}

/** How far a map is. */
export interface MapProgress {
  readonly total: number;
  readonly done: number;
  /** Failed and cancelled ones. */
  readonly failed: number;
  /** 0 to 1; counts what running calls report through `context.progress`. */
  readonly fraction: number;
}

/** The calls of one map, which are compared with each other to find stragglers. */
export class CallGroup {
  readonly total: number;
  readonly stragglers: StragglerPolicy | null;
  readonly finishedRunMs: number[] = [];
  #done = 0;
  #failed = 0;
  #runningFractions = 0;
  readonly #onProgress: ((progress: MapProgress) => void) | null;

  constructor(
    total: number,
    stragglers: StragglerPolicy | null,
    onProgress: ((progress: MapProgress) => void) | null,
  ) {
    this.total = total;
    this.stragglers = stragglers;
    this.#onProgress = onProgress;
  }

  advanced(fromFraction: number, toFraction: number): void {
    this.#runningFractions += toFraction - fromFraction;
    this.#report();
  }

  settled(call: Call): void {
    this.#runningFractions -= call.progress;
    if (call.state === "done") {
      this.#done++;
      this.finishedRunMs.push(call.times?.runMs ?? 0);
    } else this.#failed++;
    this.#report();
  }

  #report(): void {
    const onProgress = this.#onProgress;
    if (onProgress === null) return;
    const ended = this.#done + this.#failed;
    // Adding and taking away fractions leaves rounding errors; the bar must still end at exactly 1.
    const fraction =
      ended === this.total ? 1 : Math.max(0, Math.min(1, (ended + this.#runningFractions) / this.total));
    const progress = { total: this.total, done: this.#done, failed: this.#failed, fraction };
    // What the callback throws must not end up inside the scheduler.
    queueMicrotask(() => onProgress(progress));
  }
}

/** One attempt, from the moment a function worker is set aside for it. */
export interface Attempt {
  readonly call: Call;
  readonly number: number;
  readonly workerId: string;
  /** `monotonicMs()`; 0 until the call is sent. */
  sentAtMs: number;
  timeout: NodeJS.Timeout | undefined;
  timedOut: boolean;
  /** Its outcome no longer matters. */
  cancelled: boolean;
}

export type Outcome = { readonly value: EncodedValue } | { readonly error: MillraceError };

/** A future in an argument. */
export interface CallInput {
  readonly path: Path;
  readonly call: Call;
  /** Fetches the result of another executor's call; null where the call is of the same executor. */
  readonly fetchForeign: (() => Promise<unknown>) | null;
}

const unixMinusMonotonicMs = Date.now() - monotonicMs();

export class Call {
  readonly id: string;
  readonly reference: FunctionName;
  readonly settings: CallSettings;
  readonly group: CallGroup | null;
  state: CallState = "waiting";
  progress = 0;
  outcome: Outcome | null = null;
  /** As the caller gave it; let go when it is encoded. */
  argument: unknown;
  /** The calls whose results belong into it; let go with it. */
  inputs: readonly CallInput[];
  encodedArgument: EncodedValue | null = null;
  argumentBytes = 0;
  attemptsStarted = 0;
  failures = 0;
  readonly running = new Set<Attempt>();
  /** A second attempt of a straggler is made at most once. */
  hasSecondRun = false;
  times: AttemptTimes | null = null;
  readonly submittedAtMs = monotonicMs();
  readyAtMs = 0;
  #sentAtMs = 0;
  #endedAtMs = 0;
  #workerId: string | null = null;
  #history: AttemptStats[] | null = null;
  #onSettled: (() => void)[] | null = null;

  constructor(
    id: string,
    reference: FunctionName,
    argument: unknown,
    inputs: readonly CallInput[],
    settings: CallSettings,
    group: CallGroup | null,
  ) {
    this.id = id;
    this.reference = reference;
    this.argument = argument;
    this.inputs = inputs;
    this.settings = settings;
    this.group = group;
  }

  get settled(): boolean {
    return this.outcome !== null;
  }

  /** Calls back when the call has ended; at once where it has. */
  whenSettled(callback: () => void): void {
    if (this.outcome !== null) callback();
    else {
      this.#onSettled ??= [];
      this.#onSettled.push(callback);
    }
  }

  /** Forgets a callback that was given to `whenSettled`. */
  forget(callback: () => void): void {
    const index = this.#onSettled?.indexOf(callback) ?? -1;
    if (index !== -1) this.#onSettled?.splice(index, 1);
  }

  dropArgument(): void {
    this.argument = undefined;
    this.inputs = [];
  }

  advance(fraction: number): void {
    const before = this.progress;
    this.progress = fraction;
    this.group?.advanced(before, fraction);
  }

  attemptEnded(attempt: Attempt, outcome: AttemptStats["outcome"]): void {
    if (attempt.sentAtMs === 0) return;
    this.#history ??= [];
    this.#history.push({
      attempt: attempt.number,
      workerId: attempt.workerId,
      sentUnixMs: attempt.sentAtMs + unixMinusMonotonicMs,
      endedUnixMs: monotonicMs() + unixMinusMonotonicMs,
      outcome,
    });
  }

  won(attempt: Attempt, times: AttemptTimes): void {
    this.times = times;
    this.#sentAtMs = attempt.sentAtMs;
    this.#workerId = attempt.workerId;
  }

  /** The one end of a call; later ends are ignored, as of two attempts that both finish. */
  settle(state: "done" | "failed" | "cancelled", outcome: Outcome): void {
    if (this.outcome !== null) return;
    this.state = state;
    this.outcome = outcome;
    this.dropArgument();
    this.#endedAtMs = monotonicMs();
    this.group?.settled(this);
    if (state === "done") this.progress = 1;
    const callbacks = this.#onSettled ?? [];
    this.#onSettled = null;
    for (const callback of callbacks) callback();
  }

  stats(): CallStats {
    const since = (endMs: number, startMs: number) =>
      endMs === 0 || startMs === 0 ? 0 : Math.max(0, endMs - startMs);
    const startedAtMs = this.times?.startedAtMs ?? 0;
    const value = this.outcome !== null && "value" in this.outcome ? this.outcome.value : null;
    return {
      callId: this.id,
      functionName: this.reference.name,
      submittedUnixMs: this.submittedAtMs + unixMinusMonotonicMs,
      waitedMs: since(this.readyAtMs, this.submittedAtMs),
      queuedMs: since(this.#sentAtMs, this.readyAtMs),
      dispatchMs: since(startedAtMs, this.#sentAtMs),
      startMs: since(startedAtMs, this.submittedAtMs),
      importMs: this.times?.importMs ?? 0,
      inputMs: this.times?.inputMs ?? 0,
      runMs: this.times?.runMs ?? 0,
      outputMs: this.times?.outputMs ?? 0,
      totalMs: since(this.#endedAtMs, this.submittedAtMs),
      attempts: this.attemptsStarted,
      workerId: this.#workerId,
      argumentBytes: this.argumentBytes,
      resultBytes: value === null ? 0 : "inline" in value ? value.inline.length : value.sizeBytes,
      history: this.#history ?? [],
    };
  }
}
