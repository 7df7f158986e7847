/** Bytes of files, compressed with gzip or not, from the front to the end. */
import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { MillraceError } from "../../../client/errors.js";

export interface FileName {
  path: string;
  gzip: boolean;
}

export interface ByteSource {
  /** The next `bytes` bytes, fewer at the end. */
  read(bytes: number): Promise<Buffer>;
  close(): Promise<void>;
}

/** What gunzip makes at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** Reads a file from `offsetBytes` on, which of a compressed one is where it begins. */
export async function openBytes({ path, gzip }: FileName, offsetBytes = 0): Promise<ByteSource> {
  return gzip ? new CompressedBytes(path) : new PlainBytes(path, await openFile(path), offsetBytes);
}

/** The first bytes of a file. */
export async function readHead(file: FileName, bytes: number): Promise<Buffer> {
  const source = await openBytes(file);
  try {
    return await source.read(bytes);
  } finally {
    await source.close();
  }
}

export async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    throw fileError(path, error);
  }
}

/** Bytes from `offsetBytes` on, fewer at the end of the file. */
export async function readAt(
  path: string,
  handle: FileHandle,
  offsetBytes: number,
  bytes: number,
): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(bytes);
  let done = 0;
  try {
    while (done < bytes) {
      const { bytesRead } = await handle.read(buffer, done, bytes - done, offsetBytes + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
  } catch (error) {
    throw fileError(path, error);
  }
  return buffer.subarray(0, done);
}

/** NOT_FOUND, or SYSTEM where a file is there and cannot be read. */
export function fileError(path: string, error: unknown): MillraceError {
  const code = (error as { code?: unknown }).code;
  if (code === "ENOENT" || code === "ENOTDIR")
    return new MillraceError("NOT_FOUND", `${path} does not exist`);
  if (code === "EACCES" || code === "EPERM") return new MillraceError("SYSTEM", `${path} may not be read`);
  return new MillraceError("SYSTEM", `${path} cannot be read: ${(error as Error).message}`, { cause: error });
}

class PlainBytes implements ByteSource {
  readonly #path: string;
  readonly #handle: FileHandle;
  #at: number;

  constructor(path: string, handle: FileHandle, offsetBytes: number) {
    this.#path = path;
    this.#handle = handle;
    this.#at = offsetBytes;
  }

  async read(bytes: number): Promise<Buffer> {
    const read = await readAt(this.#path, this.#handle, this.#at, bytes);
    this.#at += read.length;
    return read;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

class CompressedBytes implements ByteSource {
  readonly #path: string;
  readonly #file: ReturnType<typeof createReadStream>;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  #failure: unknown = null;
  /** What was unpacked and not asked for yet. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
    this.#file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
    this.#file.on("error", (error) => {
      this.#failure = error;
      this.#gunzip.destroy(error);
    });
    this.#file.pipe(this.#gunzip);
    this.#chunks = this.#gunzip[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async read(bytes: number): Promise<Buffer> {
    if (this.#rest.length >= bytes) return this.#take(bytes);
    const parts: Buffer[] = [this.#rest];
    let there = this.#rest.length;
    this.#rest = Buffer.alloc(0);
    while (there < bytes) {
      const chunk = await this.#next();
      if (chunk === null) break;
      parts.push(chunk);
      there += chunk.length;
    }
    this.#rest = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, there);
    return this.#take(Math.min(bytes, there));
  }

  #take(bytes: number): Buffer {
    const taken = this.#rest.subarray(0, bytes);
    this.#rest = this.#rest.subarray(bytes);
    return taken;
  }

  async #next(): Promise<Buffer | null> {
    try {
      const { done, value } = await this.#chunks.next();
      return done === true ? null : value;
    } catch (error) {
      if (this.#failure !== null) throw fileError(this.#path, this.#failure);
      throw new MillraceError(
        "CORRUPT",
        `${this.#path} is a damaged gzip file: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
  }

  async close(): Promise<void> {
    this.#file.destroy();
    this.#gunzip.destroy();
  }
}
