/** What both native transports do alike: requests and replies, and checks of ranges. */
import { MillraceError } from "../errors.js";
import { showKey } from "../names.js";
import type { Condition, Key, ListedObject, ObjectInfo, Range } from "../transport.js";
import type { NativeHandle } from "./native_handle.js";

/** Numbers in a row of completions. */
const ROW = 8;

export interface Pending {
  /** `base` is the row's first number. */
  take(base: number, slab: ArrayBuffer | null, value: unknown): void;
  reject(error: Error): void;
  /** Bytes that the native side reads until the reply has come. */
  data: Uint8Array | null;
}

export interface Deferred<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

const CLOSED = (): MillraceError => new MillraceError("CLOSED", "the transport is closed");

/** A key by which puts of the same object are told from others. */
export function textOf(key: Key): string {
  return typeof key === "string" ? key : Buffer.from(key).toString();
}

/** A copy, also of a Buffer, whose own `slice` would share the memory. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}

/** What both transports do through requests and replies. */
export abstract class NativeTransport {
  abstract readonly kind: "shm" | "tcp";
  protected bytesIn = 0;
  protected bytesOut = 0;
  protected operations = 0;
  protected copiesAvoidedBytes = 0;
  protected failure: MillraceError | null = null;
  protected readonly numbers: Float64Array;
  /** The native side holds them weakly, so that a transport that nobody closed can be collected. */
  protected readonly handlers: unknown;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #flushScheduled = false;
  #onLost: ((error: Error) => void) | null = null;

  constructor(protected readonly native: NativeHandle) {
    this.numbers = native.numbers;
    this.handlers = native.setHandlers(
      (count, slab, values) => this.#completions(count, slab, values),
      (bits) => this.events(bits),
      (segments) => this.forgotten(segments),
      (error) => this.lost(MillraceError.from(error)),
    );
  }

  async head(key: Key): Promise<ObjectInfo | null> {
    return this.orNull(
      this.request((id) => this.native.head(id, key), this.takeInfo),
      key,
    );
  }

  delete(key: Key, condition?: Condition): Promise<boolean> {
    return this.request(
      (id) => this.native.remove(id, key, condition?.ifAbsent ?? false, condition?.ifSequence ?? 0),
      (base) => this.numbers[base + 2] === 1,
    );
  }

  copy(from: Key, to: Key, condition?: Condition): Promise<ObjectInfo> {
    return this.request(
      (id) => this.native.copy(id, from, to, condition?.ifAbsent ?? false, condition?.ifSequence ?? 0),
      this.takeInfo,
    );
  }

  list(
    prefix: Key,
    startAfter: Key,
    limit: number,
  ): Promise<{ objects: ListedObject[]; truncated: boolean }> {
    return this.request(
      (id) => this.native.list(id, prefix, startAfter, limit),
      (_base, _slab, value) => value as { objects: ListedObject[]; truncated: boolean },
    );
  }

  usage(): { bytesIn: number; bytesOut: number; operations: number; copiesAvoidedBytes: number } {
    return {
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
      operations: this.operations,
      copiesAvoidedBytes: this.copiesAvoidedBytes,
    };
  }

  onLost(callback: (error: Error) => void): void {
    this.#onLost = callback;
  }

  async close(): Promise<void> {
    this.native.close();
    this.failure = CLOSED();
    this.fail(this.failure);
  }

  /** Sends one request. `send` hands it to the native side under the id given; `take` reads the reply's row. */
  request<T>(
    send: (id: number) => void,
    take: (base: number, slab: ArrayBuffer | null, value: unknown) => T,
    data: Uint8Array | null = null,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.nextId();
      try {
        send(id);
      } catch (error) {
        reject(MillraceError.from(error));
        return;
      }
      this.expectReply(id, { take: (base, slab, value) => resolve(take(base, slab, value)), reject, data });
      this.operations++;
      this.scheduleFlush();
    });
  }

  nextId(): number {
    return this.#nextId++;
  }

  expectReply(id: number, pending: Pending): void {
    this.#pending.set(id, pending);
  }

  /** Requests of one turn leave together. */
  scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      if (this.failure === null) this.native.flush();
    });
  }

  /** An ObjectReply's row. */
  readonly takeInfo = (base: number): ObjectInfo => ({
    sizeBytes: this.numbers[base + 2]!,
    sequence: this.numbers[base + 3]!,
    crc32c: this.numbers[base + 4]!,
    sealedUnixMs: this.numbers[base + 5]! * 1000,
  });

  protected async orNull<T>(promise: Promise<T>, key: Key): Promise<T | null> {
    try {
      return await promise;
    } catch (error) {
      if (error instanceof MillraceError && error.code === "NOT_FOUND") return null;
      // What the node says names the key; this was found out on the way from it.
      if (error instanceof MillraceError && error.code === "CHECKSUM_MISMATCH") {
        throw new MillraceError(error.code, `object ${showKey(key)}: ${error.message}`, { cause: error });
      }
      throw error;
    }
  }

  /** Everything that waits fails with `error`. */
  protected fail(error: MillraceError): void {
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of waiting) pending.reject(error);
  }

  protected events(_bits: number): void {}
  protected forgotten(_segments: number[]): void {}

  /** Calls fail from now on; views stay until `close`. */
  protected lost(error: MillraceError): void {
    this.failure = error;
    this.native.release();
    this.fail(error);
    this.#onLost?.(error);
  }

  #completions(count: number, slab: ArrayBuffer | null, values: unknown[] | null): void {
    for (let row = 0; row < count; row++) {
      const base = row * ROW;
      const id = this.numbers[base]!;
      const pending = this.#pending.get(id);
      if (pending === undefined) continue;
      this.#pending.delete(id);
      const value = values === null ? undefined : values[row];
      if (this.numbers[base + 1] === 0) pending.take(base, slab, value);
      else pending.reject(MillraceError.from(value));
    }
  }
}

export function checkRange(range: Range | undefined): { offset: number; length: number } {
  const offset = range?.offset ?? 0;
  const length = range?.length ?? -1;
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < -1) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      "offset and length of a range are whole numbers, not below 0",
    );
  }
  return { offset, length };
}

/** The bytes of a reply, as memory of their own. */
export function payloadOf(
  numbers: Float64Array,
  base: number,
  slab: ArrayBuffer | null,
  value: unknown,
): Uint8Array {
  const bytes = numbers[base + 7]!;
  if (bytes === 0) return new Uint8Array(0);
  if (value !== undefined) return new Uint8Array(value as ArrayBuffer);
  return new Uint8Array(slab!, numbers[base + 6]!, bytes);
}

export function outOfRange(offset: number, length: number, sizeBytes: number): MillraceError {
  return new MillraceError(
    "OUT_OF_RANGE",
    `bytes ${offset} to ${offset + length} are asked of an object of ${sizeBytes}`,
  );
}
