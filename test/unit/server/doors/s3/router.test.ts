import type { IncomingMessage } from "node:http";
import { describe, expect, it } from "vitest";
import { parseRequest } from "../../../../../server/doors/s3/request.js";
import { findOperation } from "../../../../../server/doors/s3/router.js";

const RULES = { domains: [], keyBytesMax: 1024 };

function find(line: string, headers: Record<string, string> = {}) {
  const [method, url] = line.split(" ");
  return findOperation(parseRequest({ method, url, headers } as unknown as IncomingMessage, "id", RULES));
}

describe("operations", () => {
  it.each([
    ["GET /", "ListBuckets"],
    ["PUT /b", "CreateBucket"],
    ["HEAD /b", "HeadBucket"],
    ["DELETE /b?x-id=DeleteBucket", "DeleteBucket"],
    ["GET /b", "ListObjects"],
    ["GET /b?prefix=a&list-type=2", "ListObjectsV2"],
    ["GET /b?versions&prefix=", "ListObjectVersions"],
    ["GET /b?uploads", "ListMultipartUploads"],
    ["GET /b?location", "GetBucketLocation"],
    ["GET /b?versioning", "GetBucketVersioning"],
    ["PUT /b?lifecycle", "PutBucketLifecycleConfiguration"],
    ["DELETE /b?tagging", "DeleteBucketTagging"],
    ["POST /b?delete", "DeleteObjects"],
    ["GET /b/k?partNumber=1", "GetObject"],
    ["GET /b/k?response-content-type=a/b", "GetObject"],
    ["HEAD /b/k", "HeadObject"],
    ["PUT /b/k", "PutObject"],
    ["DELETE /b/k?versionId=null", "DeleteObject"],
    ["GET /b/k?attributes", "GetObjectAttributes"],
    ["PUT /b/k?tagging", "PutObjectTagging"],
    ["POST /b/k?uploads", "CreateMultipartUpload"],
    ["PUT /b/k?partNumber=1&uploadId=u", "UploadPart"],
    ["GET /b/k?uploadId=u", "ListParts"],
    ["POST /b/k?uploadId=u", "CompleteMultipartUpload"],
    ["DELETE /b/k?uploadId=u", "AbortMultipartUpload"],
    ["PUT /b/k?acl", "PutObjectAcl"],
  ])("%s is %s", (line, name) => {
    expect(find(line).name).toBe(name);
  });

  it("are told apart by a header too", () => {
    const copy = { "x-amz-copy-source": "/b/other" };
    expect(find("PUT /b/k", copy).name).toBe("CopyObject");
    expect(find("PUT /b/k?partNumber=1&uploadId=u", copy).name).toBe("UploadPartCopy");
  });

  it.each([
    ["GET /b?policy", "NotImplemented"],
    ["PUT /b?versioning", "NotImplemented"],
    ["DELETE /b?encryption", "NotImplemented"],
    ["DELETE /b?uploads", "NotImplemented"],
    ["POST /b/k?select&select-type=2", "NotImplemented"],
    ["POST /b", "NotImplemented"],
    ["PUT /b/k?uploadId=u", "NotImplemented"],
    ["GET /b/k?location", "NotImplemented"],
    ["HEAD /b/k?tagging", "NotImplemented"],
    ["GET /b/k?versionId=1", "InvalidArgument"],
    ["PATCH /b/k", "MethodNotAllowed"],
    ["DELETE /", "MethodNotAllowed"],
  ])("%s is refused with %s", (line, code) => {
    expect(() => find(line)).toThrow(expect.objectContaining({ code }));
  });

  it("never mean less than their headers ask for", () => {
    for (const headers of [
      { "x-amz-acl": "public-read" },
      { "x-amz-grant-read": "id=1" },
      { "x-amz-server-side-encryption": "AES256" },
      { "x-amz-object-lock-mode": "GOVERNANCE" },
    ]) {
      expect(() => find("PUT /b/k", headers)).toThrow(expect.objectContaining({ code: "NotImplemented" }));
    }
    expect(find("PUT /b/k", { "x-amz-acl": "private" }).name).toBe("PutObject");
  });
});
