/**
 * Multipart uploads as they lie in a bucket: one hidden object that describes the upload, and one for each part. Nothing
 * of them is kept anywhere else, so an upload goes on after the node was restarted.
 */
import { randomBytes } from "node:crypto";
import { type Engine, NO_CONDITION, type ObjectInfo } from "../../engine/engine.js";
import type { ChecksumName, ObjectAttributes } from "./attributes.js";
import { PARTS_PREFIX, partKey, partsPrefix, UPLOADS_PREFIX, uploadKey } from "./hidden.js";

export interface Upload {
  readonly key: string;
  readonly initiatedUnixMs: number;
  /** Of the object to come. */
  readonly headers: ObjectAttributes["headers"];
  readonly metadata: ObjectAttributes["metadata"];
  readonly tags: ObjectAttributes["tags"];
  /** What is computed of every part, and how the object's comes of theirs. */
  readonly checksum: { readonly name: ChecksumName; readonly type: "FULL_OBJECT" | "COMPOSITE" } | null;
}

/** What is sealed with a part as its attributes. */
export interface PartAttributes {
  /** Hexadecimal MD5. */
  readonly etag: string;
  /** Base64. */
  readonly checksum: { readonly name: ChecksumName; readonly value: string } | null;
}

export interface Part extends PartAttributes {
  readonly number: number;
  readonly info: ObjectInfo;
}

export const PART_NUMBER_MAX = 10_000;
const PAGE_PARTS = 1000;
const UPLOAD_ID = /^[0-9a-f]{32}$/;
const UPLOAD_ID_LENGTH = 32;

/** 48 bits of time and 80 random ones, so that the order of ids is that of their uploads. */
export function newUploadId(nowUnixMs: number): string {
  return nowUnixMs.toString(16).padStart(12, "0") + randomBytes(10).toString("hex");
}

export function encodeUpload(upload: Upload): Buffer {
  return Buffer.from(JSON.stringify(upload));
}

export function decodeUpload(attributes: Buffer | null): Upload {
  return JSON.parse((attributes as Buffer).toString()) as Upload;
}

export function encodePart(part: PartAttributes): Buffer {
  return Buffer.from(JSON.stringify(part));
}

/** Null: there is no such upload. */
export function findUpload(engine: Engine, bucket: string, uploadId: string): Upload | null {
  if (!UPLOAD_ID.test(uploadId)) return null;
  const found = engine.describe(bucket, uploadKey(uploadId));
  return found === null ? null : decodeUpload(found.attributes);
}

/** Parts by their numbers, from the one after `after` on. */
export function listParts(
  engine: Engine,
  bucket: string,
  uploadId: string,
  after: number,
  limit: number,
): { parts: Part[]; truncated: boolean } {
  const from = after === 0 ? Buffer.alloc(0) : partKey(uploadId, after);
  const { objects, truncated } = engine.list(bucket, partsPrefix(uploadId), from, limit, true);
  const parts = objects.map(({ key, attributes, ...info }) => ({
    ...(JSON.parse((attributes as Buffer).toString()) as PartAttributes),
    number: Number(key.subarray(-5).toString()),
    info,
  }));
  return { parts, truncated };
}

/** All of them, in one go: nothing else happens meanwhile. */
export function allParts(engine: Engine, bucket: string, uploadId: string): Part[] {
  const parts: Part[] = [];
  for (let more = true; more; ) {
    const page = listParts(engine, bucket, uploadId, parts.at(-1)?.number ?? 0, PAGE_PARTS);
    parts.push(...page.parts);
    more = page.truncated;
  }
  return parts;
}

/** The parts first, so that an upload whose end was cut short is still found and ended later. */
export function removeUpload(engine: Engine, bucket: string, uploadId: string): void {
  for (const { number } of allParts(engine, bucket, uploadId)) {
    engine.remove(bucket, partKey(uploadId, number), NO_CONDITION);
  }
  engine.remove(bucket, uploadKey(uploadId), NO_CONDITION);
}

/** Of the key of an upload or a part. */
export function uploadIdOf(key: Buffer): string {
  const prefix = key.subarray(0, PARTS_PREFIX.length).equals(PARTS_PREFIX) ? PARTS_PREFIX : UPLOADS_PREFIX;
  return key.subarray(prefix.length, prefix.length + UPLOAD_ID_LENGTH).toString();
}
