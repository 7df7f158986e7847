/**
 * The transport that needs no native code: whole objects and ranges over the `Objects` service, in chunks of at
 * most 1 MiB, with back-pressure both ways. Bytes are checked by CRC32C: puts by the node against what was
 * computed here, whole gets here against what the node has on record.
 */
import type { ClientReadableStream, ClientWritableStream } from "@grpc/grpc-js";
import { CHUNK_BYTES_MAX, loadContract } from "../../proto/load.js";
import type {
  ConditionMessage,
  GetResponse,
  ObjectInfoMessage,
  PutHeader,
  PutRequest,
} from "../../proto/messages.js";
import { crc32c } from "../checksum.js";
import { type ControlChannel, retrying } from "../control.js";
import { MillraceError } from "../errors.js";
import { keyBytes } from "../names.js";
import type {
  Condition,
  GotObject,
  Key,
  ListedObject,
  ObjectInfo,
  ObjectWriter,
  Range,
  Transport,
} from "../transport.js";

const NO_BYTES = new Uint8Array(0);

/** Puts of `enqueuePut` under way at once; the rest wait here. */
const ENQUEUED_PUTS_MAX = 64;

/** Chunks handed to gRPC and not yet taken by the socket. */
const CHUNKS_IN_FLIGHT_MAX = 4;

export class GrpcTransport implements Transport {
  readonly kind = "grpc";
  readonly #channel: ControlChannel;
  readonly #namespace: string;
  readonly #token: Uint8Array;
  readonly #objects = loadContract().objects;
  readonly #usage = { bytesIn: 0, bytesOut: 0, operations: 0, copiesAvoidedBytes: 0 };
  readonly #queue: PutQueue;
  #lost: (error: Error) => void = () => {};
  #closed = false;

  /** The channel is shared, and closed by whoever opened it. */
  constructor(channel: ControlChannel, namespace: string, token: Uint8Array) {
    this.#channel = channel;
    this.#namespace = namespace;
    this.#token = token;
    this.#queue = new PutQueue((key, data) => this.put(key, data));
  }

