/** Input from files: what `--input PATH` names, and the records of stretches of it. */
import { readSync } from "node:fs";
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MillraceError } from "../../client/errors.js";

export interface FileSource {
  kind: "file";
  path: string;
  sizeBytes: number;
}

/** A stretch of a file, and where it goes: as many bytes. */
export interface FileStretch {
  source: FileSource;
  offsetBytes: number;
  into: Uint8Array;
}

/**
 * The file at `path`, or the files of the directory there by name, hidden ones left out. NOT_FOUND, SYSTEM
 * (unreadable), or INVALID_ARGUMENT where it is neither.
 */
export async function listFiles(path: string): Promise<FileSource[]> {
  const found = await stat(path).catch((error: unknown) => {
    throw inputError(path, error);
  });
  if (found.isFile()) {
    // Opened now, so that a file that may not be read is a sentence at the start and not a failed call midway.
    const handle = await openFile(path);
    await handle.close();
    return [{ kind: "file", path, sizeBytes: found.size }];
  }
  if (!found.isDirectory()) {
    throw new MillraceError("INVALID_ARGUMENT", `${path} is neither a file nor a directory`);
  }
  const names = await readdir(path).catch((error: unknown) => {
    throw inputError(path, error);
  });
  const files: FileSource[] = [];
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

/** Below this a read in this thread costs less than a promise: thousands of them make a sample. */
const READ_HERE_BYTES_MAX = 64 * 1024;

/** Reads stretches, one after another. CORRUPT where a file has become shorter than it was. */
export async function readFileStretches(stretches: readonly FileStretch[]): Promise<void> {
  let path: string | null = null;
  let handle: FileHandle | null = null;
  try {
    for (const stretch of stretches) {
      if (handle === null || stretch.source.path !== path) {
        await handle?.close();
        handle = null;
        path = stretch.source.path;
        handle = await openFile(path);
      }
      await readStretch(handle, stretch);
    }
  } finally {
    await handle?.close();
  }
}

async function readStretch(handle: FileHandle, { source, offsetBytes, into }: FileStretch): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const wanted = into.length - done;
    const read =
      wanted <= READ_HERE_BYTES_MAX
        ? readSync(handle.fd, into, done, wanted, offsetBytes + done)
        : (await handle.read(into, done, wanted, offsetBytes + done)).bytesRead;
    if (read === 0) {
      throw new MillraceError("CORRUPT", `${source.path} became shorter while it was being sorted`);
    }
    done += read;
  }
}

function openFile(path: string): Promise<FileHandle> {
  return open(path, "r").catch((error: unknown) => {
    throw inputError(path, error);
  });
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
