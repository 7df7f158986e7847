/** Input from S3: what `--input s3://...` names, and the records of stretches of it, read by ranges. */
import type { Readable } from "node:stream";
import {
  GetObjectCommand,
  HeadObjectCommand,
  paginateListObjectsV2,
  type S3Client,
} from "@aws-sdk/client-s3";
import { MillraceError } from "../../client/errors.js";
import { createS3Client, s3Error, s3Status, sharedS3Client } from "../stores/s3_client.js";
import { parseS3Url } from "../stores/s3_url.js";

export interface ObjectSource {
  kind: "object";
  bucket: string;
  key: string;
  /** Of the version that was listed; null: the server named none. */
  etag: string | null;
  sizeBytes: number;
}

/** A stretch of an object, and where it goes: as many bytes. */
export interface ObjectStretch {
  source: ObjectSource;
  offsetBytes: number;
  into: Uint8Array;
}

export function objectUrl({ bucket, key }: Pick<ObjectSource, "bucket" | "key">): string {
  return `s3://${bucket}/${key}`;
}

/**
 * The object at `url`, or those of the folder there by key: what a directory gives, in S3's words. INVALID_ARGUMENT,
 * NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE.
 */
export async function listObjects(url: string): Promise<ObjectSource[]> {
  const { bucket, path, prefix } = parseS3Url(url);
  const client = createS3Client();
  try {
    if (path !== "" && !path.endsWith("/")) {
      const one = await headObject(client, bucket, path);
      if (one !== null) return [one];
    }
    const objects: ObjectSource[] = [];
    let isThere = prefix === "";
    const pages = paginateListObjectsV2({ client }, { Bucket: bucket, Prefix: prefix, Delimiter: "/" });
    for await (const page of pages) {
      isThere ||= (page.KeyCount ?? 0) > 0;
      for (const { Key: key = "", Size: sizeBytes = 0, ETag: etag = null } of page.Contents ?? []) {
        const name = key.slice(prefix.length);
        // The marker of the folder itself, and what is hidden.
        if (name === "" || name.startsWith(".")) continue;
        objects.push({ kind: "object", bucket, key, etag, sizeBytes });
      }
    }
    if (!isThere) throw new MillraceError("NOT_FOUND", `there is no object ${url}, and none under it`);
    return objects;
  } catch (error) {
    throw s3Error(url, `${url} cannot be read`, error);
  } finally {
    client.destroy();
  }
}

/** Null: there is none, or no such bucket. */
async function headObject(client: S3Client, bucket: string, key: string): Promise<ObjectSource | null> {
  try {
    const found = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }));
    const { ContentLength: sizeBytes = 0, ETag: etag = null } = found;
    return { kind: "object", bucket, key, etag, sizeBytes };
  } catch (error) {
    if (s3Status(error) === 404) return null;
    throw error;
  }
}

/** One connection rarely fills the way to a store of objects. */
const READS_AT_ONCE = 8;
const RANGE_BYTES = 8 * 1024 * 1024;
/** Requests for one range: a body that is cut off is asked for again from there. */
const REQUESTS_A_RANGE_MAX = 4;

/** Reads stretches, several at once. CORRUPT where an object is not any more the one that was listed. */
export async function readObjectStretches(stretches: readonly ObjectStretch[]): Promise<void> {
  const ranges = stretches.flatMap(cutRanges).values();
  const client = sharedS3Client();
  const stop = new AbortController();
  const readers = Array.from({ length: READS_AT_ONCE }, async () => {
    for (const range of ranges) {
      if (stop.signal.aborted) return;
      // The first failure is the reason; those that it causes are not.
      await readRange(client, range, stop.signal).catch((error: unknown) => stop.abort(error));
    }
  });
  // All of them: who calls may use the memory again, and none may still write into it.
  await Promise.all(readers);
  stop.signal.throwIfAborted();
}

function cutRanges({ source, offsetBytes, into }: ObjectStretch): ObjectStretch[] {
  return Array.from({ length: Math.ceil(into.length / RANGE_BYTES) }, (_, i) => ({
    source,
    offsetBytes: offsetBytes + i * RANGE_BYTES,
    into: into.subarray(i * RANGE_BYTES, (i + 1) * RANGE_BYTES),
  }));
}

async function readRange(client: S3Client, range: ObjectStretch, signal: AbortSignal): Promise<void> {
  const { source, offsetBytes, into } = range;
  const url = objectUrl(source);
  let done = 0;
  for (let request = 1; done < into.length; request += 1) {
    const body = await requestRange(client, source, offsetBytes + done, into.length - done, signal);
    try {
      for await (const bytes of body as AsyncIterable<Buffer>) {
        signal.throwIfAborted();
        if (bytes.length > into.length - done) {
          throw new MillraceError("CORRUPT", `more came of ${url} than was asked for`);
        }
        into.set(bytes, done);
        done += bytes.length;
      }
    } catch (error) {
      if (signal.aborted || error instanceof MillraceError || request === REQUESTS_A_RANGE_MAX) {
        throw s3Error(url, `${url} cannot be read`, error);
      }
      continue;
    }
    if (done < into.length && request === REQUESTS_A_RANGE_MAX) {
      throw new MillraceError("CORRUPT", `less came of ${url} than was asked for`);
    }
  }
}

async function requestRange(
  client: S3Client,
  source: ObjectSource,
  offsetBytes: number,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Readable> {
  const { bucket, key, etag } = source;
  const url = objectUrl(source);
  try {
    const reply = await client.send(
      new GetObjectCommand({
        Bucket: bucket,
        Key: key,
        Range: `bytes=${offsetBytes}-${offsetBytes + sizeBytes - 1}`,
        ...(etag === null ? {} : { IfMatch: etag }),
      }),
      { abortSignal: signal },
    );
    if (reply.Body === undefined) throw new MillraceError("CORRUPT", `${url} came without a body`);
    return reply.Body as Readable;
  } catch (error) {
    const status = s3Status(error);
    if (status === 404 || status === 412 || status === 416) {
      throw new MillraceError("CORRUPT", `${url} was replaced or removed while it was being sorted`, {
        cause: error,
      });
    }
    throw s3Error(url, `${url} cannot be read`, error);
  }
}
