/**
 * What to sort: `gen:N[,skew]`, files, directories. Checked whole before any work starts, then cut into splits,
 * each the input of one map call.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MillraceError } from "../../client/errors.js";
import { RECORD_BYTES } from "./records.js";

/** A stretch of a file: whole records. */
export interface FilePiece {
  path: string;
  offsetBytes: number;
  sizeBytes: number;
}

/** The input of one map call. */
export type Split =
  | { kind: "generated"; firstRecord: number; records: number; skewed: boolean }
  | { kind: "files"; records: number; pieces: FilePiece[] };

export type SortInput =
  | { kind: "generated"; records: number; skewed: boolean }
  | { kind: "files"; records: number; files: { path: string; sizeBytes: number }[] };

/** 2^40 records are 100 TB: far beyond what fits, and still exact in a JavaScript number of bytes. */
const RECORDS_MAX = 2 ** 40;

/**
 * Reads what `--input` names. INVALID_ARGUMENT where the words themselves are wrong, NOT_FOUND, CORRUPT (not
 * whole records), SYSTEM (unreadable) where the input is.
 */
export async function openInput(words: readonly string[]): Promise<SortInput> {
  const generated = words.filter((word) => word.startsWith("gen:"));
  if (words.length === 0) {
    throw new MillraceError("INVALID_ARGUMENT", "say what to sort: --input gen:N, a file, or a directory");
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
  for (const word of words) {
    if (/^[a-z][a-z0-9+.-]*:\/\//.test(word)) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        word.startsWith("s3://")
          ? `input from s3:// is not built yet (${word}): give gen:N, a file, or a directory`
          : `no input of this kind: ${word}; give gen:N, a file, or a directory`,
      );
    }
  }
  const files: { path: string; sizeBytes: number }[] = [];
  for (const word of words) files.push(...(await listFiles(word)));
  let records = 0;
  for (const file of files) {
    if (file.sizeBytes % RECORD_BYTES !== 0) {
      throw new MillraceError(
        "CORRUPT",
        `${file.path} is ${file.sizeBytes} bytes, which is not a whole number of ${RECORD_BYTES}-byte records`,
      );
    }
    records += file.sizeBytes / RECORD_BYTES;
  }
  return { kind: "files", records, files: files.filter((file) => file.sizeBytes > 0) };
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

async function listFiles(path: string): Promise<{ path: string; sizeBytes: number }[]> {
  const found = await stat(path).catch((error: unknown) => {
    throw inputError(path, error);
  });
  if (found.isFile()) {
    // Opened now, so that a file that may not be read is a sentence at the start and not a failed call midway.
    const handle = await open(path, "r").catch((error: unknown) => {
      throw inputError(path, error);
    });
    await handle.close();
    return [{ path, sizeBytes: found.size }];
  }
  if (!found.isDirectory()) {
    throw new MillraceError("INVALID_ARGUMENT", `${path} is neither a file nor a directory`);
  }
  const names = await readdir(path).catch((error: unknown) => {
    throw inputError(path, error);
  });
  const files: { path: string; sizeBytes: number }[] = [];
  for (const name of names.filter((name) => !name.startsWith(".")).sort(compareBytes)) {
    const inside = join(path, name);
    const entry = await stat(inside).catch((error: unknown) => {
      throw inputError(inside, error);
    });
    // What lies in folders below is not ours to guess at; markers such as _SUCCESS are empty and do no harm.
    if (entry.isFile()) files.push(...(await listFiles(inside)));
  }
  return files;
}

function inputError(path: string, error: unknown): MillraceError {
  const code = (error as { code?: unknown }).code;
  if (code === "ENOENT" || code === "ENOTDIR")
    return new MillraceError("NOT_FOUND", `${path} does not exist`);
  if (code === "EACCES" || code === "EPERM") return new MillraceError("SYSTEM", `${path} may not be read`);
  return new MillraceError("SYSTEM", `${path} cannot be read: ${(error as Error).message}`, { cause: error });
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
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
  let file = 0;
  let offsetBytes = 0;
  return sizes.map((records) => {
    const pieces: FilePiece[] = [];
    let wanted = records * RECORD_BYTES;
    while (wanted > 0) {
      const current = input.files[file];
      if (current === undefined) throw new MillraceError("INTERNAL", "splits are larger than the input");
      const sizeBytes = Math.min(wanted, current.sizeBytes - offsetBytes);
      pieces.push({ path: current.path, offsetBytes, sizeBytes });
      wanted -= sizeBytes;
      offsetBytes += sizeBytes;
      if (offsetBytes === current.sizeBytes) {
        file += 1;
        offsetBytes = 0;
      }
    }
    return { kind: "files", records, pieces };
  });
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

/** Reads or makes the records of some stretches, one after another, into `into`. */
export async function fillStretches(
  input: SortInput,
  stretches: readonly (readonly [first: number, count: number])[],
  into: Uint8Array,
  generate: Generate,
): Promise<void> {
  let filled = 0;
  if (input.kind === "generated") {
    for (const [first, count] of stretches) {
      const sizeBytes = count * RECORD_BYTES;
      await generate(first, count, input.skewed, into.subarray(filled, filled + sizeBytes));
      filled += sizeBytes;
    }
    return;
  }
  let at = 0;
  let startBytes = 0; // of file `at` in the whole input
  let descriptor: number | null = null;
  try {
    for (const [first, count] of stretches) {
      for (let offset = first * RECORD_BYTES, left = count * RECORD_BYTES; left > 0; ) {
        const file = input.files[at];
        if (file === undefined)
          throw new MillraceError("INTERNAL", "a sample lies behind the end of the input");
        if (offset >= startBytes + file.sizeBytes) {
          if (descriptor !== null) closeSync(descriptor);
          descriptor = null;
          startBytes += file.sizeBytes;
          at += 1;
          continue;
        }
        // Synchronous on purpose: thousands of reads of a few kilobytes cost less than as many promises.
        descriptor ??= openForReading(file.path);
        const wanted = Math.min(left, startBytes + file.sizeBytes - offset);
        const read = readSync(descriptor, into, filled, wanted, offset - startBytes);
        if (read === 0)
          throw new MillraceError("CORRUPT", `${file.path} became shorter while it was being sorted`);
        filled += read;
        offset += read;
        left -= read;
      }
    }
  } finally {
    if (descriptor !== null) closeSync(descriptor);
  }
}

function openForReading(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw inputError(path, error);
  }
}

export type Generate = (
  firstRecord: number,
  count: number,
  skewed: boolean,
  out: Uint8Array,
) => Promise<void>;

/** Reads or makes the records of a split into `into`, which must be exactly as large. */
export async function fillSplit(split: Split, into: Uint8Array, generate: Generate): Promise<void> {
  if (split.kind === "generated") {
    await generate(split.firstRecord, split.records, split.skewed, into);
    return;
  }
  let filled = 0;
  for (const piece of split.pieces) {
    await readPiece(piece, into.subarray(filled, filled + piece.sizeBytes));
    filled += piece.sizeBytes;
  }
}

async function readPiece(piece: FilePiece, into: Uint8Array): Promise<void> {
  const handle = await open(piece.path, "r").catch((error: unknown) => {
    throw inputError(piece.path, error);
  });
  try {
    let done = 0;
    while (done < piece.sizeBytes) {
      const { bytesRead } = await handle.read(into, done, piece.sizeBytes - done, piece.offsetBytes + done);
      if (bytesRead === 0) {
        throw new MillraceError("CORRUPT", `${piece.path} became shorter while it was being sorted`);
      }
      done += bytesRead;
    }
  } finally {
    await handle.close();
  }
}