  put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo> {
    return this.#operation(async () => {
      const put = this.#openPut(key, {
        sizeBytes: data.length,
        sizeKnown: true,
        condition: conditionMessage(condition),
        crc32c: crc32c(0, data),
        hasCrc32c: true,
        endsWithTrailer: false,
      });
      await put.send(data);
      const info = await put.end();
      this.#count(data.length, 0);
      return info;
    });
  }

  get(key: Key, range: Range = {}): Promise<GotObject | null> {
    const { offset = 0, length } = range;
    if (length === 0) return this.#getNothing(key, offset);
    const request = {
      namespace: this.#namespace,
      key: keyBytes(key),
      offset,
      length: length ?? 0,
      ifSequence: 0,
    };
    return nullWhereNotFound(
      this.#operation(async () => {
        const deadline = Date.now() + this.#channel.timeoutMs;
        const got = await retrying(() => {
          const call = this.#channel.serverStream(this.#objects.Get, request);
          return collect(call, this.#channel, offset, length);
        }, deadline);
        this.#count(0, got.bytes.length);
        return got;
      }),
    );
  }

  head(key: Key): Promise<ObjectInfo | null> {
    const request = { namespace: this.#namespace, key: keyBytes(key) };
    return nullWhereNotFound(
      this.#operation(async () => {
        const info = await this.#channel.unary(this.#objects.Head, request, { idempotent: true });
        this.#count(0, 0);
        return objectInfo(info);
      }),
    );
  }

  delete(key: Key, condition?: Condition): Promise<boolean> {
    return this.#operation(async () => {
      const { existed } = await this.#channel.unary(this.#objects.Delete, {
        namespace: this.#namespace,
        key: keyBytes(key),
        condition: conditionMessage(condition),
      });
      this.#count(0, 0);
      return existed;
    });
  }

  copy(from: Key, to: Key, condition?: Condition): Promise<ObjectInfo> {
    return this.#operation(async () => {
      const info = await this.#channel.unary(this.#objects.Copy, {
        namespace: this.#namespace,
        fromKey: keyBytes(from),
        toKey: keyBytes(to),
        condition: conditionMessage(condition),
        toNamespace: "",
      });
      this.#count(0, 0);
      return objectInfo(info);
    });
  }

  list(
    prefix: Key,
    startAfter: Key,
    limit: number,
  ): Promise<{ objects: ListedObject[]; truncated: boolean }> {
    return this.#operation(async () => {
      const page = await this.#channel.unary(
        this.#objects.List,
        { namespace: this.#namespace, prefix: keyBytes(prefix), startAfter: keyBytes(startAfter), limit },
        { idempotent: true },
      );
      this.#count(0, 0);
      const objects = page.objects.map((object) => ({ key: object.key, ...objectInfo(object) }));
      return { objects, truncated: page.truncated };
    });
  }

  async openWriter(key: Key, options: { sizeBytes?: number } = {}): Promise<ObjectWriter> {
    this.#checkOpen();
    const put = this.#openPut(key, {
      sizeBytes: options.sizeBytes ?? 0,
      sizeKnown: options.sizeBytes !== undefined,
      condition: null,
      crc32c: 0,
      hasCrc32c: false,
      // Else an abort could pass for the end of the object.
      endsWithTrailer: true,
    });
    return new GrpcObjectWriter(put, {
      operation: (run) => this.#operation(run),
      onSealed: (sizeBytes) => this.#count(sizeBytes, 0),
    });
  }

  enqueuePut(key: Key, data: Uint8Array): void {
    this.#checkOpen();
    this.#queue.add(key, data);
  }

  flush(): Promise<void> {
    this.#checkOpen();
    return this.#queue.flush();
  }

  view(_key: Key): Uint8Array | null {
    throw unsupportedView();
  }

  viewExtents(_key: Key): Uint8Array[] | null {
    throw unsupportedView();
  }

  usage(): { bytesIn: number; bytesOut: number; operations: number; copiesAvoidedBytes: number } {
    return { ...this.#usage };
  }

  /**
   * The channel connects again by itself, but to a node that may have been restarted: so a call that failed for
   * want of a node is a loss, after which whoever holds this looks at node and namespace anew.
   */
  onLost(callback: (error: Error) => void): void {
    this.#lost = callback;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #openPut(key: Key, header: Omit<PutHeader, "namespace" | "key">): PutStream {
    return new PutStream(this.#channel, { namespace: this.#namespace, key: keyBytes(key), ...header });
  }

  async #operation<T>(run: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    try {
      return await run();
    } catch (thrown) {
      let error = MillraceError.from(thrown);
      // The node says NOT_FOUND also where it knows no such namespace; that must not pass for a missing object.
      if (error.code === "NOT_FOUND") error = (await this.#whyGone()) ?? error;
      if (error.code === "UNAVAILABLE" || error.code === "NAMESPACE_GONE") this.#lost(error);
      throw error;
    }
  }

  async #whyGone(): Promise<MillraceError | null> {
    try {
      await checkNamespaceLives(this.#channel, this.#namespace, this.#token);
      return null;
    } catch (thrown) {
      return MillraceError.from(thrown);
    }
  }

  /** On the wire a length of 0 means to the end, so an empty range is answered from the object's info. */
  async #getNothing(key: Key, offset: number): Promise<GotObject | null> {
    const info = await this.head(key);
    if (info === null) return null;
    if (offset > info.sizeBytes) {
      throw new MillraceError(
        "OUT_OF_RANGE",
        `offset ${offset} lies past the object's ${info.sizeBytes} bytes`,
      );
    }
    return { info, bytes: NO_BYTES };
  }

  #count(bytesIn: number, bytesOut: number): void {
    this.#usage.bytesIn += bytesIn;
    this.#usage.bytesOut += bytesOut;
    this.#usage.operations += 1;
  }

  #checkOpen(): void {
    if (this.#closed) throw new MillraceError("CLOSED", "the namespace handle is closed; open it again");
  }
}

