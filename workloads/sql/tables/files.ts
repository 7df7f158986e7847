/** Which files of a directory are which table's, told by their names and, Parquet from CSV, by their first bytes. */
import { open, readdir, stat } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import { MillraceError } from "../../../client/errors.js";

export interface TableFile {
  /** Absolute. */
  path: string;
  bytes: number;
}

/** A table before anything but the first bytes of its files was read. */
export interface TableFiles {
  name: string;
  format: "parquet" | "csv";
  /** In the order of their paths. */
  files: TableFile[];
  /** Names before the `=` of the folders that the files lie in (`year=2000`): columns too. Empty: none. */
  folderKeys: string[];
}

/** Files of a table that are looked at; more than this is a mistake, or wants another layout. */
const FILES_MAX = 100_000;
const DEPTH_MAX = 16;

const EXTENSION = /\.(?:parquet|parq|pq|(?:csv|tsv|psv|tbl|txt|dat)(?:\.(?:gz|gzip|zst|zstd))?)$/i;
const CSV_EXTENSION = /\.(?:csv|tsv|psv|tbl|txt|dat)(?:\.(gz|gzip|zst|zstd))?$/i;
const PARQUET_EXTENSION = /\.(?:parquet|parq|pq)$/i;

/**
 * The tables of a directory: a file or a folder each, the folder's files being one table. What is neither Parquet nor
 * called like CSV is no table. `mentioned` says for which names anybody asks; no other table is looked into.
 */
export async function findTables(
  directory: string,
  mentioned: (name: string) => boolean,
): Promise<TableFiles[]> {
  const root = await checkDirectory(directory);
  const tables = new Map<string, TableFiles>();
  let others = 0;
  for (const entry of (await list(root)).sort()) {
    const name = entry.replace(EXTENSION, "");
    if (!mentioned(name)) {
      others += 1;
      continue;
    }
    const path = join(root, entry);
    const found = await findFiles(path);
    if (found.length === 0) continue;
    const { format, files } = await oneFormat(name, found);
    const same = tables.get(name.toLowerCase());
    if (same !== undefined) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `two tables of one name in ${directory}: ${relative(root, firstFolder(same, root))} and ${entry} ` +
          "(SQL does not tell upper case from lower); rename one",
      );
    }
    const folderKeys = keysOf(name, path, files);
    tables.set(name.toLowerCase(), { name, format, files, folderKeys });
  }
  if (tables.size === 0 && others === 0) {
    throw new MillraceError(
      "NOT_FOUND",
      `no tables in ${directory}: it should hold a file or a folder for each table, Parquet or CSV`,
    );
  }
  return [...tables.values()];
}

/** The entry of the root that a table came from. */
function firstFolder(table: TableFiles, root: string): string {
  const [first = ""] = relative(root, (table.files[0] as TableFile).path).split(sep);
  return join(root, first);
}

async function checkDirectory(directory: string): Promise<string> {
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(directory)) {
    throw new MillraceError(
      "UNSUPPORTED",
      `tables cannot be read from ${directory}: copy or mount them to a local directory and name that ` +
        "(for S3: aws s3 sync, or a mount such as mountpoint-s3)",
    );
  }
  const root = resolve(directory);
  const found = await stat(root).catch((error: NodeJS.ErrnoException) => {
    const missing = error.code === "ENOENT" || error.code === "ENOTDIR";
    throw new MillraceError(
      missing ? "NOT_FOUND" : "SYSTEM",
      missing ? `no such directory: ${directory}` : `cannot read ${directory}: ${error.message}`,
      { cause: error },
    );
  });
  if (!found.isDirectory()) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${directory} is a file: name the directory that the tables lie in`,
    );
  }
  return root;
}

/** Names in a directory, but for those that are hidden from engines: `_SUCCESS`, `.part.crc`. */
async function list(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => !/^[._]/.test(name));
  } catch (error) {
    throw new MillraceError("SYSTEM", `cannot read ${directory}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

interface FoundFile extends TableFile {
  format: "parquet" | "csv";
}

