/**
 * The stages of a forest in this process: the same kernels as function workers use, on threads, with plain memory between
 * the stages and no store. What the store and the function workers cost is the difference.
 */
import {
  type ForestBinTables,
  type ForestLabelFacts,
  type ForestSlotSplit,
  forestKernels,
  type PartedOutput,
} from "../client/learning.js";
import type { ForestStages } from "../workloads/ml/forest/grow.js";
import {
  cutsOf,
  evenRanges,
  type ForestPlan,
  nativeSettings,
  type Range,
} from "../workloads/ml/forest/plan.js";
import { joinFacts, joinTables } from "../workloads/ml/forest/stages.js";

export class ThreadStages implements ForestStages {
  readonly workers: number;
  readonly #blocks: readonly Uint8Array[];
  readonly #rows: readonly number[];
  readonly #seed: number;
  readonly #classes: number;
  readonly #ranges: Range[];
  #sampled: number[] = [];
  #binned: Uint8Array[] = [];

  /** `rows` of each block. Kernels run on libuv's threads, of which there must be as many as `workers`. */
  constructor(
    workers: number,
    blocks: readonly Uint8Array[],
    rows: readonly number[],
    seed: number,
    classes: number,
  ) {
    this.workers = workers;
    this.#blocks = blocks;
    this.#rows = rows;
    this.#seed = seed;
    this.#classes = classes;
    this.#ranges = evenRanges(rows, workers);
  }

  async labelFacts(share: number): Promise<ForestLabelFacts> {
    const facts = await this.#each(this.#ranges, (range) =>
      forestKernels().labelFacts(this.#seed, share, this.#classes, of(this.#blocks, range)),
    );
    this.#sampled = facts.map(({ sampled }) => sampled);
    return facts.reduce(joinFacts);
  }

  async bins(plan: ForestPlan): Promise<ForestBinTables> {
    const { features, bins } = plan.settings;
    const owners = evenRanges(new Array<number>(features).fill(1), this.workers);
    const cuts = cutsOf(owners);
    const outputs = await this.#each(this.#ranges, async (range, i) => {
      const out = new Uint8Array((this.#sampled[i] as number) * features * Float32Array.BYTES_PER_ELEMENT);
      const blocks = of(this.#blocks, range);
      return { out, parts: await forestKernels().sampleFeatures(this.#seed, plan.share, blocks, cuts, out) };
    });
    const tables = await this.#each(owners, ({ first, count }, owner) => {
      const categories = Uint32Array.from(plan.categories.slice(first, first + count));
      return forestKernels().chooseBins(bins, categories, partsOf(outputs, owner));
    });
    return joinTables(tables);
  }

  async bin(plan: ForestPlan, tables: ForestBinTables): Promise<void> {
    const { features, classes } = plan.settings;
    const settings = nativeSettings(plan);
    this.#binned = await this.#each(this.#blocks, async (block, i) => {
      const out = new Uint8Array(forestKernels().binnedBytes(this.#rows[i] as number, features, classes));
      await forestKernels().binRows(settings, tables, plan.fixedPoint, block, out);
      return out;
    });
  }

  async split(plan: ForestPlan, level: Uint8Array, slots: number): Promise<ForestSlotSplit[]> {
    const settings = nativeSettings(plan);
    const owners = evenRanges(new Array<number>(slots).fill(1), this.workers);
    const cuts = cutsOf(owners);
    const outputs = await this.#each(this.#ranges, async (range) => {
      const out = new Uint8Array(slots * forestKernels().slotHistogramBytes(settings));
      const blocks = of(this.#binned, range);
      return { out, parts: await forestKernels().levelHistograms(settings, level, blocks, cuts, out) };
    });
    const splits = await this.#each(owners, ({ first, count }, owner) => {
      const checksums = Uint32Array.from(outputs, ({ parts }) => parts.checksums[owner] as number);
      return forestKernels().levelSplits(settings, level, first, count, partsOf(outputs, owner), checksums);
    });
    return splits.flat();
  }

  finish(plan: ForestPlan, level: Uint8Array, ranges: readonly Range[]): Promise<Uint8Array[]> {
    const settings = nativeSettings(plan);
    return this.#each(ranges, ({ first, count }) =>
      forestKernels().finishSlots(settings, level, first, count, this.#binned),
    );
  }

  /** As many at a time as there are threads. */
  async #each<A, R>(items: readonly A[], work: (item: A, i: number) => Promise<R>): Promise<R[]> {
    const results = new Array<R>(items.length);
    let next = 0;
    const take = async (): Promise<void> => {
      for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i] as A, i);
    };
    await Promise.all(Array.from({ length: this.workers }, take));
    return results;
  }
}

function of(blocks: readonly Uint8Array[], { first, count }: Range): readonly Uint8Array[] {
  return blocks.slice(first, first + count);
}

function partsOf(outputs: readonly { out: Uint8Array; parts: PartedOutput }[], owner: number): Uint8Array[] {
  return outputs.map(({ out, parts }) =>
    out.subarray(parts.offsets[owner] as number, parts.offsets[owner + 1] as number),
  );
}
