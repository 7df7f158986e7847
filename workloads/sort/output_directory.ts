/**
 * Output to a directory. A part is written under a name that begins with a dot and renamed when it is whole, so that
 * an attempt that dies midway leaves nothing that looks like output; the driver sweeps what is left of such attempts.
 */
import { mkdir, open, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { MillraceError } from "../../client/errors.js";
import { isPartName, partName } from "./parts.js";

const UNFINISHED = /^\.part-\d{5,}\./;

/** Writes one part; the data is in the file when the promise resolves, under its final name. */
export async function writePartFile(
  directory: string,
  partition: number,
  attempt: string,
  bytes: Uint8Array,
): Promise<void> {
  const name = partName(partition);
  const unfinished = join(directory, `.${name}.${attempt}`);
  try {
    const handle = await open(unfinished, "wx");
    try {
      let done = 0;
      while (done < bytes.length) {
        const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
        done += bytesWritten;
      }
    } finally {
      await handle.close();
    }
    await rename(unfinished, join(directory, name));
  } catch (error) {
    await rm(unfinished, { force: true }).catch(() => undefined);
    throw outputError(directory, error);
  }
}

/** An output directory in use by one run. `keep` or `remove` ends it. */
export class OutputDirectory {
  /** Absolute. */
  readonly path: string;
  /** The topmost folder that `open` made, or null where the directory was there. */
  readonly #made: string | null;

  private constructor(path: string, made: string | null) {
    this.path = path;
    this.#made = made;
  }

  /**
   * Makes the directory where it is missing. INVALID_ARGUMENT where it is a file, or holds anything and `force`
   * is not set; with `force` earlier parts are removed and everything else is left alone.
   */
  static async open(path: string, force: boolean): Promise<OutputDirectory> {
    const absolute = resolve(path);
    const found = await stat(absolute).catch(() => null);
    if (found !== null && !found.isDirectory()) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `the output ${path} is there already and is not a directory`,
      );
    }
    try {
      if (found === null)
        return new OutputDirectory(absolute, (await mkdir(absolute, { recursive: true })) ?? null);
      const names = await readdir(absolute);
      if (names.length > 0 && !force) {
        throw new MillraceError(
          "INVALID_ARGUMENT",
          `the output directory ${path} is not empty: empty it, name another one, or replace its parts with --force`,
        );
      }
      await removeParts(absolute, names);
      return new OutputDirectory(absolute, null);
    } catch (error) {
      throw outputError(path, error);
    }
  }

  /** The run went well: sweeps what attempts that died have left. */
  async keep(): Promise<void> {
    const names = await readdir(this.path);
    for (const name of names.filter((name) => UNFINISHED.test(name)))
      await rm(join(this.path, name), { force: true });
  }

  /** The run failed: removes its parts, and the directory where the run made it. */
  async remove(): Promise<void> {
    const names = await readdir(this.path).catch(() => [] as string[]);
    await removeParts(this.path, names);
    if (this.#made === null) return;
    // Only folders that are empty go: somebody else may have begun to use them.
    for (let folder = this.path; ; folder = resolve(folder, "..")) {
      const gone = await rmdir(folder).then(
        () => true,
        () => false,
      );
      if (!gone || folder === this.#made) return;
    }
  }
}

async function removeParts(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (isPartName(name) || UNFINISHED.test(name)) await rm(join(directory, name), { force: true });
  }
}

function outputError(path: string, error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const code = (error as { code?: unknown }).code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new MillraceError("RESOURCE_EXHAUSTED", `no room left for the output in ${path}`, {
      retryable: false,
      cause: error,
    });
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    return new MillraceError("SYSTEM", `the output directory ${path} may not be written`, { cause: error });
  }
  return new MillraceError("SYSTEM", `cannot write to ${path}: ${(error as Error).message}`, {
    cause: error,
  });
}
