/**
 * The exchange through files of a directory that all function workers see: one data file a map output, read by
 * ranges, and its index.
 */
import { mkdirSync } from "node:fs";
import { open, readFile, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
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

function runDirectory(directory: string, run: string): string {
  return join(directory, `millrace-${run}`);
}

export async function setUpFileExchange(directory: string, run: string): Promise<ExchangeSetup> {
  const folder = runDirectory(directory, run);
  let made: string | undefined;
  try {
    // At once: of several exchanges in one directory the first has made it, and has to go last.
    made = mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw storeError(directory, error);
  }
  return {
    async remove() {
      await rm(folder, { recursive: true, force: true });
      // The folders above that the run made, as long as they are empty.
      for (
        let above = resolve(folder, "..");
        made !== undefined && above.length >= made.length;
        above = resolve(above, "..")
      ) {
        if (
          !(await rmdir(above).then(
            () => true,
            () => false,
          ))
        )
          return;
      }
    },
  };
}

export class FileExchange implements Exchange {
  readonly transport = "file";
  readonly #folder: string;
  readonly #indexes: MapIndexes;
  readonly #output = new OutputBuffer();

  constructor(directory: string, plan: ExchangePlan) {
    this.#folder = runDirectory(directory, plan.run);
    this.#indexes = new MapIndexes(plan.maps, async (map) =>
      decodeMapIndex(await readFile(this.#path(map, "index")), plan.partitions),
    );
  }

  #path(map: number, what: "data" | "index"): string {
    return join(this.#folder, `map-${String(map).padStart(6, "0")}.${what}`);
  }

  async openOutput(map: number, attempt: number, sizeBytes: number): Promise<MapOutput> {
    const { bytes: buffer, release } = await this.#output.take(sizeBytes);
    return {
      buffer,
      commit: async (offsets, checksums) => {
        try {
          // The data first: an index is there only when what it describes is.
          await this.#writeWhole(this.#path(map, "data"), attempt, buffer);
          await this.#writeWhole(this.#path(map, "index"), attempt, encodeMapIndex({ offsets, checksums }));
        } finally {
          release();
        }
      },
      abort: async () => release(),
    };
  }

  async #writeWhole(path: string, attempt: number, bytes: Uint8Array): Promise<void> {
    const unfinished = `${path}.${attempt}.${process.pid}`;
    try {
      await writeFile(unfinished, bytes);
      await rename(unfinished, path);
    } catch (error) {
      await rm(unfinished, { force: true }).catch(() => undefined);
      throw storeError(this.#folder, error);
    }
  }

  readPartition(partition: number): Promise<PartitionExtents> {
    return this.readRun(partition, 1, null);
  }

  async readRun(first: number, count: number, maps: MapRange | null): Promise<PartitionExtents> {
    const indexes = await this.#indexes.all().catch((error: unknown) => {
      throw storeError(this.#folder, error);
    });
    const wanted = findStretches(indexes, first, count, maps);
    const sizeBytes = wanted.reduce((sum, extent) => sum + extent.sizeBytes, 0);
    const whole = new Uint8Array(new ArrayBuffer(sizeBytes));
    let at = 0;
    const extents: Uint8Array[] = [];
    const reads = wanted.map((extent) => {
      const into = whole.subarray(at, at + extent.sizeBytes);
      at += extent.sizeBytes;
      extents.push(into);
      return this.#readRange(extent.map, extent.offset, into);
    });
    await Promise.all(reads);
    return {
      maps: wanted.map((extent) => extent.map),
      extents,
      checksums: Uint32Array.from(wanted, (extent) => extent.checksum),
      sizeBytes,
    };
  }

  async #readRange(map: number, offset: number, into: Uint8Array): Promise<void> {
    const path = this.#path(map, "data");
    try {
      const handle = await open(path, "r");
      try {
        for (let done = 0; done < into.length; ) {
          const { bytesRead } = await handle.read(into, done, into.length - done, offset + done);
          if (bytesRead === 0) throw new MillraceError("CORRUPT", `${path} is shorter than its index says`);
          done += bytesRead;
        }
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw storeError(this.#folder, error);
    }
  }

  async reportLost(maps: readonly number[]): Promise<MillraceError> {
    return mapOutputsLost(this.transport, maps);
  }

  async close(): Promise<void> {}
}

function storeError(folder: string, error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const code = (error as { code?: unknown }).code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new MillraceError("RESOURCE_EXHAUSTED", `no room left for the exchange in ${folder}`, {
      retryable: false,
      cause: error,
    });
  }
  return new MillraceError("SYSTEM", `the exchange in ${folder} failed: ${(error as Error).message}`, {
    cause: error,
  });
}