/** Reads a Get stream to its end. Rejects with DEADLINE_EXCEEDED when the node falls silent for too long. */
async function collect(
  call: ClientReadableStream<GetResponse>,
  channel: ControlChannel,
  offset: number,
  length: number | undefined,
): Promise<GotObject> {
  const watchdog = new Watchdog(channel, () => call.cancel());
  watchdog.reset();
  let info: ObjectInfo | null = null;
  let bytes: Uint8Array = NO_BYTES;
  let expected = 0;
  let filled = 0;
  try {
    for await (const message of call as AsyncIterable<GetResponse>) {
      watchdog.reset();
      if (info === null) {
        if (message.info === null) throw protocolError("a Get stream began without the object's info");
        info = objectInfo(message.info);
        expected = length ?? info.sizeBytes - offset;
      }
      const data = message.data;
      if (data.length === 0) continue;
      if (filled + data.length > expected)
        throw protocolError("a Get stream carried more than was asked for");
      if (data.length === expected) {
        bytes = data; // All of it came in one message: no second copy.
      } else {
        if (filled === 0) bytes = Buffer.allocUnsafeSlow(expected);
        bytes.set(data, filled);
      }
      filled += data.length;
    }
  } catch (thrown) {
    call.cancel();
    throw watchdog.error ?? channel.error(thrown);
  } finally {
    watchdog.stop();
  }
  if (info === null) throw protocolError("a Get stream ended without the object's info");
  if (filled !== expected) throw protocolError(`a Get stream ended after ${filled} of ${expected} bytes`);
  if (filled === info.sizeBytes && crc32c(0, bytes) !== info.crc32c) {
    throw new MillraceError(
      "CHECKSUM_MISMATCH",
      "the object's bytes do not match its checksum; read it again",
    );
  }
  return { info, bytes };
}

/** One Put call. `end` or `cancel` ends it; cancelled or broken off it leaves nothing behind. */
class PutStream {
  readonly #channel: ControlChannel;
  readonly #call: ClientWritableStream<PutRequest>;
  readonly #response: Promise<ObjectInfoMessage>;
  /** Rejects as soon as the call has failed; a call that ended well before its end is a failure too. */
  readonly #broken: Promise<never>;
  readonly #watchdog: Watchdog;
  #header: PutHeader | null;
  #ended = false;

