import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { S3Error } from "../../../../../server/doors/s3/errors.js";
import { contentRange, parseRange } from "../../../../../server/doors/s3/ranges.js";

describe("a range", () => {
  it.each([
    ["bytes=0-0", 10, 0, 1],
    ["bytes=2-5", 10, 2, 4],
    ["bytes=2-", 10, 2, 8],
    ["bytes=2-99", 10, 2, 8],
    ["bytes=-3", 10, 7, 3],
    ["bytes=-99", 10, 0, 10],
    ["bytes=9-99999999999999999999999999", 10, 9, 1],
    ["Bytes = 1 - 2 ", 10, 1, 2],
  ])("%s of %i bytes starts at %i and has %i", (value, size, offset, length) => {
    expect(parseRange(value, size)).toEqual({ offset, length });
  });

  it.each([
    "bytes=",
    "bytes=-",
    "bytes=5-2",
    "bytes=0-1,3-4",
    "bytes=a-b",
    "bytes=-1-2",
    "bytes 0-1",
    "items=0-1",
    "bytes=0x1-2",
    "",
  ])("%j that makes no sense is the whole object", (value) => {
    expect(parseRange(value, 10)).toBeNull();
  });

  it.each([
    ["bytes=10-", 10],
    ["bytes=10-12", 10],
    ["bytes=-0", 10],
    ["bytes=0-", 0],
    ["bytes=-1", 0],
    ["bytes=99999999999999999999-", 10],
  ])("%s has no byte of %i", (value, size) => {
    const thrown = thrownBy(() => parseRange(value, size));
    expect(thrown).toMatchObject({
      code: "InvalidRange",
      status: 416,
      headers: { "Content-Range": `bytes */${size}` },
    });
  });

  it("is what slicing the bytes would give", () => {
    const place = fc.option(fc.nat(40), { nil: null });
    fc.assert(
      fc.property(place, place, fc.nat(32), (first, last, size) => {
        const value = `bytes=${first ?? ""}-${last ?? ""}`;
        const bytes = Array.from({ length: size }, (_, at) => at);
        const meant =
          first === null
            ? bytes.slice(Math.max(0, size - (last ?? 0)))
            : bytes.slice(first, last === null ? size : last + 1);
        const senseless = first === null ? last === null : last !== null && last < first;
        const range = resultOf(() => parseRange(value, size));
        if (senseless) expect(range).toBeNull();
        else if (meant.length === 0) expect(range).toBeInstanceOf(S3Error);
        else {
          expect(range).toEqual({ offset: meant[0], length: meant.length });
          expect(contentRange(range as { offset: number; length: number }, size)).toBe(
            `bytes ${meant[0]}-${meant.at(-1)}/${size}`,
          );
        }
      }),
    );
  });

  it("of any text is inside the object, or none", () => {
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom(..."0123456789-, \t") }).map((tail) => `bytes=${tail}`),
    );
    fc.assert(
      fc.property(text, fc.nat(1000), (value, size) => {
        const range = resultOf(() => parseRange(value, size));
        if (range === null || range instanceof S3Error) return;
        const { offset, length } = range as { offset: number; length: number };
        expect(offset).toBeGreaterThanOrEqual(0);
        expect(length).toBeGreaterThan(0);
        expect(offset + length).toBeLessThanOrEqual(size);
      }),
    );
  });
});

function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (thrown) {
    return thrown;
  }
  throw new Error("nothing was thrown");
}

function resultOf(call: () => unknown): unknown {
  try {
    return call();
  } catch (thrown) {
    return thrown;
  }
}
