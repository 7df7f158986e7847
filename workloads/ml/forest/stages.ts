/** The stages of a forest on function workers, exchange through the store. Moves no rows itself. */
import { serialize } from "node:v8";
import { MillraceError } from "../../../client/errors.js";
import type { Namespace } from "../../../client/index.js";
import type {
  ForestBinTables,
  ForestLabelFacts,
  ForestSlotSplit,
  ForestTally,
} from "../../../client/learning.js";
import { type Executor, type FunctionRef, functionRef } from "../../../functions/index.js";
import { callAll } from "../../calling/call_all.js";
import type { CallReport } from "../../calling/call_report.js";
import { moduleBeside } from "../../calling/module.js";
import { setUpExchange } from "../../stores/open.js";
import type { BlockRef } from "../dataset.js";
import type {
  BinArgument,
  BinsArgument,
  BinsResult,
  binBlocks,
  chooseBins,
  chooseSplits,
  countVotes,
  FactsArgument,
  FactsResult,
  FinishArgument,
  FinishResult,
  ForestReport,
  findFacts,
  finishSlots,
  HistogramsArgument,
  levelHistograms,
  MapArgument,
  SampleArgument,
  ShuffleShape,
  SplitsArgument,
  SplitsResult,
  sampleBlocks,
  VotesArgument,
  VotesResult,
  warmForest,
} from "./calls.js";
import type { ForestStage, ForestStages } from "./grow.js";
import { cutsOf, evenRanges, type ForestPlan, keys, type Range } from "./plan.js";

const CALLS = moduleBeside(import.meta.url, "calls");
const FACTS = functionRef<typeof findFacts>(CALLS, "findFacts");
const SAMPLE = functionRef<typeof sampleBlocks>(CALLS, "sampleBlocks");
const BINS = functionRef<typeof chooseBins>(CALLS, "chooseBins");
const BIN = functionRef<typeof binBlocks>(CALLS, "binBlocks");
const HISTOGRAMS = functionRef<typeof levelHistograms>(CALLS, "levelHistograms");
const SPLITS = functionRef<typeof chooseSplits>(CALLS, "chooseSplits");
const FINISH = functionRef<typeof finishSlots>(CALLS, "finishSlots");
const VOTES = functionRef<typeof countVotes>(CALLS, "countVotes");
const WARM = functionRef<typeof warmForest>(CALLS, "warmForest");

/** How often a lost map output is made again before the training gives up. */
const ROUNDS_MAX = 5;
/** So that a slow owner of nodes holds nobody up for long. */
const PARTITIONS_PER_FUNCTION_WORKER = 2;
const VOTE_CALLS_PER_FUNCTION_WORKER = 4;

export interface ForestCallReport extends CallReport {
  stage: ForestStage;
  label: string;
}

export interface StageSurroundings {
  namespace: Namespace;
  executor: Executor;
  signal?: AbortSignal;
  onProgress?: (stage: ForestStage, fraction: number) => void;
}

/** Gets the function workers ready. */
export async function warmUp({ executor }: { executor: Executor }): Promise<void> {
  await executor.getResult(executor.map(WARM, new Array<null>(executor.workers).fill(null)));
}

export class FunctionWorkerStages implements ForestStages {
  readonly workers: number;
  readonly calls: ForestCallReport[] = [];
  /** Bytes that calls took from the store, by transport. */
  readonly takenBytes = new Map<string, number>();
  takenNvmeBytes = 0;
  retries = 0;
  readonly #surroundings: StageSurroundings;
  readonly #run: string;
  readonly #seed: number;
  readonly #classes: number;
  readonly #blocks: readonly BlockRef[];
  /** Of blocks, a map call each. */
  readonly #ranges: Range[];
  #sampled: number[] = [];

