/** `s3://bucket/path`, apart from the SDK, which is large. */
import { MillraceError } from "../../client/errors.js";

export interface S3Place {
  bucket: string;
  /** What follows the bucket, as it was written: the key of an object, or a prefix. Empty where nothing does. */
  path: string;
  /** The same as a folder: empty, or ends with one slash. */
  prefix: string;
}

/** As S3 names buckets, those of its first years included. */
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/;

/** Reads `s3://bucket/path`; nothing in it is percent-encoded. INVALID_ARGUMENT where it has no bucket. */
export function parseS3Url(url: string): S3Place {
  const match = /^s3:\/\/([^/]+)(?:\/(.*))?$/s.exec(url);
  const bucket = match?.[1] ?? "";
  if (!BUCKET.test(bucket))
    throw new MillraceError("INVALID_ARGUMENT", `${url}: write s3://BUCKET or s3://BUCKET/PREFIX`);
  const path = match?.[2] ?? "";
  const folder = path.replace(/\/+$/, "");
  return { bucket, path, prefix: folder === "" ? "" : `${folder}/` };
}
