/** The `tcp` transport, for clients on other hosts than the daemon's: each call is a request. */
import { MillraceError } from "../errors.js";
import type { Condition, GotObject, Key, ObjectInfo, ObjectWriter, Range, Transport } from "../transport.js";
import type { NativeHandle } from "./native_handle.js";
import {
  checkRange,
  type Deferred,
  NativeTransport,
  outOfRange,
  payloadOf,
  textOf,
} from "./native_transport.js";
import { TcpWriter } from "./tcp_writer.js";

const NEVER = () => false;

export class TcpTransport extends NativeTransport implements Transport {
  readonly kind = "tcp";
  #enqueued = 0;
  #turn = 0;
  /** The last enqueued put of each key that has one under way. */
  readonly #turnsOfKeys = new Map<string, number>();
  #enqueueFailure: MillraceError | null = null;
  #flushWaiters: Deferred<void>[] = [];
  #nextDraft = 1;

  constructor(
    native: NativeHandle,
    private readonly timeoutMs: number,
  ) {
    super(native);
  }

  /** `data` must stay as it is until the promise settles. Waits for room up to the transport's timeout. */
  put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo> {
    return this.#put(key, data, condition, NEVER) as Promise<ObjectInfo>;
  }

  /** Null where it was `overtaken` while there was no room: sent again, it would undo a later put. */
  async #put(
    key: Key,
    data: Uint8Array,
    condition: Condition | undefined,
    overtaken: () => boolean,
  ): Promise<ObjectInfo | null> {
    const deadline = Date.now() + this.timeoutMs;
    for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 2, 250)) {
      try {
        const info = await this.request(
          (id) => this.native.put(id, key, data, condition?.ifAbsent ?? false, condition?.ifSequence ?? 0),
          this.takeInfo,
          data,
        );
        this.bytesIn += data.byteLength;
        return info;
      } catch (error) {
        const full = error instanceof MillraceError && error.code === "RESOURCE_EXHAUSTED";
        if (!full || Date.now() + pauseMs > deadline) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (overtaken()) return null;
    }
  }

  async get(key: Key, range?: Range): Promise<GotObject | null> {
    const { offset, length } = checkRange(range);
    if (length === 0) {
      const info = await this.head(key);
      if (info !== null && offset > info.sizeBytes) throw outOfRange(offset, length, info.sizeBytes);
      return info === null ? null : { info, bytes: new Uint8Array(0) };
    }
    return this.orNull(
      this.request(
        (id) => this.native.get(id, key, offset, Math.max(length, 0)),
        (base, slab, value): GotObject => {
          const bytes = payloadOf(this.numbers, base, slab, value);
          this.bytesOut += bytes.byteLength;
          return { info: this.takeInfo(base), bytes };
        },
      ),
      key,
    );
  }

  async openWriter(key: Key, options: { sizeBytes?: number } = {}): Promise<ObjectWriter> {
    return new TcpWriter(this, this.native, key, options.sizeBytes ?? 0);
  }

  enqueuePut(key: Key, data: Uint8Array): void {
    if (this.failure !== null) throw this.failure;
    const text = textOf(key);
    const turn = ++this.#turn;
    this.#turnsOfKeys.set(text, turn);
    this.#enqueued++;
    const overtaken = () => this.#turnsOfKeys.get(text) !== turn;
    const done = (error: MillraceError | null) => {
      if (!overtaken()) this.#turnsOfKeys.delete(text);
      this.#dequeued(error);
    };
    // A copy, for it may have to be sent again.
    this.#put(text, Buffer.from(data), undefined, overtaken).then(
      () => done(null),
      (error: unknown) => done(MillraceError.from(error)),
    );
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#flushWaiters.push({ resolve, reject });
      this.#settleFlushes();
    });
  }

  view(_key: Key): Uint8Array | null {
    throw new MillraceError("UNSUPPORTED", "views need the shm transport; use get");
  }

  viewExtents(_key: Key): Uint8Array[] | null {
    throw new MillraceError("UNSUPPORTED", "views need the shm transport; use get");
  }

  nextDraft(): number {
    return this.#nextDraft++;
  }

  countIn(bytes: number): void {
    this.bytesIn += bytes;
  }

  #dequeued(error: MillraceError | null): void {
    this.#enqueued--;
    this.#enqueueFailure ??= error;
    this.#settleFlushes();
  }

  #settleFlushes(): void {
    if (this.#enqueued > 0 || this.#flushWaiters.length === 0) return;
    const failure = this.#enqueueFailure;
    this.#enqueueFailure = null;
    for (const waiter of this.#flushWaiters.splice(0)) {
      if (failure === null) waiter.resolve();
      else waiter.reject(failure);
    }
  }
}
