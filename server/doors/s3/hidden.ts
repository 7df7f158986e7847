/**
 * Where the door keeps what is no object of the user's, in the same namespace: so it lives as long, counts against the
 * same limits, is demoted and recovered like all else. Such keys start with a byte that UTF-8 never has, so they are
 * nobody's key, and listings end before them.
 */
const FIRST_BYTE = Buffer.from([0xff]);

/** An empty object whose attributes describe the upload (JSON of `Upload`). */
export function uploadKey(uploadId: string): Buffer {
  return Buffer.concat([FIRST_BYTE, Buffer.from(`s3/upload/${uploadId}`)]);
}

export const UPLOADS_PREFIX = Buffer.concat([FIRST_BYTE, Buffer.from("s3/upload/")]);

/** One uploaded part; its attributes are those of a part. In the order of part numbers (1 to 10,000). */
export function partKey(uploadId: string, partNumber: number): Buffer {
  const number = String(partNumber).padStart(5, "0");
  return Buffer.concat([FIRST_BYTE, Buffer.from(`s3/part/${uploadId}/${number}`)]);
}

export function partsPrefix(uploadId: string): Buffer {
  return Buffer.concat([FIRST_BYTE, Buffer.from(`s3/part/${uploadId}/`)]);
}

/** All parts of all uploads; those of one upload lie together. */
export const PARTS_PREFIX = Buffer.concat([FIRST_BYTE, Buffer.from("s3/part/")]);

/** The bucket's own settings, as JSON: see settings.ts. */
export const BUCKET_SETTINGS_KEY = Buffer.concat([FIRST_BYTE, Buffer.from("s3/bucket")]);
