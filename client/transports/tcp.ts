/** The `tcp` transport, for clients on other hosts than the daemon's: each call is a request. */
import { MillraceError } from "../errors.js";
import type { Condition, GotObject, Key, ObjectInfo, ObjectWriter, Range, Transport } from "../transport.js";
import type { NativeHandle } from "./native_handle.js";
import {
  checkRange,
  copyOf,
  type Deferred,
  NativeTransport,
  outOfRange,
  payloadOf,
} from "./native_transport.js";
import { TcpWriter } from "./tcp_writer.js";

export class TcpTransport extends NativeTransport implements Transport {
  readonly kind = "tcp";
  #enqueued = 0;
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
  async put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo> {
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
        (id) => this.native.get(id, key, offset, length < 0 ? 0 : length),
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
    // Small payloads are copied by the call itself.
    const own = data.byteLength > this.native.copiedPayloadBytesMax ? copyOf(data) : data;
    this.#enqueued++;
    this.put(key, own).then(
      () => this.#dequeued(null),
      (error: unknown) => this.#dequeued(MillraceError.from(error)),
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
