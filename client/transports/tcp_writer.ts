/** The writer of one object over the `tcp` transport. */
import { MillraceError } from "../errors.js";
import type { Condition, Key, ObjectInfo, ObjectWriter } from "../transport.js";
import type { NativeHandle } from "./native_handle.js";
import type { NativeTransport } from "./native_transport.js";

const KIB = 1024;
const MIB = 1024 * KIB;
/** Over tcp, objects up to this are sent with one request once they are complete, larger ones piece by piece. */
const BUFFERED_WRITE_BYTES_MAX = 64 * MIB;
const APPEND_BYTES = 4 * MIB;

/** What the writer needs of its transport. */
export interface TcpWriterHost extends Pick<NativeTransport, "request" | "takeInfo"> {
  put(key: Key, data: Uint8Array, condition?: Condition): Promise<ObjectInfo>;
  nextDraft(): number;
  countIn(bytes: number): void;
}

/** Gathers the object; what grows beyond a bound goes out piece by piece into a draft of the daemon. */
export class TcpWriter implements ObjectWriter {
  #chunk: Uint8Array;
  #filled = 0;
  #draft = 0;
  #ended = false;

  constructor(
    private readonly transport: TcpWriterHost,
    private readonly native: NativeHandle,
    private readonly key: Key,
    sizeBytes: number,
  ) {
    this.#chunk = new Uint8Array(Math.min(sizeBytes > 0 ? sizeBytes : 64 * KIB, BUFFERED_WRITE_BYTES_MAX));
  }

  async reserve(bytes: number): Promise<Uint8Array> {
    this.#check();
    await this.#makeRoom(bytes);
    const view = this.#chunk.subarray(this.#filled, this.#filled + bytes);
    this.#filled += bytes;
    return view;
  }

  async write(data: Uint8Array): Promise<void> {
    this.#check();
    for (let at = 0; at < data.byteLength; ) {
      await this.#makeRoom(Math.min(data.byteLength - at, APPEND_BYTES));
      const part = Math.min(data.byteLength - at, this.#chunk.byteLength - this.#filled);
      this.#chunk.set(data.subarray(at, at + part), this.#filled);
      this.#filled += part;
      at += part;
    }
  }

  async seal(options: Condition & { crc32c?: number } = {}): Promise<ObjectInfo> {
    this.#check();
    this.#ended = true;
    const data = this.#chunk.subarray(0, this.#filled);
    const { crc32c } = options;
    if (this.#draft === 0 && crc32c === undefined) return this.transport.put(this.key, data, options);
    await this.#append(data);
    return this.transport.request(
      (id) =>
        this.native.commit(id, this.#draft, crc32c ?? -1, options.ifAbsent ?? false, options.ifSequence ?? 0),
      this.transport.takeInfo,
    );
  }

  async abort(): Promise<void> {
    this.#check();
    this.#ended = true;
    if (this.#draft !== 0) {
      await this.transport.request(
        (id) => this.native.abort(id, this.#draft),
        () => undefined,
      );
    }
  }

  #check(): void {
    if (this.#ended) throw new MillraceError("CLOSED", "this writer was sealed or aborted");
  }

  /** Room for `bytes` contiguous bytes in the chunk. */
  async #makeRoom(bytes: number): Promise<void> {
    if (this.#chunk.byteLength - this.#filled >= bytes) return;
    if (this.#filled + bytes <= BUFFERED_WRITE_BYTES_MAX && this.#draft === 0) {
      const larger = new Uint8Array(
        Math.min(BUFFERED_WRITE_BYTES_MAX, Math.max(this.#chunk.byteLength * 2, this.#filled + bytes)),
      );
      larger.set(this.#chunk.subarray(0, this.#filled));
      this.#chunk = larger;
      return;
    }
    await this.#append(this.#chunk.subarray(0, this.#filled));
    this.#filled = 0;
    if (this.#chunk.byteLength < bytes || this.#chunk.byteLength > 2 * APPEND_BYTES) {
      this.#chunk = new Uint8Array(Math.max(bytes, APPEND_BYTES));
    }
  }

  /** The chunk may be written to again when the promise resolves. */
  async #append(data: Uint8Array): Promise<void> {
    if (this.#draft === 0) {
      this.#draft = this.transport.nextDraft();
      await this.transport.request(
        (id) => this.native.begin(id, this.#draft, this.key),
        () => undefined,
      );
    }
    if (data.byteLength === 0) return;
    await this.transport.request(
      (id) => this.native.append(id, this.#draft, data),
      () => undefined,
      data,
    );
    this.transport.countIn(data.byteLength);
  }
}
