/**
 * What to sort: `gen:N[,skew]`, files, directories, objects. Checked whole before any work starts, then cut into
 * splits, each the input of one map call.
 */
import { MillraceError } from "../../client/errors.js";
import { type FileSource, type FileStretch, listFiles, readFileStretches } from "./input_files.js";
import type { ObjectSource, ObjectStretch } from "./input_objects.js";
import { RECORD_BYTES } from "./records.js";

/** What records lie in, one after another; plain data that travels to function workers. */
export type Source = FileSource | ObjectSource;

/** A stretch of a source: whole records. */
export interface Piece {
  source: Source;
  offsetBytes: number;
  sizeBytes: number;
}

/** The input of one map call. */
export type Split =
  | { kind: "generated"; firstRecord: number; records: number; skewed: boolean }
  | { kind: "stored"; records: number; pieces: Piece[] };

export type SortInput =
  | { kind: "generated"; records: number; skewed: boolean }
  | { kind: "stored"; records: number; sources: Source[] };

/** 2^40 records are 100 TB: far beyond what fits, and still exact in a JavaScript number of bytes. */
const RECORDS_MAX = 2 ** 40;

/**
 * Reads what `--input` names. INVALID_ARGUMENT where the words themselves are wrong, NOT_FOUND, CORRUPT (not
 * whole records), SYSTEM (unreadable) where the input is, UNAUTHENTICATED or UNAVAILABLE where S3 is in the way.
 */
export async function openInput(words: readonly string[]): Promise<SortInput> {
  const generated = words.filter((word) => word.startsWith("gen:"));
  if (words.length === 0) {
    throw new MillraceError("INVALID_ARGUMENT", `say what to sort: ${INPUT_KINDS}`);
  }
  if (generated.length > 0) {
    if (words.length > 1) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        "gen:N is an input of its own: it cannot be mixed with other inputs",
      );
    }
    return parseGenerated(words[0] as string);
  }
  const sources: Source[] = [];
  for (const word of words) sources.push(...(await listSources(word)));
  let records = 0;
  for (const source of sources) {
    if (source.sizeBytes % RECORD_BYTES !== 0) {
      const name = source.kind === "file" ? source.path : `s3://${source.bucket}/${source.key}`;
      throw new MillraceError(
        "CORRUPT",
        `${name} is ${source.sizeBytes} bytes, which is not a whole number of ${RECORD_BYTES}-byte records`,
      );
    }
    records += source.sizeBytes / RECORD_BYTES;
  }
  if (records > RECORDS_MAX) {
    throw new MillraceError("INVALID_ARGUMENT", `${records} records are more than ${RECORDS_MAX}`);
  }
  return { kind: "stored", records, sources: sources.filter((source) => source.sizeBytes > 0) };
}

const INPUT_KINDS = "--input gen:N, a file, a directory, or s3://BUCKET/KEY-OR-PREFIX";

async function listSources(word: string): Promise<Source[]> {
  // The SDK is large: loaded only where it is asked for.
  if (word.startsWith("s3://")) return (await import("./input_objects.js")).listObjects(word);
  if (/^[a-z][a-z0-9+.-]*:\/\//.test(word)) {
    throw new MillraceError("INVALID_ARGUMENT", `no input of this kind: ${word}; give ${INPUT_KINDS}`);
  }
  return listFiles(word);
}

