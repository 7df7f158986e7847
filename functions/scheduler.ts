/**
 * Puts calls on function workers: one call a function worker, in the order they became ready, tried calls
 * first. Decides about fresh attempts, timeouts and second runs of stragglers, and replaces function workers
 * that are gone.
 *
 *     slot:  starting --ready--> idle --dispatch--> busy --result | failure--> idle
 *               ^                                    |
 *               +------ replaced <---- gone <--------+  (killed, died, hung, retired)
 *
 * Everything here is driven by events; no timer polls for completion.
 */
import { MillraceError } from "../client/errors.js";
import type { Backend, Departure, FunctionWorker } from "./backends/backend.js";
import type { Attempt, AttemptStats, Call } from "./call.js";
import { monotonicMs } from "./clock.js";
import { limits } from "./limits.js";
import type { EncodedValue, FailureMessage, ProgressMessage, ResultMessage } from "./protocol.js";
import { Queue } from "./queue.js";
import type { CallStore } from "./store.js";
import { lateAfterMs } from "./stragglers.js";
import { fromWireError } from "./wire-error.js";

export interface SchedulerOptions {
  readonly backend: Backend;
  readonly workers: number;
  readonly store: CallStore | null;
  /** The call's argument as it travels; a promise where it has to go through the store. Throws INVALID_ARGUMENT. */
  readonly encodeArgument: (call: Call) => EncodedValue | Promise<EncodedValue>;
  readonly cancelGraceMs: number;
  /** Before the first fresh attempt after an error; doubles with every further one. */
  readonly retryDelayMs: number;
}

export interface SchedulerStats {
  /** Function workers that take calls or run one. */
  readonly ready: number;
  readonly busy: number;
  /** Calls waiting for a function worker. */
  readonly queued: number;
  /** Function workers started in place of one that was gone. */
  readonly replaced: number;
  /** Fresh attempts after one that failed. */
  readonly retries: number;
  /** Second runs of stragglers, and how many of them won. */
  readonly secondRuns: number;
  readonly secondRunsWon: number;
  /** Processes of the function workers on this host. */
  readonly pids: readonly number[];
}

interface Slot {
  workerId: string;
  worker: FunctionWorker | null;
  state: "starting" | "idle" | "busy" | "leaving";
  attempt: Attempt | null;
  /** Set while a cancelled attempt may still notice. */
  grace: NodeJS.Timeout | undefined;
}

