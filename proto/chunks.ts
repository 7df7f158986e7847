/**
 * Messages that carry bytes (PutRequest, GetResponse), encoded in place. Protobuf's own encoder allocates and
 * copies every message; a chunk is filled where its message will lie, is used again, and leaves gRPC's own copy
 * into its frame as the only one.
 *
 *   | room | other fields, encoded | tag of `data` | its length | data ... |
 *                                                                ^ DATA_AT
 */
import { CHUNK_BYTES_MAX } from "./load.js";

/** Both messages have their bytes in field 2. */
const DATA_TAG = (2 << 3) | 2;
/** Room for an ObjectInfo or a PutHeader with the longest key, and for tag and length. */
const DATA_AT = 4096;
const POOLED_MAX = 16;
const SMALL_BYTES = 64 << 10;

export class Chunk {
  private readonly memory: Buffer;

  /** @internal Use ChunkPool. */
  constructor(dataBytes: number) {
    this.memory = Buffer.allocUnsafe(DATA_AT + dataBytes);
  }

  /** Where the bytes go; as large as was asked for or larger. */
  get data(): Buffer {
    return this.memory.subarray(DATA_AT);
  }

  /**
   * The message with the first `bytes` bytes of `data` and, before them, `fields`: the same message encoded
   * without data. Valid until the chunk is given back.
   */
  encode(fields: Uint8Array | null, bytes: number): Buffer {
    const { memory } = this;
    let start = DATA_AT;
    if (bytes > 0) {
      start -= 1 + varintBytes(bytes);
      memory[start] = DATA_TAG;
      writeVarint(memory, start + 1, bytes);
    }
    if (fields !== null) {
      start -= fields.length;
      memory.set(fields, start);
    }
    return memory.subarray(start, DATA_AT + bytes);
  }
}

/** Chunks of CHUNK_BYTES_MAX that are not in use. */
export class ChunkPool {
  private readonly free: Chunk[] = [];

  /** A chunk for the next at most CHUNK_BYTES_MAX of `bytes` bytes. Small ones are not worth keeping. */
  take(bytes: number): Chunk {
    if (bytes <= SMALL_BYTES) return new Chunk(bytes);
    return this.free.pop() ?? new Chunk(CHUNK_BYTES_MAX);
  }

  /** Only when gRPC is done with the chunk's message: in the callback of `write`. */
  giveBack(chunk: Chunk): void {
    if (chunk.data.length === CHUNK_BYTES_MAX && this.free.length < POOLED_MAX) this.free.push(chunk);
  }
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let left = value; left >= 0x80; left = Math.floor(left / 0x80)) bytes += 1;
  return bytes;
}

function writeVarint(memory: Buffer, at: number, value: number): void {
  let index = at;
  let left = value;
  for (; left >= 0x80; left = Math.floor(left / 0x80)) memory[index++] = (left % 0x80) | 0x80;
  memory[index] = left;
}
