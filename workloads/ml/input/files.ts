/** Which files there are, and of which format: told by what they begin with. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MillraceError } from "../../../client/errors.js";
import { type FileName, fileError, readHead } from "./bytes.js";
import { looksLikeLibsvm } from "./sniff.js";

export type Format = "idx" | "libsvm" | "csv" | "parquet";

export interface InputFile extends FileName {
  /** Of the file as it lies there. */
  bytes: number;
  format: Format;
  /** The first bytes, unpacked. */
  head: Buffer;
}

export interface InputFiles {
  format: Format;
  /** In the order of their paths. */
  files: InputFile[];
  /** Those that were found in a directory, and not named one by one. */
  found: ReadonlySet<InputFile>;
}

/** Enough for several lines of text and the header of any format. */
const HEAD_BYTES = 64 * 1024;
const FILES_MAX = 100_000;
const DEPTH_MAX = 16;

/** The files at `paths`, each once. INVALID_ARGUMENT where they are of several formats, or none of them holds rows. */
export async function findInput(paths: readonly string[]): Promise<InputFiles> {
  const named = new Map<string, boolean>();
  for (const path of paths) {
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(path)) {
      throw new MillraceError(
        "UNSUPPORTED",
        `training data cannot be read from ${path}: copy or mount it to a local directory and name that`,
      );
    }
    for (const file of await listFiles(path)) {
      named.set(file, (named.get(file) ?? true) && file !== path);
      if (named.size > FILES_MAX)
        throw new MillraceError("INVALID_ARGUMENT", `${path} holds more than ${FILES_MAX} files`);
    }
  }
  const files: InputFile[] = [];
  const found = new Set<InputFile>();
  for (const path of [...named.keys()].sort(compareBytes)) {
    const file = await examine(path);
    // Markers such as an empty _SUCCESS hold no rows and do no harm.
    if (file === null) continue;
    files.push(file);
    if (named.get(path) === true) found.add(file);
  }
  const [first] = files;
  if (first === undefined) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `there are no rows in ${paths.join(", ")}: the files are empty`,
    );
  }
  const other = files.find((file) => file.format !== first.format);
  if (other !== undefined) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `all files must be of one format: ${first.path} is ${NAMES[first.format]} and ${other.path} ${NAMES[other.format]}`,
    );
  }
  return { format: first.format, files, found };
}

const NAMES: Record<Format, string> = { idx: "IDX", libsvm: "libsvm", csv: "CSV", parquet: "Parquet" };

async function listFiles(path: string, depth = 0): Promise<string[]> {
  const there = await stat(path).catch((error: unknown) => {
    throw fileError(path, error);
  });
  if (there.isFile()) return [path];
  if (!there.isDirectory()) {
    throw new MillraceError("INVALID_ARGUMENT", `${path} is neither a file nor a directory`);
  }
  if (depth === DEPTH_MAX) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${path} lies ${DEPTH_MAX} folders deep: is it a loop of links?`,
    );
  }
  const names = await readdir(path).catch((error: unknown) => {
    throw fileError(path, error);
  });
  const files: string[] = [];
  for (const name of names.filter((each) => !/^[._]/.test(each))) {
    files.push(...(await listFiles(join(path, name), depth + 1)));
  }
  return files;
}

/** Null: it is empty. */
async function examine(path: string): Promise<InputFile | null> {
  const { size } = await stat(path).catch((error: unknown) => {
    throw fileError(path, error);
  });
  if (size === 0) return null;
  const gzip = await isGzip(path);
  const head = await readHead({ path, gzip }, HEAD_BYTES);
  if (head.length === 0) return null;
  return { path, gzip, bytes: size, format: formatOf(path, gzip, head), head };
}

/** Whether a file begins as gzip's do. */
export async function isGzip(path: string): Promise<boolean> {
  return (await readHead({ path, gzip: false }, GZIP.length)).equals(GZIP);
}

const GZIP = Buffer.from([0x1f, 0x8b]);
const IDX_TYPES = new Set([0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e]);

function formatOf(path: string, gzip: boolean, head: Buffer): Format {
  if (head.length >= 4 && head[0] === 0 && head[1] === 0 && IDX_TYPES.has(head[2] as number)) return "idx";
  if (head.subarray(0, 4).toString("latin1") === "PAR1") {
    if (!gzip) return "parquet";
    throw new MillraceError(
      "UNSUPPORTED",
      `${path} is a Parquet file inside gzip, which cannot be read in parts: unpack it`,
    );
  }
  const zero = head.indexOf(0);
  if (zero !== -1) {
    throw new MillraceError(
      "CORRUPT",
      `${path} is no training data: it is neither IDX nor Parquet, and text holds no NUL byte (the first is at ${zero})`,
    );
  }
  return looksLikeLibsvm(head.toString("latin1"), head.length === HEAD_BYTES) ? "libsvm" : "csv";
}

/** By the bytes of UTF-8, as the order of files is defined. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
