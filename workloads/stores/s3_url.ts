/** `s3://bucket/prefix`, apart from the SDK, which is large. */
import { MillraceError } from "../../client/errors.js";

export interface S3Place {
  bucket: string;
  /** Empty, or ends with a slash. */
  prefix: string;
}

/** Reads `s3://bucket/prefix`. INVALID_ARGUMENT where it has no bucket. */
export function parseS3Url(url: string): S3Place {
  const match = /^s3:\/\/([^/]+)(?:\/(.*))?$/.exec(url);
  if (match === null)
    throw new MillraceError("INVALID_ARGUMENT", `${url}: write s3://BUCKET or s3://BUCKET/PREFIX`);
  const prefix = (match[2] ?? "").replace(/\/+$/, "");
  return { bucket: match[1] as string, prefix: prefix === "" ? "" : `${prefix}/` };
}
