/** A stream of events from a node, as an async iterable with an explicit end. */
import type { ClientReadableStream } from "@grpc/grpc-js";
import type { ControlChannel } from "./control.js";
import { MillraceError } from "./errors.js";

/**
 * Events in the order in which they happened. Iterate once; leaving the loop closes the watch. Events that
 * are not consumed wait at the node, not here.
 *
 * A watch whose node goes away throws UNAVAILABLE out of the loop: events may have been missed, so look again
 * (list, describe) before watching anew.
 */
export class Watch<T> implements AsyncIterable<T>, AsyncDisposable {
  /** Resolves when the node watches: what happens from then on is reported. */
  readonly ready: Promise<void>;
  readonly #call: ClientReadableStream<unknown>;
  readonly #channel: ControlChannel;
  readonly #convert: (message: never) => T;
  #closed = false;
  #iterated = false;

  /** @internal */
  constructor(channel: ControlChannel, call: ClientReadableStream<unknown>, convert: (message: never) => T) {
    this.#channel = channel;
    this.#call = call;
    this.#convert = convert;
    this.ready = new Promise((resolve, reject) => {
      // The node sends its headers when it has begun to watch.
      call.once("metadata", () => resolve());
      call.once("error", (error) => (this.#closed ? resolve() : reject(channel.error(error))));
      call.once("end", () => resolve());
    });
    this.ready.catch(() => {});
    // A cancelled call reports an error even when nobody iterates any more.
    call.on("error", () => {});
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    if (this.#iterated) throw new MillraceError("INVALID_ARGUMENT", "a watch is iterated once; open another");
    this.#iterated = true;
    try {
      for await (const message of this.#call) yield this.#convert(message as never);
    } catch (thrown) {
      if (!this.#closed) throw this.#channel.error(thrown);
    } finally {
      this.close();
    }
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
