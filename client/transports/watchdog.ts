/** Ends gRPC streams that stand still. */
import type { ControlChannel } from "../control.js";
import { MillraceError } from "../errors.js";

/**
 * A stream has no deadline as a whole, since an object may be large; instead it may not stand still for longer
 * than the channel's timeout.
 */
export class Watchdog {
  /** Set once it has fired. */
  error: MillraceError | null = null;
  readonly #channel: ControlChannel;
  readonly #cancel: () => void;
  #timer: NodeJS.Timeout | null = null;

  constructor(channel: ControlChannel, cancel: () => void) {
    this.#channel = channel;
    this.#cancel = cancel;
  }

  /** A byte moved, or is about to. */
  reset(): void {
    if (this.#timer !== null) {
      this.#timer.refresh();
      return;
    }
    this.#timer = setTimeout(() => {
      const { address, timeoutMs } = this.#channel;
      const message = `no byte moved to or from the node at ${address} for ${timeoutMs} ms`;
      this.error = new MillraceError("DEADLINE_EXCEEDED", message);
      this.#cancel();
    }, this.#channel.timeoutMs);
  }

  /** Until the next `reset`. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
