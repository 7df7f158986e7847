/** The typed face of the addon's session: `native/binding/session.cc` and its parts say what each call does. */
import type { NativeSpan } from "../../native/binding/addon.js";
import type { Key } from "../transport.js";

/** What is compared with its checksum: nothing; what was not compared yet; all that is touched. */
export type Verify = 0 | 1 | 2;

export interface NativeHandle {
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
  /** After a loss: lets go of all but the views that are out. */
  release(): void;
  /** Views become empty. */
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

export interface NativeShmHandle extends NativeHandle {
  locate(key: Key, verify: Verify): number;
  locateExtents(key: Key, offset: number, length: number, verify: Verify): Float64Array | null;
  read(id: number, key: Key, offset: number, length: number, verify: Verify, span: boolean): boolean;
  hold(key: Key): number;
  heldExtents(held: number): Float64Array;
  verifyHeld(held: number, extent: number): void;
  readHeld(id: number, held: number, offset: number, bytes: number): void;
  letGo(held: number): void;
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
