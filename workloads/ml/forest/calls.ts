/** What function workers do for a forest. Arguments are small; plan, bins, levels and rows lie in the namespace. */
import { deserialize } from "node:v8";
import { MillraceError } from "../../../client/errors.js";
import type { ByteSpan, Namespace } from "../../../client/index.js";
import { kernels } from "../../../client/kernels.js";
import {
  type ForestBinTables,
  type ForestLabelFacts,
  type ForestSettings,
  type ForestSlotSplit,
  type ForestTally,
  forestKernels,
} from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { type CallReport, CallWatch } from "../../calling/call_report.js";
import { attemptOf, type Exchange, type PartitionExtents } from "../../stores/exchange.js";
import { openExchange } from "../../stores/open.js";
import { type ForestPlan, keys, nativeSettings, type Range } from "./plan.js";

/** Bytes that a call took of what others had left in the store. */
export interface Taken {
  bytes: number;
  /** Of these, what this function worker read from files of the nvme tier. */
  nvmeBytes: number;
  transport: string;
}

export interface ForestReport extends CallReport {
  taken: Taken;
}

/** A map stage and the reduce stage behind it. */
export interface ShuffleShape {
  name: string;
  maps: number;
  partitions: number;
}

export interface FactsArgument {
  blocks: readonly string[];
  seed: number;
  share: number;
  classes: number;
}

export interface FactsResult extends ForestReport {
  facts: ForestLabelFacts;
}

export interface MapArgument {
  run: string;
  shuffle: ShuffleShape;
  map: number;
  /** Above 0 where its output was lost. */
  round: number;
  blocks: Range;
  /** Of features or slots: the first of each partition, and the end. */
  cuts: Uint32Array;
}

export interface SampleArgument extends MapArgument {
  /** Rows of these blocks that are in the sample. */
  sampled: number;
}

export interface HistogramsArgument extends MapArgument {
  level: string;
}

export interface BinsArgument {
  run: string;
  shuffle: ShuffleShape;
  partition: number;
  features: Range;
}

export interface BinsResult extends ForestReport {
  tables: ForestBinTables;
}

export interface BinArgument {
  run: string;
  blocks: Range;
}

export interface SplitsArgument {
  run: string;
  shuffle: ShuffleShape;
  partition: number;
  level: string;
  slots: Range;
}

export interface SplitsResult extends ForestReport {
  splits: ForestSlotSplit[];
}

export interface FinishArgument {
  run: string;
  level: string;
  slots: Range;
}

export interface FinishResult extends ForestReport {
  subtrees: Uint8Array;
}

export interface VotesArgument {
  /** Key of the forest, as `encodeForest` gives it. */
  forest: string;
  blocks: readonly string[];
  /** Run whose trees vote on rows alone that they did not draw; null: on all. */
  outOfBag: string | null;
  around: number;
  wantsPredictions: boolean;
}

export interface VotesResult extends ForestReport {
  /** One a block. */
  tallies: ForestTally[];
}

/** Loads what a function worker needs, and its connection. */
export async function warmForest(_: null, context: CallContext): Promise<void> {
  forestKernels();
  await context.namespace();
}

export async function findFacts(argument: FactsArgument, context: CallContext): Promise<FactsResult> {
  const call = await ForestCall.begin(context);
  const { seed, share, classes } = argument;
  const blocks = await call.read(argument.blocks);
  try {
    const facts = await call.compute(() => forestKernels().labelFacts(seed, share, classes, blocks));
    return { ...call.report(), facts };
  } finally {
    release(blocks);
  }
}

/** Leaves the sampled values of some blocks for those who choose bins. */
export async function sampleBlocks(argument: SampleArgument, context: CallContext): Promise<ForestReport> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const blocks = await call.read(blockKeys(plan, argument.blocks));
  const sizeBytes = argument.sampled * plan.settings.features * Float32Array.BYTES_PER_ELEMENT;
  try {
    await call.commit(argument, sizeBytes, (out) =>
      forestKernels().sampleFeatures(plan.settings.seed, plan.share, blocks, argument.cuts, out),
    );
  } finally {
    release(blocks);
  }
  return call.report();
}

export async function chooseBins(argument: BinsArgument, context: CallContext): Promise<BinsResult> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const { first, count } = argument.features;
  const categories = Uint32Array.from(plan.categories.slice(first, first + count));
  const tables = await call.reduce(argument, async ({ maps, extents, checksums }, exchange) => {
    const wrong = maps.filter((_, i) => kernels().crc32c(0, extents[i] as ByteSpan) !== checksums[i]);
    if (wrong.length > 0) throw await exchange.reportLost(wrong);
    return forestKernels().chooseBins(plan.settings.bins, categories, extents);
  });
  return { ...call.report(), tables };
}

