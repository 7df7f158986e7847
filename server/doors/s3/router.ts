/** Which operation a request asks for: by its method, what it names, and the subresource in its query. */
import type { Handler, S3Request } from "./call.js";
import { header } from "./call.js";
import { S3Error } from "./errors.js";
import * as buckets from "./operations/buckets.js";
import { copyObject } from "./operations/copy.js";
import * as lifecycle from "./operations/lifecycle.js";
import * as listing from "./operations/listing.js";
import * as multipart from "./operations/multipart.js";
import * as objects from "./operations/objects.js";
import * as tagging from "./operations/tagging.js";

type Shape = "service" | "bucket" | "object";

/**
 * What a caller must be allowed: all of the node, a bucket itself, those of its keys that start with the query's prefix,
 * or one key. `keys`: those that the body names, which the handler checks.
 */
export type Reach = "node" | "bucket" | "prefix" | "keys" | "key";

export interface Operation {
  /** As S3 calls it; for the log. */
  readonly name: string;
  readonly reach: Reach;
  readonly writes: boolean;
  readonly handle: Handler;
}

interface Route extends Operation {
  /** Parameters that the query has to have. */
  readonly query: readonly string[];
  /** A header that the request has to have. */
  readonly header: string | null;
}

type Options = { query?: string[]; header?: string };

function reads(
  name: string,
  reach: Reach,
  handle: Handler,
  { query = [], header = "" }: Options = {},
): Route {
  return { name, reach, writes: false, handle, query, header: header || null };
}

function writes(name: string, reach: Reach, handle: Handler, options: Options = {}): Route {
  return { ...reads(name, reach, handle, options), writes: true };
}

const COPY = "x-amz-copy-source";

/** By shape and method. The first that matches is it, so those without a subresource come last. */
const ROUTES: Readonly<Record<Shape, Readonly<Record<string, readonly Route[]>>>> = {
  service: { GET: [reads("ListBuckets", "node", buckets.listBuckets)] },
  bucket: {
    GET: [
      reads("GetBucketLocation", "bucket", buckets.getBucketLocation, { query: ["location"] }),
      reads("GetBucketVersioning", "bucket", buckets.getBucketVersioning, { query: ["versioning"] }),
      reads("GetBucketAcl", "bucket", buckets.getAcl, { query: ["acl"] }),
      reads("GetBucketTagging", "bucket", tagging.getBucketTagging, { query: ["tagging"] }),
      reads("GetBucketLifecycleConfiguration", "bucket", lifecycle.getBucketLifecycle, {
        query: ["lifecycle"],
      }),
      reads("ListMultipartUploads", "prefix", multipart.listMultipartUploads, { query: ["uploads"] }),
      reads("ListObjectVersions", "prefix", listing.listObjectVersions, { query: ["versions"] }),
      reads("ListObjectsV2", "prefix", listing.listObjectsV2, { query: ["list-type"] }),
      reads("ListObjects", "prefix", listing.listObjects),
    ],
    HEAD: [reads("HeadBucket", "bucket", buckets.headBucket)],
    PUT: [
      writes("PutBucketAcl", "bucket", buckets.putAcl, { query: ["acl"] }),
      writes("PutBucketTagging", "bucket", tagging.putBucketTagging, { query: ["tagging"] }),
      writes("PutBucketLifecycleConfiguration", "bucket", lifecycle.putBucketLifecycle, {
        query: ["lifecycle"],
      }),
      writes("CreateBucket", "node", buckets.createBucket),
    ],
    POST: [writes("DeleteObjects", "keys", objects.deleteObjects, { query: ["delete"] })],
    DELETE: [
      writes("DeleteBucketTagging", "bucket", tagging.deleteBucketTagging, { query: ["tagging"] }),
      writes("DeleteBucketLifecycle", "bucket", lifecycle.deleteBucketLifecycle, { query: ["lifecycle"] }),
      writes("DeleteBucket", "node", buckets.deleteBucket),
    ],
  },
  object: {
    GET: [
      reads("GetObjectAcl", "key", buckets.getAcl, { query: ["acl"] }),
      reads("GetObjectAttributes", "key", objects.getObjectAttributes, { query: ["attributes"] }),
      reads("GetObjectTagging", "key", tagging.getObjectTagging, { query: ["tagging"] }),
      reads("ListParts", "key", multipart.listParts, { query: ["uploadId"] }),
      reads("GetObject", "key", objects.getObject),
    ],
    HEAD: [reads("HeadObject", "key", objects.headObject)],
    PUT: [
      writes("PutObjectAcl", "key", buckets.putAcl, { query: ["acl"] }),
      writes("PutObjectTagging", "key", tagging.putObjectTagging, { query: ["tagging"] }),
      writes("UploadPartCopy", "key", multipart.uploadPartCopy, {
        query: ["uploadId", "partNumber"],
        header: COPY,
      }),
      writes("UploadPart", "key", multipart.uploadPart, { query: ["uploadId", "partNumber"] }),
      writes("CopyObject", "key", copyObject, { header: COPY }),
      writes("PutObject", "key", objects.putObject),
    ],
    POST: [
      writes("CreateMultipartUpload", "key", multipart.createMultipartUpload, { query: ["uploads"] }),
      writes("CompleteMultipartUpload", "key", multipart.completeMultipartUpload, { query: ["uploadId"] }),
    ],
    DELETE: [
      writes("DeleteObjectTagging", "key", tagging.deleteObjectTagging, { query: ["tagging"] }),
      writes("AbortMultipartUpload", "key", multipart.abortMultipartUpload, { query: ["uploadId"] }),
      writes("DeleteObject", "key", objects.deleteObject),
    ],
  },
};

