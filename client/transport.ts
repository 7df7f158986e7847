/**
 * The seam between the SDK and what carries its bytes. Three implementations: `shm` and `tcp` (native,
 * transports/native.ts) and `grpc` (transports/grpc.ts). A transport is bound to one namespace.
 */
import type { ByteSpan } from "../native/binding/addon.js";

export type { ByteSpan, NativeSpan } from "../native/binding/addon.js";

export type Key = string | Uint8Array;

export interface ObjectInfo {
  /** Bytes of the object. */
  sizeBytes: number;
  /** Grows with every seal of the namespace; identifies this version of the key. */
  sequence: number;
  /** CRC32C of the whole object. */
  crc32c: number;
  sealedUnixMs: number;
}

export interface ListedObject extends ObjectInfo {
  key: Uint8Array;
}

export interface Condition {
  /** Fail with CONDITION_FAILED where the key exists. */
  ifAbsent?: boolean;
  /** Fail with CONDITION_FAILED unless the key's object has this sequence. */
  ifSequence?: number;
}

export interface Range {
  offset?: number;
  /** Bytes; to the end where left out. */
  length?: number;
}

export interface GetOptions {
  /**
   * Over shm the bytes are compared with their checksum when this client reads the object for the first time
   * (small ones each time). True: now, even if they were before, also the rest of the stretch that a range lies
   * in; false: not at all, for who checks them by itself. Over tcp and grpc they are always compared.
   */
  verify?: boolean;
}

export interface GotObject {
  info: ObjectInfo;
  /**
   * The bytes of the range. Over shm this is a view of the segment itself: read-only by contract, valid and
   * unchanging for as long as it is referenced, also after the object is overwritten or deleted; it becomes
   * empty (length 0) when the transport is closed. Over tcp and grpc, and of a demoted object, it is memory of
   * its own.
   */
  bytes: Uint8Array;
}

/** As `GotObject`; see `NativeSpan` for how long the bytes stay. */
export interface GotSpan {
  info: ObjectInfo;
  bytes: ByteSpan;
  /** How many of the bytes this client read from files of the nvme tier. */
  nvmeBytes: number;
}

/** One version of an object. `close` lets go of it. */
export interface HeldObject {
  readonly info: ObjectInfo;
  /** The bytes from `begin` to `end`, which must be within it: views in place, or memory of their own. */
  chunks(begin: number, end: number): AsyncGenerator<Uint8Array, void, undefined>;
  close(): void;
}

/** Writes one object piece by piece. `seal` or `abort` ends it. */
export interface ObjectWriter {
  /**
   * Room for the next `bytes` bytes of the object, contiguous, to be filled by the caller before the next call
   * of this writer. Over shm it lies in the segment itself, 64-byte aligned when the object starts with it.
   */
  reserve(bytes: number): Promise<Uint8Array>;
  /** shm: the same room as an opaque span for kernels to fill. */
  reserveSpan?(bytes: number): Promise<ByteSpan>;
  write(data: Uint8Array): Promise<void>;
  /** Makes the object visible at once. `crc32c` of the whole object, where known, saves computing it. */
  seal(options?: Condition & { crc32c?: number }): Promise<ObjectInfo>;
  abort(): Promise<void>;
}

export interface Transport {
  readonly kind: "shm" | "tcp" | "grpc";
  put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo>;
  get(key: Key, range?: Range, options?: GetOptions): Promise<GotObject | null>;
  /** shm: the same bytes as an opaque span for kernels to read. */
  getSpan?(key: Key, range?: Range, options?: GetOptions): Promise<GotSpan | null>;
  /** shm: the version that the object has now, for reading piece by piece. Null where there is no such object. */
  hold?(key: Key): HeldObject | null;
  head(key: Key): Promise<ObjectInfo | null>;
  delete(key: Key, condition?: Condition): Promise<boolean>;
  copy(from: Key, to: Key, condition?: Condition): Promise<ObjectInfo>;
  /** One page in the byte order of keys. `limit` at most 1000. */
  list(prefix: Key, startAfter: Key, limit: number): Promise<{ objects: ListedObject[]; truncated: boolean }>;
  openWriter(key: Key, options?: { sizeBytes?: number }): Promise<ObjectWriter>;
  /**
   * Puts without a promise each: the object is sealed at the latest when the promise of the next `flush`
   * resolves. `flush` rejects with the first failure. Data may be reused when `enqueuePut` returns.
   */
  enqueuePut(key: Key, data: Uint8Array): void;
  flush(): Promise<void>;
  /**
   * shm: the object's bytes in place, without a system call; null where absent. UNSUPPORTED of a demoted object,
   * and over other transports.
   */
  view(key: Key, options?: GetOptions): Uint8Array | null;
  /** shm: like `view`, one view a stretch (objects above 256 MiB lie in several). */
  viewExtents(key: Key, options?: GetOptions): Uint8Array[] | null;
  /** Bytes and operations so far, for receipts and reports. */
  usage(): { bytesIn: number; bytesOut: number; operations: number; copiesAvoidedBytes: number };
  /** grpc: nobody is at the other end just now, of which `onLost` tells only when a call has failed. */
  isAway?(): boolean;
  /** Called once when the connection is lost (not when closed by `close`). */
  onLost(callback: (error: Error) => void): void;
  close(): Promise<void>;
}