  constructor(
    surroundings: StageSurroundings,
    run: string,
    seed: number,
    classes: number,
    blocks: readonly BlockRef[],
  ) {
    this.workers = surroundings.executor.workers;
    this.#surroundings = surroundings;
    this.#run = run;
    this.#seed = seed;
    this.#classes = classes;
    this.#blocks = blocks;
    this.#ranges = evenRanges(
      blocks.map(({ rows }) => rows),
      this.workers,
    );
  }

  async labelFacts(share: number): Promise<ForestLabelFacts> {
    const results = await this.#call<FactsArgument, FactsResult>(
      "sample",
      "labels",
      FACTS,
      this.#ranges.map((range) => ({
        blocks: this.#keysOf(range),
        seed: this.#seed,
        share,
        classes: this.#classes,
      })),
    );
    this.#sampled = results.map(({ facts }) => facts.sampled);
    return results.map(({ facts }) => facts).reduce(joinFacts);
  }

  async bins(plan: ForestPlan): Promise<ForestBinTables> {
    const { namespace } = this.#surroundings;
    await namespace.put(keys.plan(this.#run), JSON.stringify(plan));
    const { features } = plan.settings;
    const ranges = evenRanges(
      new Array<number>(features).fill(1),
      this.workers * PARTITIONS_PER_FUNCTION_WORKER,
    );
    const results = await this.#shuffle<SampleArgument, BinsArgument, BinsResult>(
      "sample",
      SAMPLE,
      BINS,
      "sample",
      ranges.length,
      (shuffle, map, round) => ({
        ...this.#mapArgument(shuffle, map, round, cutsOf(ranges)),
        sampled: this.#sampled[map] as number,
      }),
      (shuffle, partition) => ({ run: this.#run, shuffle, partition, features: ranges[partition] as Range }),
    );
    return joinTables(results.map(({ tables }) => tables));
  }

  async bin(_plan: ForestPlan, tables: ForestBinTables): Promise<void> {
    const { namespace } = this.#surroundings;
    await namespace.put(keys.tables(this.#run), serialize(tables));
    const ranges = evenRanges(
      this.#blocks.map(({ rows }) => rows),
      this.workers * PARTITIONS_PER_FUNCTION_WORKER,
    );
    await this.#call<BinArgument, ForestReport>(
      "bin",
      "bin",
      BIN,
      ranges.map((blocks) => ({ run: this.#run, blocks })),
    );
  }

  async split(_plan: ForestPlan, level: Uint8Array, slots: number, name: string): Promise<ForestSlotSplit[]> {
    const key = keys.level(this.#run, name);
    await this.#surroundings.namespace.put(key, level);
    const ranges = evenRanges(
      new Array<number>(slots).fill(1),
      this.workers * PARTITIONS_PER_FUNCTION_WORKER,
    );
    const results = await this.#shuffle<HistogramsArgument, SplitsArgument, SplitsResult>(
      "levels",
      HISTOGRAMS,
      SPLITS,
      `level-${name}`,
      ranges.length,
      (shuffle, map, round) => ({ ...this.#mapArgument(shuffle, map, round, cutsOf(ranges)), level: key }),
      (shuffle, partition) => ({
        run: this.#run,
        shuffle,
        partition,
        level: key,
        slots: ranges[partition] as Range,
      }),
    );
    await this.#surroundings.namespace.delete(key);
    return results.flatMap(({ splits }) => splits);
  }

  async finish(
    _plan: ForestPlan,
    level: Uint8Array,
    ranges: readonly Range[],
    name: string,
  ): Promise<Uint8Array[]> {
    const key = keys.level(this.#run, name);
    await this.#surroundings.namespace.put(key, level);
    const results = await this.#call<FinishArgument, FinishResult>(
      "finish",
      "finish",
      FINISH,
      ranges.map((slots) => ({ run: this.#run, level: key, slots })),
    );
    return results.map(({ subtrees }) => subtrees);
  }

  /** Lets a forest, which lies under this key, vote on rows. One tally a block, in their order. */
  async votes(
    forest: string,
    blocks: readonly BlockRef[],
    options: { isOutOfBag: boolean; around: number; wantsPredictions: boolean },
  ): Promise<ForestTally[]> {
    const ranges = evenRanges(
      blocks.map(({ rows }) => rows),
      this.workers * VOTE_CALLS_PER_FUNCTION_WORKER,
    );
    const results = await this.#call<VotesArgument, VotesResult>(
      "votes",
      options.isOutOfBag ? "out of bag" : "votes",
      VOTES,
      ranges.map(({ first, count }) => ({
        forest,
        blocks: blocks.slice(first, first + count).map(({ key }) => key),
        outOfBag: options.isOutOfBag ? this.#run : null,
        around: options.around,
        wantsPredictions: options.wantsPredictions,
      })),
    );
    return results.flatMap(({ tallies }) => tallies);
  }

  #mapArgument(shuffle: ShuffleShape, map: number, round: number, cuts: Uint32Array): MapArgument {
    return { run: this.#run, shuffle, map, round, blocks: this.#ranges[map] as Range, cuts };
  }

  #keysOf({ first, count }: Range): string[] {
    return this.#blocks.slice(first, first + count).map(({ key }) => key);
  }

  /**
   * Maps over all blocks and reduces; map outputs that are lost are made again. Results in the order of the partitions.
   */
  async #shuffle<M, A, R extends ForestReport>(
    stage: ForestStage,
    mapFn: FunctionRef<M, ForestReport>,
    reduceFn: FunctionRef<A, R>,
    name: string,
    partitions: number,
    mapArgument: (shuffle: ShuffleShape, map: number, round: number) => M,
    reduceArgument: (shuffle: ShuffleShape, partition: number) => A,
  ): Promise<R[]> {
    const maps = this.#ranges.length;
    const shuffle: ShuffleShape = { name: `${this.#run}-${name}`, maps, partitions };
    const plan = { run: shuffle.name, maps, partitions };
    const setup = await setUpExchange({ kind: "millrace" }, plan, this.#surroundings.namespace);
    try {
      let missing = Array.from({ length: maps }, (_, map) => map);
      const results = new Map<number, R>();
      for (let round = 0; ; round += 1) {
        await this.#call(
          stage,
          `${name} map`,
          mapFn,
          missing.map((map) => mapArgument(shuffle, map, round)),
        );
        const open = Array.from({ length: partitions }, (_, r) => r).filter((r) => !results.has(r));
        try {
          await this.#call(
            stage,
            name,
            reduceFn,
            open.map((partition) => reduceArgument(shuffle, partition)),
            (i, result) => results.set(open[i] as number, result),
          );
          return Array.from({ length: partitions }, (_, r) => results.get(r) as R);
        } catch (thrown) {
          const error = MillraceError.from(thrown);
          if (error.code !== "MAP_OUTPUT_LOST" || error.maps.length === 0 || round === ROUNDS_MAX)
            throw error;
          this.retries += error.maps.length;
          missing = [...error.maps];
        }
      }
    } finally {
      // Whatever failed before matters more than what goes with the namespace anyway.
      await setup.remove().catch(() => undefined);
    }
  }

  #call<A, R extends ForestReport>(
    stage: ForestStage,
    label: string,
    reference: FunctionRef<A, R>,
    callArguments: readonly A[],
    onResult: (i: number, result: R) => void = () => undefined,
  ): Promise<R[]> {
    const { executor, signal, onProgress } = this.#surroundings;
    return callAll(executor, reference, callArguments, {
      signal,
      onProgress: (fraction) => onProgress?.(stage, fraction),
      onResult: (i, result) => {
        this.#note(stage, label, result);
        onResult(i, result);
      },
      onEnd: ({ stats }) => {
        for (const { outcome } of stats.history) {
          if (outcome !== "done" && outcome !== "cancelled") this.retries += 1;
        }
      },
    });
  }

  #note(stage: ForestStage, label: string, { taken, ...report }: ForestReport): void {
    const { functionWorker, attempt, startMs, endMs, spans } = report;
    this.calls.push({ functionWorker, attempt, startMs, endMs, spans, stage, label });
    const { bytes, nvmeBytes, transport } = taken;
    this.takenBytes.set(transport, (this.takenBytes.get(transport) ?? 0) + bytes);
    this.takenNvmeBytes += nvmeBytes;
  }
}

export function joinFacts(a: ForestLabelFacts, b: ForestLabelFacts): ForestLabelFacts {
  if (a.rows === 0 || b.rows === 0) return a.rows === 0 ? b : a;
  return {
    rows: a.rows + b.rows,
    sampled: a.sampled + b.sampled,
    classRows: a.classRows.map((rows, i) => rows + (b.classRows[i] as number)),
    min: Math.min(a.min, b.min),
    max: Math.max(a.max, b.max),
  };
}

export function joinTables(parts: readonly ForestBinTables[]): ForestBinTables {
  const values = new Float64Array(parts.reduce((sum, part) => sum + part.values.length, 0));
  const ends = new Uint32Array(parts.reduce((sum, part) => sum + part.ends.length, 0));
  let value = 0;
  let feature = 0;
  for (const part of parts) {
    values.set(part.values, value);
    for (const end of part.ends) ends[feature++] = value + end;
    value += part.values.length;
  }
  return { ends, values };
}