  constructor(channel: ControlChannel, header: PutHeader) {
    this.#channel = channel;
    this.#header = header;
    const { call, response } = channel.clientStream(loadContract().objects.Put);
    this.#call = call;
    this.#response = response;
    this.#watchdog = new Watchdog(channel, () => call.cancel());
    this.#broken = response.then(
      () => {
        throw protocolError("a Put stream was answered before its end");
      },
      (error) => {
        throw this.#watchdog.error ?? error;
      },
    );
    this.#broken.catch(() => {});
    // What goes wrong reaches us through the response.
    call.on("error", () => {});
  }

  /** Resolves when gRPC has taken all of it: the data may then be reused. */
  async send(data: Uint8Array): Promise<void> {
    if (this.#ended) throw new MillraceError("CLOSED", "the object's writer has ended");
    this.#watchdog.reset();
    const inFlight: Promise<void>[] = [];
    for (let at = 0; at < data.length; at += CHUNK_BYTES_MAX) {
      inFlight.push(this.#write(data.subarray(at, at + CHUNK_BYTES_MAX), null));
      if (inFlight.length >= CHUNKS_IN_FLIGHT_MAX) {
        await Promise.race([inFlight.shift(), this.#broken]);
        this.#watchdog.reset();
      }
    }
    await Promise.race([Promise.all(inFlight), this.#broken]);
    this.#watchdog.stop();
  }

  async end(trailer: PutRequest["trailer"] = null): Promise<ObjectInfo> {
    if (this.#ended) throw new MillraceError("CLOSED", "the object's writer has ended");
    this.#ended = true;
    this.#watchdog.reset();
    try {
      if (this.#header !== null || trailer !== null) void this.#write(NO_BYTES, trailer);
      this.#call.end();
      return objectInfo(await this.#response);
    } catch (error) {
      throw this.#watchdog.error ?? error;
    } finally {
      this.#watchdog.stop();
    }
  }

  cancel(): void {
    this.#ended = true;
    this.#watchdog.stop();
    this.#call.cancel();
  }

  #write(data: Uint8Array, trailer: PutRequest["trailer"]): Promise<void> {
    const message: PutRequest = { header: this.#header, data, trailer };
    this.#header = null;
    return new Promise((resolve, reject) => {
      this.#call.write(message, (error: Error | null | undefined) =>
        error ? reject(this.#channel.error(error)) : resolve(),
      );
    });
  }
}

interface WriterContext {
  /** Runs a step of the writer and notices when it fails because the node or the namespace is gone. */
  operation<T>(run: () => Promise<T>): Promise<T>;
  onSealed(sizeBytes: number): void;
}

/** Writes one object over one Put call; see ObjectWriter. */
class GrpcObjectWriter implements ObjectWriter {
  readonly #put: PutStream;
  readonly #context: WriterContext;
  #reserved: Uint8Array | null = null;
  #crc = 0;
  #sizeBytes = 0;

  constructor(put: PutStream, context: WriterContext) {
    this.#put = put;
    this.#context = context;
  }

  async reserve(bytes: number): Promise<Uint8Array> {
    await this.#sendReserved();
    this.#reserved = new Uint8Array(bytes);
    return this.#reserved;
  }

  async write(data: Uint8Array): Promise<void> {
    await this.#sendReserved();
    await this.#send(data);
  }

  async seal(options: Condition & { crc32c?: number } = {}): Promise<ObjectInfo> {
    try {
      await this.#sendReserved();
      const trailer = {
        condition: conditionMessage(options),
        // What the caller knows of its bytes beats what was computed from the copy that was sent.
        crc32c: options.crc32c ?? this.#crc,
        hasCrc32c: true,
      };
      const info = await this.#context.operation(() => this.#put.end(trailer));
      this.#context.onSealed(this.#sizeBytes);
      return info;
    } catch (error) {
      this.#put.cancel();
      throw error;
    }
  }

  async abort(): Promise<void> {
    this.#reserved = null;
    this.#put.cancel();
  }

  async #sendReserved(): Promise<void> {
    const data = this.#reserved;
    this.#reserved = null;
    if (data !== null) await this.#send(data);
  }

  async #send(data: Uint8Array): Promise<void> {
    this.#crc = crc32c(this.#crc, data);
    this.#sizeBytes += data.length;
    await this.#context.operation(() => this.#put.send(data));
  }
}

/** Puts without a promise each. Puts of one key keep their order; others overtake each other. */
class PutQueue {
  readonly #put: (key: Key, data: Uint8Array) => Promise<unknown>;
  readonly #waiting = new Map<number, { key: string; data: Uint8Array }>(); // by turn, oldest first
  readonly #busyKeys = new Map<string, Promise<void>>();
  #turn = 0;
  #active = 0;
  #failure: unknown = null;
  #idle: { promise: Promise<void>; resolve: () => void } | null = null;

  constructor(put: (key: Key, data: Uint8Array) => Promise<unknown>) {
    this.#put = put;
  }

  add(key: Key, data: Uint8Array): void {
    const text = typeof key === "string" ? key : Buffer.from(key).toString("utf8");
    this.#waiting.set(this.#turn++, { key: text, data: Uint8Array.prototype.slice.call(data) });
    this.#pump();
  }

  async flush(): Promise<void> {
    if (this.#active > 0 || this.#waiting.size > 0) {
      if (this.#idle === null) {
        let resolve = () => {};
        const promise = new Promise<void>((done) => {
          resolve = done;
        });
        this.#idle = { promise, resolve };
      }
      await this.#idle.promise;
    }
    const failure = this.#failure;
    this.#failure = null;
    if (failure !== null) throw failure;
  }

  #pump(): void {
    for (const [turn, next] of this.#waiting) {
      if (this.#active >= ENQUEUED_PUTS_MAX) break;
      this.#waiting.delete(turn);
      this.#active++;
      const before = this.#busyKeys.get(next.key) ?? Promise.resolve();
      const done: Promise<void> = before
        .then(() => this.#put(next.key, next.data))
        .then(
          () => {},
          (error) => {
            this.#failure ??= error;
          },
        )
        .then(() => {
          if (this.#busyKeys.get(next.key) === done) this.#busyKeys.delete(next.key);
          this.#active--;
          this.#pump();
        });
      this.#busyKeys.set(next.key, done);
    }
    if (this.#active === 0 && this.#waiting.size === 0 && this.#idle !== null) {
      this.#idle.resolve();
      this.#idle = null;
    }
  }
}

/**
 * A stream has no deadline as a whole, since an object may be large; instead it may not stand still for longer
 * than the channel's timeout.
 */
class Watchdog {
  /** Set once it has fired. */
  error: MillraceError | null = null;
  readonly #channel: ControlChannel;
  readonly #cancel: () => void;
  #timer: NodeJS.Timeout | null = null;

  constructor(channel: ControlChannel, cancel: () => void) {
    this.#channel = channel;
    this.#cancel = cancel;
  }

  /** A byte moved, or is about to. */
  reset(): void {
    if (this.#timer !== null) {
      this.#timer.refresh();
      return;
    }
    this.#timer = setTimeout(() => {
      const { address, timeoutMs } = this.#channel;
      const message = `no byte moved to or from the node at ${address} for ${timeoutMs} ms`;
      this.error = new MillraceError("DEADLINE_EXCEEDED", message);
      this.#cancel();
    }, this.#channel.timeoutMs);
  }

  /** Until the next `reset`. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

function objectInfo(message: ObjectInfoMessage): ObjectInfo {
  const { sizeBytes, sequence, crc32c, sealedUnixMs } = message;
  return { sizeBytes, sequence, crc32c, sealedUnixMs };
}

function conditionMessage(condition: Condition | undefined): ConditionMessage | null {
  if (condition?.ifAbsent !== true && condition?.ifSequence === undefined) return null;
  return { ifAbsent: condition.ifAbsent ?? false, ifSequence: condition.ifSequence ?? 0 };
}

async function nullWhereNotFound<T>(operation: Promise<T>): Promise<T | null> {
  try {
    return await operation;
  } catch (error) {
    if (error instanceof MillraceError && error.code === "NOT_FOUND") return null;
    throw error;
  }
}

/**
 * Rejects with NAMESPACE_GONE unless the namespace is still the one of the token: it may have ended, and another
 * may bear its name by now, whose bytes are none of this handle's business.
 */
export async function checkNamespaceLives(
  channel: ControlChannel,
  name: string,
  token: Uint8Array,
): Promise<void> {
  const found = await channel
    .unary(loadContract().namespaces.OpenNamespace, { name }, { idempotent: true })
    .catch((error: MillraceError) => {
      if (error.code === "NOT_FOUND") return null;
      throw error;
    });
  if (found === null || !Buffer.from(token).equals(found.token)) {
    const why = "its lease lapsed, it was deleted, or its node was restarted";
    throw new MillraceError("NAMESPACE_GONE", `namespace ${name} is gone: ${why}`);
  }
}

function protocolError(message: string): MillraceError {
  return new MillraceError("PROTOCOL", `${message}; client and node may be of different versions`);
}

function unsupportedView(): MillraceError {
  return new MillraceError("UNSUPPORTED", "views need shared memory; over grpc use get()");
}
