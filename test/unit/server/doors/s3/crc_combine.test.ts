import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CrcName, combineCrcs, isCrc } from "../../../../../server/doors/s3/crc_combine.js";

/** Bit by bit, straight from the definition. */
function crcOf(name: CrcName, bytes: Uint8Array): Buffer {
  const { width, polynomial } = DEFINITIONS[name];
  const ones = (1n << width) - 1n;
  let crc = ones;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ polynomial : crc >> 1n;
  }
  const hex = (crc ^ ones).toString(16).padStart(Number(width) / 4, "0");
  return Buffer.from(hex, "hex");
}

const DEFINITIONS: Record<CrcName, { width: bigint; polynomial: bigint; check: string }> = {
  crc32: { width: 32n, polynomial: 0xedb88320n, check: "cbf43926" },
  crc32c: { width: 32n, polynomial: 0x82f63b78n, check: "e3069283" },
  crc64nvme: { width: 64n, polynomial: 0x9a6c9329ac4bc9b5n, check: "ae8b14860a799888" },
};

const NAMES = Object.keys(DEFINITIONS) as CrcName[];

describe.each(NAMES)("combineCrcs of %s", (name) => {
  it("is held to the published check value", () => {
    const check = DEFINITIONS[name].check;
    expect(crcOf(name, Buffer.from("123456789")).toString("hex")).toBe(check);
    const parts = ["12", "", "3456", "789"].map((text) => Buffer.from(text));
    const whole = combineCrcs(
      name,
      parts.map((bytes) => ({ value: crcOf(name, bytes), sizeBytes: bytes.length })),
    );
    expect(whole.toString("hex")).toBe(check);
  });

  it("equals the CRC of the whole, however it is cut", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }), (parts) => {
        const combined = combineCrcs(
          name,
          parts.map((bytes) => ({ value: crcOf(name, bytes), sizeBytes: bytes.length })),
        );
        expect(combined).toEqual(crcOf(name, Buffer.concat(parts)));
      }),
    );
  });

  it("adds up over long stretches as over their halves", () => {
    const value = (byte: number) => crcOf(name, Uint8Array.of(byte));
    const first = { value: value(1), sizeBytes: 3 * 2 ** 40 };
    const second = { value: value(2), sizeBytes: 2 ** 40 + 12_345 };
    const third = { value: value(3), sizeBytes: 2 ** 39 + 7 };
    const rest = combineCrcs(name, [second, third]);
    const stepwise = combineCrcs(name, [
      first,
      { value: rest, sizeBytes: second.sizeBytes + third.sizeBytes },
    ]);
    expect(stepwise).toEqual(combineCrcs(name, [first, second, third]));
  });

  it("refuses a value of another width", () => {
    expect(() => combineCrcs(name, [{ value: Buffer.alloc(3), sizeBytes: 1 }])).toThrow(RangeError);
  });
});

it("knows which checksums are CRCs", () => {
  expect(["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "constructor"].map(isCrc)).toEqual([
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
});
