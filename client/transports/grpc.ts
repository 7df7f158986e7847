/**
 * The transport that needs no native code: whole objects and ranges over the `Objects` service, in chunks of at
 * most 1 MiB, with back-pressure both ways. Bytes are checked by CRC32C: puts by the node against what was
 * computed here, whole gets here against what the node has on record.
 */
import { loadContract } from "../../proto/load.js";
import type { PutHeader } from "../../proto/messages.js";
import { crc32c } from "../checksum.js";
import type { ControlChannel } from "../control.js";
import { MillraceError } from "../errors.js";
import { reopenNamespace } from "../identity.js";
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
import { collect } from "./grpc_get.js";
import { conditionMessage, objectInfo } from "./grpc_messages.js";
import { GrpcObjectWriter, PutStream } from "./grpc_put.js";
import { PutQueue } from "./put_queue.js";

const NO_BYTES = new Uint8Array(0);

/** A node that was away may be another one: see `onLost`. */
const FAIL_FAST = { failFast: true };

export class GrpcTransport implements Transport {
  readonly kind = "grpc";
  readonly #channel: ControlChannel;
  readonly #namespace: string;
  readonly #namespaceId: string;
  readonly #objects = loadContract().objects;
  readonly #usage = { bytesIn: 0, bytesOut: 0, operations: 0, copiesAvoidedBytes: 0 };
  readonly #queue: PutQueue;
  #lost: (error: Error) => void = () => {};
  #closed = false;

  /** The channel is shared, and closed by whoever opened it. */
  constructor(channel: ControlChannel, namespace: string, namespaceId: string) {
    this.#channel = channel;
    this.#namespace = namespace;
    this.#namespaceId = namespaceId;
    this.#queue = new PutQueue((key, data) => this.put(key, data));
  }

  /** So that a full store is told as such before this side gives up. */
  #roomWaitMs(): number {
    return Math.max(1, Math.floor(this.#channel.timeoutMs * 0.75));
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
        roomWaitMs: this.#roomWaitMs(),
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
        const call = this.#channel.serverStream(this.#objects.Get, request);
        const got = await collect(call, this.#channel, offset, length);
        this.#count(0, got.bytes.length);
        return got;
      }),
    );
  }

  head(key: Key): Promise<ObjectInfo | null> {
    const request = { namespace: this.#namespace, key: keyBytes(key) };
    return nullWhereNotFound(
      this.#operation(async () => {
        const info = await this.#channel.unary(this.#objects.Head, request, FAIL_FAST);
        this.#count(0, 0);
        return objectInfo(info);
      }),
    );
  }

  delete(key: Key, condition?: Condition): Promise<boolean> {
    return this.#operation(async () => {
      const request = {
        namespace: this.#namespace,
        key: keyBytes(key),
        condition: conditionMessage(condition),
      };
      const { existed } = await this.#channel.unary(this.#objects.Delete, request, FAIL_FAST);
      this.#count(0, 0);
      return existed;
    });
  }

  copy(from: Key, to: Key, condition?: Condition): Promise<ObjectInfo> {
    return this.#operation(async () => {
      const request = {
        namespace: this.#namespace,
        fromKey: keyBytes(from),
        toKey: keyBytes(to),
        condition: conditionMessage(condition),
        toNamespace: "",
      };
      const info = await this.#channel.unary(this.#objects.Copy, request, FAIL_FAST);
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
        FAIL_FAST,
      );
      this.#count(0, 0);
      const objects = page.objects.map((object) => ({ key: object.key, ...objectInfo(object) }));
      return { objects, truncated: page.truncated };
    });
  }

  async openWriter(key: Key, options: { sizeBytes?: number } = {}): Promise<ObjectWriter> {
    this.#checkOpen();
    // Opening sends nothing, but a writer that cannot send what follows is none.
    if (this.isAway()) {
      const error = new MillraceError(
        "UNAVAILABLE",
        `the node at ${this.#channel.address} cannot be reached`,
      );
      this.#lost(error);
      throw error;
    }
    const put = this.#openPut(key, {
      sizeBytes: options.sizeBytes ?? 0,
      sizeKnown: options.sizeBytes !== undefined,
      condition: null,
      crc32c: 0,
      hasCrc32c: false,
      // Else an abort could pass for the end of the object.
      endsWithTrailer: true,
      roomWaitMs: this.#roomWaitMs(),
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

  isAway(): boolean {
    return !this.#channel.connected;
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
      await reopenNamespace(this.#channel, this.#namespace, this.#namespaceId);
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

async function nullWhereNotFound<T>(operation: Promise<T>): Promise<T | null> {
  try {
    return await operation;
  } catch (error) {
    if (error instanceof MillraceError && error.code === "NOT_FOUND") return null;
    throw error;
  }
}

function unsupportedView(): MillraceError {
  return new MillraceError("UNSUPPORTED", "views need shared memory; over grpc use get()");
}
