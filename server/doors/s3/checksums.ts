/** Checksums of S3 by name, and what the one of a whole comes to from those of its parts. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { requireAddon } from "../../../native/binding/addon.js";
import type { ChecksumName } from "./attributes.js";
import { combineCrcs, isCrc } from "./crc_combine.js";

export type ChecksumType = "FULL_OBJECT" | "COMPOSITE";

/** What a part brings to the checksum of the whole. */
export interface PartChecksum {
  /** Base64. */
  readonly value: string;
  readonly sizeBytes: number;
}

/** Bytes of each. */
export const CHECKSUM_BYTES: Readonly<Record<ChecksumName, number>> = {
  crc32: 4,
  crc32c: 4,
  crc64nvme: 8,
  sha1: 20,
  sha256: 32,
};

export const CHECKSUM_NAMES = Object.keys(CHECKSUM_BYTES) as readonly ChecksumName[];

/** As in `x-amz-checksum-algorithm`, in any case; null: there is no such algorithm. */
export function checksumName(text: string): ChecksumName | null {
  const name = text.toLowerCase();
  return Object.hasOwn(CHECKSUM_BYTES, name) ? (name as ChecksumName) : null;
}

/** The types that a checksum may have; the first is the one where none is asked for. */
export function typesOf(name: ChecksumName): readonly ChecksumType[] {
  if (name === "crc64nvme") return ["FULL_OBJECT"];
  return isCrc(name) ? ["COMPOSITE", "FULL_OBJECT"] : ["COMPOSITE"];
}

/** Base64; of a composite one with "-N" behind it. */
export function checksumOfParts(
  name: ChecksumName,
  type: ChecksumType,
  parts: readonly PartChecksum[],
): string {
  const values = parts.map(({ value }) => Buffer.from(value, "base64"));
  if (type === "COMPOSITE")
    return `${digestOf(name, Buffer.concat(values)).toString("base64")}-${parts.length}`;
  if (!isCrc(name)) throw new TypeError(`there is no ${name} of a whole from its parts`);
  const summands = parts.map(({ sizeBytes }, at) => ({ value: values[at] as Buffer, sizeBytes }));
  return combineCrcs(name, summands).toString("base64");
}

/** Of a few bytes, at once. */
function digestOf(name: ChecksumName, bytes: Buffer): Buffer {
  switch (name) {
    case "sha1":
    case "sha256":
      return createHash(name).update(bytes).digest();
    case "crc32":
      return bigEndian(crc32(bytes));
    case "crc32c":
      return bigEndian(requireAddon().kernels.crc32c(0, bytes));
    case "crc64nvme":
      throw new TypeError("there is no crc64nvme of checksums");
  }
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
