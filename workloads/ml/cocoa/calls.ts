/** What function workers run: deal rows out, improve partitions, look at how good a model is. Arguments are small. */
import { MillraceError } from "../../../client/errors.js";
import type { Namespace } from "../../../client/index.js";
import { type DealOptions, learning } from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { type CallReport, CallWatch } from "../../calling/call_report.js";
import { type CocoaPlan, keys, orderSeed, type PartitionRange } from "./plan.js";

const DOUBLE_BYTES = 8;
const NO_SUMS: PartitionSums = { loss: 0, dual: 0, right: 0, absolute: 0, steepest: 0 };

export interface DealArgument extends PartitionRange {
  run: string;
}

export interface DealResult extends CallReport {
  /** Of each partition's block. */
  sizesBytes: number[];
  /** Numbers of the model that a partition's delta has. */
  modelSize: number;
}

export interface RoundArgument extends PartitionRange {
  run: string;
  round: number;
}

/** Of the model as it came in. */
export interface RoundResult extends CallReport {
  /**
   * Of each partition of the call. They are added up by the driver, in the order of the partitions: so that not even the
   * last bit of a gap depends on how partitions were shared out.
   */
  sums: PartitionSums[];
  bytesIn: number;
  bytesOut: number;
}

/** With L2 `loss`, `dual` and `right` count, of the lasso `absolute` and `steepest`: see the kernels. */
export interface PartitionSums {
  loss: number;
  dual: number;
  right: number;
  absolute: number;
  steepest: number;
}

export interface MetricsArgument {
  run: string;
  round: number;
  /** Keys of blocks of rows that the model was not trained on. */
  blocks: readonly string[];
}

export interface MetricsResult extends CallReport {
  rows: number;
  loss: number;
  right: number;
  squaredError: number;
}

/** Loads what a function worker needs, and its connection. */
export async function warmCocoa(_: null, context: CallContext): Promise<void> {
  learning();
  await context.namespace();
}

/** Makes the blocks of some partitions, and their variables before the first round: zeros. */
export async function dealPartitions(argument: DealArgument, context: CallContext): Promise<DealResult> {
  const watch = new CallWatch(context);
  const namespace = await context.namespace();
  const plan = await planOf(namespace, argument.run);
  const blocks = await watch.time("exchange", () => readAll(namespace, plan.blocks));
  const deal = dealOf(plan);
  const sizesBytes: number[] = [];
  let modelSize = 0;
  if (plan.penalty === "l1" && argument.first === 0) {
    const bytes = plan.rows * DOUBLE_BYTES;
    await write(namespace, keys.labels(plan.run), bytes, (out) => learning().dealLabels(deal, blocks, out));
  }
  for (let k = argument.first; k < argument.first + argument.count; k += 1) {
    context.signal.throwIfAborted();
    const shape = await watch.time("compute", () =>
      plan.penalty === "l2"
        ? learning().dealtShape(deal, k, blocks)
        : learning().dealtFeaturesShape(deal, k, blocks, plan.rows),
    );
    await watch.time("compute", () =>
      write(namespace, keys.part(plan.run, k), shape.bytes, (out) =>
        plan.penalty === "l2"
          ? learning().dealRows(deal, k, blocks, out)
          : learning().dealFeatures(deal, k, blocks, plan.rows, out),
      ),
    );
    await watch.time("exchange", () =>
      namespace.put(keys.variables(plan.run, 0, k), new Uint8Array(shape.rows * DOUBLE_BYTES)),
    );
    sizesBytes.push(shape.bytes);
    modelSize = shape.features;
    context.progress(sizesBytes.length / argument.count);
  }
  return { ...watch.report(), sizesBytes, modelSize };
}

