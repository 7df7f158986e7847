/** What function workers do with libsvm files. */
import { MillraceError } from "../../../client/errors.js";
import {
  type LabelCodes,
  type LibsvmOptions,
  type LibsvmSurvey,
  trainingInput,
} from "../../../client/learning.js";
import type { CallContext } from "../../../functions/index.js";
import { type CallReport, CallWatch } from "../../calling/call_report.js";
import type { FileName } from "./bytes.js";
import { readPieces } from "./pieces.js";
import type { ByteRange } from "./plan.js";
import { writeObject } from "./write_block.js";

/** Which text a call reads. Of a compressed file all of it, in pieces of about `pieceBytes`. */
export interface TextPart {
  file: FileName;
  ranges: ByteRange[];
  pieceBytes: number;
}

export interface LibsvmSurveyArgument {
  part: TextPart;
  options: LibsvmOptions;
}

export interface LibsvmSurveyResult extends CallReport {
  /** Of each piece, in order. */
  pieces: LibsvmSurvey[];
}

/** A piece that becomes a block, or null for one without rows. */
export type LibsvmBlock = { key: string; firstRow: number; rows: number; nonZeros: number } | null;

export interface LibsvmWrite {
  part: TextPart;
  options: LibsvmOptions;
  features: number;
  codes: LabelCodes | null;
  /** Of each piece, in order. */
  blocks: LibsvmBlock[];
}

/** Counts rows and finds labels, indices and what is wrong, piece by piece up to the first fault. */
export async function surveyLibsvm(
  { part, options }: LibsvmSurveyArgument,
  context: CallContext,
): Promise<LibsvmSurveyResult> {
  const watch = new CallWatch(context);
  const pieces: LibsvmSurvey[] = [];
  const texts = readPieces(part.file, part.ranges, part.pieceBytes);
  for (;;) {
    context.signal.throwIfAborted();
    const { done, value: text } = await watch.time("input", () => texts.next());
    if (done === true) break;
    const survey = await watch.time("compute", () => trainingInput().surveyLibsvm(text, options));
    pieces.push(survey);
    if (survey.fault !== null) {
      await texts.return();
      break;
    }
  }
  return { ...watch.report(), pieces };
}

/** Makes a block of each piece that has rows. */
export async function writeLibsvmBlocks(argument: LibsvmWrite, context: CallContext): Promise<CallReport> {
  const watch = new CallWatch(context);
  const { part, options, features, codes, blocks } = argument;
  const namespace = await watch.time("exchange", () => context.namespace());
  const texts = readPieces(part.file, part.ranges, part.pieceBytes);
  let piece = 0;
  for (;;) {
    context.signal.throwIfAborted();
    const { done, value: text } = await watch.time("input", () => texts.next());
    if (done === true) break;
    const block = blocks[piece];
    piece += 1;
    if (block === undefined) {
      await texts.return();
      throw changed(part.file);
    }
    if (block === null) continue;
    const { key, firstRow, rows, nonZeros } = block;
    const shape = { firstRow, rows, features, nonZeros, sparse: true };
    await watch.time("compute", () =>
      writeObject(namespace, key, trainingInput().blockBytes(shape), (out) =>
        trainingInput().writeLibsvmBlock(text, options, shape, codes, out),
      ),
    );
    context.progress(piece / blocks.length);
  }
  if (piece !== blocks.length) throw changed(part.file);
  return watch.report();
}

function changed({ path }: FileName): MillraceError {
  return new MillraceError("ABORTED", `${path} has changed while it was being read`);
}
