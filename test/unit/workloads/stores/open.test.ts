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
  expect(parseS3Url("s3://b")).toEqual({ bucket: "b", prefix: "" });
  expect(parseS3Url("s3://b/")).toEqual({ bucket: "b", prefix: "" });
  expect(parseS3Url("s3://b/x/y/")).toEqual({ bucket: "b", prefix: "x/y/" });
});
