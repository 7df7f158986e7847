/**
 * The heartbeat of a namespace: renews the lease every third of it, sooner again after a failed try. It never
 * keeps the process alive.
 */
import type { MillraceError } from "./errors.js";

/** Two tries still fit into the lease after one that failed. */
const RENEWALS_PER_LEASE = 3;
const RETRIES_PER_LEASE = 10;

export interface LeaseOptions {
  leaseMs: number;
  /** Renews once; rejects with a MillraceError. */
  renew(): Promise<unknown>;
  /** The node says that the namespace is gone. Called once, and the heartbeat has ended. */
  onGone(error: MillraceError): void;
}

export class Heartbeat {
  readonly #options: LeaseOptions;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#schedule(options.leaseMs / RENEWALS_PER_LEASE);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #schedule(afterMs: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#beat(), Math.max(afterMs, 1));
    this.#timer.unref();
  }

  async #beat(): Promise<void> {
    const { leaseMs, renew, onGone } = this.#options;
    try {
      await renew();
      this.#schedule(leaseMs / RENEWALS_PER_LEASE);
    } catch (thrown) {
      const error = thrown as MillraceError;
      if (this.#stopped) return;
      if (error.code === "NAMESPACE_GONE" || error.code === "NOT_FOUND") {
        this.#stopped = true;
        onGone(error);
      } else {
        // Whether the lease has lapsed is for the node to say: it may have been away as well.
        this.#schedule(leaseMs / RETRIES_PER_LEASE);
      }
    }
  }
}
