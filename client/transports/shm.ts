/** The `shm` transport, for clients on the daemon's own host: reads are views, small puts make no system call. */
import { MillraceError } from "../errors.js";
import { showKey } from "../names.js";
import type {
  ByteSpan,
  Condition,
  GetOptions,
  GotObject,
  GotSpan,
  HeldObject,
  Key,
  ObjectInfo,
  ObjectWriter,
  Range,
  Transport,
} from "../transport.js";
import type { NativeShmHandle, Verify } from "./native_handle.js";
import {
  checkRange,
  copyOf,
  type Deferred,
  NativeTransport,
  outOfRange,
  payloadOf,
  textOf,
} from "./native_transport.js";
import { EXTENT_ROW, ShmHeldObject } from "./shm_held.js";
import { ShmWriter } from "./shm_writer.js";

const EVENT_ACKED = 2;
const SETTLE_BATCH = 256;
/** Puts that wait in this process for room in the store; beyond it `enqueuePut` throws. */
const BACKLOG_BYTES_MAX = 256 * 1024 * 1024;

interface BackloggedPut {
  key: Key;
  data: Uint8Array;
  /** Null for an enqueued put, which has no promise of its own. */
  deferred: Deferred<ObjectInfo> | null;
  /** When it began to wait, by `performance.now()`. */
  sinceMs: number;
}

/**
 * How a small put over shm goes: `pushPut` copies the bytes into a grant and pushes a seal record, without a
 * system call; the promise settles in a microtask that looks (and spins for some microseconds) for the
 * daemon's acknowledgement, or later when the daemon's wake arrives.
 *
 *   put ──> pushPut ──> microtask: settle(spin) ──> resolved
 *               │                       └── not yet: events(ACKED) ──> settle ──> resolved
 *               └── no room: backlog ──> events(GRANTS) ──> pushPut ──> ...
 */
export class ShmTransport extends NativeTransport implements Transport {
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

