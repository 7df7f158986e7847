/**
 * The native transports: `shm` for the daemon's own host, `tcp` for others. The bytes are moved by
 * `native/binding/session.cc`; this file turns its calls into promises and views.
 *
 * How a small put over shm goes: `pushPut` copies the bytes into a grant and pushes a seal record, without a
 * system call; the promise settles in a microtask that looks (and spins for some microseconds) for the
 * daemon's acknowledgement, or later when the daemon's wake arrives.
 *
 *   put ──> pushPut ──> microtask: settle(spin) ──> resolved
 *               │                       └── not yet: events(ACKED) ──> settle ──> resolved
 *               └── no room: backlog ──> events(GRANTS) ──> pushPut ──> ...
 */

import type { NativeSpan, SessionOptions } from "../../native/binding/addon.js";
import { requireAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../errors.js";
import type {
  ByteSpan,
  Condition,
  GotObject,
  GotSpan,
  Key,
  ListedObject,
  ObjectInfo,
  ObjectWriter,
  Range,
  Transport,
} from "../transport.js";

/** What session.cc gives: see there for what each call does. */
interface NativeHandle {
  readonly kind: "shm" | "tcp";
  readonly nodeId: string;
  readonly grpcAddress: string;
  readonly sharedEntryBytesMax: number;
  readonly contiguousBytesMax: number;
  readonly partBytes: number;
  readonly copiedPayloadBytesMax: number;
  /** Rows of completions: id, code, four numbers, offset in the slab, bytes. */
  readonly numbers: Float64Array;
  readonly out: Float64Array;
  setHandlers(
    completions: (count: number, slab: ArrayBuffer | null, values: unknown[] | null) => void,
    events: (bits: number) => void,
    forgotten: (segments: number[]) => void,
    lost: (error: Error) => void,
  ): unknown;
  expect(change: number): void;
  close(): void;
  put(id: number, key: Key, data: Uint8Array, ifAbsent: boolean, ifSequence: number): void;
  get(id: number, key: Key, offset: number, length: number): void;
  head(id: number, key: Key): void;
  remove(id: number, key: Key, ifAbsent: boolean, ifSequence: number): void;
  copy(id: number, from: Key, to: Key, ifAbsent: boolean, ifSequence: number): void;
  list(id: number, prefix: Key, startAfter: Key, limit: number): void;
  begin(id: number, draft: number, key: Key): void;
  append(id: number, draft: number, data: Uint8Array): void;
  commit(id: number, draft: number, crc32c: number, ifAbsent: boolean, ifSequence: number): void;
  abort(id: number, draft: number): void;
  flush(): void;
}

interface NativeShmHandle extends NativeHandle {
  locate(key: Key): number;
  locateExtents(key: Key): Float64Array | null;
  window(segment: number): ArrayBuffer;
  span(segment: number, offset: number, bytes: number): NativeSpan;
  pushPut(key: Key, data: Uint8Array, tracked: boolean, wait: boolean): number;
  room(keyBytes: number, bytes: number): boolean;
  acked(position: number, spin: boolean): boolean;
  pushed(): number;
  settle(spin: boolean): number;
  openWriter(key: Key): number;
  writerAllocate(writer: number, bytes: number): boolean;
  writerCopy(writer: number, offset: number, data: Uint8Array): Promise<null> | null;
  writerEndPart(writer: number, bytes: number): boolean;
  writerSeal(
    writer: number,
    id: number,
    bytes: number,
    crc32c: number,
    ifAbsent: boolean,
    ifSequence: number,
  ): 0 | 1 | 2;
  writerAbort(writer: number): void;
}

const ROW = 8;
const EVENT_ACKED = 2;
const SETTLE_BATCH = 256;
const KIB = 1024;
const MIB = 1024 * KIB;
/** Puts that wait in this process for room in the store; beyond it `enqueuePut` throws. */
const BACKLOG_BYTES_MAX = 256 * MIB;
/** A written object of unknown size starts with a part of this size; each next part is twice as large. */
const FIRST_PART_BYTES = 256 * KIB;
/** Over tcp, objects up to this are sent with one request once they are complete, larger ones piece by piece. */
const BUFFERED_WRITE_BYTES_MAX = 64 * MIB;
const APPEND_BYTES = 4 * MIB;

/** Opens a transport: `shm` where `socketPath` is given, else `tcp`. */
export async function openNativeTransport(options: SessionOptions): Promise<Transport> {
  let handle: NativeHandle;
  try {
    handle = (await requireAddon().openSession(options)) as NativeHandle;
  } catch (error) {
    throw MillraceError.from(error);
  }
  return handle.kind === "shm"
    ? new ShmTransport(handle as NativeShmHandle, options.timeoutMs)
    : new TcpTransport(handle, options.timeoutMs);
}

interface Pending {
  /** `base` is the row's first number. */
  take(base: number, slab: ArrayBuffer | null, value: unknown): void;
  reject(error: Error): void;
  /** Bytes that the native side reads until the reply has come. */
  data: Uint8Array | null;
}

interface Deferred<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

const CLOSED = (): MillraceError => new MillraceError("CLOSED", "the transport is closed");

/** A copy, also of a Buffer, whose own `slice` would share the memory. */
function copyOf(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}

function lengthOfKey(key: Key): number {
  return typeof key === "string" ? Buffer.byteLength(key) : key.byteLength;
}

/** What both transports do through requests and replies. */
abstract class NativeTransport {
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
    return this.orNull(this.request((id) => this.native.head(id, key), this.takeInfo));
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
    this.native.close(); // throws where it was closed before
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

  protected async orNull<T>(promise: Promise<T>): Promise<T | null> {
    try {
      return await promise;
    } catch (error) {
      if (error instanceof MillraceError && error.code === "NOT_FOUND") return null;
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

  protected lost(error: MillraceError): void {
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

/** The bytes of a reply, as memory of their own. */
function payloadOf(
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

function checkRange(range: Range | undefined): { offset: number; length: number } {
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

function outOfRange(offset: number, length: number, sizeBytes: number): MillraceError {
  return new MillraceError(
    "OUT_OF_RANGE",
    `bytes ${offset} to ${offset + length} are asked of an object of ${sizeBytes}`,
  );
}

// --- tcp

class TcpTransport extends NativeTransport implements Transport {
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

/** Gathers the object; what grows beyond a bound goes out piece by piece into a draft of the daemon. */
class TcpWriter implements ObjectWriter {
  #chunk: Uint8Array;
  #filled = 0;
  #draft = 0;
  #ended = false;

  constructor(
    private readonly transport: TcpTransport,
    private readonly native: NativeHandle,
    private readonly key: Key,
    sizeBytes: number,
  ) {
    this.#chunk = new Uint8Array(Math.min(sizeBytes > 0 ? sizeBytes : 64 * KIB, BUFFERED_WRITE_BYTES_MAX));
  }

  async reserve(bytes: number): Promise<Uint8Array> {
    this.#check();
    await this.#makeRoom(bytes);
    const view = this.#chunk.subarray(this.#filled, this.#filled + bytes);
    this.#filled += bytes;
    return view;
  }

  async write(data: Uint8Array): Promise<void> {
    this.#check();
    for (let at = 0; at < data.byteLength; ) {
      await this.#makeRoom(Math.min(data.byteLength - at, APPEND_BYTES));
      const part = Math.min(data.byteLength - at, this.#chunk.byteLength - this.#filled);
      this.#chunk.set(data.subarray(at, at + part), this.#filled);
      this.#filled += part;
      at += part;
    }
  }

  async seal(options: Condition & { crc32c?: number } = {}): Promise<ObjectInfo> {
    this.#check();
    this.#ended = true;
    const data = this.#chunk.subarray(0, this.#filled);
    const { crc32c } = options;
    if (this.#draft === 0 && crc32c === undefined) return this.transport.put(this.key, data, options);
    await this.#append(data);
    return this.transport.request(
      (id) =>
        this.native.commit(id, this.#draft, crc32c ?? -1, options.ifAbsent ?? false, options.ifSequence ?? 0),
      this.transport.takeInfo,
    );
  }

  async abort(): Promise<void> {
    this.#check();
    this.#ended = true;
    if (this.#draft !== 0) {
      await this.transport.request(
        (id) => this.native.abort(id, this.#draft),
        () => undefined,
      );
    }
  }

  #check(): void {
    if (this.#ended) throw new MillraceError("CLOSED", "this writer was sealed or aborted");
  }

  /** Room for `bytes` contiguous bytes in the chunk. */
  async #makeRoom(bytes: number): Promise<void> {
    if (this.#chunk.byteLength - this.#filled >= bytes) return;
    if (this.#filled + bytes <= BUFFERED_WRITE_BYTES_MAX && this.#draft === 0) {
      const larger = new Uint8Array(
        Math.min(BUFFERED_WRITE_BYTES_MAX, Math.max(this.#chunk.byteLength * 2, this.#filled + bytes)),
      );
      larger.set(this.#chunk.subarray(0, this.#filled));
      this.#chunk = larger;
      return;
    }
    await this.#append(this.#chunk.subarray(0, this.#filled));
    this.#filled = 0;
    if (this.#chunk.byteLength < bytes || this.#chunk.byteLength > 2 * APPEND_BYTES) {
      this.#chunk = new Uint8Array(Math.max(bytes, APPEND_BYTES));
    }
  }

  /** The chunk may be written to again when the promise resolves. */
  async #append(data: Uint8Array): Promise<void> {
    if (this.#draft === 0) {
      this.#draft = this.transport.nextDraft();
      await this.transport.request(
        (id) => this.native.begin(id, this.#draft, this.key),
        () => undefined,
      );
    }
    if (data.byteLength === 0) return;
    await this.transport.request(
      (id) => this.native.append(id, this.#draft, data),
      () => undefined,
      data,
    );
    this.transport.countIn(data.byteLength);
  }
}

// --- shm

interface BackloggedPut {
  key: Key;
  data: Uint8Array;
  /** Null for an enqueued put, which has no promise of its own. */
  deferred: Deferred<ObjectInfo> | null;
  /** When it began to wait, by `performance.now()`. */
  sinceMs: number;
}

class ShmTransport extends NativeTransport implements Transport {
  readonly kind = "shm";
  readonly #windows = new Map<number, ArrayBuffer>();
  #lastSegment = 0;
  #lastWindow: ArrayBuffer | null = null;
  /** Tracked puts in the order in which the native side reports them. */
  #puts: Deferred<ObjectInfo>[] = [];
  #putsDone = 0;
  #settleScheduled = false;
  #backlog: BackloggedPut[] = [];
  #backlogDone = 0;
  #backlogBytes = 0;
  #enqueueFailure: MillraceError | null = null;
  #eventWaiters: Deferred<void>[] = [];
  readonly #out: Float64Array;

  constructor(
    protected override readonly native: NativeShmHandle,
    private readonly timeoutMs: number,
  ) {
    super(native);
    this.#out = native.out;
  }

  view(key: Key): Uint8Array | null {
    const segment = this.#locate(key);
    if (segment === 0) return null;
    if (segment < 0) return this.#concatenate(key);
    const bytes = this.#out[1]!;
    this.operations++;
    this.bytesOut += bytes;
    this.copiesAvoidedBytes += bytes;
    return new Uint8Array(this.#window(segment), this.#out[0]!, bytes);
  }

  viewExtents(key: Key): Uint8Array[] | null {
    const extents = this.#extents(key);
    if (extents === null) return null;
    const views: Uint8Array[] = [];
    for (let i = 0; i < extents.length; i += 3) {
      views.push(new Uint8Array(this.#window(extents[i]!), extents[i + 1]!, extents[i + 2]!));
      this.bytesOut += extents[i + 2]!;
      this.copiesAvoidedBytes += extents[i + 2]!;
    }
    this.operations++;
    return views;
  }

  async get(key: Key, range?: Range): Promise<GotObject | null> {
    const place = this.#place(key, range);
    if (place === null) return null;
    const { info, segment, offset, length } = place;
    if (segment < 0) return this.#getExtents(key, offset, length);
    return { info, bytes: new Uint8Array(this.#window(segment), offset, length) };
  }

  async getSpan(key: Key, range?: Range): Promise<GotSpan | null> {
    const place = this.#place(key, range);
    if (place === null) return null;
    const { info, segment, offset, length } = place;
    if (segment < 0) return this.#getExtents(key, offset, length);
    return { info, bytes: this.native.span(segment, offset, length) };
  }

  /** Where a range lies in its segment, and counts the read. `segment` -1: in several extents, range as given. */
  #place(
    key: Key,
    range: Range | undefined,
  ): { info: ObjectInfo; segment: number; offset: number; length: number } | null {
    const { offset, length } = checkRange(range);
    const segment = this.#locate(key);
    if (segment === 0) return null;
    const out = this.#out;
    const info = infoAt(out, 1);
    if (segment < 0) return { info, segment, offset, length };
    if (offset > info.sizeBytes || length > info.sizeBytes - offset)
      throw outOfRange(offset, length, info.sizeBytes);
    const bytes = length < 0 ? info.sizeBytes - offset : length;
    this.operations++;
    this.bytesOut += bytes;
    this.copiesAvoidedBytes += bytes;
    return { info, segment, offset: out[0]! + offset, length: bytes };
  }

  override async head(key: Key): Promise<ObjectInfo | null> {
    const segment = this.#locate(key);
    this.operations++;
    if (segment > 0) return infoAt(this.#out, 1);
    return segment === 0 || this.#extents(key) === null ? null : infoAt(this.#out, 0);
  }

  /** `data` must stay as it is until the promise settles. */
  put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo> {
    if (condition?.ifAbsent || condition?.ifSequence || data.byteLength > this.native.sharedEntryBytesMax) {
      return this.#putByWriter(key, data, condition);
    }
    return new Promise<ObjectInfo>((resolve, reject) => {
      const deferred = { resolve, reject };
      try {
        if (this.#backlog.length > this.#backlogDone || this.native.pushPut(key, data, true, false) < 0) {
          this.#delay({ key, data, deferred, sinceMs: performance.now() });
        } else {
          this.#puts.push(deferred);
          this.#scheduleSettle();
        }
      } catch (error) {
        reject(MillraceError.from(error));
        return;
      }
      this.operations++;
      this.bytesIn += data.byteLength;
    });
  }

  enqueuePut(key: Key, data: Uint8Array): void {
    try {
      if (data.byteLength > this.native.sharedEntryBytesMax) {
        this.#enqueueLarge(key, copyOf(data));
      } else {
        // The backlog goes first; the event loop may not turn for long, so it is worked off here as well.
        if (this.#backlog.length > this.#backlogDone)
          this.#workOffBacklog(this.#backlogBytes > BACKLOG_BYTES_MAX / 8);
        if (this.#backlog.length > this.#backlogDone || this.native.pushPut(key, data, false, true) < 0) {
          if (this.#backlogBytes + data.byteLength > BACKLOG_BYTES_MAX) {
            throw new MillraceError(
              "RESOURCE_EXHAUSTED",
              "too many puts wait for room in the store; await flush()",
            );
          }
          this.#delay({
            key: typeof key === "string" ? key : copyOf(key),
            data: copyOf(data),
            deferred: null,
            sinceMs: performance.now(),
          });
        }
      }
    } catch (error) {
      throw MillraceError.from(error);
    }
    this.operations++;
    this.bytesIn += data.byteLength;
  }

  async flush(): Promise<void> {
    while (this.#backlog.length > this.#backlogDone && this.failure === null) await this.nextEvent();
    while (this.#largeInFlight.size > 0) await Promise.allSettled([...this.#largeInFlight]);
    try {
      const position = this.native.pushed();
      for (let spin = true; !this.native.acked(position, spin); spin = false) await this.nextEvent();
    } catch (error) {
      throw MillraceError.from(error);
    }
    const failure = this.#enqueueFailure;
    this.#enqueueFailure = null;
    if (failure !== null) throw failure;
  }

  async openWriter(key: Key, options: { sizeBytes?: number } = {}): Promise<ObjectWriter> {
    try {
      return new ShmWriter(this, this.native, this.native.openWriter(key), options.sizeBytes);
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  override async close(): Promise<void> {
    await super.close();
    this.#windows.clear();
    this.#lastWindow = null;
    this.#lastSegment = 0;
  }

  /** Resolves at the next event of the native side: room, acknowledgements. Rejects when the connection goes. */
  nextEvent(): Promise<void> {
    if (this.failure !== null) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.native.expect(1);
      this.#eventWaiters.push({ resolve, reject });
    });
  }

  /** Waits for the report of the put that the native side has just begun to track. */
  trackedPut(bytes: number): Promise<ObjectInfo> {
    this.operations++;
    this.bytesIn += bytes;
    return new Promise((resolve, reject) => {
      this.#puts.push({ resolve, reject });
      this.#scheduleSettle();
    });
  }

  countPut(bytes: number): void {
    this.operations++;
    this.bytesIn += bytes;
  }

  /** A window on a segment; the writable one where `segment` is negative. */
  windowOf(segment: number): ArrayBuffer {
    return this.#window(segment);
  }

  protected override events(bits: number): void {
    if (bits & EVENT_ACKED) this.#settle(false);
    if (this.#backlog.length > this.#backlogDone) this.#workOffBacklog();
    const waiters = this.#eventWaiters.splice(0);
    if (waiters.length > 0) this.native.expect(-waiters.length);
    for (const waiter of waiters) waiter.resolve();
  }

  protected override forgotten(segments: number[]): void {
    for (const segment of segments) {
      this.#windows.delete(segment);
      this.#windows.delete(-segment);
    }
    this.#lastWindow = null;
    this.#lastSegment = 0;
  }

  protected override fail(error: MillraceError): void {
    super.fail(error);
    const waiting: Deferred<never>[] = [
      ...this.#puts.splice(0).slice(this.#putsDone),
      ...this.#eventWaiters.splice(0),
    ];
    this.#putsDone = 0;
    for (const put of this.#backlog.splice(0).slice(this.#backlogDone)) {
      if (put.deferred !== null) waiting.push(put.deferred);
      else this.#enqueueFailure ??= error;
    }
    this.#backlogDone = 0;
    this.#backlogBytes = 0;
    for (const deferred of waiting) deferred.reject(error);
  }

  // --- reading

  #locate(key: Key): number {
    try {
      return this.native.locate(key);
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  #extents(key: Key): Float64Array | null {
    try {
      return this.native.locateExtents(key);
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  #window(segment: number): ArrayBuffer {
    if (segment === this.#lastSegment && this.#lastWindow !== null) return this.#lastWindow;
    let window = this.#windows.get(segment);
    if (window === undefined) {
      window = this.native.window(segment);
      this.#windows.set(segment, window);
    }
    this.#lastSegment = segment;
    this.#lastWindow = window;
    return window;
  }

  #concatenate(key: Key): Uint8Array | null {
    return this.#getExtents(key, 0, -1)?.bytes ?? null;
  }

  /** Of an object in several extents: a view where the range lies in one of them, else a copy. */
  #getExtents(key: Key, offset: number, length: number): GotObject | null {
    const extents = this.#extents(key);
    if (extents === null) return null;
    const info = infoAt(this.#out, 0);
    if (offset > info.sizeBytes || length > info.sizeBytes - offset)
      throw outOfRange(offset, length, info.sizeBytes);
    const bytes = length < 0 ? info.sizeBytes - offset : length;
    this.operations++;
    this.bytesOut += bytes;
    let result: Uint8Array | null = null;
    let skip = offset;
    let at = 0;
    for (let i = 0; i < extents.length && at < bytes; i += 3) {
      const extentBytes = extents[i + 2]!;
      if (skip >= extentBytes) {
        skip -= extentBytes;
        continue;
      }
      const part = Math.min(bytes - at, extentBytes - skip);
      const view = new Uint8Array(this.#window(extents[i]!), extents[i + 1]! + skip, part);
      if (part === bytes) {
        this.copiesAvoidedBytes += bytes;
        return { info, bytes: view };
      }
      result ??= new Uint8Array(bytes);
      result.set(view, at);
      at += part;
      skip = 0;
    }
    return { info, bytes: result ?? new Uint8Array(0) };
  }

  // --- writing

  async #putByWriter(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo> {
    const writer = await this.openWriter(key, { sizeBytes: data.byteLength });
    try {
      await writer.write(data);
    } catch (error) {
      await writer.abort().catch(() => undefined); // the first error is the one that matters
      throw error;
    }
    return writer.seal(condition);
  }

  readonly #largeInFlight = new Set<Promise<void>>();

  #enqueueLarge(key: Key, data: Uint8Array): void {
    const put = this.#putByWriter(key, data).then(
      () => undefined,
      (error: unknown) => {
        this.#enqueueFailure ??= MillraceError.from(error);
      },
    );
    this.#largeInFlight.add(put);
    put.finally(() => this.#largeInFlight.delete(put));
  }

  #scheduleSettle(): void {
    if (this.#settleScheduled) return;
    this.#settleScheduled = true;
    queueMicrotask(() => {
      this.#settleScheduled = false;
      this.#settle(true);
    });
  }

  #settle(spin: boolean): void {
    if (this.failure !== null) return;
    let count: number;
    do {
      count = this.native.settle(spin);
      for (let i = 0; i < count; i++) this.#puts[this.#putsDone++]!.resolve(infoAt(this.#out, i * 4));
    } while (count === SETTLE_BATCH);
    if (this.#putsDone === this.#puts.length) {
      this.#puts = [];
      this.#putsDone = 0;
    } else if (this.#putsDone > 4096) {
      this.#puts.splice(0, this.#putsDone);
      this.#putsDone = 0;
    }
  }

  #delay(put: BackloggedPut): void {
    this.#backlog.push(put);
    this.#backlogBytes += put.data.byteLength;
    if (this.#backlog.length - this.#backlogDone === 1) {
      this.native.expect(1); // the event loop must wait for it
      this.#workOffBacklog();
    }
  }

  #leaveBacklog(): BackloggedPut {
    const put = this.#backlog[this.#backlogDone++]!;
    this.#backlogBytes -= put.data.byteLength;
    return put;
  }

  /** The first fails and, where no room came, with it all that have waited long enough: not each after its own wait. */
  #failBacklog(error: MillraceError): void {
    const latestMs = error.code === "RESOURCE_EXHAUSTED" ? performance.now() - this.timeoutMs : -1;
    do {
      const { deferred } = this.#leaveBacklog();
      if (deferred !== null) deferred.reject(error);
      else this.#enqueueFailure ??= error;
    } while (
      this.#backlogDone < this.#backlog.length &&
      this.#backlog[this.#backlogDone]!.sinceMs <= latestMs
    );
  }

  /** Pushes what waits, as far as there is room (`wait`: for some milliseconds); the next event goes on from there. */
  #workOffBacklog(wait = false): void {
    while (this.#backlogDone < this.#backlog.length) {
      const put = this.#backlog[this.#backlogDone]!;
      try {
        const position = this.native.pushPut(put.key, put.data, put.deferred !== null, wait);
        if (position === -1 && !this.native.room(lengthOfKey(put.key), put.data.byteLength)) return;
        if (position === -1) continue;
        if (position === -2) {
          // The ring is full: wake us when some of it is acknowledged.
          if (this.native.acked(this.native.pushed() - this.native.out.length, false)) continue;
          return;
        }
        if (put.deferred !== null) {
          this.#puts.push(put.deferred);
          this.#scheduleSettle();
        }
        this.#leaveBacklog();
      } catch (error) {
        this.#failBacklog(MillraceError.from(error));
      }
    }
    this.#backlog = [];
    this.#backlogDone = 0;
    if (this.failure === null) this.native.expect(-1);
    const waiters = this.#eventWaiters.splice(0);
    if (waiters.length > 0) this.native.expect(-waiters.length);
    for (const waiter of waiters) waiter.resolve();
  }
}

/** Four numbers from `at`: sizeBytes, sequence, crc32c, sealedUnixS. */
function infoAt(out: Float64Array, at: number): ObjectInfo {
  return {
    sizeBytes: out[at]!,
    sequence: out[at + 1]!,
    crc32c: out[at + 2]!,
    sealedUnixMs: out[at + 3]! * 1000,
  };
}

/** Writes an object straight into segments: in one entry where its size is known (or it stays small), else in parts. */
class ShmWriter implements ObjectWriter {
  /** Of the part that is being filled, as `windowOf` takes it; 0: there is none. */
  #segment = 0;
  #offset = 0;
  #capacity = 0;
  #filled = 0;
  #parts = 0;
  #total = 0;
  #nextPartBytes: number;
  #ended = false;

  constructor(
    private readonly transport: ShmTransport,
    private readonly native: NativeShmHandle,
    private readonly writer: number,
    sizeBytes: number | undefined,
  ) {
    this.#nextPartBytes =
      sizeBytes === undefined
        ? FIRST_PART_BYTES
        : sizeBytes <= native.contiguousBytesMax
          ? sizeBytes
          : native.partBytes;
  }

  async reserve(bytes: number): Promise<Uint8Array> {
    const offset = await this.#take(bytes);
    return new Uint8Array(this.transport.windowOf(this.#segment), offset, bytes);
  }

  async reserveSpan(bytes: number): Promise<ByteSpan> {
    const offset = await this.#take(bytes);
    return this.native.span(this.#segment, offset, bytes);
  }

  /** Takes the next bytes of the object; where in the segment of the part they lie. */
  async #take(bytes: number): Promise<number> {
    this.#check();
    if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > this.native.contiguousBytesMax) {
      throw new MillraceError(
        "OBJECT_TOO_LARGE",
        `at most ${this.native.contiguousBytesMax} contiguous bytes can be reserved, not ${bytes}`,
      );
    }
    await this.#nextPart(bytes);
    const offset = this.#offset + this.#filled;
    this.#filled += bytes;
    this.#total += bytes;
    return offset;
  }

  async write(data: Uint8Array): Promise<void> {
    this.#check();
    for (let at = 0; at < data.byteLength; ) {
      if (this.#filled === this.#capacity) await this.#nextPart(1);
      const part = Math.min(data.byteLength - at, this.#capacity - this.#filled);
      const copied = this.native.writerCopy(this.writer, this.#filled, data.subarray(at, at + part));
      if (copied !== null) await copied;
      this.#filled += part;
      this.#total += part;
      at += part;
    }
  }

  async seal(options: Condition & { crc32c?: number } = {}): Promise<ObjectInfo> {
    this.#check();
    if (this.#segment === 0) await this.#nextPart(0);
    if (this.#parts > 0 && this.#segment !== 0) await this.#endPart();
    this.#ended = true;
    const id = this.transport.nextId();
    try {
      for (;;) {
        const sealed = this.native.writerSeal(
          this.writer,
          id,
          this.#filled,
          options.crc32c ?? -1,
          options.ifAbsent ?? false,
          options.ifSequence ?? 0,
        );
        if (sealed === 2) return this.transport.trackedPut(this.#total);
        if (sealed === 1) break;
        await this.transport.nextEvent();
      }
    } catch (error) {
      throw MillraceError.from(error);
    }
    this.transport.countPut(this.#total);
    return new Promise((resolve, reject) => {
      this.transport.expectReply(id, {
        take: (base) => resolve(this.transport.takeInfo(base)),
        reject,
        data: null,
      });
    });
  }

  async abort(): Promise<void> {
    this.#check();
    this.#ended = true;
    this.native.writerAbort(this.writer);
  }

  #check(): void {
    if (this.#ended) throw new MillraceError("CLOSED", "this writer was sealed or aborted");
  }

  /** Makes sure that the current part has room for `bytes` more; ends it and begins another where not. */
  async #nextPart(bytes: number): Promise<void> {
    if (this.#segment !== 0 && this.#capacity - this.#filled >= bytes) return;
    if (this.#segment !== 0) await this.#endPart();
    const wanted = Math.max(bytes, this.#nextPartBytes);
    try {
      while (!this.native.writerAllocate(this.writer, wanted)) await this.transport.nextEvent();
    } catch (error) {
      throw MillraceError.from(error);
    }
    this.#segment = this.native.out[0]!;
    this.#offset = this.native.out[1]!;
    this.#capacity = wanted;
    this.#filled = 0;
    this.#nextPartBytes = Math.min(Math.max(2 * wanted, FIRST_PART_BYTES), this.native.partBytes);
  }

  async #endPart(): Promise<void> {
    try {
      while (!this.native.writerEndPart(this.writer, this.#filled)) {
        if (!this.native.acked(this.native.pushed() - 1024, false)) await this.transport.nextEvent();
      }
    } catch (error) {
      throw MillraceError.from(error);
    }
    if (this.#filled > 0) this.#parts++;
    this.#segment = 0;
    this.#filled = 0;
    this.#capacity = 0;
  }
}
