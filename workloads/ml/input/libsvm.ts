/**
 * libsvm and svmlight files: sparse rows of text. Indices begin at 0 where any of the training data does, else at 1;
 * the columns are called by their indices, so that data to test is read alike.
 */
import { MillraceError } from "../../../client/errors.js";
import { type LibsvmOptions, type LibsvmSurvey, trainingInput } from "../../../client/learning.js";
import { functionRef } from "../../../functions/index.js";
import { moduleBeside } from "../../calling/module.js";
import type { BadRow, BlockRef, Dataset, FeatureColumn } from "../dataset.js";
import { BadRows } from "./bad_rows.js";
import type { InputFiles } from "./files.js";
import { chooseNumberLabel, mergeLabels } from "./labels.js";
import type { LibsvmBlock, LibsvmWrite, surveyLibsvm, TextPart, writeLibsvmBlocks } from "./libsvm_calls.js";
import type { LoadOptions, LoadSurroundings } from "./options.js";
import { blockKey, cutBytes, textBytesPerPiece } from "./plan.js";
import { runCalls } from "./run.js";

const CALLS = moduleBeside(import.meta.url, "libsvm_calls");
const SURVEY = functionRef<typeof surveyLibsvm>(CALLS, "surveyLibsvm");
const WRITE = functionRef<typeof writeLibsvmBlocks>(CALLS, "writeLibsvmBlocks");

/** Of the time that loading takes, what the survey does: both read all of the text. */
const SURVEY_SHARE = 0.45;

export async function loadLibsvm(
  { files }: InputFiles,
  options: LoadOptions,
  surroundings: LoadSurroundings,
): Promise<Dataset> {
  const { workers } = surroundings.executor;
  const { like } = options;
  const labelOptional = options.labelOptional ?? false;
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  const pieceBytes = textBytesPerPiece(total, workers);
  const parts = files.flatMap(({ path, gzip, bytes }): TextPart[] => {
    const file = { path, gzip };
    // What is compressed has to be read from its beginning, by one call.
    if (gzip) return [{ file, ranges: [], pieceBytes }];
    return cutBytes(bytes, pieceBytes).map((range) => ({ file, ranges: [range], pieceBytes }));
  });
  const reading: LibsvmOptions = {
    ...(like === null
      ? { indexBegin: 0, indexEnd: trainingInput().libsvmIndexMax + 1, skipBeyond: false }
      : likeTrained(like)),
    labelOptional,
  };
  const results = await runCalls(
    surroundings,
    SURVEY,
    parts.map((part) => ({ part, options: reading })),
    [0, SURVEY_SHARE],
  );
  const bad = checkPieces(parts, results);
  const pieces = results.flatMap((result) => result.pieces);
  const rows = pieces.reduce((sum, piece) => sum + piece.rows, 0);
  if (rows === 0) throw bad.noneGood(options.paths);
  const { label, codes } = chooseNumberLabel(
    mergeLabels(
      pieces.map(({ labels }) => labels),
      trainingInput().distinctLabelsMax,
    ),
    { ...options, labelOptional },
  );
  const indices = like === null ? indicesOf(pieces) : reading;
  const features = indices.indexEnd - indices.indexBegin;
  const blocks: BlockRef[] = [];
  let firstRow = 0;
  const writes = parts.map((part, i): LibsvmWrite => {
    const mine = (results[i]?.pieces ?? []).map(({ rows: count, nonZeros }): LibsvmBlock => {
      if (count === 0) return null;
      const key = blockKey(options.prefix, blocks.length);
      const block = { key, firstRow, rows: count, nonZeros };
      blocks.push({
        ...block,
        bytes: trainingInput().blockBytes({ firstRow, rows: count, features, nonZeros, sparse: true }),
      });
      firstRow += count;
      return block;
    });
    return { part, options: { ...reading, ...indices }, features, codes, blocks: mine };
  });
  await runCalls(surroundings, WRITE, writes, [SURVEY_SHARE, 1]);
  return {
    rows,
    features,
    sparse: true,
    columns: like?.columns ?? indexColumns(indices),
    label,
    blocks,
    bad: bad.result(),
  };
}

type Indices = Pick<LibsvmOptions, "indexBegin" | "indexEnd">;

/** Indices above those of the training data are nothing that a model knows. */
function likeTrained({ columns, sparse }: Dataset): Indices & { skipBeyond: boolean } {
  const begin = Number(columns[0]?.name ?? "1");
  if (!sparse || (begin !== 0 && begin !== 1)) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      "this is libsvm, and the training data was of another format",
    );
  }
  return { indexBegin: begin, indexEnd: begin + columns.length, skipBeyond: true };
}

function indicesOf(pieces: readonly LibsvmSurvey[]): Indices {
  let lowest = 1;
  let highest = 0;
  for (const { indexLowest, indexHighest } of pieces) {
    lowest = Math.min(lowest, indexLowest ?? 1);
    highest = Math.max(highest, indexHighest ?? 0);
  }
  // Where all rows are empty there are no features.
  const any = pieces.some(({ indexHighest }) => indexHighest !== null);
  return { indexBegin: lowest, indexEnd: any ? highest + 1 : lowest };
}

function indexColumns({ indexBegin, indexEnd }: Indices): FeatureColumn[] {
  return Array.from({ length: indexEnd - indexBegin }, (_, i) => ({
    name: String(indexBegin + i),
    kind: "numeric",
    categories: NO_CATEGORIES,
  }));
}

/** One for all: there may be millions of columns. */
const NO_CATEGORIES: readonly string[] = [];

/** Gathers bad rows, whose lines are told from where a piece begins. CORRUPT, with line and column, for a fault. */
function checkPieces(parts: readonly TextPart[], results: readonly { pieces: LibsvmSurvey[] }[]): BadRows {
  const bad = new BadRows();
  let file = "";
  let linesBefore = 0;
  parts.forEach((part, i) => {
    if (part.file.path !== file) linesBefore = 0;
    file = part.file.path;
    for (const piece of results[i]?.pieces ?? []) {
      const placed = piece.bad.map(
        ({ line, column, why }): BadRow => ({ file, line: linesBefore + line, column, why }),
      );
      bad.add(piece.badCount, placed);
      if (piece.fault !== null) {
        const { line, column, why } = piece.fault;
        throw new MillraceError(
          "CORRUPT",
          `${file} is damaged at line ${linesBefore + line}, column ${column}: ${why}`,
        );
      }
      linesBefore += piece.lines;
    }
  });
  return bad;
}
