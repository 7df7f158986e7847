/**
 * Bytes that say where they belong: a block of noise that differs by name, stamped with the object's offset every
 * 4 KiB. Any piece can be made and checked by itself, at the speed of memory.
 */
import { createHash } from "node:crypto";

const BLOCK_BYTES = 1 << 20;
const STAMP_EVERY_BYTES = 4096;

export class Pattern {
  readonly #block: Buffer;

  constructor(name: string) {
    this.#block = Buffer.alloc(BLOCK_BYTES);
    let word = createHash("sha256").update(name).digest().readUInt32LE(0) | 1;
    const words = new Uint32Array(this.#block.buffer, this.#block.byteOffset, BLOCK_BYTES / 4);
    for (let i = 0; i < words.length; i++) {
      word ^= word << 13;
      word ^= word >>> 17;
      word ^= word << 5;
      words[i] = word;
    }
  }

  /** Bytes [offset, offset + length) of an object of any size. */
  bytes(offset: number, length: number): Buffer {
    const out = Buffer.allocUnsafe(length);
    this.fill(out, offset);
    return out;
  }

  /** Fills `out` as if it began at `offset`. */
  fill(out: Uint8Array, offset: number): void {
    const buffer = Buffer.from(out.buffer, out.byteOffset, out.length);
    for (let at = 0; at < buffer.length; ) {
      const from = (offset + at) % BLOCK_BYTES;
      at += this.#block.copy(buffer, at, from, Math.min(BLOCK_BYTES, from + buffer.length - at));
    }
    // Pieces may start and end anywhere: a stamp that is cut is written byte by byte.
    const first = Math.floor(offset / STAMP_EVERY_BYTES) * STAMP_EVERY_BYTES;
    for (let stamp = first; stamp < offset + buffer.length; stamp += STAMP_EVERY_BYTES) {
      const at = stamp - offset;
      if (at >= 0 && at + 8 <= buffer.length) {
        buffer.writeDoubleLE(stamp, at);
        continue;
      }
      SCRATCH.writeDoubleLE(stamp, 0);
      for (let i = 0; i < 8; i++) {
        if (at + i >= 0 && at + i < buffer.length) buffer[at + i] = SCRATCH[i] as number;
      }
    }
  }

  /** Null where `bytes` are those from `offset` on, else what is wrong. */
  differs(bytes: Uint8Array, offset: number): string | null {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const piece = bytes.subarray(at, at + BLOCK_BYTES);
      const expected = CHECKED.subarray(0, piece.length);
      this.fill(expected, offset + at);
      if (Buffer.compare(piece, expected) !== 0) {
        const index = expected.findIndex((byte, i) => byte !== piece[i]);
        return `byte ${offset + at + index} is ${piece[index]}, not ${expected[index]}`;
      }
    }
    return null;
  }
}

const SCRATCH = Buffer.alloc(8);
const CHECKED = Buffer.alloc(BLOCK_BYTES);
