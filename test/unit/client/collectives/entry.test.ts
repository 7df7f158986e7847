import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  type Header,
} from "../../../../client/collectives/entry.js";

const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const header: fc.Arbitrary<Header> = fc.record({
  operation: fc.constantFrom("allReduce", "reduce", "barrier", "broadcast", "slice", "value"),
  type: fc.constantFrom(null, "float32", "float64", "int32", "int64"),
  sharded: fc.boolean(),
  rank: uint32,
  size: uint32,
  root: uint32,
  slots: uint32,
  round: fc.maxSafeNat(),
  payloadBytes: fc.integer({ min: 0, max: 2 ** 50 }),
});

describe("the header of an entry", () => {
  it("comes back as it was", () => {
    fc.assert(
      fc.property(header, (given) => {
        const bytes = encodeHeader(given);
        expect(bytes).toHaveLength(HEADER_BYTES);
        expect(decodeHeader("k", bytes, HEADER_BYTES + given.payloadBytes)).toEqual(given);
      }),
    );
  });

  it("is CORRUPT where any of what it is told by is damaged, or the object has another size", () => {
    const corrupt = expect.objectContaining({ code: "CORRUPT" });
    fc.assert(
      fc.property(
        header,
        fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7),
        fc.integer({ min: 16, max: 255 }),
        (given, at, flip) => {
          const bytes = encodeHeader(given);
          const objectBytes = HEADER_BYTES + given.payloadBytes;
          expect(() => decodeHeader("k", bytes, objectBytes + 1)).toThrow(corrupt);
          expect(() => decodeHeader("k", bytes.subarray(1), objectBytes)).toThrow(corrupt);
          bytes[at] = (bytes[at] as number) ^ flip;
          expect(() => decodeHeader("k", bytes, objectBytes)).toThrow(corrupt);
        },
      ),
    );
  });
});
