import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MillraceError } from "../../../client/errors.js";
import {
  checkCondition,
  checkCount,
  checkData,
  checkKey,
  checkPrefix,
  checkRange,
  KEY_BYTES_MAX,
  keyBytes,
  parseEndpoint,
  splitAddress,
} from "../../../client/names.js";
import { loadAddon } from "../../../native/binding/addon.js";

function codeOf(action: () => unknown): string | null {
  try {
    action();
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(MillraceError);
    return (error as MillraceError).code;
  }
}

describe("keys", () => {
  it("are 1 to 1,024 bytes of UTF-8, whatever the characters take", () => {
    expect(codeOf(() => checkKey("a".repeat(1024)))).toBeNull();
    expect(codeOf(() => checkKey("a".repeat(1025)))).toBe("KEY_TOO_LONG");
    expect(codeOf(() => checkKey("é".repeat(512)))).toBeNull();
    expect(codeOf(() => checkKey(`a${"é".repeat(512)}`))).toBe("KEY_TOO_LONG");
    expect(codeOf(() => checkKey("🦀".repeat(256)))).toBeNull();
    expect(codeOf(() => checkKey("🦀".repeat(257)))).toBe("KEY_TOO_LONG");
    expect(codeOf(() => checkKey(""))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey(new Uint8Array(0)))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey(new Uint8Array(1025).fill(97)))).toBe("KEY_TOO_LONG");
  });

  it("must be Unicode", () => {
    expect(codeOf(() => checkKey("a\ud800b"))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey(Uint8Array.of(0xff)))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey(Uint8Array.of(0xc0, 0x80)))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey(7 as unknown as string))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkKey("\0"))).toBeNull();
  });

  it("are accepted by their UTF-8 length, in both forms alike", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 700 }), (key) => {
        const bytes = keyBytes(key);
        const expected = bytes.length > KEY_BYTES_MAX ? "KEY_TOO_LONG" : null;
        expect(codeOf(() => checkKey(key))).toBe(expected);
        expect(codeOf(() => checkKey(bytes))).toBe(expected);
      }),
    );
  });

  it("may be empty as prefixes", () => {
    expect(codeOf(() => checkPrefix(""))).toBeNull();
    expect(codeOf(() => checkPrefix("a".repeat(1025)))).toBe("KEY_TOO_LONG");
  });

  it.skipIf(loadAddon() === null)("are as long as the native limit allows", () => {
    expect(loadAddon()?.limits.keyBytesMax).toBe(KEY_BYTES_MAX);
  });
});

describe("endpoints", () => {
  it.each([
    ["localhost:7400", "localhost:7400", "localhost"],
    ["grpc://10.0.0.1:7400", "10.0.0.1:7400", "10.0.0.1"],
    ["grpc://node-1.example.org:7400/", "node-1.example.org:7400", "node-1.example.org"],
    ["[::1]:7400", "[::1]:7400", "::1"],
  ])("%s", (endpoint, address, host) => {
    expect(parseEndpoint(endpoint)).toEqual({ address, host });
  });

  it.each([
    "",
    "localhost",
    "localhost:",
    ":7400",
    "localhost:0",
    "localhost:65536",
    "http://a:1",
    "a:1:2",
    "a b:1",
  ])("refuses %j", (endpoint) => {
    expect(codeOf(() => parseEndpoint(endpoint))).toBe("INVALID_ARGUMENT");
  });

  it("splits what the node advertises", () => {
    expect(splitAddress("0.0.0.0:7401")).toEqual({ host: "0.0.0.0", port: 7401 });
    expect(splitAddress("[::]:7401")).toEqual({ host: "::", port: 7401 });
    expect(splitAddress("nothing")).toBeNull();
  });
});

describe("numbers and data", () => {
  it("ranges are whole and not negative", () => {
    expect(codeOf(() => checkRange({}))).toBeNull();
    expect(codeOf(() => checkRange({ offset: 0, length: 0 }))).toBeNull();
    for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      expect(codeOf(() => checkRange({ offset: bad }))).toBe("INVALID_ARGUMENT");
      expect(codeOf(() => checkRange({ length: bad }))).toBe("INVALID_ARGUMENT");
      expect(codeOf(() => checkCount("limit", bad))).toBe("INVALID_ARGUMENT");
    }
  });

  it("sequences begin at 1", () => {
    expect(codeOf(() => checkCondition(undefined))).toBeNull();
    expect(codeOf(() => checkCondition({ ifSequence: 1 }))).toBeNull();
    expect(codeOf(() => checkCondition({ ifSequence: 0 }))).toBe("INVALID_ARGUMENT");
  });

  it("data is bytes or text", () => {
    expect(checkData("é")).toEqual(Buffer.from([0xc3, 0xa9]));
    expect(codeOf(() => checkData(5 as unknown as string))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => checkData(new Float64Array(1) as unknown as Uint8Array))).toBe("INVALID_ARGUMENT");
  });
});
