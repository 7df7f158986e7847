/** What function workers do with IDX files. */
import { stat } from "node:fs/promises";
import { MillraceError } from "../../../client/errors.js";
import type { Namespace } from "../../../client/index.js";
import { type LabelCodes, type LabelSurvey, trainingInput } from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { type CallReport, CallWatch } from "../../calling/call_report.js";
import { type ByteSource, type FileName, fileError, openBytes } from "./bytes.js";
import { writeObject } from "./write_block.js";

export interface IdxPair {
  images: FileName;
  /** Null: there are none. */
  labels: FileName | null;
}

export interface IdxSurvey extends CallReport {
  rows: number;
  features: number;
  /** Null: there are none. */
  labels: LabelSurvey | null;
}

export interface IdxBlock {
  key: string;
  /** Of all files. */
  firstRow: number;
  /** Of this file. */
  firstItem: number;
  rows: number;
}

export interface IdxWrite {
  pair: IdxPair;
  features: number;
  codes: LabelCodes | null;
  /** Neighbours. */
  blocks: IdxBlock[];
}

interface OpenIdx {
  file: FileName;
  head: Buffer;
  items: number;
  features: number;
  headerBytes: number;
  valueBytes: number;
}

/** Reads the headers and the labels of a pair of files. CORRUPT where they do not go together. */
export async function surveyIdx(pair: IdxPair, context: CallContext): Promise<IdxSurvey> {
  const watch = new CallWatch(context);
  const images = await watch.time("input", () => openIdx(pair.images));
  if (pair.labels === null)
    return { ...watch.report(), rows: images.items, features: images.features, labels: null };
  const labels = await watch.time("input", () => openIdx(pair.labels as FileName));
  if (labels.features !== 1) {
    throw new MillraceError(
      "CORRUPT",
      `${pair.labels.path} has ${labels.features} values an item and so no labels`,
    );
  }
  if (labels.items !== images.items) {
    throw new MillraceError(
      "CORRUPT",
      `${pair.images.path} holds ${images.items} items and ${pair.labels.path} ${labels.items} labels`,
    );
  }
  const values = await watch.time("input", () => readItems(labels, 0, labels.items));
  const survey = await watch.time("compute", () => trainingInput().surveyIdxLabels(labels.head, values));
  return { ...watch.report(), rows: images.items, features: images.features, labels: survey };
}

/** Makes neighbouring blocks of one pair of files. */
export async function writeIdxBlocks(argument: IdxWrite, context: CallContext): Promise<CallReport> {
  const watch = new CallWatch(context);
  const { pair, blocks } = argument;
  const first = blocks[0];
  if (first === undefined) return watch.report();
  const images = await watch.time("input", () => openIdx(pair.images));
  const labels =
    pair.labels === null ? null : await watch.time("input", () => openIdx(pair.labels as FileName));
  const namespace = await watch.time("exchange", () => context.namespace());
  const items = await watch.time("input", () => startAt(images, first.firstItem));
  const read = (block: IdxBlock): Promise<Buffer> => {
    const reading = items.read(block.rows * itemBytes(images));
    // A failure is seen when its turn comes.
    reading.catch(() => undefined);
    return reading;
  };
  let done = 0;
  // What is compressed is unpacked by one call, which so reads the next block while it writes one.
  let next = read(first);
  try {
    for (const block of blocks) {
      context.signal.throwIfAborted();
      const values = await watch.time("input", () => next);
      if (values.length !== block.rows * itemBytes(images)) throw tooShort(images);
      done += 1;
      const following = blocks[done];
      if (following !== undefined) next = read(following);
      const labelValues =
        labels === null
          ? Buffer.alloc(0)
          : await watch.time("input", () => readItems(labels, block.firstItem, block.rows));
      await watch.time("compute", () =>
        writeBlock(namespace, argument, block, images, values, labels, labelValues),
      );
      context.progress(done / blocks.length);
    }
    const last = blocks.at(-1) as IdxBlock;
    if (last.firstItem + last.rows === images.items && (await items.read(1)).length > 0)
      throw tooLong(images);
  } finally {
    await next.catch(() => undefined);
    await items.close();
  }
  return watch.report();
}

async function writeBlock(
  namespace: Namespace,
  { features, codes }: IdxWrite,
  block: IdxBlock,
  images: OpenIdx,
  values: Buffer,
  labels: OpenIdx | null,
  labelValues: Buffer,
): Promise<void> {
  const shape = { firstRow: block.firstRow, rows: block.rows, features, nonZeros: 0, sparse: false };
  await writeObject(namespace, block.key, trainingInput().blockBytes(shape), (out) =>
    trainingInput().writeIdxBlock(shape, images.head, values, labels?.head ?? null, labelValues, codes, out),
  );
}

async function openIdx(file: FileName): Promise<OpenIdx> {
  const source = await openBytes(file);
  let head: Buffer;
  try {
    head = await source.read(trainingInput().idxHeaderBytesMax);
  } finally {
    await source.close();
  }
  try {
    const { dimensions, headerBytes, valueBytes, features } = trainingInput().idxHeader(head);
    const open = { file, head, items: dimensions[0] as number, features, headerBytes, valueBytes };
    if (!file.gzip) await checkSize(open);
    return open;
  } catch (thrown) {
    const error = MillraceError.from(thrown);
    if (error.message.startsWith(file.path)) throw error;
    throw new MillraceError(error.code, `${file.path} cannot be read as IDX: ${error.message}`, {
      cause: error,
    });
  }
}

async function checkSize(idx: OpenIdx): Promise<void> {
  const { size } = await stat(idx.file.path).catch((error: unknown) => {
    throw fileError(idx.file.path, error);
  });
  const wanted = idx.headerBytes + idx.items * itemBytes(idx);
  if (size < wanted) throw tooShort(idx);
  if (size > wanted) throw tooLong(idx);
}

function itemBytes({ features, valueBytes }: OpenIdx): number {
  return features * valueBytes;
}

/** Bytes that a skip reads at a time. */
const SKIP_BYTES = 1024 * 1024;

async function startAt(idx: OpenIdx, item: number): Promise<ByteSource> {
  const offset = idx.headerBytes + item * itemBytes(idx);
  if (!idx.file.gzip) return openBytes(idx.file, offset);
  const source = await openBytes(idx.file);
  try {
    for (let left = offset; left > 0; ) {
      const skipped = await source.read(Math.min(left, SKIP_BYTES));
      if (skipped.length === 0) throw tooShort(idx);
      left -= skipped.length;
    }
    return source;
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readItems(idx: OpenIdx, first: number, count: number): Promise<Buffer> {
  const source = await startAt(idx, first);
  try {
    const bytes = await source.read(count * itemBytes(idx));
    if (bytes.length !== count * itemBytes(idx)) throw tooShort(idx);
    if (first + count === idx.items && (await source.read(1)).length > 0) throw tooLong(idx);
    return bytes;
  } finally {
    await source.close();
  }
}

function tooShort({ file, items }: OpenIdx): MillraceError {
  return new MillraceError(
    "CORRUPT",
    `${file.path} ends before the last of the ${items} items that it announces`,
  );
}

function tooLong({ file, items }: OpenIdx): MillraceError {
  return new MillraceError("CORRUPT", `${file.path} goes on behind the ${items} items that it announces`);
}
