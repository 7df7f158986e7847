/** IDX files: images and their labels, two files that go together by their names. */
import { existsSync } from "node:fs";
import { MillraceError } from "../../../client/errors.js";
import { trainingInput } from "../../../client/learning.js";
import { functionRef } from "../../../functions/index.js";
import { moduleBeside } from "../../calling/module.js";
import type { BlockRef, Dataset, FeatureColumn } from "../dataset.js";
import type { FileName } from "./bytes.js";
import { type InputFiles, isGzip } from "./files.js";
import type { IdxBlock, IdxPair, IdxWrite, surveyIdx, writeIdxBlocks } from "./idx_calls.js";
import { labelPaths, ofRole } from "./idx_pairs.js";
import { chooseNumberLabel, mergeLabels } from "./labels.js";
import type { LoadOptions, LoadSurroundings } from "./options.js";
import { blockKey, cutRows, groupByWeight, rowsPerBlock } from "./plan.js";
import { runCalls } from "./run.js";

const CALLS = moduleBeside(import.meta.url, "idx_calls");
const SURVEY = functionRef<typeof surveyIdx>(CALLS, "surveyIdx");
const WRITE = functionRef<typeof writeIdxBlocks>(CALLS, "writeIdxBlocks");

/** Of the time that loading takes, what the survey does. */
const SURVEY_SHARE = 0.1;

export async function loadIdx(
  input: InputFiles,
  options: LoadOptions,
  surroundings: LoadSurroundings,
): Promise<Dataset> {
  const pairs = await findPairs(input, options);
  const surveys = await runCalls(surroundings, SURVEY, pairs, [0, SURVEY_SHARE]);
  const features = sameFeatures(pairs, surveys, options.like);
  const found = mergeLabels(
    surveys.flatMap(({ labels }) => (labels === null ? [] : [labels])),
    trainingInput().distinctLabelsMax,
  );
  const labelOptional = options.labelOptional ?? false;
  const { label, codes } = chooseNumberLabel(found, { ...options, labelOptional });
  const rows = surveys.reduce((sum, survey) => sum + survey.rows, 0);
  if (rows === 0)
    throw new MillraceError("INVALID_ARGUMENT", `there are no rows in ${options.paths.join(", ")}`);
  const { workers } = surroundings.executor;
  const size = rowsPerBlock(rows, features, workers);
  const blocks: BlockRef[] = [];
  const writes: IdxWrite[] = [];
  let before = 0;
  pairs.forEach((pair, i) => {
    const mine: IdxBlock[] = cutRows(surveys[i]?.rows ?? 0, size).map((range, k) => ({
      key: blockKey(options.prefix, blocks.length + k),
      firstRow: before + range.firstRow,
      firstItem: range.firstRow,
      rows: range.rows,
    }));
    // What is compressed has to be read from its beginning, by one call.
    const groups = pair.images.gzip ? [mine] : groupByWeight(mine, (block) => block.rows, workers);
    for (const group of groups) writes.push({ pair, features, codes, blocks: group });
    for (const { key, firstRow, rows: count } of mine) {
      const shape = { firstRow, rows: count, features, nonZeros: 0, sparse: false };
      blocks.push({ key, firstRow, rows: count, nonZeros: 0, bytes: trainingInput().blockBytes(shape) });
    }
    before += surveys[i]?.rows ?? 0;
  });
  await runCalls(surroundings, WRITE, writes, [SURVEY_SHARE, 1]);
  return {
    rows,
    features,
    sparse: false,
    columns: options.like?.columns ?? pixelColumns(features),
    label,
    blocks,
    bad: { count: 0, first: [] },
  };
}

async function findPairs({ files, found }: InputFiles, options: LoadOptions): Promise<IdxPair[]> {
  // One dimension is a list of numbers: labels, which come with their images.
  const images = files.filter((file) => file.head[3] !== 1);
  if (images.length === 0) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${files[0]?.path} holds labels alone: name the file of the images`,
    );
  }
  const chosen = ofRole(
    images.map((file) => ({ path: file.path, file, isFound: found.has(file) })),
    options.role,
  );
  const pairs: IdxPair[] = [];
  for (const { file } of chosen) {
    const labels = await findLabels(file.path);
    if (labels === null && options.labelOptional !== true) {
      const where = labelPaths(file.path);
      throw new MillraceError(
        "NOT_FOUND",
        where === null
          ? `nobody can tell where the labels of ${file.path} are: it should be called as train-images-idx3-ubyte is`
          : `the labels of ${file.path} are missing: they should be in ${where[0]}`,
      );
    }
    pairs.push({ images: { path: file.path, gzip: file.gzip }, labels });
  }
  return pairs;
}

async function findLabels(images: string): Promise<FileName | null> {
  for (const path of labelPaths(images) ?? []) {
    if (existsSync(path)) return { path, gzip: await isGzip(path) };
  }
  return null;
}

function sameFeatures(
  pairs: readonly IdxPair[],
  surveys: readonly { features: number }[],
  like: Dataset | null,
): number {
  const wanted = like?.features ?? surveys[0]?.features ?? 0;
  const other = surveys.findIndex(({ features }) => features !== wanted);
  if (other === -1) return wanted;
  throw new MillraceError(
    "INVALID_ARGUMENT",
    `${pairs[other]?.images.path} has ${surveys[other]?.features} values an item, and the ` +
      `${like === null ? `files before it ${wanted}` : `training data ${wanted}`}`,
  );
}

function pixelColumns(features: number): FeatureColumn[] {
  return Array.from({ length: features }, (_, i) => ({ name: `pixel${i}`, kind: "numeric", categories: [] }));
}