function parseGenerated(word: string): SortInput {
  const match = /^gen:(\d{1,13})(,skew)?$/.exec(word);
  const records = match === null ? Number.NaN : Number(match[1]);
  if (match === null || records > RECORDS_MAX) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${word} is no input: gen:N makes N records (at most ${RECORDS_MAX}), gen:N,skew makes them with skewed keys`,
    );
  }
  return { kind: "generated", records, skewed: match[2] !== undefined };
}

/**
 * Sizes of splits, in records: full ones first, then smaller and smaller, so that the function workers end their
 * last calls close together whatever the speed of each. At least `workers` of them where there are that many
 * records.
 */
export function splitSizes(
  records: number,
  workers: number,
  recordsMax: number,
  recordsMin: number,
): number[] {
  const sizes: number[] = [];
  let left = records;
  while (left > 0) {
    const fair = Math.ceil(left / (2 * workers));
    // The first round gives every function worker one; the floor must not take that away from small inputs.
    const floor = Math.min(recordsMin, Math.ceil(records / workers));
    let size = Math.min(left, recordsMax, Math.max(fair, floor));
    // No crumbs: what would be left goes along, where it may.
    if (left - size < floor / 2 && left <= recordsMax) size = left;
    sizes.push(size);
    left -= size;
  }
  return sizes;
}

/** Cuts the input into splits of the given sizes, which must add up to its records. */
export function cutSplits(input: SortInput, sizes: readonly number[]): Split[] {
  if (input.kind === "generated") {
    let firstRecord = 0;
    return sizes.map((records) => {
      const split: Split = { kind: "generated", firstRecord, records, skewed: input.skewed };
      firstRecord += records;
      return split;
    });
  }
  const cutter = new Cutter(input.sources);
  let first = 0;
  return sizes.map((records) => {
    const pieces = cutter.cut(first, records);
    first += records;
    return { kind: "stored", records, pieces };
  });
}

/** Finds the pieces of stretches of records, which must come in their order. */
class Cutter {
  readonly #sources: readonly Source[];
  #at = 0;
  /** Of source `at` in the whole input. */
  #startBytes = 0;

  constructor(sources: readonly Source[]) {
    this.#sources = sources;
  }

  cut(firstRecord: number, records: number): Piece[] {
    const pieces: Piece[] = [];
    let position = firstRecord * RECORD_BYTES;
    const end = position + records * RECORD_BYTES;
    while (position < end) {
      const source = this.#sources[this.#at];
      if (source === undefined) throw new MillraceError("INTERNAL", "records behind the end of the input");
      const offsetBytes = position - this.#startBytes;
      if (offsetBytes >= source.sizeBytes) {
        this.#startBytes += source.sizeBytes;
        this.#at += 1;
        continue;
      }
      const sizeBytes = Math.min(end - position, source.sizeBytes - offsetBytes);
      pieces.push({ source, offsetBytes, sizeBytes });
      position += sizeBytes;
    }
    return pieces;
  }
}

/**
 * Where to look for sample keys: `stretches` runs of `recordsEach` neighbours, evenly spread over the input (so a
 * sorted input is sampled as well as a shuffled one). The whole input where it is smaller than that.
 */
export function samplePositions(
  records: number,
  stretches: number,
  recordsEach: number,
): [first: number, count: number][] {
  if (records <= stretches * recordsEach) return records === 0 ? [] : [[0, records]];
  return Array.from({ length: stretches }, (_, i) => {
    const first = Math.floor((i * (records - recordsEach)) / Math.max(1, stretches - 1));
    return [first, recordsEach];
  });
}

export type Generate = (
  firstRecord: number,
  count: number,
  skewed: boolean,
  out: Uint8Array,
) => Promise<void>;

/** Reads or makes the records of some stretches, in their order, one after another, into `into`. */
export async function fillStretches(
  input: SortInput,
  stretches: readonly (readonly [first: number, count: number])[],
  into: Uint8Array,
  generate: Generate,
): Promise<void> {
  if (input.kind === "stored") {
    const cutter = new Cutter(input.sources);
    return readPieces(
      stretches.flatMap(([first, count]) => cutter.cut(first, count)),
      into,
    );
  }
  let filled = 0;
  for (const [first, count] of stretches) {
    const sizeBytes = count * RECORD_BYTES;
    await generate(first, count, input.skewed, into.subarray(filled, filled + sizeBytes));
    filled += sizeBytes;
  }
}

/** Reads or makes the records of a split into `into`, which must be exactly as large. */
export async function fillSplit(split: Split, into: Uint8Array, generate: Generate): Promise<void> {
  if (split.kind === "stored") return readPieces(split.pieces, into);
  await generate(split.firstRecord, split.records, split.skewed, into);
}

async function readPieces(pieces: readonly Piece[], into: Uint8Array): Promise<void> {
  const files: FileStretch[] = [];
  const objects: ObjectStretch[] = [];
  let filled = 0;
  for (const { source, offsetBytes, sizeBytes } of pieces) {
    const room = into.subarray(filled, filled + sizeBytes);
    if (source.kind === "file") files.push({ source, offsetBytes, into: room });
    else objects.push({ source, offsetBytes, into: room });
    filled += sizeBytes;
  }
  if (files.length > 0) await readFileStretches(files);
  if (objects.length > 0) await (await import("./input_objects.js")).readObjectStretches(objects);
}
