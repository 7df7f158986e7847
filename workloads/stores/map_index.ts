/**
 * The index of a map output where the store is not Millrace: where each partition lies and its checksum, as one
 * small value beside the data.
 *
 *   | partitions R: u32 | R+1 offsets: f64 | R checksums: u32 |     little-endian
 */
import { crc32cJoin } from "../../client/checksum.js";
import { MillraceError } from "../../client/errors.js";
import type { MapRange } from "./exchange.js";

export interface MapIndex {
  /** R+1, ascending. */
  offsets: Float64Array;
  /** R CRC32C. */
  checksums: Uint32Array;
}

/** Bytes of the index of `partitions` partitions. */
export function mapIndexBytes(partitions: number): number {
  return 4 + (partitions + 1) * 8 + partitions * 4;
}

export function encodeMapIndex(index: MapIndex): Buffer {
  const partitions = index.checksums.length;
  const bytes = Buffer.alloc(mapIndexBytes(partitions));
  let at = bytes.writeUInt32LE(partitions, 0);
  for (const offset of index.offsets) at = bytes.writeDoubleLE(offset, at);
  for (const checksum of index.checksums) at = bytes.writeUInt32LE(checksum, at);
  return bytes;
}

/** CORRUPT where the bytes are no index of `partitions` partitions. */
export function decodeMapIndex(bytes: Buffer, partitions: number): MapIndex {
  if (bytes.length !== mapIndexBytes(partitions) || bytes.readUInt32LE(0) !== partitions) {
    throw new MillraceError("CORRUPT", `the index of a map output is damaged (${bytes.length} bytes)`);
  }
  const offsets = new Float64Array(partitions + 1);
  const checksums = new Uint32Array(partitions);
  for (let i = 0; i <= partitions; i += 1) {
    offsets[i] = bytes.readDoubleLE(4 + i * 8);
    const before = i === 0 ? 0 : (offsets[i - 1] as number);
    if (
      !Number.isSafeInteger(offsets[i]) ||
      (offsets[i] as number) < before ||
      (i === 0 && offsets[i] !== 0)
    ) {
      throw new MillraceError("CORRUPT", "the index of a map output has offsets that do not ascend from 0");
    }
  }
  for (let i = 0; i < partitions; i += 1) checksums[i] = bytes.readUInt32LE(4 + (partitions + 1) * 8 + i * 4);
  return { offsets, checksums };
}

/** Where neighbouring partitions lie in the output of one map. */
export interface MapStretch {
  map: number;
  offset: number;
  sizeBytes: number;
  /** CRC32C of all of it. */
  checksum: number;
}

/** Of `count` partitions from `first` on, by map; of all maps or of some. Maps that have nothing of them are left out. */
export function findStretches(
  indexes: readonly MapIndex[],
  first: number,
  count: number,
  maps: MapRange | null,
): MapStretch[] {
  const { first: begin, count: span } = maps ?? { first: 0, count: indexes.length };
  return indexes.slice(begin, begin + span).flatMap(({ offsets, checksums }, i) => {
    const offset = offsets[first] as number;
    const sizeBytes = (offsets[first + count] as number) - offset;
    if (sizeBytes === 0) return [];
    const stretches = Array.from({ length: count }, (_, k): [number, number] => [
      checksums[first + k] as number,
      (offsets[first + k + 1] as number) - (offsets[first + k] as number),
    ]).filter(([, bytes]) => bytes > 0);
    return [{ map: begin + i, offset, sizeBytes, checksum: crc32cJoin(stretches) }];
  });
}

/** The indexes of all maps of a run, each read once by a function worker. */
export class MapIndexes {
  readonly #maps: number;
  readonly #read: (map: number) => Promise<MapIndex>;
  #all: Promise<MapIndex[]> | null = null;

  constructor(maps: number, read: (map: number) => Promise<MapIndex>) {
    this.#maps = maps;
    this.#read = read;
  }

  all(): Promise<MapIndex[]> {
    this.#all ??= Promise.all(Array.from({ length: this.#maps }, (_, map) => this.#read(map))).catch(
      (error) => {
        // A failure is not kept: a later attempt may find the index.
        this.#all = null;
        throw error;
      },
    );
    return this.#all;
  }
}

/** The error of outputs that do not match their index. Made again, they take the place of what is there. */
export function mapOutputsLost(store: string, maps: readonly number[]): MillraceError {
  return new MillraceError(
    "MAP_OUTPUT_LOST",
    `map outputs ${maps.join(", ")} in ${store} are lost; run these map tasks again`,
    {
      maps,
    },
  );
}

/** The memory of map outputs on their way to a store: one, grown as needed and kept. */
export class OutputBuffer {
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #busy: Promise<void> = Promise.resolve();

  /** Waits until the output before is done with it. `release` must be called in the end. */
  async take(sizeBytes: number): Promise<{ bytes: Uint8Array<ArrayBuffer>; release: () => void }> {
    const before = this.#busy;
    let release = (): void => undefined;
    this.#busy = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    if (this.#bytes.length < sizeBytes) this.#bytes = new Uint8Array(new ArrayBuffer(sizeBytes));
    return { bytes: this.#bytes.subarray(0, sizeBytes), release };
  }
}
