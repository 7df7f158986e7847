/** The exchange through Millrace itself: a shuffle of the namespace. Kernels write into it and read from it in place. */

import { MillraceError } from "../../client/errors.js";
import type { Namespace, Shuffle } from "../../client/index.js";
import type { Exchange, ExchangePlan, ExchangeSetup, MapOutput, PartitionExtents } from "./exchange.js";

export async function setUpMillraceExchange(
  namespace: Namespace,
  plan: ExchangePlan,
): Promise<ExchangeSetup> {
  await namespace.createShuffle(plan.run, { maps: plan.maps, partitions: plan.partitions });
  // The shuffle goes with its namespace, all at once.
  return { remove: async () => undefined };
}

export class MillraceExchange implements Exchange {
  readonly #namespace: Namespace;
  readonly #shuffle: Shuffle;

  private constructor(namespace: Namespace, shuffle: Shuffle) {
    this.#namespace = namespace;
    this.#shuffle = shuffle;
  }

  static async open(namespace: Namespace, plan: ExchangePlan): Promise<MillraceExchange> {
    return new MillraceExchange(namespace, await namespace.openShuffle(plan.run));
  }

  get transport(): string {
    return this.#namespace.transport;
  }

  async openOutput(map: number, attempt: number, sizeBytes: number): Promise<MapOutput> {
    const writer = await this.#shuffle.writer(map, attempt, { sizeBytes });
    try {
      const buffer = await writer.reserveSpan(sizeBytes);
      return {
        buffer,
        commit: async (offsets, checksums) => {
          await writer.commit({ offsets, checksums });
        },
        abort: () => writer.abort(),
      };
    } catch (thrown) {
      await writer.abort().catch(() => undefined);
      const error = MillraceError.from(thrown);
      if (error.code !== "RESOURCE_EXHAUSTED") throw error;
      // The store has waited for room already, and only the end of this very job would make any.
      throw new MillraceError(error.code, `no room for the map outputs: ${error.message}`, {
        retryable: false,
        cause: error,
      });
    }
  }

  expectPartitions(first: number, count: number): Promise<void> {
    return this.#shuffle.locate(first, count);
  }

  async readPartition(partition: number): Promise<PartitionExtents> {
    // The sort kernel checks the checksums in the pass that reads the keys.
    const all = await this.#shuffle.reader(partition).spans();
    const present = all.filter((extent) => extent.bytes.length > 0);
    return {
      maps: present.map((extent) => extent.map),
      extents: present.map((extent) => extent.bytes),
      checksums: Uint32Array.from(present, (extent) => extent.crc32c as number),
      sizeBytes: present.reduce((sum, extent) => sum + extent.bytes.length, 0),
      nvmeBytes: present.reduce((sum, extent) => sum + extent.nvmeBytes, 0),
    };
  }

  reportLost(maps: readonly number[]): Promise<MillraceError> {
    return this.#shuffle.reportLost(maps);
  }

  async close(): Promise<void> {}
}
