import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { decodeAttributes, encodeAttributes } from "../../../../../server/doors/s3/attributes.js";
import { checksumName, checksumOfParts, typesOf } from "../../../../../server/doors/s3/checksums.js";

const PARTS = ["first", "", "third part"].map((text) => Buffer.from(text));

const crc = (bytes: Buffer) => {
  const value = Buffer.alloc(4);
  value.writeUInt32BE(crc32(bytes));
  return value;
};

describe("checksums of parts", () => {
  it("are of the parts' checksums where they are composite", () => {
    const sha = (bytes: Buffer) => createHash("sha256").update(bytes).digest();
    for (const [name, of] of [
      ["sha256", sha],
      ["crc32", crc],
    ] as const) {
      const parts = PARTS.map((bytes) => ({ value: of(bytes).toString("base64"), sizeBytes: bytes.length }));
      const whole = of(Buffer.concat(PARTS.map(of))).toString("base64");
      expect(checksumOfParts(name, "COMPOSITE", parts)).toBe(`${whole}-3`);
    }
  });

  it("are of the whole where they are of the full object", () => {
    const parts = PARTS.map((bytes) => ({ value: crc(bytes).toString("base64"), sizeBytes: bytes.length }));
    expect(checksumOfParts("crc32", "FULL_OBJECT", parts)).toBe(crc(Buffer.concat(PARTS)).toString("base64"));
    expect(() => checksumOfParts("sha1", "FULL_OBJECT", parts)).toThrow(TypeError);
  });

  it("have names and types", () => {
    expect(checksumName("CRC64NVME")).toBe("crc64nvme");
    expect(checksumName("md5")).toBeNull();
    expect(typesOf("crc64nvme")).toEqual(["FULL_OBJECT"]);
    expect(typesOf("crc32c")[0]).toBe("COMPOSITE");
    expect(typesOf("sha256")).toEqual(["COMPOSITE"]);
  });
});

it("sizes of ten thousand parts fit in an object's attributes", () => {
  const info = { sizeBytes: 0, sequence: 1, crc32c: 0, sealedUnixMs: 0 };
  const parts = [...new Array<number>(9_998).fill(8 << 20), 5, 7];
  const attributes = { etag: "e", headers: {}, metadata: {}, tags: {}, checksum: null, parts };
  const bytes = encodeAttributes(attributes);
  expect(bytes.length).toBeLessThan(200);
  expect(decodeAttributes(bytes, info)).toEqual(attributes);
});