/** Every parameter that some route asks for. */
const SUBRESOURCES = new Set(
  Object.values(ROUTES).flatMap((methods) =>
    Object.values(methods).flatMap((routes) => routes.flatMap((r) => r.query)),
  ),
);

/** Subresources of S3 that this door has not. Taken for nothing they would be read as a plain get, put or delete. */
const UNSUPPORTED_QUERIES = new Set([
  "abac",
  "accelerate",
  "analytics",
  "annotation",
  "cors",
  "encryption",
  "intelligent-tiering",
  "inventory",
  "legal-hold",
  "logging",
  "metadataConfiguration",
  "metadataInventoryTable",
  "metadataJournalTable",
  "metadataTable",
  "metrics",
  "notification",
  "object-lock",
  "ownershipControls",
  "policy",
  "policyStatus",
  "publicAccessBlock",
  "renameObject",
  "replication",
  "requestPayment",
  "restore",
  "retention",
  "select",
  "session",
  "torrent",
  "website",
]);

/** Headers that ask for what this door does not do, each with the values that ask for nothing. */
const UNSUPPORTED_HEADERS: ReadonlyMap<string, readonly string[]> = new Map([
  ["x-amz-acl", ["private", "bucket-owner-full-control", "bucket-owner-read"]],
  ["x-amz-grant-full-control", []],
  ["x-amz-grant-read", []],
  ["x-amz-grant-read-acp", []],
  ["x-amz-grant-write", []],
  ["x-amz-grant-write-acp", []],
  ["x-amz-server-side-encryption", []],
  ["x-amz-server-side-encryption-aws-kms-key-id", []],
  ["x-amz-server-side-encryption-context", []],
  ["x-amz-server-side-encryption-bucket-key-enabled", ["false"]],
  ["x-amz-server-side-encryption-customer-algorithm", []],
  ["x-amz-server-side-encryption-customer-key", []],
  ["x-amz-copy-source-server-side-encryption-customer-algorithm", []],
  ["x-amz-object-lock-mode", []],
  ["x-amz-object-lock-retain-until-date", []],
  ["x-amz-object-lock-legal-hold", ["OFF"]],
  ["x-amz-website-redirect-location", []],
  ["x-amz-write-offset-bytes", []],
]);

/** Throws NotImplemented for what S3 has and this door has not, MethodNotAllowed for what S3 has not. */
export function findOperation(request: S3Request): Operation {
  const { bucket, key, query, method } = request;
  const shape: Shape = bucket === null ? "service" : key === null ? "bucket" : "object";
  for (const name of query.keys()) {
    if (UNSUPPORTED_QUERIES.has(name)) throw notImplemented(`the subresource ${name}`);
  }
  for (const [name, harmless] of UNSUPPORTED_HEADERS) {
    const value = header(request, name);
    if (value !== null && !harmless.includes(value))
      throw notImplemented(`the header ${name}: ${value.slice(0, 100)}`);
  }
  const versionId = query.get("versionId");
  if (versionId !== undefined && versionId !== "null") {
    throw new S3Error("InvalidArgument", "there are no versions: versioning is never on", {
      ArgumentName: "versionId",
      ArgumentValue: versionId.slice(0, 100),
    });
  }
  const routes = ROUTES[shape][method];
  if (routes === undefined) {
    // A form's upload, the one thing that S3 takes by POST to a bucket beside multi-delete.
    if (method === "POST") throw notImplemented("this form of POST");
    const methods = Object.keys(ROUTES[shape]);
    throw new S3Error(
      "MethodNotAllowed",
      `${method.slice(0, 20)} is not allowed on a ${shape}`,
      {},
      {
        Allow: methods.join(", "),
      },
    );
  }
  const route = routes.find(
    ({ query: names, header: named }) =>
      names.every((name) => query.has(name)) && (named === null || header(request, named) !== null),
  );
  if (route === undefined) throw notImplemented("this form of POST");
  // A subresource that this method or shape does not have is not to be taken for the plain operation.
  for (const name of query.keys()) {
    if (SUBRESOURCES.has(name) && !route.query.includes(name) && !isModifier(route, name)) {
      throw notImplemented(`${method} of a ${shape} with ${name}`);
    }
  }
  return route;
}

/** Parameters that some operations take beside their subresource. */
function isModifier({ name }: Operation, parameter: string): boolean {
  return parameter === "partNumber" && (name === "GetObject" || name === "HeadObject");
}

function notImplemented(what: string): S3Error {
  return new S3Error("NotImplemented", `${what} is not supported by this server`);
}
