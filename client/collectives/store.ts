/** Entries as collectives read and write them: a header and bytes behind it, in one object. */
import { MillraceError } from "../errors.js";
import type { NamespaceSession } from "../session.js";
import type { ByteSpan, Condition, ObjectInfo, Transport } from "../transport.js";
import { ValueCache } from "./cache.js";
import { decodeHeader, encodeHeader, HEADER_BYTES, type Header } from "./entry.js";
import { CACHE_BYTES_MAX, SMALL_ENTRY_BYTES_MAX } from "./limits.js";
import { peek, release } from "./numbers.js";

export interface Entry {
  header: Header;
  /** Identifies this version of the entry. */
  sequence: number;
}

/** Fills the payload of an entry into `room`. */
export type Fill = (room: ByteSpan) => Promise<void>;

export class EntryStore {
  readonly #session: NamespaceSession;
  readonly #cache = new ValueCache(CACHE_BYTES_MAX);

  constructor(session: NamespaceSession) {
    this.#session = session;
  }

  /** Whether entries can be read in place. */
  get inPlace(): boolean {
    return this.#session.kind === "shm";
  }

  /** Null where there is no such entry. */
  async head(key: string): Promise<Entry | null> {
    const got = await this.#range(key, 0, HEADER_BYTES).catch((thrown: unknown) => {
      const error = MillraceError.from(thrown);
      if (error.code !== "OUT_OF_RANGE") throw error;
      return decodeHeader(key, new Uint8Array(0), 0) as never; // which throws
    });
    if (got === null) return null;
    const header = decodeHeader(key, peek(got.bytes, HEADER_BYTES), got.info.sizeBytes);
    release(got.bytes);
    return { header, sequence: got.info.sequence };
  }

  /**
   * The header and, of an entry of `round`, the `payloadBytes` that follow it, for a kernel: over a network in one
   * request. Null where there is no such entry. The payload is null where it has another size or is of another round.
   */
  async read(
    key: string,
    round: number,
    payloadBytes: number,
  ): Promise<(Entry & { payload: ByteSpan | null }) | null> {
    if (!this.inPlace) {
      const got = await this.#range(key, 0, HEADER_BYTES + payloadBytes).catch((thrown: unknown) => {
        const error = MillraceError.from(thrown);
        if (error.code === "OUT_OF_RANGE") return undefined;
        throw error;
      });
      if (got === null) return null;
      const bytes = got?.bytes;
      if (got !== undefined && bytes instanceof Uint8Array) {
        const header = decodeHeader(key, bytes, got.info.sizeBytes);
        const isWanted = header.round === round && header.payloadBytes === payloadBytes;
        const payload = isWanted ? bytes.subarray(HEADER_BYTES) : null;
        return { header, sequence: got.info.sequence, payload };
      }
      // A span: shared memory has come back meanwhile.
      if (bytes !== undefined) release(bytes);
    }
    for (;;) {
      const entry = await this.head(key);
      if (entry === null) return null;
      const { header } = entry;
      if (header.round !== round || header.payloadBytes !== payloadBytes) return { ...entry, payload: null };
      const payload = await this.payload(key, entry, 0, payloadBytes);
      if (payload !== null) return { ...entry, payload };
      // Overwritten in between.
    }
  }

  /** A range of the payload of this very version, for a kernel. Null where it was overwritten. */
  async payload(key: string, entry: Entry, offset: number, length: number): Promise<ByteSpan | null> {
    if (length === 0) return new Uint8Array(0);
    const got = await this.#range(key, HEADER_BYTES + offset, length).catch((thrown: unknown) => {
      const error = MillraceError.from(thrown);
      if (error.code === "OUT_OF_RANGE") return null;
      throw error;
    });
    if (got === null) return null;
    if (got.info.sequence === entry.sequence) return got.bytes;
    release(got.bytes);
    return null;
  }

  /**
   * The whole payload for JavaScript: over shm a view in place, else memory that all readers of this version in this
   * process share. Null where it was overwritten.
   */
  async value(key: string, { header, sequence }: Entry): Promise<Uint8Array | null> {
    const { payloadBytes } = header;
    if (payloadBytes === 0) return new Uint8Array(0);
    const range = { offset: HEADER_BYTES, length: payloadBytes };
    const fetch = async () => {
      try {
        const got = await this.#session.run((transport) => transport.get(key, range));
        if (got === null || got.info.sequence !== sequence) return null;
        const { bytes } = got;
        // gRPC gives Buffers, whose `slice` does not copy.
        return this.inPlace ? bytes : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
      } catch (thrown) {
        const error = MillraceError.from(thrown);
        if (error.code === "OUT_OF_RANGE") return null;
        throw error;
      }
    };
    return this.inPlace ? fetch() : this.#cache.get(key, sequence, payloadBytes, fetch);
  }

  /** Seals an entry. CONDITION_FAILED where the condition does not hold; UNAVAILABLE: it may have been sealed. */
  put(key: string, header: Header, payload: Uint8Array, condition: Condition): Promise<ObjectInfo> {
    const head = encodeHeader(header);
    if (payload.length > SMALL_ENTRY_BYTES_MAX) {
      return this.#write(key, header, condition, (writer) => writer.write(payload));
    }
    const bytes = new Uint8Array(HEADER_BYTES + payload.length);
    bytes.set(head);
    bytes.set(payload, HEADER_BYTES);
    return this.#session.runOnce((transport) => transport.put(key, bytes, condition));
  }

  /** As `put`; `fill` writes the payload into memory of the store itself, where the transport allows. */
  putFilled(key: string, header: Header, fill: Fill, condition: Condition): Promise<ObjectInfo> {
    return this.#write(key, header, condition, async (writer) => {
      const { payloadBytes } = header;
      const room = await (writer.reserveSpan?.(payloadBytes) ?? writer.reserve(payloadBytes));
      await fill(room);
      release(room);
    });
  }

  close(): void {
    this.#cache.clear();
  }

  #write(
    key: string,
    header: Header,
    condition: Condition,
    write: (writer: Awaited<ReturnType<Transport["openWriter"]>>) => Promise<void>,
  ): Promise<ObjectInfo> {
    return this.#session.runOnce(async (transport) => {
      const writer = await transport.openWriter(key, { sizeBytes: HEADER_BYTES + header.payloadBytes });
      try {
        await writer.write(encodeHeader(header));
        await write(writer);
      } catch (error) {
        await writer.abort().catch(() => {}); // the first error is the one that matters
        throw error;
      }
      return writer.seal(condition);
    });
  }

  #range(key: string, offset: number, length: number): Promise<{ info: ObjectInfo; bytes: ByteSpan } | null> {
    return this.#session.run(
      async (transport) =>
        transport.getSpan?.(key, { offset, length }) ?? transport.get(key, { offset, length }),
    );
  }
}
