/** The queue behind `enqueuePut` of a transport that has no batches of its own. */
import type { Key } from "../transport.js";

/** Puts under way at once; the rest wait here. */
const PUTS_IN_FLIGHT_MAX = 64;

/** Puts without a promise each. Puts of one key keep their order; others overtake each other. */
export class PutQueue {
  readonly #put: (key: Key, data: Uint8Array) => Promise<unknown>;
  readonly #waiting = new Map<number, { key: string; data: Uint8Array }>(); // by turn, oldest first
  readonly #busyKeys = new Map<string, Promise<void>>();
  #turn = 0;
  #active = 0;
  #failure: unknown = null;
  #idle: { promise: Promise<void>; resolve: () => void } | null = null;

  constructor(put: (key: Key, data: Uint8Array) => Promise<unknown>) {
    this.#put = put;
  }

  add(key: Key, data: Uint8Array): void {
    const text = typeof key === "string" ? key : Buffer.from(key).toString("utf8");
    this.#waiting.set(this.#turn++, { key: text, data: Uint8Array.prototype.slice.call(data) });
    this.#pump();
  }

  async flush(): Promise<void> {
    if (this.#active > 0 || this.#waiting.size > 0) {
      if (this.#idle === null) {
        let resolve = () => {};
        const promise = new Promise<void>((done) => {
          resolve = done;
        });
        this.#idle = { promise, resolve };
      }
      await this.#idle.promise;
    }
    const failure = this.#failure;
    this.#failure = null;
    if (failure !== null) throw failure;
  }

  #pump(): void {
    for (const [turn, next] of this.#waiting) {
      if (this.#active >= PUTS_IN_FLIGHT_MAX) break;
      this.#waiting.delete(turn);
      this.#active++;
      const before = this.#busyKeys.get(next.key) ?? Promise.resolve();
      const done: Promise<void> = before
        .then(() => this.#put(next.key, next.data))
        .then(
          () => {},
          (error) => {
            this.#failure ??= error;
          },
        )
        .then(() => {
          if (this.#busyKeys.get(next.key) === done) this.#busyKeys.delete(next.key);
          this.#active--;
          this.#pump();
        });
      this.#busyKeys.set(next.key, done);
    }
    if (this.#active === 0 && this.#waiting.size === 0 && this.#idle !== null) {
      this.#idle.resolve();
      this.#idle = null;
    }
  }
}
