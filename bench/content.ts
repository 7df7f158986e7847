/**
 * Objects that say what they are. Every block of 1 KiB begins with the key, the writer, the version and the length
 * that it belongs to, and goes on with noise that follows from these and its place. So any piece of an object can be
 * checked by itself, and bytes of two versions, of two keys, or of nothing are told from a whole.
 */
export interface Identity {
  keyHash: number;
  /** Who wrote it; counts its own versions. */
  writer: number;
  version: number;
  sizeBytes: number;
}

const BLOCK_BYTES = 1024;
const STAMP_BYTES = 16;
/** The least that an object has, and a range must cover, to be recognised. */
export const CONTENT_BYTES_MIN = STAMP_BYTES;
export const RANGE_BYTES_MIN = BLOCK_BYTES + STAMP_BYTES;

export function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

export function makeContent(key: string, writer: number, version: number, sizeBytes: number): Buffer {
  const out = Buffer.allocUnsafe(sizeBytes);
  fill(out, { keyHash: hashOf(key), writer, version, sizeBytes }, 0);
  return out;
}

/** What `bytes`, which begin at `offset` of an object of `key`, belong to. Throws where they are not of one whole. */
export function identify(key: string, bytes: Uint8Array, offset: number, sizeBytes: number): Identity {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = (BLOCK_BYTES - (offset % BLOCK_BYTES)) % BLOCK_BYTES;
  if (at + STAMP_BYTES > data.length) throw new Error(`${key}: ${data.length} bytes are too few to be known`);
  const identity: Identity = {
    keyHash: data.readUInt32LE(at),
    writer: data.readUInt32LE(at + 4),
    version: data.readUInt32LE(at + 8),
    sizeBytes: data.readUInt32LE(at + 12),
  };
  const shown = `${key} at ${offset}: ${JSON.stringify(identity)}`;
  if (identity.keyHash !== hashOf(key)) throw new Error(`${shown} is of another key, or torn`);
  if (identity.sizeBytes !== sizeBytes) throw new Error(`${shown} in an object of ${sizeBytes} bytes`);
  const expected = Buffer.allocUnsafe(data.length);
  fill(expected, identity, offset);
  if (Buffer.compare(expected, data) !== 0) {
    const index = expected.findIndex((byte, i) => byte !== data[i]);
    let other = "";
    const block = index - ((offset + index) % BLOCK_BYTES);
    if (block >= 0)
      other = `; that block begins with ${data.subarray(block, block + STAMP_BYTES).toString("hex")}`;
    throw new Error(`${shown} differs at ${offset + index}${other}`);
  }
  return identity;
}

function fill(out: Buffer, identity: Identity, offset: number): void {
  const scratch = Buffer.allocUnsafe(BLOCK_BYTES);
  for (let at = 0; at < out.length; ) {
    const inBlock = (offset + at) % BLOCK_BYTES;
    const index = (offset + at - inBlock) / BLOCK_BYTES;
    if (inBlock === 0 && out.length - at >= BLOCK_BYTES && (out.byteOffset + at) % 4 === 0) {
      fillBlock(out, at, identity, index);
      at += BLOCK_BYTES;
    } else {
      fillBlock(scratch, 0, identity, index);
      at += scratch.copy(out, at, inBlock, Math.min(BLOCK_BYTES, inBlock + out.length - at));
    }
  }
}

function fillBlock(out: Buffer, at: number, identity: Identity, index: number): void {
  const words = new Uint32Array(out.buffer, out.byteOffset + at, BLOCK_BYTES / 4);
  words[0] = identity.keyHash;
  words[1] = identity.writer;
  words[2] = identity.version;
  words[3] = identity.sizeBytes;
  let word = Math.imul(identity.keyHash ^ Math.imul(identity.version, 0x9e3779b1), 0x85ebca6b);
  word =
    Math.imul(word ^ identity.writer ^ Math.imul(index + 1, 0xc2b2ae35) ^ identity.sizeBytes, 0x27d4eb2f) | 1;
  for (let i = 4; i < words.length; i++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[i] = word;
  }
}