/** All files with rows at or below a path, in the order of their paths. */
async function findFiles(path: string, depth = 0): Promise<FoundFile[]> {
  const found = await stat(path).catch((error: Error) => {
    throw new MillraceError("SYSTEM", `cannot read ${path}: ${error.message}`, { cause: error });
  });
  if (found.isFile()) {
    const format = await formatOf(path, found.size);
    return format === null ? [] : [{ path, bytes: found.size, format }];
  }
  if (!found.isDirectory()) return [];
  if (depth === DEPTH_MAX) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `${path} lies ${DEPTH_MAX} folders deep: is it a loop of links?`,
    );
  }
  const files: FoundFile[] = [];
  for (const name of (await list(path)).sort()) {
    for (const file of await findFiles(join(path, name), depth + 1)) files.push(file);
    if (files.length > FILES_MAX) {
      throw new MillraceError("INVALID_ARGUMENT", `${path} holds more than ${FILES_MAX} files`);
    }
  }
  return files;
}

const MAGIC_BYTES = 4096;
const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** Null: no table's. CORRUPT where a file is not what its name says. */
async function formatOf(path: string, bytes: number): Promise<"parquet" | "csv" | null> {
  const head = await readHead(path, MAGIC_BYTES);
  if (head.subarray(0, 4).toString("latin1") === "PAR1") return "parquet";
  if (PARQUET_EXTENSION.test(path)) {
    const why = bytes === 0 ? "it is empty" : "it does not begin with PAR1";
    throw new MillraceError("CORRUPT", `${path} is no Parquet file: ${why}`);
  }
  const extension = CSV_EXTENSION.exec(path);
  if (extension === null) return null;
  const compressed = head.subarray(0, 2).equals(GZIP) ? "gz" : head.subarray(0, 4).equals(ZSTD) ? "zst" : "";
  const named = (extension[1] ?? "").toLowerCase().replace("gzip", "gz").replace("zstd", "zst");
  if (compressed !== named && bytes > 0) {
    throw new MillraceError(
      "CORRUPT",
      compressed === ""
        ? `${path} is not compressed, although its name says so: rename it`
        : `${path} is compressed: give its name the ending .${compressed}`,
    );
  }
  if (compressed === "" && head.includes(0)) {
    throw new MillraceError("CORRUPT", `${path} is no CSV: it holds NUL bytes (only UTF-8 is read)`);
  }
  return "csv";
}

/** The first bytes of a file, fewer where it is shorter. */
export async function readHead(path: string, bytes: number): Promise<Buffer> {
  try {
    const handle = await open(path, "r");
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(bytes), 0, bytes, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new MillraceError("SYSTEM", `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
}

async function oneFormat(
  name: string,
  found: readonly FoundFile[],
): Promise<{ format: "parquet" | "csv"; files: TableFile[] }> {
  const [first] = found as readonly [FoundFile];
  const other = found.find((file) => file.format !== first.format);
  if (other !== undefined) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `table ${name} mixes formats: ${first.path} is ${first.format}, ${other.path} is ${other.format}`,
    );
  }
  return { format: first.format, files: found.map(({ path, bytes }) => ({ path, bytes })) };
}

/** The keys of the `key=value` folders between a table's folder and its files: the same for all of them, or none. */
function keysOf(name: string, folder: string, files: readonly TableFile[]): string[] {
  const keys = files.map(({ path }) => folderKeysOf(relative(folder, path)));
  const [first] = keys as [string[]];
  const other = keys.findIndex((each) => each.join("\0") !== first.join("\0"));
  if (other === -1) return first;
  throw new MillraceError(
    "INVALID_ARGUMENT",
    `table ${name}: ${(files[0] as TableFile).path} and ${(files[other] as TableFile).path} lie in folders with ` +
      "different keys (key=value)",
  );
}

/** The keys of `year=2000/month=1/part.parquet`. */
export function folderKeysOf(path: string): string[] {
  return path
    .split(sep)
    .slice(0, -1)
    .flatMap((part) => /^([^=]+)=/.exec(part)?.[1] ?? []);
}
