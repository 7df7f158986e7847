/** The CRC of a whole from the CRCs and sizes of its parts, without their bytes. */
import { type CrcName, requireAddon } from "../../../native/binding/addon.js";

export type { CrcName } from "../../../native/binding/addon.js";

const CRC_BYTES: Readonly<Record<CrcName, number>> = { crc32: 4, crc32c: 4, crc64nvme: 8 };

export function isCrc(name: string): name is CrcName {
  return Object.hasOwn(CRC_BYTES, name);
}

/** CRCs are big-endian, as S3 writes them. No parts have the CRC of nothing, zero. */
export function combineCrcs(name: CrcName, parts: readonly { value: Buffer; sizeBytes: number }[]): Buffer {
  for (const { value } of parts) {
    if (value.length !== CRC_BYTES[name]) {
      throw new RangeError(`a CRC of ${CRC_BYTES[name]} bytes has ${value.length}`);
    }
  }
  const crcs = Buffer.concat(parts.map(({ value }) => value));
  return requireAddon().combineCrcs(
    name,
    crcs,
    Float64Array.from(parts, ({ sizeBytes }) => sizeBytes),
  );
}
