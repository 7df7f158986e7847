/** Arrays of numbers and their sums: in native code where the bytes lie, in JavaScript where there is no addon. */
import { loadAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../errors.js";
import type { ByteSpan } from "../transport.js";
import { SUM_AT_ONCE_BYTES_MAX } from "./limits.js";

export type NumberArray = Float32Array | Float64Array | Int32Array | BigInt64Array;
export type NumberType = "float32" | "float64" | "int32" | "int64";

const TYPES = new Map<unknown, NumberType>([
  [Float32Array, "float32"],
  [Float64Array, "float64"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
]);

/** INVALID_ARGUMENT for any other array. */
export function numberType(array: NumberArray): NumberType {
  const type = TYPES.get(array?.constructor);
  if (type !== undefined) return type;
  throw new MillraceError(
    "INVALID_ARGUMENT",
    "give a Float32Array, Float64Array, Int32Array or BigInt64Array to be summed",
  );
}

export function newArray(type: NumberType, length: number): NumberArray {
  switch (type) {
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
    case "int32":
      return new Int32Array(length);
    case "int64":
      return new BigInt64Array(length);
  }
}

export function bytesOf(array: NumberArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/**
 * Fills `out` with the sum of the inputs, added in their order: the same bit for bit, whoever computes it. `out` may be
 * one of the inputs.
 */
export async function sumInto(type: NumberType, inputs: readonly ByteSpan[], out: ByteSpan): Promise<void> {
  const kernels = loadAddon()?.kernels;
  if (kernels === undefined) sumPortable(type, inputs as readonly Uint8Array[], out as Uint8Array);
  else if (inputs.length * out.length <= SUM_AT_ONCE_BYTES_MAX) kernels.sumArraysNow(type, inputs, out);
  else await kernels.sumArrays(type, inputs, out);
}

/** The first bytes, of a span too. */
export function peek(bytes: ByteSpan, count: number): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes.subarray(0, count);
  // Whoever has a span has the addon.
  return (loadAddon() as NonNullable<ReturnType<typeof loadAddon>>).kernels.peek(bytes, count);
}

/** Lets go of what a span holds; nothing to do for ordinary memory. */
export function release(bytes: ByteSpan): void {
  if (!(bytes instanceof Uint8Array)) bytes.release();
}

/** As native/kernels/sum.cc, which the tests compare with it. */
export function sumPortable(type: NumberType, inputs: readonly Uint8Array[], out: Uint8Array): void {
  const [first, ...more] = inputs.map((bytes) => aligned(type, bytes));
  if (first === undefined) throw new MillraceError("INVALID_ARGUMENT", "there is nothing to sum");
  const sums = first.slice() as NumberArray;
  for (const array of more) {
    if (array.length !== sums.length)
      throw new MillraceError("INVALID_ARGUMENT", "arrays of unequal length cannot be summed");
    if (sums instanceof BigInt64Array) {
      const numbers = array as BigInt64Array;
      for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as bigint) + (numbers[i] as bigint);
    } else {
      const numbers = array as Exclude<NumberArray, BigInt64Array>;
      // Stores round to the element, and wrap around.
      for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) + (numbers[i] as number);
    }
  }
  if (more.length > 0 && (sums instanceof Float32Array || sums instanceof Float64Array)) {
    for (let i = 0; i < sums.length; i++) if (Number.isNaN(sums[i])) sums[i] = Number.NaN;
  }
  out.set(bytesOf(sums));
}

function aligned(type: NumberType, bytes: Uint8Array): NumberArray {
  const elementBytes = type === "float32" || type === "int32" ? 4 : 8;
  const array = newArray(type, Math.floor(bytes.length / elementBytes));
  bytesOf(array).set(bytes.subarray(0, array.byteLength));
  return array;
}
