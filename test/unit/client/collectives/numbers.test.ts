import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bytesOf,
  type NumberType,
  newArray,
  numberType,
  sumInto,
  sumPortable,
} from "../../../../client/collectives/numbers.js";
import { kernels } from "../../../../client/index.js";

const TYPES: NumberType[] = ["float32", "float64", "int32", "int64"];

describe("sums", () => {
  it.each(TYPES)("of %s are the same bit for bit, native and in JavaScript, at any address", async (type) => {
    const elementBytes = newArray(type, 1).byteLength;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 0, max: 9 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
        async (arrays, length, shift, random) => {
          const bytes = length * elementBytes;
          const inputs = Array.from({ length: arrays }, () => {
            const memory = new Uint8Array(bytes + shift);
            for (let i = 0; i < memory.length; i++) memory[i] = random.next().value as number;
            return memory.subarray(shift);
          });
          const portable = new Uint8Array(bytes);
          sumPortable(type, inputs, portable);
          const native = new Uint8Array(bytes);
          kernels().sumArraysNow(type, inputs, native);
          expect(native).toEqual(portable);
          await kernels().sumArrays(type, inputs, native.fill(1));
          expect(native).toEqual(portable);
          await sumInto(type, inputs, native.fill(2));
          expect(native).toEqual(portable);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("add from the first to the last", () => {
    const of = (...numbers: number[]) => numbers.map((number) => bytesOf(Float32Array.of(number)));
    const sum = new Float32Array(1);
    sumPortable("float32", of(1e8, 1, -1e8), bytesOf(sum));
    expect(sum[0]).toBe(0);
    kernels().sumArraysNow("float32", of(1e8, -1e8, 1), bytesOf(sum));
    expect(sum[0]).toBe(1);
  });

  it("refuse what does not fit", async () => {
    const invalid = expect.objectContaining({ code: "INVALID_ARGUMENT" });
    const out = new Uint8Array(8);
    expect(() => kernels().sumArraysNow("int16" as never, [out], out)).toThrow(invalid);
    expect(() => kernels().sumArraysNow("int32", [], out)).toThrow(invalid);
    expect(() => kernels().sumArraysNow("int32", [out, new Uint8Array(4)], out)).toThrow(invalid);
    expect(() => kernels().sumArraysNow("int32", "no" as never, out)).toThrow(invalid);
    await expect(kernels().sumArrays("int64", [new Uint8Array(12)], new Uint8Array(12))).rejects.toEqual(
      invalid,
    );
    expect(() => sumPortable("int32", [], out)).toThrow(invalid);
    expect(() => sumPortable("int32", [out, new Uint8Array(4)], out)).toThrow(invalid);
    expect(() => numberType(new Uint16Array(1) as never)).toThrow(invalid);
    expect(() => kernels().peek(out, 9)).toThrow(expect.objectContaining({ code: "OUT_OF_RANGE" }));
  });
});