/** One round over some partitions. */
export async function improvePartitions(argument: RoundArgument, context: CallContext): Promise<RoundResult> {
  const watch = new CallWatch(context);
  const namespace = await context.namespace();
  const plan = await planOf(namespace, argument.run);
  const { round } = argument;
  const model = await watch.time("input", () => read(namespace, keys.model(plan.run, round)));
  const sums: PartitionSums[] = [];
  let bytesIn = model.length;
  let bytesOut = 0;
  for (let k = argument.first; k < argument.first + argument.count; k += 1) {
    context.signal.throwIfAborted();
    const [block, before] = await watch.time("exchange", () =>
      Promise.all([
        read(namespace, keys.part(plan.run, k)),
        read(namespace, keys.variables(plan.run, round, k)),
      ]),
    );
    const [after, delta] = await watch.time("output", () =>
      Promise.all([
        namespace.openWriter(keys.variables(plan.run, round + 1, k), { sizeBytes: before.length }),
        namespace.openWriter(keys.delta(plan.run, round + 1, k), { sizeBytes: model.length }),
      ]),
    );
    try {
      const [afterBytes, deltaBytes] = await watch.time("output", () =>
        Promise.all([reserve(after, before.length), reserve(delta, model.length)]),
      );
      const { lambda, sigma, gamma, passes } = plan;
      const seed = orderSeed(plan, round, k);
      await watch.time("compute", async () => {
        if (plan.penalty === "l2") {
          const problem = { loss: plan.loss, lambda, rows: plan.rows, sigma, gamma, passes, seed };
          const found = await learning().dualAscent(problem, block, model, before, afterBytes, deltaBytes);
          sums.push({ ...NO_SUMS, ...found });
        } else {
          const problem = { lambda, sigma, gamma, passes, seed };
          const found = await learning().lassoDescent(problem, block, model, before, afterBytes, deltaBytes);
          const { absolute, steepest } = found;
          sums.push({ ...NO_SUMS, absolute, steepest });
        }
      });
      await watch.time("output", () => Promise.all([after.seal(), delta.seal()]));
      bytesIn += before.length;
      bytesOut += afterBytes.length + deltaBytes.length;
    } catch (error) {
      await Promise.allSettled([after.abort(), delta.abort()]);
      throw error;
    }
  }
  return { ...watch.report(), sums, bytesIn, bytesOut };
}

/** How good the model of a round is on rows that it has not seen. */
export async function measureRows(argument: MetricsArgument, context: CallContext): Promise<MetricsResult> {
  const watch = new CallWatch(context);
  const namespace = await context.namespace();
  const plan = await planOf(namespace, argument.run);
  const model = await read(namespace, keys.model(plan.run, argument.round));
  const sums = { rows: 0, loss: 0, right: 0, squaredError: 0 };
  for (const key of argument.blocks) {
    context.signal.throwIfAborted();
    const block = await watch.time("exchange", () => read(namespace, key));
    await watch.time("compute", async () => {
      const { rows, bytes } = await dealInOrder(dealOf(plan), block);
      const found = await learning().linearMetrics(plan.loss, bytes, model);
      sums.rows += rows;
      sums.loss += found.loss;
      sums.right += found.right;
      sums.squaredError += found.squaredError;
    });
  }
  return { ...watch.report(), ...sums };
}

/** The rows of a block as a linear model wants them, in their order, in memory of this process. */
export async function dealInOrder(
  deal: DealOptions,
  block: Uint8Array,
): Promise<{ rows: number; bytes: Uint8Array }> {
  const all = { ...deal, partitions: 1, inOrder: true };
  const shape = await learning().dealtShape(all, 0, [block]);
  const bytes = new Uint8Array(shape.bytes);
  await learning().dealRows(all, 0, [block], bytes);
  return { rows: shape.rows, bytes };
}

export function dealOf(
  plan: Pick<CocoaPlan, "partitions" | "seed" | "widths" | "unitRows" | "intercept" | "positive">,
): DealOptions {
  return {
    partitions: plan.partitions,
    seed: plan.seed,
    widths: Uint32Array.from(plan.widths),
    unitRows: plan.unitRows,
    intercept: plan.intercept,
    inOrder: false,
    positive: plan.positive,
  };
}

/** A cache, and of one run only: a pool of function workers may serve many, one after another. */
let current: { run: string; plan: Promise<CocoaPlan> } | null = null;

function planOf(namespace: Namespace, run: string): Promise<CocoaPlan> {
  if (current?.run === run) return current.plan;
  const plan = read(namespace, keys.plan(run)).then(
    (bytes) => JSON.parse(Buffer.from(bytes).toString("utf8")) as CocoaPlan,
  );
  current = { run, plan };
  plan.catch(() => {
    if (current?.plan === plan) current = null;
  });
  return plan;
}

async function read(namespace: Namespace, key: string): Promise<Uint8Array> {
  const bytes = await namespace.get(key);
  if (bytes === null) throw new MillraceError("NOT_FOUND", `${key} is not in namespace ${namespace.name}`);
  return bytes;
}

function readAll(namespace: Namespace, wanted: readonly string[]): Promise<Uint8Array[]> {
  return Promise.all(wanted.map((key) => read(namespace, key)));
}

type Writer = Awaited<ReturnType<Namespace["openWriter"]>>;

/** Nothing can be reserved where there is nothing to write. */
async function reserve(writer: Writer, bytes: number): Promise<Uint8Array> {
  return bytes === 0 ? new Uint8Array(0) : writer.reserve(bytes);
}

/** Writes one object in place. */
async function write(
  namespace: Namespace,
  key: string,
  bytes: number,
  fill: (out: Uint8Array) => Promise<void>,
): Promise<void> {
  const writer = await namespace.openWriter(key, { sizeBytes: bytes });
  try {
    await fill(await reserve(writer, bytes));
    await writer.seal();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}
