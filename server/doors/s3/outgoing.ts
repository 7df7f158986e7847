/** Bytes of an object on their way to a client. */
import type { ServerResponse } from "node:http";
import { setImmediate as turn } from "node:timers/promises";
import { MillraceError } from "../../../proto/errors.js";
import type { ObjectReader } from "../../engine/engine.js";
import type { S3Call } from "./call.js";
import { sendHead } from "./respond.js";
import type { Target } from "./target.js";
import { rest } from "./upload.js";

/** What is read and sent at a time, two of which are under way at once. */
const PIECE_BYTES = 256 * 1024;
const POOLED_MAX = 32;
/** Up to this an answer is one write: head and bytes together. */
const SMALL_BYTES = 64 * 1024;

/** Memory of pieces that is not in use: fresh memory would cost more than the copying. */
const pool: Buffer[] = [];

/**
 * Answers with `lengthBytes` bytes of the reader, which is closed whatever happens. Where reading fails before the
 * head is sent it throws; after that it cuts the connection off, so that nobody takes a part for the whole.
 */
export async function sendObject(
  call: S3Call,
  target: Target,
  reader: ObjectReader,
  lengthBytes: number,
  status: number,
  headers: Readonly<Record<string, string>>,
): Promise<void> {
  const { context, response } = call;
  let sentBytes = 0;
  try {
    if (lengthBytes <= SMALL_BYTES) {
      const bytes = Buffer.allocUnsafe(lengthBytes);
      if ((await readPiece(reader, bytes)) !== lengthBytes) throw endedEarly();
      const restMs = target.namespace.pace.spend(lengthBytes);
      if (restMs > 0) await rest(call, restMs);
      sentBytes = lengthBytes;
      sendHead(response, call.request.id, status, headers);
      response.end(bytes);
      return;
    }
    const writer = new Writer(response);
    // One piece is read while the one before it is sent.
    let before: Promise<void> | null = null;
    while (sentBytes < lengthBytes && !writer.gone) {
      const memory = pool.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
      const wanted = memory.subarray(0, Math.min(PIECE_BYTES, lengthBytes - sentBytes));
      const bytes = await readPiece(reader, wanted);
      if (bytes === 0) throw endedEarly();
      if (sentBytes === 0) sendHead(response, call.request.id, status, headers);
      const sending = writer.write(wanted.subarray(0, bytes)).then((taken) => {
        // Where it was not taken node may still hold it.
        if (taken && pool.length < POOLED_MAX) pool.push(memory);
      });
      sentBytes += bytes;
      const restMs = target.namespace.pace.spend(bytes);
      if (restMs > 0) await rest(call, restMs);
      await before;
      before = sending;
      // A client that is always ready would otherwise keep the loop from all others.
      await turn();
    }
    response.end();
  } catch (thrown) {
    if (!response.headersSent) throw thrown;
    const { bucket, key } = target;
    context.log.error(
      { requestId: call.request.id, bucket, key, err: thrown },
      "an object could not be read to its end",
    );
    response.destroy();
  } finally {
    reader.close();
    context.engine.count(target.bucket, "s3", 0, sentBytes, 1);
  }
}

/** All bytes of a reader, each buffer for the taker to keep. It is for the caller to close the reader. */
export async function* readerBytes(
  reader: ObjectReader,
  lengthBytes: number,
): AsyncGenerator<Buffer, void, void> {
  for (let readBytes = 0; readBytes < lengthBytes; ) {
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, lengthBytes - readBytes));
    const bytes = await readPiece(reader, piece);
    if (bytes === 0) throw endedEarly();
    readBytes += bytes;
    yield piece.subarray(0, bytes);
    await turn();
  }
}

function readPiece(reader: ObjectReader, into: Buffer): number | Promise<number> {
  return reader.inFiles ? reader.readAsync(into) : reader.read(into);
}

function endedEarly(): MillraceError {
  return new MillraceError("INTERNAL", "the object ended early");
}

/** Writes to a response, as promises. */
class Writer {
  /** The client left. */
  gone: boolean;
  private readonly waiting = new Set<(taken: boolean) => void>();

  constructor(private readonly response: ServerResponse) {
    this.gone = response.destroyed;
    response.once("close", () => {
      this.gone = true;
      for (const resolve of this.waiting) resolve(false);
      this.waiting.clear();
    });
  }

  /** Resolves when the bytes are with the kernel (true), or when the client has left (false). */
  write(bytes: Buffer): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.gone) return resolve(false);
      this.waiting.add(resolve);
      this.response.write(bytes, (error) => {
        this.waiting.delete(resolve);
        resolve(!error);
      });
    });
  }
}
