/** The exchange through Millrace itself: a shuffle of the namespace. Kernels write into it and read from it in place. */

import { MillraceError } from "../../client/errors.js";
import type { ByteSpan, Namespace, PartitionSpan, Shuffle } from "../../client/index.js";
import type {
  Exchange,
  ExchangePlan,
  ExchangeSetup,
  MapOutput,
  MapRange,
  PartitionExtents,
} from "./exchange.js";

export async function setUpMillraceExchange(
  namespace: Namespace,
  plan: ExchangePlan,
): Promise<ExchangeSetup> {
  await namespace.createShuffle(plan.run, { maps: plan.maps, partitions: plan.partitions });
  return { remove: () => namespace.deleteShuffle(plan.run) };
}

export class MillraceExchange implements Exchange {
  readonly #namespace: Namespace;
  readonly #shuffle: Shuffle;

  private constructor(namespace: Namespace, shuffle: Shuffle) {
    this.#namespace = namespace;
    this.#shuffle = shuffle;
  }

  static async open(namespace: Namespace, plan: ExchangePlan): Promise<MillraceExchange> {
    const { run, maps, partitions } = plan;
    return new MillraceExchange(namespace, await namespace.openShuffle(run, { maps, partitions }));
  }

  get transport(): string {
    return this.#namespace.transport;
  }

  async openOutput(map: number, attempt: number, sizeBytes: number): Promise<MapOutput> {
    const writer = await this.#shuffle.writer(map, attempt, { sizeBytes });
    try {
      const { buffer, isPiecewise } = await roomFor(sizeBytes, () => writer.reserveSpan(sizeBytes));
      return {
        buffer,
        commit: async (offsets, checksums) => {
          try {
            if (isPiecewise) {
              for (let partition = 0; partition < checksums.length; partition += 1) {
                const [from, to] = [offsets[partition] as number, offsets[partition + 1] as number];
                if (to > from) await writer.write(partition, (buffer as Uint8Array).subarray(from, to));
              }
            }
            await writer.commit(isPiecewise ? undefined : { offsets, checksums });
          } catch (thrown) {
            throw outOfRoom(thrown);
          }
        },
        abort: () => writer.abort(),
      };
    } catch (thrown) {
      await writer.abort().catch(() => undefined);
      throw outOfRoom(thrown);
    }
  }

  expectPartitions(first: number, count: number): Promise<void> {
    return this.#shuffle.locate(first, count);
  }

  async readPartition(partition: number): Promise<PartitionExtents> {
    // The sort kernel checks the checksums in the pass that reads the keys.
    return extentsOf(await this.#shuffle.reader(partition).spans());
  }

  async readRun(first: number, count: number, maps: MapRange | null): Promise<PartitionExtents> {
    return extentsOf(await this.#shuffle.readRun(first, count, maps === null ? {} : { maps }));
  }

  reportLost(maps: readonly number[]): Promise<MillraceError> {
    return this.#shuffle.reportLost(maps);
  }

  async close(): Promise<void> {}
}

function extentsOf(spans: readonly PartitionSpan[]): PartitionExtents {
  const present = spans.filter((extent) => extent.bytes.length > 0);
  return {
    maps: present.map((extent) => extent.map),
    extents: present.map((extent) => extent.bytes),
    checksums: Uint32Array.from(present, (extent) => extent.crc32c as number),
    sizeBytes: present.reduce((sum, extent) => sum + extent.bytes.length, 0),
    nvmeBytes: present.reduce((sum, extent) => sum + extent.nvmeBytes, 0),
  };
}

/**
 * Room for an output: the store itself, or, where it has no contiguous room for so much, memory of the process, which
 * is then written piece by piece. RESOURCE_EXHAUSTED where there is no such memory either.
 */
export async function roomFor(
  sizeBytes: number,
  reserve: () => Promise<ByteSpan>,
): Promise<{ buffer: ByteSpan; isPiecewise: boolean }> {
  try {
    return { buffer: await reserve(), isPiecewise: false };
  } catch (thrown) {
    if (MillraceError.from(thrown).code !== "OBJECT_TOO_LARGE") throw thrown;
  }
  try {
    return { buffer: new Uint8Array(new ArrayBuffer(sizeBytes)), isPiecewise: true };
  } catch (error) {
    throw new MillraceError("RESOURCE_EXHAUSTED", `no memory for a map output of ${sizeBytes} bytes`, {
      cause: error,
    });
  }
}

/** The store has waited for room already, and only the end of this very job would make any. */
export function outOfRoom(thrown: unknown): MillraceError {
  const error = MillraceError.from(thrown);
  if (error.code !== "RESOURCE_EXHAUSTED") return error;
  return new MillraceError(error.code, `no room for the map outputs: ${error.message}`, {
    retryable: false,
    cause: error,
  });
}
