/**
 * What S3 knows of an object beside its bytes. It is sealed with the object as its attributes: opaque to the store,
 * JSON to this door. Objects that were put through other doors have none, and get what can be derived.
 */
import type { ObjectInfo } from "../../engine/engine.js";

export type ChecksumName = "crc32" | "crc32c" | "crc64nvme" | "sha1" | "sha256";

export interface ObjectAttributes {
  /** Without quotes: the MD5 in hexadecimal, or that of the parts' MD5s and "-N". */
  etag: string;
  /** Content-Type, Cache-Control, ... by lower-case name, as they were sent. */
  headers: Record<string, string>;
  /** x-amz-meta-*, without that prefix. */
  metadata: Record<string, string>;
  tags: Record<string, string>;
  /** One that was sent or asked for, base64. "composite" ones are of the parts' checksums and end in "-N". */
  checksum: { name: ChecksumName; value: string; type: "FULL_OBJECT" | "COMPOSITE" } | null;
  /** Bytes of each part of a multipart upload; empty for other objects, and where they are too motley to be kept. */
  parts: number[];
}

/** `bytes` null: the object was put through another door. */
export function decodeAttributes(bytes: Buffer | null, info: ObjectInfo): ObjectAttributes {
  if (bytes !== null) {
    const sealed = JSON.parse(bytes.toString()) as Sealed;
    if (sealed.parts.length === 0) return sealed as Sealed & { parts: [] };
    return { ...sealed, parts: sealed.parts.flatMap(([size, count]) => new Array<number>(count).fill(size)) };
  }
  // Not an MD5, as the ETag of a multipart upload is none: it has a dash, so that no client takes it for one.
  const etag = `${info.crc32c.toString(16).padStart(8, "0")}${info.sequence.toString(16).padStart(24, "0")}-1`;
  return { etag, headers: {}, metadata: {}, tags: {}, checksum: null, parts: [] };
}

export function encodeAttributes(attributes: ObjectAttributes): Buffer {
  const sealed: Sealed = { ...attributes, parts: runsOf(attributes.parts) };
  return Buffer.from(JSON.stringify(sealed));
}

/** Up to 10,000 parts, most of them of one size, in what the store keeps with an object: sizes with their counts. */
type Sealed = Omit<ObjectAttributes, "parts"> & { parts: [sizeBytes: number, count: number][] };

function runsOf(parts: readonly number[]): Sealed["parts"] {
  const runs: Sealed["parts"] = [];
  for (const sizeBytes of parts) {
    const last = runs.at(-1);
    if (last?.[0] === sizeBytes) last[1] += 1;
    else runs.push([sizeBytes, 1]);
  }
  return runs;
}
