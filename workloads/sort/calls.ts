/** What function workers run: sample, map, reduce. Their arguments are small; plans lie in the namespace. */

import { MillraceError } from "../../client/errors.js";
import type { ByteSpan, Namespace } from "../../client/index.js";
import { kernels } from "../../client/kernels.js";
import type { CallContext } from "../../functions/index.js";
import { type CallReport, CallWatch } from "../calling/call_report.js";
import { attemptOf, type Exchange, type MapOutput, type PartitionExtents } from "../stores/exchange.js";
import { openExchange } from "../stores/open.js";
import { takeRecordBuffer } from "./buffers.js";
import { fillSplit, fillStretches } from "./input.js";
import { writePart } from "./output.js";
import type { SamplePlan, SortPlan } from "./plan.js";
import {
  EMPTY_SUMMARY,
  joinSummaries,
  KEY_BYTES,
  RECORD_BYTES,
  type StretchSummary,
  toStretchSummary,
  totalOf,
} from "./records.js";

export interface SampleArgument {
  /** Key of the `SamplePlan`. */
  plan: string;
  /** Which share of the stretches: those whose number leaves this remainder by the number of calls. */
  call: number;
}

export interface SampleResult extends CallReport {
  /** Keys, one after another. */
  keys: Uint8Array;
}

export interface MapArgument {
  /** Key of the `SortPlan`. */
  plan: string;
  /** Splits, each of which becomes a map output of the same number. */
  first: number;
  count: number;
  /** How often the driver has asked for these map outputs: above 0 after they were lost. */
  round: number;
}

export interface MapResult extends CallReport {
  /** Of the splits together. */
  records: number;
  checksum: string;
}

export interface ReduceArgument {
  /** Key of the `SortPlan`. */
  plan: string;
  first: number;
  count: number;
}

export interface ReduceResult extends CallReport {
  /** Of the partitions together, in their order. */
  summary: StretchSummary;
  /** Of each partition. */
  sizesBytes: number[];
  /** Of all of them, what came out of files of the nvme tier. */
  nvmeBytes: number;
  /** How the bytes came: see `Exchange.transport`. */
  transport: string;
}

export interface WarmArgument {
  /** Bytes of the record buffer to have ready. */
  recordBytes: number;
}

/** Gets a function worker ready: connection, kernels, and memory that has been touched. */
export async function warmFunctionWorker(argument: WarmArgument, context: CallContext): Promise<void> {
  kernels();
  await context.namespace();
  takeRecordBuffer(argument.recordBytes).fill(0);
}

/** Keys of the records at the stretches of this call. */
export async function sampleInput(argument: SampleArgument, context: CallContext): Promise<SampleResult> {
  const call = new CallWatch(context);
  const plan = await call.time("exchange", async () =>
    readPlan<SamplePlan>(await context.namespace(), argument.plan),
  );
  const mine = plan.stretches.filter((_, i) => i % plan.calls === argument.call);
  const records = mine.reduce((sum, [, count]) => sum + count, 0);
  const buffer = takeRecordBuffer(records * RECORD_BYTES);
  await call.time("input", () => fillStretches(plan.input, mine, buffer, kernels().generateRecords));
  const keys = await call.time("compute", () =>
    kernels().sampleKeys(RECORD_BYTES, KEY_BYTES, buffer, records, 0),
  );
  return { ...call.report(), keys };
}

/**
 * Reads or makes some neighbouring splits and leaves the records of each in the exchange, partition by partition.
 * Room for an output is asked for while its input is read, and an output is committed while the next is made.
 */
export async function mapSplits(argument: MapArgument, context: CallContext): Promise<MapResult> {
  const call = new CallWatch(context);
  const { plan, exchange } = await call.time("exchange", () => openRun(argument.plan, context));
  const attempt = attemptOf(argument.round, context.attempt);
  const summaries: StretchSummary[] = [];
  let committed = Promise.resolve();
  try {
    for (let map = argument.first; map < argument.first + argument.count; map += 1) {
      context.signal.throwIfAborted();
      const split = plan.splits[map];
      if (split === undefined) throw new MillraceError("INTERNAL", `the plan has no split ${map}`);
      const sizeBytes = split.records * RECORD_BYTES;
      const opening = exchange.openOutput(map, attempt, sizeBytes);
      // A failure is seen below, after what comes first.
      opening.catch(() => undefined);
      const output = new PendingOutput(opening);
      try {
        const records = takeRecordBuffer(sizeBytes);
        await call.time("input", () => fillSplit(split, records, kernels().generateRecords));
        const summary = await call.time("compute", () =>
          kernels().checkRecords(RECORD_BYTES, KEY_BYTES, records, { ordered: false }),
        );
        const { buffer } = await call.time("exchange", () => opening);
        const { offsets, checksums } = await call.time("compute", () =>
          kernels().partitionRecords(RECORD_BYTES, KEY_BYTES, records, splittersOf(plan), buffer),
        );
        summaries.push(toStretchSummary(summary));
        await call.time("exchange", () => committed);
        committed = output.commit(offsets, checksums);
        committed.catch(() => undefined);
      } catch (error) {
        await output.abort();
        throw error;
      }
      context.progress(summaries.length / argument.count);
    }
  } finally {
    // No commit may come after the end of its call.
    await call.time("exchange", () => committed.catch(() => undefined));
  }
  await committed;
  return { ...call.report(), ...totalOf(summaries) };
}

