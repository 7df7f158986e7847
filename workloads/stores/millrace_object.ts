/**
 * The exchange through Millrace where little is exchanged: a plain object a map, its index behind its partitions. It
 * needs no call to the node's control plane, which for small exchanges is most of what a shuffle costs; over shared
 * memory it needs no round trip at all to be read. Large ones are better off as shuffles: nodes lay those out by
 * partition when they move them to files.
 *
 *   | partitions, one behind the other | index of `map_index.ts` |
 */
import { crc32c, crc32cJoin } from "../../client/checksum.js";
import { MillraceError } from "../../client/errors.js";
import type { ByteSpan, Namespace } from "../../client/index.js";
import type {
  Exchange,
  ExchangePlan,
  ExchangeSetup,
  MapOutput,
  MapRange,
  PartitionExtents,
} from "./exchange.js";
import {
  decodeMapIndex,
  encodeMapIndex,
  findStretches,
  type MapIndex,
  MapIndexes,
  mapIndexBytes,
} from "./map_index.js";
import { outOfRoom, roomFor } from "./millrace.js";

function keyOf(run: string, map: number): string {
  return `exchange/${run}/m${map}`;
}

export async function setUpMillraceObjectExchange(
  namespace: Namespace,
  { run, maps }: ExchangePlan,
): Promise<ExchangeSetup> {
  return {
    remove: async () => {
      await Promise.all(Array.from({ length: maps }, (_, map) => namespace.delete(keyOf(run, map))));
    },
  };
}

/** What reading an object that is not whole, or not there any more, fails with. */
const MEANS_LOST = new Set(["NOT_FOUND", "OUT_OF_RANGE", "CHECKSUM_MISMATCH", "CORRUPT"]);

export class MillraceObjectExchange implements Exchange {
  readonly #namespace: Namespace;
  readonly #plan: ExchangePlan;
  readonly #indexes: MapIndexes;
  /** Of the objects whose indexes were read. */
  readonly #sequences = new Map<number, number>();

  constructor(namespace: Namespace, plan: ExchangePlan) {
    this.#namespace = namespace;
    this.#plan = plan;
    this.#indexes = new MapIndexes(plan.maps, (map) => this.#readIndex(map));
  }

  get transport(): string {
    return this.#namespace.transport;
  }

