/**
 * The CRC of a whole from the CRCs and lengths of its parts, without their bytes.
 *
 * A reflected CRC with all ones before and after is linear but for those ones, and they cancel:
 * crc(A B) = crc(A) * x^(8 |B|) + crc(B), over polynomials modulo the CRC's own. The power comes from squarings of x.
 */

export type CrcName = "crc32" | "crc32c" | "crc64nvme";

/** A polynomial of up to 64 coefficients, reflected: the constant one is the highest bit of the width. */
interface Polynomial {
  readonly high: number;
  readonly low: number;
}

interface Crc {
  readonly bytes: 4 | 8;
  readonly modulus: Polynomial;
  /** x^(2^k), as far as it was asked for. */
  readonly squares: Polynomial[];
}

const CRCS: Record<CrcName, Crc> = {
  crc32: crcOf(4, { high: 0, low: 0xedb88320 }),
  crc32c: crcOf(4, { high: 0, low: 0x82f63b78 }),
  crc64nvme: crcOf(8, { high: 0x9a6c9329, low: 0xac4bc9b5 }),
};

export function isCrc(name: string): name is CrcName {
  return Object.hasOwn(CRCS, name);
}

/** CRCs are big-endian, as S3 writes them. No parts have the CRC of nothing, zero. */
export function combineCrcs(name: CrcName, parts: readonly { value: Buffer; sizeBytes: number }[]): Buffer {
  const crc = CRCS[name];
  // Parts of one upload are mostly of one size.
  const powers = new Map<number, Polynomial>();
  let sum: Polynomial = { high: 0, low: 0 };
  for (const { value, sizeBytes } of parts) {
    const power = powers.get(sizeBytes) ?? powerOfBytes(crc, sizeBytes);
    powers.set(sizeBytes, power);
    const shifted = multiply(crc, sum, power);
    const own = read(crc, value);
    sum = { high: (shifted.high ^ own.high) >>> 0, low: (shifted.low ^ own.low) >>> 0 };
  }
  return write(crc, sum);
}

function crcOf(bytes: 4 | 8, modulus: Polynomial): Crc {
  const x: Polynomial = bytes === 8 ? { high: 1 << 30, low: 0 } : { high: 0, low: 1 << 30 };
  return { bytes, modulus, squares: [x] };
}

/** x^(8 * sizeBytes). */
function powerOfBytes(crc: Crc, sizeBytes: number): Polynomial {
  const { squares } = crc;
  let power: Polynomial | null = null;
  // Eight is the third square of x.
  for (let rest = sizeBytes, k = 3; rest > 0; rest = Math.floor(rest / 2), k++) {
    for (let last = squares.at(-1) as Polynomial; squares.length <= k; last = squares.at(-1) as Polynomial) {
      squares.push(multiply(crc, last, last));
    }
    const square = squares[k] as Polynomial;
    if (rest % 2 === 1) power = power === null ? square : multiply(crc, power, square);
  }
  const one: Polynomial = crc.bytes === 8 ? { high: 0x80000000, low: 0 } : { high: 0, low: 0x80000000 };
  return power ?? one;
}

function multiply({ bytes, modulus }: Crc, a: Polynomial, b: Polynomial): Polynomial {
  let high = 0;
  let low = 0;
  let bHigh = b.high;
  let bLow = b.low;
  for (let bit = bytes * 8 - 1; bit >= 0; bit--) {
    const set = bit >= 32 ? (a.high >>> (bit - 32)) & 1 : (a.low >>> bit) & 1;
    if (set === 1) {
      high ^= bHigh;
      low ^= bLow;
    }
    // b times x.
    const over = bLow & 1;
    bLow = (bLow >>> 1) | (bHigh << 31);
    bHigh >>>= 1;
    if (over === 1) {
      bHigh ^= modulus.high;
      bLow ^= modulus.low;
    }
  }
  return { high: high >>> 0, low: low >>> 0 };
}

function read({ bytes }: Crc, value: Buffer): Polynomial {
  if (value.length !== bytes) throw new RangeError(`a CRC of ${bytes} bytes has ${value.length}`);
  return bytes === 8
    ? { high: value.readUInt32BE(0), low: value.readUInt32BE(4) }
    : { high: 0, low: value.readUInt32BE(0) };
}

function write({ bytes }: Crc, { high, low }: Polynomial): Buffer {
  const value = Buffer.alloc(bytes);
  if (bytes === 8) value.writeUInt32BE(high, 0);
  value.writeUInt32BE(low, bytes - 4);
  return value;
}
