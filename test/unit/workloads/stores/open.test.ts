import { resolve } from "node:path";
import { expect, it } from "vitest";
import { parseStore } from "../../../../workloads/stores/open.js";
import { parseS3Url } from "../../../../workloads/stores/s3_url.js";

it("reads --store", () => {
  expect(parseStore("millrace")).toEqual({ kind: "millrace" });
  expect(parseStore("redis://127.0.0.1:6379")).toEqual({ kind: "redis", url: "redis://127.0.0.1:6379" });
  expect(parseStore("s3://bucket")).toEqual({ kind: "s3", url: "s3://bucket" });
  expect(parseStore("file:///data/x")).toEqual({ kind: "file", directory: "/data/x" });
  expect(parseStore("file://x/y")).toEqual({ kind: "file", directory: resolve("x/y") });
});

it.each(["", "redis", "redis://", "s3://", "file://", "ftp://host", "/tmp"])("refuses %j", (value) => {
  expect(() => parseStore(value)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
});

it("takes an S3 URL apart", () => {
  expect(parseS3Url("s3://b")).toEqual({ bucket: "b", path: "", prefix: "" });
  expect(parseS3Url("s3://b/")).toEqual({ bucket: "b", path: "", prefix: "" });
  expect(parseS3Url("s3://b/x/y")).toEqual({ bucket: "b", path: "x/y", prefix: "x/y/" });
  expect(parseS3Url("s3://b/x/y//")).toEqual({ bucket: "b", path: "x/y//", prefix: "x/y/" });
  expect(parseS3Url("s3://b.c-d/%20 ü\n?#")).toMatchObject({ bucket: "b.c-d", path: "%20 ü\n?#" });
});

it.each(["s3://", "s3:///key", "s3:/b", "s3://b c/x", "s3://b?x", "s3://-b", "S3://b"])(
  "refuses %j",
  (url) => {
    expect(() => parseS3Url(url)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  },
);
