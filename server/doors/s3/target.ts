/** What a request is about, found: the bucket as the namespace that it is, and the key in it. */
import type { Engine, ObjectInfo } from "../../engine/engine.js";
import type { LiveNamespace } from "../../namespaces/namespaces.js";
import { decodeAttributes, type ObjectAttributes } from "./attributes.js";
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

/** The bucket that the call names. That there is one was checked before the handler came to it, but for what creates it. */
export function bucketOf({ request }: S3Call): string {
  return request.bucket as string;
}

/** One version of an object, and what S3 knows of it. */
export interface Found {
  readonly info: ObjectInfo;
  readonly attributes: ObjectAttributes;
}

/** The version that there is now; null: there is no such object. */
export function lookUp(engine: Engine, bucket: string, key: string): Found | null {
  const found = engine.describe(bucket, key);
  return found && { info: found.info, attributes: decodeAttributes(found.attributes, found.info) };
}

/** The same, or NoSuchKey. */
export function find({ context }: S3Call, { bucket, key }: Pick<Target, "bucket" | "key">): Found {
  const found = lookUp(context.engine, bucket, key);
  if (found === null) throw noSuchKey(key);
  return found;
}

export function noSuchKey(key: string): S3Error {
  return new S3Error("NoSuchKey", "there is no object with this key", { Key: key });
}
