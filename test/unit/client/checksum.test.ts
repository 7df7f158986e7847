import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { crc32c, crc32cByTable, crc32cCombine } from "../../../client/checksum.js";
import { loadAddon } from "../../../native/binding/addon.js";

const bytes = fc.uint8Array({ maxLength: 300 });

/** One bit at a time, straight from the definition. */
function crc32cByDefinition(data: Uint8Array): number {
  let state = 0xffffffff;
  for (const byte of data) {
    state ^= byte;
    for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? 0x82f63b78 : 0);
  }
  return ~state >>> 0;
}

describe("crc32c", () => {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  it.each([
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["ascending", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["check value", new TextEncoder().encode("123456789"), 0xe3069283],
    ["nothing", new Uint8Array(0), 0],
  ])("knows published values: %s", (_, data, expected) => {
    expect(crc32cByTable(0, data)).toBe(expected);
    expect(crc32c(0, data)).toBe(expected);
  });

  it("by tables equals the definition, and goes on from a seed", () => {
    fc.assert(
      fc.property(bytes, bytes, (a, b) => {
        const whole = new Uint8Array([...a, ...b]);
        expect(crc32cByTable(0, whole)).toBe(crc32cByDefinition(whole));
        expect(crc32cByTable(crc32cByTable(0, a), b)).toBe(crc32cByDefinition(whole));
      }),
    );
  });

  it.skipIf(loadAddon() === null)("is the addon's where there is one", () => {
    fc.assert(
      fc.property(bytes, fc.nat({ max: 0xffffffff }), (data, seed) => {
        expect(crc32c(seed, data)).toBe(crc32cByTable(seed, data));
      }),
    );
  });
});

describe("crc32cCombine", () => {
  it("gives the checksum of the concatenation", () => {
    fc.assert(
      fc.property(bytes, bytes, (a, b) => {
        const combined = crc32cCombine(crc32cByTable(0, a), crc32cByTable(0, b), b.length);
        expect(combined).toBe(crc32cByTable(0, new Uint8Array([...a, ...b])));
      }),
    );
  });

  it("is associative, also for lengths beyond 32 bits", () => {
    const crc = fc.nat({ max: 0xffffffff });
    const length = fc.integer({ min: 0, max: 5 * 2 ** 40 });
    fc.assert(
      fc.property(crc, crc, crc, length, length, (a, b, c, bBytes, cBytes) => {
        const left = crc32cCombine(crc32cCombine(a, b, bBytes), c, cBytes);
        const right = crc32cCombine(a, crc32cCombine(b, c, cBytes), bBytes + cBytes);
        expect(left).toBe(right);
      }),
    );
  });
});
