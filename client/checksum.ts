/**
 * CRC32C (Castagnoli) for the SDK: the addon's where it is built, else tables. The npm packages for it are
 * either native themselves or, in plain JavaScript, ten times slower than eight tables, which would make the
 * checksum the bottleneck of the gRPC transport.
 */
import { loadAddon } from "../native/binding/addon.js";

const POLYNOMIAL = 0x82f63b78; // reflected: bit 31 is the coefficient of x^0

type Eight<T> = [T, T, T, T, T, T, T, T];

/** Table k maps a byte to its effect after k further zero bytes ("slicing by 8"). */
const TABLES = makeTables();

function makeTables(): Eight<Uint32Array> {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256)) as Eight<Uint32Array>;
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = multiplyByX(value);
    tables[0][byte] = value;
  }
  for (let k = 1; k < 8; k++) {
    for (let byte = 0; byte < 256; byte++) {
      const value = (tables[k - 1] as Uint32Array)[byte] as number;
      (tables[k] as Uint32Array)[byte] = (value >>> 8) ^ (tables[0][value & 0xff] as number);
    }
  }
  return tables;
}

/** The CRC32C of `bytes`, continuing from `seed`: 0 starts, and a result is the seed of the next call. */
export function crc32c(seed: number, bytes: Uint8Array): number {
  const addon = loadAddon();
  return addon !== null ? addon.kernels.crc32c(seed, bytes) : crc32cByTable(seed, bytes);
}

/** The same without the addon. */
export function crc32cByTable(seed: number, bytes: Uint8Array): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as Eight<{ [index: number]: number }>;
  const data = bytes as { [index: number]: number };
  const length = bytes.length;
  const whole = length - (length % 8);
  let state = ~seed;
  let i = 0;
  for (; i < whole; i += 8) {
    const low =
      state ^
      ((data[i] as number) |
        ((data[i + 1] as number) << 8) |
        ((data[i + 2] as number) << 16) |
        ((data[i + 3] as number) << 24));
    state =
      (t7[low & 0xff] as number) ^
      (t6[(low >>> 8) & 0xff] as number) ^
      (t5[(low >>> 16) & 0xff] as number) ^
      (t4[low >>> 24] as number) ^
      (t3[data[i + 4] as number] as number) ^
      (t2[data[i + 5] as number] as number) ^
      (t1[data[i + 6] as number] as number) ^
      (t0[data[i + 7] as number] as number);
  }
  for (; i < length; i++) state = (state >>> 8) ^ (t0[(state ^ (data[i] as number)) & 0xff] as number);
  return ~state >>> 0;
}

/**
 * The CRC32C of a followed by b, from the checksums of both and the length of b, without touching a byte: the
 * checksum of a, multiplied by x^(8 * bBytes) modulo the polynomial, plus that of b.
 */
export function crc32cCombine(a: number, b: number, bBytes: number): number {
  return (multiply(a, xPower(bBytes)) ^ b) >>> 0;
}

/** The CRC32C of stretches that lie one behind the other, from the CRC and the bytes of each. */
export function crc32cJoin(stretches: readonly (readonly [crc32c: number, bytes: number])[]): number {
  const [first, ...others] = stretches;
  if (first === undefined) return 0;
  return others.reduce((whole, [next, bytes]) => crc32cCombine(whole, next, bytes), first[0]);
}

function multiplyByX(value: number): number {
  return (value >>> 1) ^ (value & 1 ? POLYNOMIAL : 0);
}

/** a * b modulo the polynomial. */
function multiply(a: number, b: number): number {
  let product = 0;
  let shifted = b;
  for (let bit = 31; bit >= 0; bit--) {
    if ((a >>> bit) & 1) product ^= shifted;
    shifted = multiplyByX(shifted);
  }
  return product;
}

/** x^(8 * 2^k) modulo the polynomial, for every bit k of a length. */
const POWERS = makePowers();

function makePowers(): Uint32Array {
  const powers = new Uint32Array(53);
  let square = 0x00800000; // x^8
  for (let k = 0; k < powers.length; k++) {
    powers[k] = square;
    square = multiply(square, square);
  }
  return powers;
}

/** x^(8 * bytes) modulo the polynomial. Lengths go beyond 32 bits, hence the division. */
function xPower(bytes: number): number {
  let result = 0x80000000; // x^0
  let k = 0;
  for (let left = bytes; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = multiply(result, POWERS[k] as number);
    k++;
  }
  return result;
}
