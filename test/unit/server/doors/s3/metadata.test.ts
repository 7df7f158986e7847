import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ObjectAttributes } from "../../../../../server/doors/s3/attributes.js";
import { decodeAttributes, encodeAttributes } from "../../../../../server/doors/s3/attributes.js";
import type { S3Call, S3Request } from "../../../../../server/doors/s3/call.js";
import {
  describedBy,
  objectHeaders,
  overriddenHeaders,
  sealedAttributes,
} from "../../../../../server/doors/s3/metadata.js";

const INFO = { sizeBytes: 3, sequence: 7, crc32c: 0xabc, sealedUnixMs: Date.UTC(2024, 1, 29, 12, 0, 0, 900) };

function requestWith(headers: Record<string, string>): S3Request {
  return { message: { headers } } as unknown as S3Request;
}

function answerTo(headers: Record<string, string>): Record<string, string> {
  const attributes = { ...describedBy(requestWith(headers)), etag: "e", checksum: null, parts: [] };
  return objectHeaders(INFO, decodeAttributes(encodeAttributes(attributes), INFO));
}

describe("what is said of an object", () => {
  it("is said again", () => {
    const headers = {
      "content-type": "text/plain; charset=utf-8",
      "cache-control": "max-age=60",
      "content-disposition": "attachment",
      "content-encoding": "gzip",
      "content-language": "de, en",
      expires: "whenever",
      "x-amz-meta-colour": "r\u00e4d",
      "x-amz-meta-empty": "",
      "x-amz-tagging": "a=1&b=two+words",
    };
    expect(answerTo({ ...headers, host: "ignored" })).toEqual({
      ETag: '"e"',
      "Last-Modified": "Thu, 29 Feb 2024 12:00:00 GMT",
      "Accept-Ranges": "bytes",
      "Content-Type": "text/plain; charset=utf-8",
      "Cache-Control": "max-age=60",
      "Content-Disposition": "attachment",
      "Content-Encoding": "gzip",
      "Content-Language": "de, en",
      Expires: "whenever",
      "x-amz-meta-colour": "r\u00e4d",
      "x-amz-meta-empty": "",
      "x-amz-tagging-count": "2",
    });
  });

  it("has a type where none was given", () => {
    expect(answerTo({})["Content-Type"]).toBe("binary/octet-stream");
  });

  it.each([
    ["aws-chunked", undefined],
    ["AWS-chunked,gzip", "gzip"],
    ["gzip, aws-chunked", "gzip"],
    ["gzip,br", "gzip,br"],
  ])("is not how the request was framed: %s", (sent, kept) => {
    expect(answerTo({ "content-encoding": sent })["Content-Encoding"]).toBe(kept);
  });

  it("comes back byte for byte, under any name that a header has", () => {
    const name = fc.oneof(
      fc.stringMatching(/^[a-z0-9_.-]{1,20}$/),
      fc.constantFrom("__proto__", "constructor"),
    );
    const value = fc.string({
      unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)),
    });
    fc.assert(
      fc.property(fc.dictionary(name, value, { maxKeys: 5 }), (metadata) => {
        const sent = Object.entries(metadata).map(([key, text]): [string, string] => [
          `x-amz-meta-${key}`,
          text,
        ]);
        const answer = answerTo(Object.fromEntries(sent));
        for (const [key, text] of sent) expect(answer[key]).toBe(text);
      }),
    );
  });

  it("is at most 2 KiB of names and values", () => {
    expect(() => describedBy(requestWith({ "x-amz-meta-a": "v".repeat(2047) }))).not.toThrow();
    expect(() => describedBy(requestWith({ "x-amz-meta-a": "v".repeat(2048) }))).toThrow(
      expect.objectContaining({ code: "MetadataTooLarge", status: 400 }),
    );
  });

  it("is refused where the store cannot keep it", () => {
    const call = { context: { limits: { attributesBytesMax: 100 } } } as unknown as S3Call;
    const attributes: ObjectAttributes = {
      etag: "",
      headers: { expires: "x".repeat(100) },
      metadata: {},
      tags: {},
      checksum: null,
      parts: [],
    };
    expect(() => sealedAttributes(call, attributes)).toThrow(
      expect.objectContaining({ code: "MetadataTooLarge" }),
    );
  });

  it("names a storage class that there is", () => {
    expect(() => describedBy(requestWith({ "x-amz-storage-class": "STANDARD" }))).not.toThrow();
    expect(() => describedBy(requestWith({ "x-amz-storage-class": "GLACIER" }))).toThrow(
      expect.objectContaining({ code: "NotImplemented" }),
    );
  });
});

describe("a query that chooses headers", () => {
  const anonymous = { accessKey: "anonymous", secretKey: "", scope: null };
  const signed = { ...anonymous, accessKey: "key" };
  const ask = (query: Record<string, string>, grantee = signed) =>
    overriddenHeaders({
      request: { query: new Map(Object.entries(query)) },
      context: { credentials: { anonymous } },
      authorization: { grantee },
    } as unknown as S3Call);

  it("puts them in the place of the object's", () => {
    expect(ask({ "response-content-type": "text/css", "response-expires": "0", prefix: "x" })).toEqual({
      "Content-Type": "text/css",
      Expires: "0",
    });
  });

  it("may name a file in UTF-8", () => {
    const value = ask({ "response-content-disposition": 'attachment; filename="r\u00e4d\u20ac"' })[
      "Content-Disposition"
    ];
    expect(Buffer.from(value as string, "latin1").toString()).toBe('attachment; filename="r\u00e4d\u20ac"');
  });

  it("cannot smuggle in a header", () => {
    expect(() => ask({ "response-content-type": "a\r\nSet-Cookie: b" })).toThrow(
      expect.objectContaining({ code: "InvalidArgument" }),
    );
  });

  it("has to be signed", () => {
    expect(ask({}, anonymous)).toEqual({});
    expect(() => ask({ "response-content-type": "a" }, anonymous)).toThrow(
      expect.objectContaining({ code: "InvalidRequest" }),
    );
  });
});
