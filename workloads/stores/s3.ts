/** The exchange through S3: one object a map output, read by ranges, and one for its index. */
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
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
import { createS3Client, s3Error } from "./s3_client.js";
import { parseS3Url, type S3Place } from "./s3_url.js";

function runPrefix(place: S3Place, run: string): string {
  return `${place.prefix}millrace-${run}/`;
}

/** Checks that the bucket is there. */
export async function setUpS3Exchange(url: string, run: string): Promise<ExchangeSetup> {
  const place = parseS3Url(url);
  const client = createS3Client();
  try {
    await client.send(new HeadBucketCommand({ Bucket: place.bucket }));
  } catch (error) {
    client.destroy();
    throw storeError(url, error);
  }
  return {
    async remove() {
      try {
        for (;;) {
          // Always the first page: what it lists is gone by the next turn.
          const page = await client.send(
            new ListObjectsV2Command({ Bucket: place.bucket, Prefix: runPrefix(place, run) }),
          );
          const keys = (page.Contents ?? []).flatMap((object) =>
            object.Key === undefined ? [] : [{ Key: object.Key }],
          );
          if (keys.length === 0) return;
          await client.send(
            new DeleteObjectsCommand({ Bucket: place.bucket, Delete: { Objects: keys, Quiet: true } }),
          );
          if (page.IsTruncated !== true) return;
        }
      } catch (error) {
        throw storeError(url, error);
      } finally {
        client.destroy();
      }
    },
  };
}

export class S3Exchange implements Exchange {
  readonly transport = "s3";
  readonly #url: string;
  readonly #client = createS3Client();
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #indexes: MapIndexes;
  readonly #output = new OutputBuffer();

  constructor(url: string, plan: ExchangePlan) {
    const place = parseS3Url(url);
    this.#url = url;
    this.#bucket = place.bucket;
    this.#prefix = runPrefix(place, plan.run);
    this.#indexes = new MapIndexes(plan.maps, async (map) =>
      decodeMapIndex(Buffer.from(await this.#get(this.#key(map, "index"))), plan.partitions),
    );
  }

  #key(map: number, what: "data" | "index"): string {
    return `${this.#prefix}map-${String(map).padStart(6, "0")}.${what}`;
  }

  async openOutput(map: number, _attempt: number, sizeBytes: number): Promise<MapOutput> {
    const { bytes: buffer, release } = await this.#output.take(sizeBytes);
    return {
      buffer,
      commit: async (offsets, checksums) => {
        try {
          // The data first: an index is there only when what it describes is.
          await this.#put(this.#key(map, "data"), buffer);
          await this.#put(this.#key(map, "index"), encodeMapIndex({ offsets, checksums }));
        } catch (error) {
          throw storeError(this.#url, error);
        } finally {
          release();
        }
      },
      abort: async () => release(),
    };
  }

  async #put(key: string, bytes: Uint8Array): Promise<void> {
    await this.#client.send(
      new PutObjectCommand({ Bucket: this.#bucket, Key: key, Body: bytes, ContentLength: bytes.length }),
    );
  }

  async #get(key: string, range?: string): Promise<Uint8Array> {
    const reply = await this.#client.send(
      new GetObjectCommand({
        Bucket: this.#bucket,
        Key: key,
        ...(range === undefined ? {} : { Range: range }),
      }),
    );
    if (reply.Body === undefined) throw new MillraceError("CORRUPT", `S3 sent ${key} without a body`);
    return reply.Body.transformToByteArray();
  }

  readPartition(partition: number): Promise<PartitionExtents> {
    return this.readRun(partition, 1, null);
  }

  async readRun(first: number, count: number, maps: MapRange | null): Promise<PartitionExtents> {
    try {
      const wanted = findStretches(await this.#indexes.all(), first, count, maps);
      const extents = await Promise.all(
        wanted.map(async ({ map, offset, sizeBytes }) => {
          const bytes = await this.#get(this.#key(map, "data"), `bytes=${offset}-${offset + sizeBytes - 1}`);
          if (bytes.length !== sizeBytes) {
            throw new MillraceError(
              "CORRUPT",
              `S3 sent ${bytes.length} bytes of map output ${map} for ${sizeBytes}`,
            );
          }
          return bytes;
        }),
      );
      return {
        maps: wanted.map((extent) => extent.map),
        extents,
        checksums: Uint32Array.from(wanted, (extent) => extent.checksum),
        sizeBytes: wanted.reduce((sum, extent) => sum + extent.sizeBytes, 0),
      };
    } catch (error) {
      throw storeError(this.#url, error);
    }
  }

  async reportLost(maps: readonly number[]): Promise<MillraceError> {
    return mapOutputsLost(this.transport, maps);
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }
}

function storeError(url: string, error: unknown): MillraceError {
  return s3Error(url, `the exchange through ${url} failed`, error);
}
