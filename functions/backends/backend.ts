/**
 * The seam between the executor, which decides what runs where and when again, and what runs it: a pool of
 * local processes today. A backend starts and ends function workers and carries messages; it knows nothing of
 * queues, retries or stragglers.
 */
import type {
  CallMessage,
  CancelMessage,
  FromFunctionWorker,
  HeartbeatMessage,
  ReadyMessage,
} from "../protocol.js";

export interface FunctionWorkerSetup {
  readonly workerId: string;
  readonly endpoint: string | null;
  readonly namespaceName: string | null;
}

/** Why a function worker is no more. */
export interface Departure {
  /** A sentence's end, as in "function worker w3 was killed by SIGKILL". */
  readonly reason: string;
  /** It never became ready. */
  readonly beforeReady: boolean;
}

/** What the executor hears of one function worker. `onGone` comes once and last. */
export interface FunctionWorkerEvents {
  onReady(): void;
  /** A checked message. `startedAtMs` in it must be on the driver's `monotonicMs` clock. */
  onMessage(message: Exclude<FromFunctionWorker, ReadyMessage | HeartbeatMessage>): void;
  onGone(departure: Departure): void;
}

export interface FunctionWorker {
  /** Of the process, or null where there is none on this host. */
  readonly pid: number | null;
  send(message: CallMessage | CancelMessage): void;
  /** Ends it at once, whatever it is doing; `onGone` follows with this reason. */
  kill(reason: string): void;
}

export interface Backend {
  readonly name: string;
  /** Returns at once; `onReady` or `onGone` follows. */
  startFunctionWorker(setup: FunctionWorkerSetup, events: FunctionWorkerEvents): FunctionWorker;
  /** Ends all function workers and resolves when none is left. No event comes after that. */
  close(): Promise<void>;
}
