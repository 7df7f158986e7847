/** The exchange through Redis: one key a (map, partition), and one a map for its index. */
import { Redis } from "ioredis";
import { MillraceError } from "../../client/errors.js";
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
  MapIndexes,
  mapOutputsLost,
  OutputBuffer,
} from "./map_index.js";

/** Keys of a run whose driver was killed go by themselves after this time. */
const KEY_LIFETIME_SECONDS = 24 * 3600;
/** Keys removed a round trip. */
const REMOVE_BATCH = 1000;

function prefix(run: string): string {
  return `millrace:${run}:`;
}

function connect(url: string): Redis {
  const redis = new Redis(url, {
    lazyConnect: true,
    maxRetriesPerRequest: 1,
    connectTimeout: 5000,
    retryStrategy: (times) => (times <= 2 ? 100 : null),
  });
  // Failures reach the caller of each command; without a listener ioredis would print them as well.
  redis.on("error", () => undefined);
  return redis;
}

/** Checks that the server answers. */
export async function setUpRedisExchange(url: string, run: string): Promise<ExchangeSetup> {
  const redis = connect(url);
  try {
    await redis.connect();
    await redis.ping();
  } catch (error) {
    redis.disconnect();
    throw storeError(url, error);
  }
  return {
    async remove() {
      try {
        let cursor = "0";
        do {
          const [next, keys] = await redis.scan(cursor, "MATCH", `${prefix(run)}*`, "COUNT", REMOVE_BATCH);
          if (keys.length > 0) await redis.unlink(...keys);
          cursor = next;
        } while (cursor !== "0");
      } catch (error) {
        throw storeError(url, error);
      } finally {
        redis.disconnect();
      }
    },
  };
}

export class RedisExchange implements Exchange {
  readonly transport = "redis";
  readonly #url: string;
  readonly #redis: Redis;
  readonly #prefix: string;
  readonly #plan: ExchangePlan;
  readonly #indexes: MapIndexes;
  readonly #output = new OutputBuffer();

  constructor(url: string, plan: ExchangePlan) {
    this.#url = url;
    this.#redis = connect(url);
    this.#plan = plan;
    this.#prefix = prefix(plan.run);
    this.#indexes = new MapIndexes(plan.maps, async (map) => {
      const bytes = await this.#redis.getBuffer(this.#indexKey(map));
      if (bytes === null) throw lost(`the index of map output ${map}`);
      return decodeMapIndex(bytes, plan.partitions);
    });
  }

  #indexKey(map: number): string {
    return `${this.#prefix}${map}:index`;
  }

  #dataKey(map: number, partition: number): string {
    return `${this.#prefix}${map}:${partition}`;
  }

  async openOutput(map: number, _attempt: number, sizeBytes: number): Promise<MapOutput> {
    const { bytes: buffer, release } = await this.#output.take(sizeBytes);
    return {
      buffer,
      commit: async (offsets, checksums) => {
        try {
          const writes = this.#redis.pipeline();
          for (let partition = 0; partition < this.#plan.partitions; partition += 1) {
            const [from, to] = [offsets[partition] as number, offsets[partition + 1] as number];
            if (from === to) continue;
            const value = Buffer.from(buffer.buffer, buffer.byteOffset + from, to - from);
            writes.set(this.#dataKey(map, partition), value, "EX", KEY_LIFETIME_SECONDS);
          }
          succeeded(await writes.exec());
          // The data first: an index is there only when what it describes is.
          const index = encodeMapIndex({ offsets, checksums });
          await this.#redis.set(this.#indexKey(map), index, "EX", KEY_LIFETIME_SECONDS);
        } catch (error) {
          throw storeError(this.#url, error);
        } finally {
          release();
        }
      },
      abort: async () => release(),
    };
  }

  readPartition(partition: number): Promise<PartitionExtents> {
    return this.readRun(partition, 1, null);
  }

  async readRun(first: number, count: number, range: MapRange | null): Promise<PartitionExtents> {
    try {
      const indexes = await this.#indexes.all();
      // A key each: nothing lies side by side here.
      const wanted = Array.from({ length: count }, (_, i) => first + i).flatMap((partition) =>
        findStretches(indexes, partition, 1, range).map((stretch) => ({ ...stretch, partition })),
      );
      wanted.sort((a, b) => a.map - b.map);
      const reads = this.#redis.pipeline();
      for (const { map, partition } of wanted) reads.getBuffer(this.#dataKey(map, partition));
      const extents = succeeded(await reads.exec()).map((value, i) => {
        if (!Buffer.isBuffer(value)) {
          throw lost(`partition ${wanted[i]?.partition} of map output ${wanted[i]?.map}`);
        }
        return value as Uint8Array;
      });
      return {
        maps: wanted.map(({ map }) => map),
        extents,
        checksums: Uint32Array.from(wanted, ({ checksum }) => checksum),
        sizeBytes: extents.reduce((sum, extent) => sum + extent.length, 0),
      };
    } catch (error) {
      throw storeError(this.#url, error);
    }
  }

  async reportLost(maps: readonly number[]): Promise<MillraceError> {
    return mapOutputsLost(this.transport, maps);
  }

  async close(): Promise<void> {
    this.#redis.disconnect();
  }
}

/** The values of a pipeline, or the first failure in it. */
function succeeded(replies: [error: Error | null, value: unknown][] | null): unknown[] {
  if (replies === null) throw new MillraceError("ABORTED", "Redis discarded the commands");
  return replies.map(([error, value]) => {
    if (error !== null) throw error;
    return value;
  });
}

function lost(what: string): MillraceError {
  return new MillraceError("NOT_FOUND", `${what} is gone from Redis (evicted or removed by somebody)`);
}

function storeError(url: string, error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const message = (error as Error).message;
  if (/^OOM/.test(message)) {
    return new MillraceError("RESOURCE_EXHAUSTED", `Redis at ${shown(url)} is full: ${message}`, {
      retryable: false,
      cause: error,
    });
  }
  return new MillraceError("UNAVAILABLE", `the exchange through ${shown(url)} failed: ${message}`, {
    retryable: false,
    cause: error,
  });
}

/** Without the password. */
function shown(url: string): string {
  return url.replace(/\/\/[^@/]*@/, "//");
}