const RETRY_DELAY_MS_MAX = 5_000;
const RESTART_DELAY_MS = 100;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #slots = new Set<Slot>();
  /** The last one used is used next: its caches are the warmest. */
  readonly #idle: Slot[] = [];
  readonly #queue = new Queue<Call>();
  readonly #delayed = new Map<Call, NodeJS.Timeout>();
  readonly #secondRuns = new Set<Attempt>();
  #open: boolean;
  #broken: MillraceError | null = null;
  #closed = false;
  #workersStarted = 0;
  #failedStarts = 0;
  #stragglerTimer: NodeJS.Timeout | undefined;
  #stats = { replaced: 0, retries: 0, secondRuns: 0, secondRunsWon: 0 };

  constructor(options: SchedulerOptions) {
    this.#options = options;
    // Processes start while the namespace is being made; calls wait for it.
    this.#open = options.store === null;
    options.store?.ready.then(
      () => {
        this.#open = true;
        this.#pump();
      },
      (error: unknown) => this.#break(MillraceError.from(error, "UNAVAILABLE")),
    );
    for (let count = 0; count < options.workers; count++) {
      const slot: Slot = { workerId: "", worker: null, state: "starting", attempt: null, grace: undefined };
      this.#slots.add(slot);
      this.#start(slot);
    }
  }

  /** Takes a call whose inputs are done. */
  submit(call: Call): void {
    if (call.settled) return;
    call.readyAtMs = monotonicMs();
    this.#enqueue(call, false);
  }

  cancel(call: Call, reason: string): boolean {
    if (call.settled) return false;
    clearTimeout(this.#delayed.get(call));
    this.#delayed.delete(call);
    const error = new MillraceError("ABORTED", `call ${call.id} (${call.reference.name}) ${reason}`, {
      retryable: false,
    });
    this.#settle(call, "cancelled", { error });
    return true;
  }

  stats(): SchedulerStats {
    const slots = [...this.#slots];
    return {
      ready: slots.filter(({ state }) => state === "idle" || state === "busy").length,
      busy: slots.filter(({ state }) => state === "busy").length,
      queued: this.#queue.size + this.#delayed.size,
      pids: slots.flatMap(({ worker }) => (worker === null || worker.pid === null ? [] : [worker.pid])),
      ...this.#stats,
    };
  }

  /** Ends all function workers. Calls must have been cancelled before. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#stragglerTimer);
    for (const timer of this.#delayed.values()) clearTimeout(timer);
    for (const { grace, attempt } of this.#slots) {
      clearTimeout(grace);
      clearTimeout(attempt?.timeout);
    }
    await this.#options.backend.close();
    this.#slots.clear();
  }

  // ---- function workers

  #start(slot: Slot): void {
    if (this.#closed || this.#broken !== null) return;
    slot.workerId = `w${++this.#workersStarted}`;
    slot.state = "starting";
    slot.attempt = null;
    const { store, backend } = this.#options;
    const setup = {
      workerId: slot.workerId,
      endpoint: store?.endpoint ?? null,
      namespaceName: store?.namespaceName ?? null,
    };
    slot.worker = backend.startFunctionWorker(setup, {
      onReady: () => {
        this.#failedStarts = 0;
        this.#release(slot);
      },
      onMessage: (message) => this.#onMessage(slot, message),
      onGone: (departure) => this.#onGone(slot, departure),
    });
  }

  #onMessage(slot: Slot, message: ResultMessage | FailureMessage | ProgressMessage): void {
    const attempt = slot.attempt;
    if (this.#closed) return;
    if (attempt === null || attempt.call.id !== message.callId || attempt.number !== message.attempt) {
      this.#kill(slot, "reported on a call that it does not run and was killed");
      return;
    }
    if (message.type === "progress") {
      if (!attempt.cancelled) attempt.call.advance(message.fraction);
      return;
    }
    if (
      message.type === "result" &&
      "key" in message.value &&
      message.value.key !== this.#resultKey(attempt)
    ) {
      this.#kill(slot, "put a result under a wrong key and was killed");
      return;
    }
    clearTimeout(attempt.timeout);
    slot.attempt = null;
    if (message.type === "result") this.#onResult(attempt, message);
    else this.#onFailure(attempt, message);
    if (message.retiring) slot.state = "leaving";
    this.#release(slot);
  }

  #onGone(slot: Slot, { reason, beforeReady }: Departure): void {
    if (this.#closed) return;
    clearTimeout(slot.grace);
    const index = this.#idle.indexOf(slot);
    if (index !== -1) this.#idle.splice(index, 1);
    const attempt = slot.attempt;
    slot.attempt = null;
    slot.worker = null;
    slot.state = "starting";
    this.#stats.replaced++;
    if (beforeReady) this.#failedStarts++;
    if (this.#failedStarts >= limits.failedStartsMax) {
      this.#break(
        new MillraceError("WORKER_LOST", `function workers do not start: ${reason}; see stderr for why`),
      );
    } else if (beforeReady) {
      setTimeout(() => this.#start(slot), RESTART_DELAY_MS * 2 ** this.#failedStarts);
    } else {
      this.#start(slot);
    }
    if (attempt === null) return;
    clearTimeout(attempt.timeout);
    const { id, reference, settings } = attempt.call;
    const what = `call ${id} (${reference.name}), attempt ${attempt.number}`;
    const error = attempt.timedOut
      ? new MillraceError("CALL_TIMED_OUT", `${what}: not done within ${settings.timeoutMs} ms`, {
          retryable: true,
        })
      : new MillraceError("WORKER_LOST", `${what}: ${reason}`, { retryable: true });
    this.#attemptFailed(attempt, error, true, attempt.timedOut ? "timed-out" : "lost");
  }

  #release(slot: Slot): void {
    clearTimeout(slot.grace);
    slot.grace = undefined;
    if (slot.state === "leaving" || this.#closed) return;
    slot.state = "idle";
    this.#idle.push(slot);
    this.#pump();
  }

  #kill(slot: Slot, reason: string): void {
    slot.state = "leaving";
    slot.worker?.kill(reason);
  }

  /** Nothing can run any more: every call of now and later fails with `error`. */
  #break(error: MillraceError): void {
    this.#broken = error;
    this.#open = true;
    this.#pump();
  }

  // ---- calls

  #enqueue(call: Call, urgent: boolean): void {
    call.state = "queued";
    if (urgent) this.#queue.pushUrgent(call);
    else this.#queue.push(call);
    this.#pump();
  }

  #pump(): void {
    if (!this.#open || this.#closed) return;
    while (this.#broken !== null || this.#idle.length > 0) {
      const call = this.#queue.shift();
      if (call === undefined) break;
      if (call.settled) continue;
      if (this.#broken !== null) this.#settle(call, "failed", { error: this.#broken });
      else {
        if (call.attemptsStarted > 0) this.#stats.retries++;
        this.#dispatch(call, this.#idle.pop() as Slot);
      }
    }
    if (this.#idle.length > 0 && this.#broken === null) this.#lookForStragglers();
  }

  #dispatch(call: Call, slot: Slot): Attempt {
    const attempt: Attempt = {
      call,
      number: call.attemptsStarted++,
      workerId: slot.workerId,
      sentAtMs: 0,
      timeout: undefined,
      timedOut: false,
      cancelled: false,
    };
    slot.state = "busy";
    slot.attempt = attempt;
    call.state = "running";
    call.running.add(attempt);
    let argument: EncodedValue | Promise<EncodedValue>;
    try {
      argument = call.encodedArgument ?? this.#options.encodeArgument(call);
    } catch (error) {
      argument = Promise.reject(error);
    }
    if (!(argument instanceof Promise)) this.#send(attempt, slot, argument);
    else {
      argument.then(
        (encoded) => this.#send(attempt, slot, encoded),
        (error: unknown) => {
          if (slot.attempt !== attempt) return;
          slot.attempt = null;
          const failure = MillraceError.from(error);
          this.#attemptFailed(attempt, failure, failure.retryable, "failed");
          this.#release(slot);
        },
      );
    }
    return attempt;
  }

  #send(attempt: Attempt, slot: Slot, argument: EncodedValue): void {
    const { call } = attempt;
    call.encodedArgument = argument;
    // While the argument was being stored the process may have gone, or the call been given up.
    if (slot.attempt !== attempt || slot.worker === null || this.#closed) return;
    attempt.sentAtMs = monotonicMs();
    slot.worker.send({
      type: "call",
      callId: call.id,
      attempt: attempt.number,
      module: call.reference.module,
      name: call.reference.name,
      argument,
      resultKey: this.#resultKey(attempt),
    });
    const { timeoutMs } = call.settings;
    if (timeoutMs === 0) return;
    attempt.timeout = setTimeout(() => {
      // Behind the results that already lie in the sockets, should the driver itself have been busy.
      setImmediate(() => {
        if (slot.attempt !== attempt) return;
        attempt.timedOut = true;
        this.#kill(slot, `was killed because call ${call.id} was not done within ${timeoutMs} ms`);
      });
    }, timeoutMs);
  }

  #onResult(attempt: Attempt, { value, times }: ResultMessage): void {
    const { call } = attempt;
    if (attempt.cancelled || call.settled) {
      if ("key" in value) this.#options.store?.discard(value.key);
      return;
    }
    call.running.delete(attempt);
    call.attemptEnded(attempt, "done");
    if (this.#secondRuns.delete(attempt)) this.#stats.secondRunsWon++;
    call.won(attempt, times);
    this.#settle(call, "done", { value });
  }

  #onFailure(attempt: Attempt, message: FailureMessage): void {
    const { call } = attempt;
    if (attempt.cancelled || call.settled) return;
    const thrown = fromWireError(message.error);
    if (!message.byUserCode) {
      const error = MillraceError.from(thrown);
      this.#attemptFailed(attempt, error, error.retryable, "failed");
      return;
    }
    const error = new MillraceError(
      "CALL_FAILED",
      `call ${call.id} (${call.reference.name}), attempt ${attempt.number}: ${thrown.message}`,
      { retryable: message.error.retryable, maps: message.error.maps, cause: thrown },
    );
    this.#attemptFailed(attempt, error, error.retryable || this.#userWantsRetry(call, error), "failed");
  }

  #userWantsRetry(call: Call, error: MillraceError): boolean {
    try {
      return call.settings.retryOn?.(error) === true;
    } catch {
      return false;
    }
  }

  #attemptFailed(
    attempt: Attempt,
    error: MillraceError,
    mayRetry: boolean,
    outcome: AttemptStats["outcome"],
  ): void {
    const { call } = attempt;
    if (attempt.cancelled || call.settled) return;
    call.running.delete(attempt);
    this.#secondRuns.delete(attempt);
    call.attemptEnded(attempt, outcome);
    call.failures++;
    // The other run of a straggler may still succeed, and then this failure never mattered.
    if (call.running.size > 0) return;
    if (!mayRetry || call.failures > call.settings.retries) {
      this.#settle(call, "failed", { error });
      return;
    }
    call.advance(0);
    // A lost process says nothing about the call. An error may need time to go away.
    if (outcome !== "failed") {
      this.#enqueue(call, true);
      return;
    }
    const delayMs = Math.min(RETRY_DELAY_MS_MAX, this.#options.retryDelayMs * 2 ** (call.failures - 1));
    call.state = "queued";
    this.#delayed.set(
      call,
      setTimeout(() => {
        this.#delayed.delete(call);
        this.#enqueue(call, true);
      }, delayMs),
    );
  }

  #settle(
    call: Call,
    state: "done" | "failed" | "cancelled",
    outcome: { value: EncodedValue } | { error: MillraceError },
  ): void {
    for (const attempt of call.running) this.#abandon(attempt);
    call.running.clear();
    const { encodedArgument } = call;
    // Only now is it certain that no attempt will read it again.
    if (encodedArgument !== null && "key" in encodedArgument)
      this.#options.store?.discard(encodedArgument.key);
    call.encodedArgument = null;
    call.settle(state, outcome);
  }

  /** Takes an attempt off its function worker; one that does not stop by itself is killed. */
  #abandon(attempt: Attempt): void {
    attempt.cancelled = true;
    this.#secondRuns.delete(attempt);
    clearTimeout(attempt.timeout);
    attempt.call.attemptEnded(attempt, "cancelled");
    const slot = [...this.#slots].find((each) => each.attempt === attempt);
    if (slot === undefined) return;
    if (attempt.sentAtMs === 0) {
      slot.attempt = null;
      this.#release(slot);
      return;
    }
    slot.worker?.send({ type: "cancel", callId: attempt.call.id, attempt: attempt.number });
    slot.grace = setTimeout(() => {
      if (slot.attempt === attempt)
        this.#kill(slot, `was killed because it went on with a call that was given up`);
    }, this.#options.cancelGraceMs);
  }

  #resultKey(attempt: Attempt): string | null {
    return this.#options.store?.resultKey(attempt.call.id, attempt.number) ?? null;
  }

  // ---- stragglers

  /** Function workers are idle and no call waits: gives late calls a second run, and sees to the next one. */
  #lookForStragglers(): void {
    clearTimeout(this.#stragglerTimer);
    this.#stragglerTimer = undefined;
    const nowMs = monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    const late: Call[] = [];
    const lateAfter = new Map<object, number | null>();
    for (const { attempt } of this.#slots) {
      if (attempt === null || attempt.cancelled || attempt.sentAtMs === 0) continue;
      const { call } = attempt;
      const policy = call.group?.stragglers ?? null;
      if (call.group === null || policy === null || call.hasSecondRun || call.running.size !== 1) continue;
      let afterMs = lateAfter.get(call.group);
      if (afterMs === undefined) {
        afterMs = lateAfterMs(policy, call.group.finishedRunMs, call.group.total);
        lateAfter.set(call.group, afterMs);
      }
      if (afterMs === null) continue;
      const leftMs = attempt.sentAtMs + afterMs - nowMs;
      if (leftMs <= 0) late.push(call);
      else nextMs = Math.min(nextMs, leftMs);
    }
    for (const call of late) {
      const slot = this.#idle.pop();
      if (slot === undefined) return;
      call.hasSecondRun = true;
      this.#stats.secondRuns++;
      this.#secondRuns.add(this.#dispatch(call, slot));
    }
    if (nextMs < Number.POSITIVE_INFINITY) {
      this.#stragglerTimer = setTimeout(
        () => {
          if (this.#idle.length > 0) this.#pump();
        },
        Math.min(limits.timeoutMsMax, Math.ceil(nextMs)),
      );
    }
  }
}
