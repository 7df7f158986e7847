/** The bytes of an HTTP message as they arrive. */
import type { IncomingMessage } from "node:http";
import { performance } from "node:perf_hooks";
import { S3Error } from "./errors.js";

/** Arrived and not taken: above this the sender has to wait. */
const ARRIVED_BYTES_MAX = 256 * 1_024;

/** How long this door bears with those who send slowly. Only while it waits for them does their time run. */
export interface Patience {
  /** A sender that is silent for so long is given up. */
  readonly silenceMs: number;
  /** So is one of whom so much waiting brings less than `windowBytes`, unless that is the end of the body. */
  readonly windowMs: number;
  readonly windowBytes: number;
}

/** A trickle holds a draft, and the memory under it, for 80 s at most; whoever has 1 KiB/s gets through. */
export const PATIENCE: Patience = { silenceMs: 20_000, windowMs: 60_000, windowBytes: 60 * 1_024 };

/**
 * Hands out buffers as the parser made them: reading the message as a stream would join those that piled up, which is
 * a copy more.
 */
export class Arrivals {
  private readonly queue: Buffer[] = [];
  private queuedBytes = 0;
  private paused: boolean;
  private ended = false;
  private failure: S3Error | null = null;
  private wake: (() => void) | null = null;
  private windowWaitedMs = 0;
  private windowBytes = 0;

  constructor(
    private readonly message: IncomingMessage,
    private readonly patience: Patience = PATIENCE,
  ) {
    this.paused = message.isPaused();
    message.on("data", this.onData);
    message.on("end", this.onEnd);
    message.on("close", this.onClose);
    message.on("error", this.onClose);
    if (message.readableEnded) this.onEnd();
    else if (message.destroyed) this.onClose();
  }

  /** The next bytes, or null at the end. Throws IncompleteBody or RequestTimeout. */
  async next(): Promise<Buffer | null> {
    if (this.queue.length === 0 && !this.ended && this.failure === null) await this.arrival();
    // What came before a failure is good for nothing.
    if (this.failure !== null) throw this.failure;
    const bytes = this.queue.shift();
    if (bytes === undefined) return null;
    this.queuedBytes -= bytes.length;
    return bytes;
  }

  /** Lets go of the message, whether it has ended or not. */
  close(): void {
    this.message.off("data", this.onData);
    this.message.off("end", this.onEnd);
    this.message.off("close", this.onClose);
    this.message.off("error", this.onClose);
    if (!this.ended) this.message.pause();
    this.queue.length = 0;
  }

  private async arrival(): Promise<void> {
    const { silenceMs, windowMs, windowBytes } = this.patience;
    const timer = setTimeout(() => this.fail(tooSlow()), silenceMs);
    const startMs = performance.now();
    try {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
        if (this.paused) {
          this.paused = false;
          this.message.resume();
        }
      });
    } finally {
      clearTimeout(timer);
      this.wake = null;
    }
    this.windowWaitedMs += performance.now() - startMs;
    if (this.windowWaitedMs < windowMs) return;
    if (this.windowBytes < windowBytes && !this.ended) this.fail(tooSlow());
    this.windowWaitedMs = 0;
    this.windowBytes = 0;
  }

  private readonly onData = (bytes: Buffer): void => {
    this.queue.push(bytes);
    this.queuedBytes += bytes.length;
    this.windowBytes += bytes.length;
    if (this.queuedBytes >= ARRIVED_BYTES_MAX && !this.paused) {
      this.paused = true;
      this.message.pause();
    }
    this.wake?.();
  };

  private readonly onEnd = (): void => {
    this.ended = true;
    this.wake?.();
  };

  /** Comes after the end too, where it means nothing. */
  private readonly onClose = (): void => {
    if (!this.ended)
      this.fail(new S3Error("IncompleteBody", "The connection was closed before the body had ended."));
  };

  private fail(failure: S3Error): void {
    this.failure ??= failure;
    this.wake?.();
  }
}

function tooSlow(): S3Error {
  return new S3Error(
    "RequestTimeout",
    "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.",
  );
}
