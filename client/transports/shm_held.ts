/** One version of an object, kept for reading piece by piece over the `shm` transport: in place, or out of files. */
import { MillraceError } from "../errors.js";
import { chunkRanges, STREAM_CHUNK_BYTES } from "../streams.js";
import type { HeldObject, ObjectInfo } from "../transport.js";
import type { NativeShmHandle } from "./native_handle.js";

/** Numbers of an extent: segment, offset, bytes, whether it lies in a file. */
export const EXTENT_ROW = 4;

/** What is read of a file at once, and how many such pieces ahead of the reader. */
const FILE_PIECE_BYTES = 2 * STREAM_CHUNK_BYTES;
const FILE_PIECES_AHEAD = 4;

/** What a held object needs of its transport. */
export interface ShmHeldHost {
  readonly isOpen: boolean;
  windowOf(segment: number): ArrayBuffer;
  readHeld(held: number, offset: number, bytes: number): Promise<Uint8Array>;
  countGet(bytes: number, operations: number, isView: boolean): void;
}

/** Extents of the object one after another: one that lies in memory, or all up to the next such one. */
interface Stretch {
  /** In the object. */
  begin: number;
  bytes: number;
  /** The extent in place; null where it lies in a file. */
  view: Uint8Array | null;
  extent: number;
}

export class ShmHeldObject implements HeldObject {
  readonly #stretches: Stretch[] = [];
  #isHeld = true;

  constructor(
    private readonly transport: ShmHeldHost,
    private readonly native: NativeShmHandle,
    private readonly held: number,
    readonly info: ObjectInfo,
  ) {
    const rows = native.heldExtents(held);
    let begin = 0;
    for (let row = 0; row < rows.length; row += EXTENT_ROW) {
      const bytes = rows[row + 2]!;
      const inFile = rows[row + 3] === 1;
      const last = this.#stretches.at(-1);
      if (inFile && last !== undefined && last.view === null) {
        last.bytes += bytes;
      } else {
        // Windows are made at once: the segment may have been retired when the reader comes to it.
        const view = inFile ? null : new Uint8Array(transport.windowOf(rows[row]!), rows[row + 1]!, bytes);
        this.#stretches.push({ begin, bytes, view, extent: row / EXTENT_ROW });
      }
      begin += bytes;
    }
    transport.countGet(0, 1, false);
  }

  async *chunks(begin: number, end: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (const stretch of this.#stretches) {
      const from = Math.max(begin, stretch.begin);
      const to = Math.min(end, stretch.begin + stretch.bytes);
      if (from >= to) continue;
      if (stretch.view === null) yield* this.#readChunks(from, to);
      else yield* this.#viewChunks(stretch.view, stretch, from, to);
    }
  }

  close(): void {
    if (this.#isHeld && this.transport.isOpen) this.native.letGo(this.held);
    this.#isHeld = false;
  }

  *#viewChunks(
    view: Uint8Array,
    { begin, extent }: Stretch,
    from: number,
    to: number,
  ): Generator<Uint8Array, void, undefined> {
    // What was mapped stays readable when the connection is lost.
    if (this.transport.isOpen) {
      try {
        this.native.verifyHeld(this.held, extent);
      } catch (error) {
        throw MillraceError.from(error);
      }
    }
    for (const { offset, length } of chunkRanges(from, to, STREAM_CHUNK_BYTES)) {
      this.transport.countGet(length, 0, true);
      yield view.subarray(offset - begin, offset - begin + length);
    }
  }

  async *#readChunks(from: number, to: number): AsyncGenerator<Uint8Array, void, undefined> {
    const pieces = chunkRanges(from, to, FILE_PIECE_BYTES);
    const underWay: Promise<Uint8Array>[] = [];
    for (;;) {
      while (underWay.length < FILE_PIECES_AHEAD) {
        const piece = pieces.next();
        if (piece.done === true) break;
        const reading = this.transport.readHeld(this.held, piece.value.offset, piece.value.length);
        reading.catch(() => {}); // Seen when its turn comes, if the reader lives that long.
        underWay.push(reading);
      }
      const next = underWay.shift();
      if (next === undefined) return;
      const bytes = await next;
      for (const { offset, length } of chunkRanges(0, bytes.length, STREAM_CHUNK_BYTES)) {
        this.transport.countGet(length, 0, false);
        yield bytes.subarray(offset, offset + length);
      }
    }
  }
}