/** A map output that is perhaps not open yet. */
class PendingOutput {
  readonly #opening: Promise<MapOutput>;

  constructor(opening: Promise<MapOutput>) {
    this.#opening = opening;
  }

  async commit(offsets: Float64Array, checksums: Uint32Array): Promise<void> {
    const output = await this.#opening;
    try {
      await output.commit(offsets, checksums);
    } catch (error) {
      await output.abort().catch(() => undefined);
      throw error;
    }
  }

  async abort(): Promise<void> {
    await this.#opening.then((output) => output.abort()).catch(() => undefined);
  }
}

/** Sorts some neighbouring partitions and writes them out, if anywhere. */
export async function reducePartitions(
  argument: ReduceArgument,
  context: CallContext,
): Promise<ReduceResult> {
  const call = new CallWatch(context);
  const { plan, exchange } = await call.time("exchange", () => openRun(argument.plan, context));
  const end = argument.first + argument.count;
  const sizesBytes: number[] = [];
  let nvmeBytes = 0;
  let summary = EMPTY_SUMMARY;
  for await (const { partition, found } of readAhead(exchange, argument.first, end, call)) {
    context.signal.throwIfAborted();
    const { sizeBytes } = found;
    const sorted = takeRecordBuffer(sizeBytes);
    const checked = await call.time("compute", async () => {
      await sortExtents(exchange, found, sorted);
      return kernels().checkRecords(RECORD_BYTES, KEY_BYTES, sorted, { ordered: true });
    });
    summary = joinSummaries(summary, toStretchSummary(checked));
    sizesBytes.push(sizeBytes);
    nvmeBytes += found.nvmeBytes ?? 0;
    const { output } = plan;
    if (output !== null) {
      await call.time("output", () =>
        writePart(output, partition, `${context.attempt}.${context.workerId}`, sorted),
      );
    }
    context.progress(sizesBytes.length / argument.count);
  }
  return { ...call.report(), summary, sizesBytes, nvmeBytes, transport: exchange.transport };
}

/** Partitions asked for ahead of the one in hand: the round trips of two are hidden behind the sorting of one. */
const READ_AHEAD = 2;

/** Partitions one after another, the next ones being on their way. */
async function* readAhead(
  exchange: Exchange,
  first: number,
  end: number,
  watch: CallWatch,
): AsyncGenerator<{ partition: number; found: PartitionExtents }, void, undefined> {
  const underWay: Promise<PartitionExtents>[] = [];
  let next = first;
  await watch.time("exchange", async () => exchange.expectPartitions?.(first, end - first));
  try {
    for (let partition = first; partition < end; partition += 1) {
      for (; next < end && next <= partition + READ_AHEAD; next += 1) {
        const reading = exchange.readPartition(next);
        // A failure is the call's only when its turn comes.
        reading.catch(() => undefined);
        underWay.push(reading);
      }
      const found = await watch.time("exchange", () => underWay.shift() as Promise<PartitionExtents>);
      yield { partition, found };
    }
  } finally {
    // What they find lost must be reported before the call ends, and not when it has been made again.
    await Promise.allSettled(underWay);
  }
}

async function sortExtents(exchange: Exchange, found: PartitionExtents, sorted: Uint8Array): Promise<void> {
  const { maps, extents, checksums } = found;
  try {
    await kernels().sortRecords(RECORD_BYTES, KEY_BYTES, extents, checksums, sorted);
  } catch (error) {
    if (MillraceError.from(error).code !== "CHECKSUM_MISMATCH") throw error;
    const lost = maps.filter((_, i) => kernels().crc32c(0, extents[i] as ByteSpan) !== checksums[i]);
    throw await exchange.reportLost(lost);
  } finally {
    // A span would hold its segment until it is collected.
    for (const extent of extents) if ("release" in extent) extent.release();
  }
}

interface Run {
  plan: SortPlan;
  exchange: Exchange;
}

/** A cache, and of one run only: a pool of function workers may serve many, one after another. */
let current: { key: string; run: Promise<Run> } | null = null;
let splitters: { of: SortPlan; bytes: Uint8Array } | null = null;

async function openRun(planKey: string, context: CallContext): Promise<Run> {
  const key = `${context.endpoint}/${context.namespaceName}/${planKey}`;
  if (current?.key === key) return current.run;
  const before = current;
  const run = (async () => {
    await before?.run.then((last) => last.exchange.close()).catch(() => undefined);
    const namespace = await context.namespace();
    const plan = await readPlan<SortPlan>(namespace, planKey);
    return { plan, exchange: await openExchange(plan.store, plan.exchange, namespace) };
  })();
  current = { key, run };
  run.catch(() => {
    if (current?.key === key) current = null;
  });
  return run;
}

function splittersOf(plan: SortPlan): Uint8Array {
  if (splitters?.of !== plan) splitters = { of: plan, bytes: Buffer.from(plan.splitters, "base64") };
  return splitters.bytes;
}

async function readPlan<T>(namespace: Namespace, key: string): Promise<T> {
  const bytes = await namespace.get(key);
  if (bytes === null)
    throw new MillraceError("NOT_FOUND", `the plan ${key} is not in namespace ${namespace.name}`);
  return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8")) as T;
}
