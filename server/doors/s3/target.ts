/** What a request is about, found: the bucket as the namespace that it is, and the key in it. */
import type { LiveNamespace } from "../../namespaces/namespaces.js";
import type { S3Call, S3Context } from "./call.js";
import { S3Error } from "./errors.js";

export interface Target {
  readonly bucket: string;
  readonly key: string;
  readonly namespace: LiveNamespace;
}

/** NoSuchBucket where there is none. */
export function liveBucket(context: S3Context, bucket: string): LiveNamespace {
  const namespace = context.namespaces.find(bucket);
  if (namespace === null) {
    throw new S3Error("NoSuchBucket", `there is no bucket ${bucket}; create it first`, {
      BucketName: bucket,
    });
  }
  return namespace;
}

/** The object that the call names; its form was checked when the request was parsed. */
export function targetOf(call: S3Call): Target {
  const { bucket, key } = call.request;
  if (bucket === null || key === null)
    throw new S3Error("InvalidRequest", "this request must name an object");
  return { bucket, key, namespace: liveBucket(call.context, bucket) };
}

export function noSuchKey(key: string): S3Error {
  return new S3Error("NoSuchKey", "there is no object with this key", { Key: key });
}