/** Writes the rows of some blocks as bins. */
export async function binBlocks(argument: BinArgument, context: CallContext): Promise<ForestReport> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const tables = deserialize(await call.copy(keys.tables(plan.run))) as ForestBinTables;
  const { features, classes } = plan.settings;
  const { first, count } = argument.blocks;
  for (let i = first; i < first + count; i += 1) {
    context.signal.throwIfAborted();
    const block = plan.blocks[i];
    if (block === undefined) throw new MillraceError("INTERNAL", `the plan has no block ${i}`);
    const rows = await call.read([block.key]);
    try {
      const sizeBytes = forestKernels().binnedBytes(block.rows, features, classes);
      await call.write(keys.binned(plan.run, i), sizeBytes, (out) =>
        forestKernels().binRows(settingsOf(plan), tables, plan.fixedPoint, rows[0] as ByteSpan, out),
      );
    } finally {
      release(rows);
    }
    context.progress((i - first + 1) / count);
  }
  return call.report();
}

/** Leaves the histograms of a level's slots over some blocks for the owners of the slots. */
export async function levelHistograms(
  argument: HistogramsArgument,
  context: CallContext,
): Promise<ForestReport> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const settings = settingsOf(plan);
  const slots = argument.cuts.at(-1) ?? 0;
  const [level, ...blocks] = await call.read([argument.level, ...binnedKeys(plan, argument.blocks)]);
  try {
    const sizeBytes = slots * forestKernels().slotHistogramBytes(settings);
    await call.commit(argument, sizeBytes, (out) =>
      forestKernels().levelHistograms(settings, level as ByteSpan, blocks, argument.cuts, out),
    );
  } finally {
    release([level as ByteSpan, ...blocks]);
  }
  return call.report();
}

/** Chooses the splits of some slots, from the histograms of all blocks. */
export async function chooseSplits(argument: SplitsArgument, context: CallContext): Promise<SplitsResult> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const { first, count } = argument.slots;
  const [level] = await call.read([argument.level]);
  try {
    const splits = await call.reduce(argument, async ({ maps, extents, checksums }, exchange) => {
      try {
        return await forestKernels().levelSplits(
          settingsOf(plan),
          level as ByteSpan,
          first,
          count,
          extents,
          checksums,
        );
      } catch (error) {
        if (MillraceError.from(error).code !== "CHECKSUM_MISMATCH") throw error;
        const wrong = maps.filter((_, i) => kernels().crc32c(0, extents[i] as ByteSpan) !== checksums[i]);
        throw await exchange.reportLost(wrong);
      }
    });
    return { ...call.report(), splits };
  } finally {
    release([level as ByteSpan]);
  }
}

/** Grows the subtrees of some small nodes. */
export async function finishSlots(argument: FinishArgument, context: CallContext): Promise<FinishResult> {
  const call = await ForestCall.begin(context);
  const plan = await call.plan(argument.run);
  const { first, count } = argument.slots;
  const all = { first: 0, count: plan.blocks.length };
  const [level, ...blocks] = await call.read([argument.level, ...binnedKeys(plan, all)]);
  try {
    const subtrees = await call.compute(() =>
      forestKernels().finishSlots(settingsOf(plan), level as ByteSpan, first, count, blocks),
    );
    return { ...call.report(), subtrees };
  } finally {
    release([level as ByteSpan, ...blocks]);
  }
}

/** Lets a forest vote on the rows of some blocks. */
export async function countVotes(argument: VotesArgument, context: CallContext): Promise<VotesResult> {
  const call = await ForestCall.begin(context);
  const settings = argument.outOfBag === null ? null : settingsOf(await call.plan(argument.outOfBag));
  const [forest] = await call.read([argument.forest]);
  const tallies: ForestTally[] = [];
  try {
    for (const key of argument.blocks) {
      context.signal.throwIfAborted();
      const block = await call.read([key]);
      try {
        tallies.push(
          await call.compute(() =>
            forestKernels().forestVotes(
              forest as ByteSpan,
              block[0] as ByteSpan,
              settings,
              argument.around,
              argument.wantsPredictions,
            ),
          ),
        );
      } finally {
        release(block);
      }
      context.progress(tallies.length / argument.blocks.length);
    }
  } finally {
    release([forest as ByteSpan]);
  }
  return { ...call.report(), tallies };
}

function blockKeys(plan: ForestPlan, { first, count }: Range): string[] {
  return plan.blocks.slice(first, first + count).map((block) => block.key);
}

function binnedKeys(plan: ForestPlan, { first, count }: Range): string[] {
  return Array.from({ length: count }, (_, i) => keys.binned(plan.run, first + i));
}

/** A span would hold its segment until it is collected. */
function release(spans: readonly ByteSpan[]): void {
  for (const span of spans) if ("release" in span) span.release();
}

/** One call at work: what it reads and writes, on whose account. */
class ForestCall {
  readonly #context: CallContext;
  readonly #namespace: Namespace;
  readonly #watch: CallWatch;
  readonly #taken: Taken;

  private constructor(context: CallContext, namespace: Namespace) {
    this.#context = context;
    this.#namespace = namespace;
    this.#watch = new CallWatch(context);
    this.#taken = { bytes: 0, nvmeBytes: 0, transport: namespace.transport };
  }

