/**
 * Output to S3: an object a part. A small one is put at once, a large one uploaded in parts, and either is there only
 * when all of it is; the driver aborts the uploads of attempts that died.
 */
import {
  AbortMultipartUploadCommand,
  DeleteObjectsCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  paginateListObjectsV2,
  type S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { MillraceError } from "../../client/errors.js";
import { createS3Client, s3Error, sharedS3Client } from "../stores/s3_client.js";
import { isPartName, partName } from "./parts.js";

/** Where parts go as objects; plain data that travels to function workers. */
export interface ObjectsPlace {
  kind: "objects";
  /** As it was given. */
  url: string;
  bucket: string;
  /** Empty, or ends with a slash. */
  prefix: string;
}

/** What is larger is uploaded in parts of so much: a partition of the default size is not. */
const UPLOAD_PART_BYTES = 64 * 1024 * 1024;
const UPLOAD_PARTS_MAX = 10_000;
const UPLOADS_AT_ONCE = 4;

/** Writes one part. Attempts at the same one write the same, and the last is as good as the first. */
export async function writePartObject(
  place: ObjectsPlace,
  partition: number,
  bytes: Uint8Array,
): Promise<void> {
  const upload = new Upload({
    client: sharedS3Client(),
    params: {
      Bucket: place.bucket,
      Key: `${place.prefix}${partName(partition)}`,
      Body: bytes,
      ContentType: "application/octet-stream",
    },
    partSize: Math.max(UPLOAD_PART_BYTES, Math.ceil(bytes.length / UPLOAD_PARTS_MAX)),
    queueSize: UPLOADS_AT_ONCE,
    // Aborted where it fails.
    leavePartsOnError: false,
  });
  try {
    await upload.done();
  } catch (error) {
    throw outputError(place, error);
  }
}

/** The objects under a prefix in use by one run. */
export class OutputObjects {
  readonly place: ObjectsPlace;
  readonly #client: S3Client;

  private constructor(place: ObjectsPlace, client: S3Client) {
    this.place = place;
    this.#client = client;
  }

  /** See `openOutput`. */
  static async open(place: ObjectsPlace, force: boolean): Promise<OutputObjects> {
    const output = new OutputObjects(place, createS3Client());
    try {
      if (force) await output.#removeParts();
      else await output.#checkEmpty();
      return output;
    } catch (error) {
      output.#client.destroy();
      throw outputError(place, error);
    }
  }

  async keep(): Promise<void> {
    // The parts are all there. Who may write them may not always list uploads, and those cannot be seen as objects.
    await this.#abortUploads().catch(() => undefined);
    this.#client.destroy();
  }

  async remove(): Promise<void> {
    try {
      await this.#abortUploads().catch(() => undefined);
      await this.#removeParts();
    } catch (error) {
      throw outputError(this.place, error);
    } finally {
      this.#client.destroy();
    }
  }

  async #checkEmpty(): Promise<void> {
    const { bucket, prefix, url } = this.place;
    const page = await this.#client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, MaxKeys: 1 }),
    );
    if ((page.Contents ?? []).length === 0) return;
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `there are objects under ${url} already: remove them, name another prefix, or replace its parts with --force`,
    );
  }

  async #removeParts(): Promise<void> {
    const { bucket, prefix } = this.place;
    const client = this.#client;
    const pages = paginateListObjectsV2(
      { client },
      { Bucket: bucket, Prefix: `${prefix}part-`, Delimiter: "/" },
    );
    for await (const page of pages) {
      const keys = (page.Contents ?? []).flatMap(({ Key: key = "" }) =>
        this.#isPart(key) ? [{ Key: key }] : [],
      );
      if (keys.length === 0) continue;
      const { Errors: errors = [] } = await client.send(
        new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects: keys, Quiet: true } }),
      );
      const [first] = errors;
      if (first !== undefined)
        throw new Error(`${first.Key} cannot be removed: ${first.Message ?? first.Code}`);
    }
  }

  async #abortUploads(): Promise<void> {
    const { bucket, prefix } = this.place;
    let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (;;) {
      const page = await this.#client.send(
        new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: `${prefix}part-`, ...marker }),
      );
      for (const { Key: key = "", UploadId: id } of page.Uploads ?? []) {
        if (!this.#isPart(key) || id === undefined) continue;
        await this.#client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key: key, UploadId: id }));
      }
      const { NextKeyMarker: keyMarker, NextUploadIdMarker: idMarker } = page;
      if (page.IsTruncated !== true || keyMarker === undefined) return;
      marker = { KeyMarker: keyMarker, ...(idMarker === undefined ? {} : { UploadIdMarker: idMarker }) };
    }
  }

  #isPart(key: string): boolean {
    return key.startsWith(this.place.prefix) && isPartName(key.slice(this.place.prefix.length));
  }
}

function outputError({ url }: ObjectsPlace, error: unknown): MillraceError {
  return s3Error(url, `cannot write to ${url}`, error);
}