  async openOutput(map: number, _attempt: number, sizeBytes: number): Promise<MapOutput> {
    const objectBytes = sizeBytes + mapIndexBytes(this.#plan.partitions);
    const writer = await this.#namespace.openWriter(keyOf(this.#plan.run, map), { sizeBytes: objectBytes });
    try {
      const { buffer, isPiecewise } = await roomFor(sizeBytes, async () => {
        if (sizeBytes === 0) return new Uint8Array(0);
        return writer.reserveSpan === undefined ? writer.reserve(sizeBytes) : writer.reserveSpan(sizeBytes);
      });
      // A span would hold its segment until it is collected.
      const release = () => {
        if ("release" in buffer) buffer.release();
      };
      return {
        buffer,
        commit: async (offsets, checksums) => {
          try {
            if (isPiecewise) await writer.write(buffer as Uint8Array);
            const index = encodeMapIndex({ offsets, checksums });
            await writer.write(index);
            const whole = crc32cJoin([...stretchesOf(offsets, checksums), [crc32c(0, index), index.length]]);
            // The first attempt wins, as in a shuffle.
            await writer.seal({ crc32c: whole, ifAbsent: true });
          } catch (thrown) {
            if (MillraceError.from(thrown).code !== "CONDITION_FAILED") throw outOfRoom(thrown);
          } finally {
            release();
          }
        },
        abort: () => {
          release();
          return writer.abort();
        },
      };
    } catch (thrown) {
      await writer.abort().catch(() => undefined);
      throw outOfRoom(thrown);
    }
  }

  async #readIndex(map: number): Promise<MapIndex> {
    const key = keyOf(this.#plan.run, map);
    const info = await this.#namespace.head(key);
    const length = mapIndexBytes(this.#plan.partitions);
    if (info === null || info.sizeBytes < length) throw lostError(this.#plan.run, [map]);
    this.#sequences.set(map, info.sequence);
    const offset = info.sizeBytes - length;
    const bytes = await this.#namespace.get(key, { offset, length }, { verify: false });
    const index = decodeMapIndex(
      Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length),
      this.#plan.partitions,
    );
    if (index.offsets.at(-1) !== offset) throw new MillraceError("CORRUPT", `${key} has another size`);
    return index;
  }

  readPartition(partition: number): Promise<PartitionExtents> {
    return this.readRun(partition, 1, null);
  }

  async readRun(first: number, count: number, maps: MapRange | null): Promise<PartitionExtents> {
    const wanted = findStretches(await this.#allIndexes(), first, count, maps);
    const read = await Promise.all(
      wanted.map(async ({ map, offset, sizeBytes }) => {
        const range = { offset, length: sizeBytes };
        const got = await this.#unlessLost(() => this.#namespace.getSpan(keyOf(this.#plan.run, map), range));
        return got !== null && got.bytes.length === sizeBytes ? got : null;
      }),
    );
    const lost = wanted.filter((_, i) => read[i] === null).map(({ map }) => map);
    const found = read.filter((got) => got !== null);
    if (lost.length > 0) {
      for (const { bytes } of found) if ("release" in bytes) bytes.release();
      throw await this.reportLost(lost);
    }
    return {
      maps: wanted.map(({ map }) => map),
      extents: found.map(({ bytes }): ByteSpan => bytes),
      checksums: Uint32Array.from(wanted, ({ checksum }) => checksum),
      sizeBytes: wanted.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      nvmeBytes: found.reduce((sum, { nvmeBytes }) => sum + nvmeBytes, 0),
    };
  }

  /** MAP_OUTPUT_LOST naming all maps whose object is not there, or is none. */
  async #allIndexes(): Promise<MapIndex[]> {
    try {
      return await this.#indexes.all();
    } catch (thrown) {
      const error = MillraceError.from(thrown);
      if (!MEANS_LOST.has(error.code) && error.code !== "MAP_OUTPUT_LOST") throw error;
    }
    const lost: number[] = [];
    for (let map = 0; map < this.#plan.maps; map += 1) {
      const read = await this.#unlessLost(() => this.#readIndex(map));
      if (read === null) lost.push(map);
    }
    return lost.length === 0 ? this.#indexes.all() : Promise.reject(await this.reportLost(lost));
  }

  async #unlessLost<T>(read: () => Promise<T>): Promise<T | null> {
    try {
      return await read();
    } catch (thrown) {
      const { code } = MillraceError.from(thrown);
      if (MEANS_LOST.has(code) || code === "MAP_OUTPUT_LOST") return null;
      throw thrown;
    }
  }

  /** Makes room for the next attempt, which only takes the place of an object that is not there. */
  async reportLost(maps: readonly number[]): Promise<MillraceError> {
    await Promise.all(
      maps.map(async (map) => {
        const sequence = this.#sequences.get(map);
        const condition = sequence === undefined ? {} : { ifSequence: sequence };
        try {
          await this.#namespace.delete(keyOf(this.#plan.run, map), condition);
        } catch (thrown) {
          // Another function worker has reported it, and it may be there again.
          if (!["CONDITION_FAILED", "NOT_FOUND"].includes(MillraceError.from(thrown).code)) throw thrown;
        }
      }),
    );
    return lostError(this.#plan.run, maps);
  }

  async close(): Promise<void> {}
}

function lostError(run: string, maps: readonly number[]): MillraceError {
  return new MillraceError(
    "MAP_OUTPUT_LOST",
    `the outputs ${maps.join(", ")} of ${run} are lost; run these map tasks again`,
    { maps },
  );
}

function stretchesOf(offsets: Float64Array, checksums: Uint32Array): [crc32c: number, bytes: number][] {
  return Array.from(checksums, (checksum, i): [number, number] => [
    checksum,
    (offsets[i + 1] as number) - (offsets[i] as number),
  ]).filter(([, bytes]) => bytes > 0);
}