  static async begin(context: CallContext): Promise<ForestCall> {
    return new ForestCall(context, await context.namespace());
  }

  plan(run: string): Promise<ForestPlan> {
    return this.#watch.time("exchange", () => planOf(this.#namespace, run));
  }

  /** Objects in place, where they can be read so. Give them back with `release`. */
  read(wanted: readonly string[]): Promise<ByteSpan[]> {
    return this.#watch.time("exchange", async () => {
      const spans: ByteSpan[] = [];
      try {
        for (const key of wanted) {
          const got = await this.#namespace.getSpan(key);
          if (got === null) throw missing(this.#namespace, key);
          spans.push(got.bytes);
          this.#taken.bytes += got.bytes.length;
          this.#taken.nvmeBytes += got.nvmeBytes;
        }
      } catch (error) {
        release(spans);
        throw error;
      }
      return spans;
    });
  }

  /** A small object, in memory of this process. */
  copy(key: string): Promise<Uint8Array> {
    return this.#watch.time("exchange", async () => {
      const bytes = Uint8Array.from(await this.#namespace.get(key));
      this.#taken.bytes += bytes.length;
      return bytes;
    });
  }

  compute<T>(work: () => Promise<T>): Promise<T> {
    return this.#watch.time("compute", work);
  }

  /** Writes an object in place. Attempts write the same. */
  async write(key: string, sizeBytes: number, fill: (out: ByteSpan) => Promise<void>): Promise<void> {
    const writer = await this.#watch.time("exchange", () => this.#namespace.openWriter(key, { sizeBytes }));
    let out: ByteSpan | null = null;
    try {
      out = await this.#watch.time("exchange", () =>
        writer.reserveSpan === undefined ? writer.reserve(sizeBytes) : writer.reserveSpan(sizeBytes),
      );
      const room = out;
      await this.#watch.time("compute", () => fill(room));
      await this.#watch.time("exchange", () => writer.seal());
    } catch (error) {
      await writer.abort();
      throw error;
    } finally {
      if (out !== null) release([out]);
    }
  }

  /** Fills and commits a map output. */
  async commit(
    argument: MapArgument,
    sizeBytes: number,
    fill: (out: ByteSpan) => Promise<{ offsets: Float64Array; checksums: Uint32Array }>,
  ): Promise<void> {
    const { shuffle, map, round } = argument;
    const attempt = attemptOf(round, this.#context.attempt);
    const exchange = await this.#exchange(shuffle);
    try {
      const output = await this.#watch.time("exchange", () => exchange.openOutput(map, attempt, sizeBytes));
      try {
        const { offsets, checksums } = await this.#watch.time("compute", () => fill(output.buffer));
        await this.#watch.time("exchange", () => output.commit(offsets, checksums));
      } catch (error) {
        await output.abort().catch(() => undefined);
        throw error;
      }
    } finally {
      await exchange.close();
    }
  }

  /** Works on one partition of all map outputs. */
  async reduce<T>(
    { shuffle, partition }: { shuffle: ShuffleShape; partition: number },
    work: (found: PartitionExtents, exchange: Exchange) => Promise<T>,
  ): Promise<T> {
    const exchange = await this.#exchange(shuffle);
    try {
      const found = await this.#watch.time("exchange", () => exchange.readPartition(partition));
      this.#taken.bytes += found.sizeBytes;
      this.#taken.nvmeBytes += found.nvmeBytes ?? 0;
      try {
        return await this.#watch.time("compute", () => work(found, exchange));
      } finally {
        release(found.extents);
      }
    } finally {
      await exchange.close();
    }
  }

  report(): ForestReport {
    return { ...this.#watch.report(), taken: this.#taken };
  }

  #exchange({ name, maps, partitions }: ShuffleShape): Promise<Exchange> {
    return this.#watch.time("exchange", () =>
      openExchange({ kind: "millrace" }, { run: name, maps, partitions }, this.#namespace),
    );
  }
}

function missing(namespace: Namespace, key: string): MillraceError {
  return new MillraceError("NOT_FOUND", `${key} is not in namespace ${namespace.name}`);
}

/** A cache, and of one run only: a pool of function workers may serve many, one after another. */
let current: { key: string; plan: Promise<ForestPlan> } | null = null;
let settings: { of: ForestPlan; native: ForestSettings } | null = null;

function planOf(namespace: Namespace, run: string): Promise<ForestPlan> {
  const key = `${namespace.name}/${run}`;
  if (current?.key === key) return current.plan;
  const plan = namespace
    .get(keys.plan(run))
    .then((bytes) => JSON.parse(Buffer.from(bytes).toString("utf8")) as ForestPlan);
  current = { key, plan };
  plan.catch(() => {
    if (current?.plan === plan) current = null;
  });
  return plan;
}

function settingsOf(plan: ForestPlan): ForestSettings {
  if (settings?.of !== plan) settings = { of: plan, native: nativeSettings(plan) };
  return settings.native;
}
