/** Objects as Node.js streams. Both kinds hold a few MiB at most, whatever the size of the object. */
import { Readable, Writable } from "node:stream";
import { MillraceError } from "./errors.js";
import { showKey } from "./names.js";
import type { Condition, HeldObject, Key, ObjectInfo, ObjectWriter, Range, Transport } from "./transport.js";

/** Bytes of one chunk of a read stream. */
export const STREAM_CHUNK_BYTES = 1 << 20;

/** Chunks asked for ahead of the reader over remote transports, to hide the round trip. */
const CHUNKS_AHEAD = 4;

/** What is read of an object of `sizeBytes`: OUT_OF_RANGE where the range goes past its end. */
export function resolveRange(range: Range, sizeBytes: number): { begin: number; end: number } {
  const begin = range.offset ?? 0;
  const end = range.length === undefined ? sizeBytes : begin + range.length;
  if (begin > sizeBytes || end > sizeBytes) {
    throw new MillraceError(
      "OUT_OF_RANGE",
      `bytes ${begin} to ${range.length === undefined ? "the end" : end} of an object of ${sizeBytes} bytes`,
    );
  }
  return { begin, end };
}

/** Cuts [begin, end) into ranges of at most `chunkBytes`. */
export function* chunkRanges(begin: number, end: number, chunkBytes: number): Generator<Required<Range>> {
  for (let offset = begin; offset < end; offset += chunkBytes) {
    yield { offset, length: Math.min(chunkBytes, end - offset) };
  }
}

/** Runs an operation on a transport, on another one where the connection is lost. */
type Run = <T>(operation: (transport: Transport) => Promise<T>) => Promise<T>;

/**
 * The range's bytes, all of one version of the object. Over shared memory the chunks are views in place, of a
 * demoted object memory of their own; over other transports an overwrite in between ends the stream with ABORTED,
 * after which it may be read anew.
 */
export function createReadStream(run: Run, key: Key, range: Range): Readable {
  return Readable.from(readChunks(run, key, range), { objectMode: false });
}

async function* readChunks(run: Run, key: Key, range: Range): AsyncGenerator<Uint8Array, void, undefined> {
  const found = await run(async (transport) =>
    transport.hold === undefined ? transport.head(key) : transport.hold(key),
  );
  if (found === null) throw notFound(key);
  if ("close" in found) yield* heldChunks(run, found, key, range);
  else yield* fetchedChunks(run, found, key, range);
}

async function* heldChunks(run: Run, held: HeldObject, key: Key, range: Range): AsyncGenerator<Uint8Array> {
  let at = 0;
  let end = 0;
  try {
    ({ begin: at, end } = resolveRange(range, held.info.sizeBytes));
    for await (const chunk of held.chunks(at, end)) {
      at += chunk.length;
      yield chunk;
    }
    return;
  } catch (thrown) {
    if (MillraceError.from(thrown).code !== "UNAVAILABLE") throw thrown;
  } finally {
    held.close();
  }
  // The connection was lost while a demoted object was read: the rest comes over the next one.
  yield* fetchedChunks(run, held.info, key, { offset: at, length: end - at });
}

async function* fetchedChunks(
  run: Run,
  info: ObjectInfo,
  key: Key,
  range: Range,
): AsyncGenerator<Uint8Array> {
  const { begin, end } = resolveRange(range, info.sizeBytes);
  const underWay: Promise<Uint8Array>[] = [];
  const fetch = async (chunk: Range): Promise<Uint8Array> => {
    const got = await run((transport) => transport.get(key, chunk)).catch((thrown) => {
      // A shorter version took its place.
      throw MillraceError.from(thrown).code === "OUT_OF_RANGE" ? overwritten(key) : thrown;
    });
    if (got === null || got.info.sequence !== info.sequence) throw overwritten(key);
    return got.bytes;
  };
  for (const chunk of chunkRanges(begin, end, STREAM_CHUNK_BYTES)) {
    const fetching = fetch(chunk);
    fetching.catch(() => {}); // Seen when its turn comes, if the stream lives that long.
    underWay.push(fetching);
    if (underWay.length >= CHUNKS_AHEAD) yield await (underWay.shift() as Promise<Uint8Array>);
  }
  for (const fetching of underWay) yield await fetching;
}

export interface WriteStreamOptions extends Condition {
  /** Bytes of the whole object, where known: room is prepared in one piece. */
  sizeBytes?: number;
}

/**
 * Writes one object. It becomes visible, whole, before `finish` is emitted; a stream that is destroyed or fails
 * leaves nothing behind.
 */
export class ObjectWriteStream extends Writable {
  /** Set when the stream has finished. */
  info: ObjectInfo | null = null;
  readonly #open: () => Promise<ObjectWriter>;
  readonly #condition: Condition;
  /** Null before it is open and after it has ended. */
  #writer: ObjectWriter | null = null;
  #writing: Promise<void> = Promise.resolve();

  /** @internal */
  constructor(open: () => Promise<ObjectWriter>, condition: Condition) {
    super({ highWaterMark: STREAM_CHUNK_BYTES });
    this.#open = open;
    this.#condition = condition;
  }

  override _construct(callback: (error?: Error | null) => void): void {
    // Node constructs on the next tick, when the fields above are set.
    settle(
      this.#open().then((writer) => {
        this.#writer = writer;
      }),
      callback,
    );
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#writing = (this.#writer as ObjectWriter).write(chunk);
    settle(this.#writing, callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    const writer = this.#writer as ObjectWriter;
    this.#writer = null; // Sealing ends it, well or not.
    settle(
      writer.seal(this.#condition).then((info) => {
        this.info = info;
      }),
      callback,
    );
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const writer = this.#writer;
    this.#writer = null;
    if (writer === null) {
      callback(error);
      return;
    }
    // A writer takes one call at a time. What could not be aborted the node reclaims when the session ends.
    const done = () => callback(error);
    this.#writing
      .catch(() => {})
      .then(() => writer.abort())
      .then(done, done);
  }
}

function settle(promise: Promise<unknown>, callback: (error?: Error | null) => void): void {
  promise.then(
    () => callback(),
    (error: Error) => callback(error),
  );
}

export function notFound(key: Key): MillraceError {
  return new MillraceError("NOT_FOUND", `there is no object ${showKey(key)}`);
}

function overwritten(key: Key): MillraceError {
  return new MillraceError("ABORTED", `object ${showKey(key)} was overwritten or deleted while it was read`);
}
