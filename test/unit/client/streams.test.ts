import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chunkRanges, resolveRange } from "../../../client/streams.js";

describe("chunkRanges", () => {
  it("covers the range once, in order, in chunks of the size asked for", () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 1000 }),
        fc.nat({ max: 1000 }),
        fc.integer({ min: 1, max: 64 }),
        (begin, bytes, chunkBytes) => {
          const end = begin + bytes;
          let at = begin;
          for (const { offset, length } of chunkRanges(begin, end, chunkBytes)) {
            expect(offset).toBe(at);
            expect(length).toBe(Math.min(chunkBytes, end - at));
            at += length;
          }
          expect(at).toBe(end);
        },
      ),
    );
  });
});

describe("resolveRange", () => {
  it("reads to the end by default", () => {
    expect(resolveRange({}, 10)).toEqual({ begin: 0, end: 10 });
    expect(resolveRange({ offset: 4 }, 10)).toEqual({ begin: 4, end: 10 });
    expect(resolveRange({ offset: 10 }, 10)).toEqual({ begin: 10, end: 10 });
    expect(resolveRange({ offset: 4, length: 0 }, 10)).toEqual({ begin: 4, end: 4 });
    expect(resolveRange({}, 0)).toEqual({ begin: 0, end: 0 });
  });

  it.each([
    [{ offset: 11 }, 10],
    [{ offset: 4, length: 7 }, 10],
    [{ length: 11 }, 10],
  ])("refuses %j of %i bytes", (range, sizeBytes) => {
    expect(() => resolveRange(range, sizeBytes)).toThrow(expect.objectContaining({ code: "OUT_OF_RANGE" }));
  });
});
