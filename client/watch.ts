/** A stream of events from a node, as an async iterable with an explicit end. */
import type { ClientReadableStream } from "@grpc/grpc-js";
import { type ControlChannel, retrying } from "./control.js";
import { MillraceError } from "./errors.js";

/**
 * Events in the order in which they happened. Iterate once; leaving the loop closes the watch. Events that
 * are not consumed wait at the node, not here.
 *
 * A watch of objects whose node goes away throws UNAVAILABLE out of the loop: events may have been missed, so look
 * again (list) before watching anew. A watch of a shuffle goes on when the node is back, beginning anew with what
 * stands then.
 */
export class Watch<T> implements AsyncIterable<T>, AsyncDisposable {
  /** Resolves when the node watches: what happens from then on is reported. */
  readonly ready: Promise<void>;
  #call: ClientReadableStream<unknown>;
  readonly #channel: ControlChannel;
  readonly #open: () => ClientReadableStream<unknown>;
  readonly #convert: (message: never) => T;
  /** Every stream begins with all that stands, so that nothing is missed by beginning anew. */
  readonly #repeatable: boolean;
  #closed = false;
  #iterated = false;

  /** @internal */
  constructor(
    channel: ControlChannel,
    open: () => ClientReadableStream<unknown>,
    options: { convert: (message: never) => T; repeatable?: boolean },
  ) {
    this.#channel = channel;
    this.#open = open;
    this.#convert = options.convert;
    this.#repeatable = options.repeatable ?? false;
    this.#call = open();
    this.ready = this.#untilReady();
    this.ready.catch(() => {});
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    if (this.#iterated) throw new MillraceError("INVALID_ARGUMENT", "a watch is iterated once; open another");
    this.#iterated = true;
    try {
      for (;;) {
        try {
          for await (const message of this.#call) yield this.#convert(message as never);
          return;
        } catch (thrown) {
          if (this.#closed) return;
          const error = this.#channel.error(thrown);
          if (!this.#repeatable || error.code !== "UNAVAILABLE") throw error;
        }
        await this.#beginAnew();
      }
    } finally {
      this.close();
    }
  }

  /** Waits for the node to come back, at most for the channel's timeout. */
  #beginAnew(): Promise<void> {
    const { timeoutMs } = this.#channel;
    const attempt = async () => {
      if (this.#closed) return;
      this.#call = this.#open();
      await this.#untilReady();
    };
    return retrying(attempt, Date.now() + timeoutMs, timeoutMs);
  }

  /** Resolves when the node watches over `#call`. */
  #untilReady(): Promise<void> {
    const call = this.#call;
    // A cancelled call reports an error even when nobody iterates any more.
    call.on("error", () => {});
    return new Promise((resolve, reject) => {
      // The node sends its headers when it has begun to watch.
      call.once("metadata", () => resolve());
      call.once("error", (error) => (this.#closed ? resolve() : reject(this.#channel.error(error))));
      call.once("end", () => resolve());
    });
  }

  /** Ends the watch; a loop over it ends as well. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#call.cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
