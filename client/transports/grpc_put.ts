/** The writing of one object over an `Objects.Put` stream. */
import type { ClientWritableStream } from "@grpc/grpc-js";
import { CHUNK_BYTES_MAX, loadContract } from "../../proto/load.js";
import type { ObjectInfoMessage, PutHeader, PutRequest } from "../../proto/messages.js";
import { crc32c } from "../checksum.js";
import type { ControlChannel } from "../control.js";
import { MillraceError } from "../errors.js";
import type { Condition, ObjectInfo, ObjectWriter } from "../transport.js";
import { conditionMessage, objectInfo, protocolError } from "./grpc_messages.js";
import { Watchdog } from "./watchdog.js";

const NO_BYTES = new Uint8Array(0);

/** Chunks handed to gRPC and not yet taken by the socket. */
const CHUNKS_IN_FLIGHT_MAX = 4;

/** One Put call. `end` or `cancel` ends it; cancelled or broken off it leaves nothing behind. */
export class PutStream {
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
    // Who the caller is, is proved by the first message, so that must not have to wait for bytes.
    const first: PutRequest | null = channel.proves ? { header, data: NO_BYTES, trailer: null } : null;
    this.#header = first === null ? header : null;
    const { call, response } = channel.clientStream(loadContract().objects.Put, first);
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

export interface WriterContext {
  /** Runs a step of the writer and notices when it fails because the node or the namespace is gone. */
  operation<T>(run: () => Promise<T>): Promise<T>;
  onSealed(sizeBytes: number): void;
}

/** Writes one object over one Put call; see ObjectWriter. */
export class GrpcObjectWriter implements ObjectWriter {
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
