import type { IncomingMessage } from "node:http";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseRequest } from "../../../../../server/doors/s3/request.js";

const RULES = { domains: ["localhost", "s3.example.com"], keyBytesMax: 1024 };

function parse(url: string, host: string | undefined = "127.0.0.1:9000") {
  return parseRequest({ method: "GET", url, headers: { host } } as IncomingMessage, "id", RULES);
}

describe("requests", () => {
  it.each([
    ["/", null, null],
    ["/?x-id=ListBuckets", null, null],
    ["/bucket", "bucket", null],
    ["/bucket/", "bucket", null],
    ["/bucket?list-type=2", "bucket", null],
    ["/bucket/key", "bucket", "key"],
    ["/bucket/a/b/", "bucket", "a/b/"],
    ["/bucket//a//b", "bucket", "/a//b"],
    ["/bucket//", "bucket", "/"],
    ["/bucket/../a/./b", "bucket", "../a/./b"],
    ["/bucket/%2e%2E/a%2Fb", "bucket", "../a/b"],
    ["/bucket/gr%C3%BC%C3%9Fe%20%F0%9F%98%80", "bucket", "grüße 😀"],
    ["/bucket/a+b%2Bc", "bucket", "a+b+c"],
    ["/bucket/a%00b", "bucket", "a\0b"],
    ["/bucket/a%3Fb%25", "bucket", "a?b%"],
    ["http://127.0.0.1:9000/bucket/key", "bucket", "key"],
  ])("%s names bucket %s and key %s", (url, bucket, key) => {
    expect(parse(url)).toMatchObject({ bucket, key });
  });

  it("name their bucket by the host too", () => {
    expect(parse("/a/b", "bucket.s3.example.com")).toMatchObject({ bucket: "bucket", key: "a/b" });
    expect(parse("/", "my.dotted.bucket.S3.example.com:80")).toMatchObject({
      bucket: "my.dotted.bucket",
      key: null,
    });
    expect(parse("//a", "bucket.localhost:9000")).toMatchObject({ bucket: "bucket", key: "/a" });
    expect(parse("/a/b", "s3.example.com")).toMatchObject({ bucket: "a", key: "b" });
    expect(parse("/a/b", ".localhost")).toMatchObject({ bucket: "a", key: "b" });
    expect(parse("/a/b", "[::1]:9000")).toMatchObject({ bucket: "a", key: "b" });
    expect(
      parseRequest({ method: "GET", url: "/a", headers: {} } as IncomingMessage, "id", RULES).bucket,
    ).toBe("a");
  });

  it("have a query in which a plus is a space", () => {
    const { query, rawQuery, rawPath } = parse("/b?uploads&prefix=a+b%20c&empty=&&eq=a=b");
    expect([...query]).toEqual([
      ["uploads", ""],
      ["prefix", "a b c"],
      ["empty", ""],
      ["eq", "a=b"],
    ]);
    expect({ rawQuery, rawPath }).toEqual({
      rawQuery: "uploads&prefix=a+b%20c&empty=&&eq=a=b",
      rawPath: "/b",
    });
  });

  it.each([
    ["*", "InvalidURI"],
    ["/b/%ff", "InvalidURI"],
    ["/b/%ED%A0%80", "InvalidURI"],
    ["/b/%zz", "InvalidURI"],
    ["/b/%4", "InvalidURI"],
    ["/b/\xc3\xbc", "InvalidURI"],
    ["/b?prefix=%C3", "InvalidURI"],
    ["/b?a=1&a=2", "InvalidArgument"],
    ["//key", "InvalidBucketName"],
  ])("%s is refused with %s", (url, code) => {
    expect(() => parse(url)).toThrow(expect.objectContaining({ code }));
  });

  it("are refused where they are too long", () => {
    const many = Array.from({ length: 101 }, (_, i) => `p${i}`).join("&");
    for (const [url, code] of [
      [`/b?${many}`, "InvalidArgument"],
      [`/b/${"k".repeat(20_000)}`, "InvalidURI"],
      [`/b/${"k".repeat(1025)}`, "KeyTooLongError"],
      [`/b/${"%C3%BC".repeat(513)}`, "KeyTooLongError"],
    ] as const) {
      expect(() => parse(url)).toThrow(expect.objectContaining({ code }));
    }
    expect(parse(`/b/${"%C3%BC".repeat(512)}`).key).toHaveLength(512);
  });

  it("give back any key that was percent-encoded", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 200 }), (key) => {
        expect(parse(`/bucket/${encodeURIComponent(key)}`).key).toBe(key);
      }),
    );
  });
});
