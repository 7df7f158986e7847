/** The writer of one object over the `shm` transport. */
import { MillraceError } from "../errors.js";
import type { ByteSpan, Condition, ObjectInfo, ObjectWriter } from "../transport.js";
import type { NativeShmHandle } from "./native_handle.js";
import type { NativeTransport } from "./native_transport.js";

/** A written object of unknown size starts with a part of this size; each next part is twice as large. */
const FIRST_PART_BYTES = 256 * 1024;

/** What the writer needs of its transport. */
export interface ShmWriterHost extends Pick<NativeTransport, "nextId" | "expectReply" | "takeInfo"> {
  windowOf(segment: number): ArrayBuffer;
  nextEvent(): Promise<void>;
  trackedPut(bytes: number): Promise<ObjectInfo>;
  countPut(bytes: number): void;
}

/** Writes an object straight into segments: in one entry where its size is known (or it stays small), else in parts. */
export class ShmWriter implements ObjectWriter {
  /** Of the part that is being filled, as `windowOf` takes it; 0: there is none. */
  #segment = 0;
  #offset = 0;
  #capacity = 0;
  #filled = 0;
  #parts = 0;
  #total = 0;
  #nextPartBytes: number;
  #ended = false;

  constructor(
    private readonly transport: ShmWriterHost,
    private readonly native: NativeShmHandle,
    private readonly writer: number,
    sizeBytes: number | undefined,
  ) {
    this.#nextPartBytes =
      sizeBytes === undefined
        ? FIRST_PART_BYTES
        : sizeBytes <= native.contiguousBytesMax
          ? sizeBytes
          : native.partBytes;
  }

  async reserve(bytes: number): Promise<Uint8Array> {
    const offset = await this.#take(bytes);
    const window = typed(() => this.transport.windowOf(this.#segment));
    return new Uint8Array(window, offset, bytes);
  }

  async reserveSpan(bytes: number): Promise<ByteSpan> {
    const offset = await this.#take(bytes);
    return typed(() => this.native.span(this.#segment, offset, bytes));
  }

  /** Takes the next bytes of the object; where in the segment of the part they lie. */
  async #take(bytes: number): Promise<number> {
    this.#check();
    if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > this.native.contiguousBytesMax) {
      throw new MillraceError(
        "OBJECT_TOO_LARGE",
        `at most ${this.native.contiguousBytesMax} contiguous bytes can be reserved, not ${bytes}`,
      );
    }
    await this.#nextPart(bytes);
    const offset = this.#offset + this.#filled;
    this.#filled += bytes;
    this.#total += bytes;
    return offset;
  }

  async write(data: Uint8Array): Promise<void> {
    this.#check();
    for (let at = 0; at < data.byteLength; ) {
      if (this.#filled === this.#capacity) await this.#nextPart(1);
      const part = Math.min(data.byteLength - at, this.#capacity - this.#filled);
      try {
        const copied = this.native.writerCopy(this.writer, this.#filled, data.subarray(at, at + part));
        if (copied !== null) await copied;
      } catch (error) {
        throw MillraceError.from(error);
      }
      this.#filled += part;
      this.#total += part;
      at += part;
    }
  }

  async seal(options: Condition & { crc32c?: number } = {}): Promise<ObjectInfo> {
    this.#check();
    if (this.#segment === 0) await this.#nextPart(0);
    if (this.#parts > 0 && this.#segment !== 0) await this.#endPart();
    this.#ended = true;
    const id = this.transport.nextId();
    try {
      for (;;) {
        const sealed = this.native.writerSeal(
          this.writer,
          id,
          this.#filled,
          options.crc32c ?? -1,
          options.ifAbsent ?? false,
          options.ifSequence ?? 0,
        );
        if (sealed === 2) return this.transport.trackedPut(this.#total);
        if (sealed === 1) break;
        await this.transport.nextEvent();
      }
    } catch (error) {
      throw MillraceError.from(error);
    }
    this.transport.countPut(this.#total);
    return new Promise((resolve, reject) => {
      this.transport.expectReply(id, {
        take: (base) => resolve(this.transport.takeInfo(base)),
        reject,
        data: null,
      });
    });
  }

  async abort(): Promise<void> {
    this.#check();
    this.#ended = true;
    typed(() => this.native.writerAbort(this.writer));
  }

  #check(): void {
    if (this.#ended) throw new MillraceError("CLOSED", "this writer was sealed or aborted");
  }

  /** Makes sure that the current part has room for `bytes` more; ends it and begins another where not. */
  async #nextPart(bytes: number): Promise<void> {
    if (this.#segment !== 0 && this.#capacity - this.#filled >= bytes) return;
    if (this.#segment !== 0) await this.#endPart();
    const wanted = Math.max(bytes, this.#nextPartBytes);
    try {
      while (!this.native.writerAllocate(this.writer, wanted)) await this.transport.nextEvent();
    } catch (error) {
      throw MillraceError.from(error);
    }
    this.#segment = this.native.out[0]!;
    this.#offset = this.native.out[1]!;
    this.#capacity = wanted;
    this.#filled = 0;
    this.#nextPartBytes = Math.min(Math.max(2 * wanted, FIRST_PART_BYTES), this.native.partBytes);
  }

  async #endPart(): Promise<void> {
    try {
      while (!this.native.writerEndPart(this.writer, this.#filled)) {
        if (!this.native.acked(this.native.pushed() - 1024, false)) await this.transport.nextEvent();
      }
    } catch (error) {
      throw MillraceError.from(error);
    }
    if (this.#filled > 0) this.#parts++;
    this.#segment = 0;
    this.#filled = 0;
    this.#capacity = 0;
  }
}

function typed<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw MillraceError.from(error);
  }
}