  view(key: Key, options?: GetOptions): Uint8Array | null {
    const verify = verifyOf(options);
    const segment = this.#locate(key, verify);
    if (segment === 0) return null;
    if (segment < 0) {
      const found = this.#viewRange(key, 0, -1, verify);
      if (found !== null && found.bytes === null) throw inFiles(key);
      return found === null ? null : found.bytes;
    }
    const bytes = this.#out[1]!;
    this.countGet(bytes, 1, true);
    return new Uint8Array(this.#window(segment), this.#out[0]!, bytes);
  }

  viewExtents(key: Key, options?: GetOptions): Uint8Array[] | null {
    const extents = this.#extents(key, 0, -1, verifyOf(options));
    if (extents === null) return null;
    const views: Uint8Array[] = [];
    for (let i = 0; i < extents.length; i += EXTENT_ROW) {
      if (extents[i + 3] === 1) throw inFiles(key);
      views.push(new Uint8Array(this.#window(extents[i]!), extents[i + 1]!, extents[i + 2]!));
    }
    for (const view of views) this.countGet(view.length, 0, true);
    this.operations++;
    return views;
  }

  hold(key: Key): HeldObject | null {
    try {
      const held = this.native.hold(key);
      return held === 0 ? null : new ShmHeldObject(this, this.native, held, infoAt(this.#out, 0));
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  async get(key: Key, range?: Range, options?: GetOptions): Promise<GotObject | null> {
    const verify = verifyOf(options);
    const place = this.#place(key, range, verify);
    if (place === null) return null;
    const { info, segment, offset, length } = place;
    if (segment > 0) return { info, bytes: new Uint8Array(this.#window(segment), offset, length) };
    const found = this.#viewRange(key, offset, length, verify);
    return found !== null && found.bytes === null
      ? this.#read(key, offset, length, verify, false, (base, slab, value) =>
          payloadOf(this.numbers, base, slab, value),
        )
      : found;
  }

  async getSpan(key: Key, range?: Range, options?: GetOptions): Promise<GotSpan | null> {
    const verify = verifyOf(options);
    const place = this.#place(key, range, verify);
    if (place === null) return null;
    const { info, segment, offset, length } = place;
    if (segment > 0) return { info, bytes: this.native.span(segment, offset, length), nvmeBytes: 0 };
    const found = this.#viewRange(key, offset, length, verify);
    if (found === null) return null;
    if (found.bytes !== null) return { ...found, nvmeBytes: 0 };
    const { nvmeBytes } = found;
    const take = (_base: number, _slab: ArrayBuffer | null, value: unknown) => value as ByteSpan;
    const got = await this.#read(key, offset, length, verify, true, take);
    return got === null ? null : { ...got, nvmeBytes };
  }

  /** Where a range lies in its segment, and counts the read. `segment` -1: in several extents, range as given. */
  #place(
    key: Key,
    range: Range | undefined,
    verify: Verify,
  ): { info: ObjectInfo; segment: number; offset: number; length: number } | null {
    const { offset, length } = checkRange(range);
    const segment = this.#locate(key, verify);
    if (segment === 0) return null;
    const out = this.#out;
    const info = infoAt(out, 1);
    if (segment < 0) return { info, segment, offset, length };
    if (offset > info.sizeBytes || length > info.sizeBytes - offset)
      throw outOfRange(offset, length, info.sizeBytes);
    const bytes = length < 0 ? info.sizeBytes - offset : length;
    this.countGet(bytes, 1, true);
    return { info, segment, offset: out[0]! + offset, length: bytes };
  }

  override async head(key: Key): Promise<ObjectInfo | null> {
    const segment = this.#locate(key, 0);
    this.operations++;
    return segment === 0 ? null : infoAt(this.#out, 1);
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
      if (data.byteLength > this.native.sharedEntryBytesMax || this.#followsLarge(key)) {
        this.#enqueueLarge(textOf(key), copyOf(data));
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
    await this.#backlogGone();
    while (this.#largeInFlight.size > 0) await Promise.all(this.#largeInFlight.values());
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
    this.#forgetWindows();
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

  countGet(bytes: number, operations: number, isView: boolean): void {
    this.operations += operations;
    this.bytesOut += bytes;
    if (isView) this.copiesAvoidedBytes += bytes;
  }

  /** Whether calls of the native side still work. */
  get isOpen(): boolean {
    return this.failure === null;
  }

  /** Bytes of a held object that lie, wholly or in part, in files. */
  readHeld(held: number, offset: number, bytes: number): Promise<Uint8Array> {
    if (this.failure !== null) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const id = this.nextId();
      this.native.readHeld(id, held, offset, bytes);
      const take = (base: number, slab: ArrayBuffer | null, value: unknown) =>
        resolve(payloadOf(this.numbers, base, slab, value));
      this.expectReply(id, { take, reject, data: null });
      this.scheduleFlush();
    });
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

  protected override lost(error: MillraceError): void {
    // What is viewed stays with its views.
    this.#forgetWindows();
    super.lost(error);
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

  #locate(key: Key, verify: Verify): number {
    try {
      return this.native.locate(key, verify);
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  #extents(key: Key, offset: number, length: number, verify: Verify): Float64Array | null {
    try {
      return this.native.locateExtents(key, offset, length, verify);
    } catch (error) {
      throw MillraceError.from(error);
    }
  }

  #forgetWindows(): void {
    this.#windows.clear();
    this.#lastWindow = null;
    this.#lastSegment = 0;
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

  /**
   * Of an object in several extents: a view where the range lies in one of them, else a copy. Where some of it lies
   * in files there are no bytes yet, only how many of them do.
   */
  #viewRange(
    key: Key,
    offset: number,
    length: number,
    verify: Verify,
  ): GotObject | { bytes: null; nvmeBytes: number } | null {
    const extents = this.#extents(key, offset, length, verify);
    if (extents === null) return null;
    const info = infoAt(this.#out, 0);
    if (offset > info.sizeBytes || length > info.sizeBytes - offset)
      throw outOfRange(offset, length, info.sizeBytes);
    const bytes = length < 0 ? info.sizeBytes - offset : length;
    const parts: Uint8Array[] = [];
    let nvmeBytes = 0;
    let skip = offset;
    let left = bytes;
    for (let i = 0; i < extents.length && left > 0; i += EXTENT_ROW) {
      const extentBytes = extents[i + 2]!;
      if (skip >= extentBytes) {
        skip -= extentBytes;
        continue;
      }
      const part = Math.min(left, extentBytes - skip);
      if (extents[i + 3] === 1) nvmeBytes += part;
      else if (nvmeBytes === 0)
        parts.push(new Uint8Array(this.#window(extents[i]!), extents[i + 1]! + skip, part));
      left -= part;
      skip = 0;
    }
    if (nvmeBytes > 0) return { bytes: null, nvmeBytes };
    this.countGet(bytes, 1, parts.length === 1);
    return { info, bytes: parts.length === 1 ? parts[0]! : concatenate(parts, bytes) };
  }

  /** Reads a range of a demoted object. `take` gets the bytes from the reply's row. */
  #read<Bytes extends ByteSpan>(
    key: Key,
    offset: number,
    length: number,
    verify: Verify,
    span: boolean,
    take: (base: number, slab: ArrayBuffer | null, value: unknown) => Bytes,
  ): Promise<{ info: ObjectInfo; bytes: Bytes } | null> {
    return this.orNull(
      this.request(
        (id) => {
          if (this.native.read(id, key, offset, length, verify, span)) return;
          throw new MillraceError("NOT_FOUND", "it was deleted meanwhile");
        },
        (base, slab, value) => {
          const bytes = take(base, slab, value);
          this.bytesOut += bytes.length;
          return { info: this.takeInfo(base), bytes };
        },
      ),
      key,
    );
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

  /** By key, the last large put that was enqueued; they never reject. */
  readonly #largeInFlight = new Map<string, Promise<void>>();

  /** Puts of one key keep their order: one that follows a large put waits for it. */
  #followsLarge(key: Key): boolean {
    return this.#largeInFlight.size > 0 && this.#largeInFlight.has(textOf(key));
  }

  #enqueueLarge(key: string, data: Uint8Array): void {
    const before = this.#largeInFlight.get(key) ?? this.#backlogGone();
    const put = before
      .then(() => this.#putByWriter(key, data))
      .then(
        () => undefined,
        (error: unknown) => {
          this.#enqueueFailure ??= MillraceError.from(error);
        },
      )
      .then(() => {
        if (this.#largeInFlight.get(key) === put) this.#largeInFlight.delete(key);
      });
    this.#largeInFlight.set(key, put);
  }

  async #backlogGone(): Promise<void> {
    while (this.#backlog.length > this.#backlogDone && this.failure === null) await this.nextEvent();
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

function lengthOfKey(key: Key): number {
  return typeof key === "string" ? Buffer.byteLength(key) : key.byteLength;
}

function verifyOf(options: GetOptions | undefined): Verify {
  if (options?.verify === undefined) return 1;
  return options.verify ? 2 : 0;
}

function concatenate(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function inFiles(key: Key): MillraceError {
  return new MillraceError(
    "UNSUPPORTED",
    `the object ${showKey(key)} was demoted to the nvme tier, so there is no view of it; read it with get`,
  );
}
