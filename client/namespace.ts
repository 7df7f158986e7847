/** The handle of one namespace: objects, streams, batches, watches, shuffles. */
import type { Readable } from "node:stream";
import { loadContract } from "../proto/load.js";
import type {
  NamespaceMessage,
  ObjectInfoMessage,
  Receipt,
  RenewLeaseResponse,
  WatchEvent,
} from "../proto/messages.js";
import { Arrivals } from "./collectives/arrivals.js";
import { Group, type GroupOptions } from "./collectives/group.js";
import { KEY_PREFIX } from "./collectives/limits.js";
import { EntryStore } from "./collectives/store.js";
import { VersionedValue } from "./collectives/versioned_value.js";
import type { MillraceError } from "./errors.js";
import { Heartbeat } from "./lease.js";
import {
  checkCondition,
  checkCount,
  checkData,
  checkKey,
  checkPrefix,
  checkRange,
  keyBytes,
} from "./names.js";
import type { NamespaceSession, Usage } from "./session.js";
import { Shuffle, type ShuffleOptions, type ShuffleShape } from "./shuffle.js";
import { createReadStream, notFound, ObjectWriteStream, type WriteStreamOptions } from "./streams.js";
import type {
  Condition,
  GetOptions,
  GotObject,
  GotSpan,
  Key,
  ObjectInfo,
  ObjectWriter,
  Range,
  Transport,
} from "./transport.js";
import { Watch } from "./watch.js";

/** Objects of one listing page, as the node limits it. */
export const LIST_PAGE_MAX = 1000;

export interface ListedEntry extends ObjectInfo {
  key: string;
}

export interface ListOptions {
  /** Only keys that begin with it. */
  prefix?: Key;
  /** Only keys that come after it, in the order of their bytes. */
  startAfter?: Key;
}

export interface ListPage {
  objects: ListedEntry[];
  /** There is more: go on with `startAfter` = the last key. */
  truncated: boolean;
}

export interface ObjectEvent {
  type: "sealed" | "deleted";
  key: string;
  /** Of the object sealed, or of the one that was deleted. */
  info: ObjectInfo;
}

/** Puts without a promise each; see `Namespace.batch`. */
export interface Batch {
  /** The data may be reused when this returns. */
  put(key: Key, data: Uint8Array | string): void;
  /**
   * Resolves when everything put so far is sealed; rejects with the first failure since the last flush. After
   * UNAVAILABLE each of those puts may have taken place or not: put them again.
   */
  flush(): Promise<void>;
}

/**
 * A namespace as one client sees it. All operations reject with a MillraceError; where nothing else is said:
 *
 * - INVALID_ARGUMENT, KEY_TOO_LONG, OUT_OF_RANGE: the call was wrong. A key has 1 to 1,024 bytes of UTF-8.
 * - NAMESPACE_GONE: the lease lapsed, the namespace was deleted, or its node was restarted without its state.
 * - UNAVAILABLE (retryable): the node was away for longer than the client's timeout; see below.
 * - RESOURCE_EXHAUSTED (retryable): a limit is reached, which the message names.
 * - CLOSED: this handle was closed.
 *
 * **Views.** Over shared memory (`transport` is "shm") the bytes that `get`, `view`, `viewExtents`, read streams
 * and partition readers return are the object itself, in place. Such a view
 *
 * - is valid and never changes for as long as it is referenced, also after the object was overwritten or deleted;
 * - becomes empty (its length 0) when this handle is closed: copy (`new Uint8Array(bytes)`) what must live longer;
 * - must never be written to: the memory is mapped read-only, a write ends the process;
 * - keeps its memory in the store; drop what is not needed any more.
 *
 * Over "tcp" and "grpc" the bytes are memory of their own, and so are those of an object that the node has demoted
 * to its nvme tier because its memory was full. `get`, streams and partition readers read such an object from there.
 *
 * **Checksums.** Bytes that come over a network or out of a file are compared with the checksum of the object, or of
 * the stretch of it that was read whole (a range of a demoted object is not, unless `verify` is true). A view is when
 * this handle reads the object for the first time, small objects each time: that first look costs as much as reading
 * the bytes once. `verify` of `GetOptions` asks for it again, or spares it. CORRUPT and CHECKSUM_MISMATCH: the bytes
 * are not what was put.
 *
 * **A node that is restarted.** Handles go on by themselves when it is back. Meanwhile operations wait, at most for
 * the client's timeout, and those under way when it went are sent again: reads, `head`, lists, and also `put` and
 * `delete` without condition, which lead to the same when they are done twice (`delete` may then say that there was
 * no such object). What must not be done twice, `copy` and all with a condition, fails with UNAVAILABLE where it was
 * sent and not answered; so do writers and write streams that are open, and `flush` for puts that are not
 * acknowledged. `view`, `viewExtents` and `Batch.put`, which cannot wait, throw UNAVAILABLE while the node is away.
 * Views stay valid.
 */
export class Namespace implements AsyncDisposable {
  readonly name: string;
  readonly leaseMs: number;
  readonly createdUnixMs: number;
  readonly #session: NamespaceSession;
  readonly #heartbeat: Heartbeat | null;
  readonly #onClose: (namespace: Namespace) => void;
  readonly #entries: EntryStore;
  readonly #arrivals: Arrivals;
  #closing: Promise<void> | null = null;

  /** @internal Use `Client.createNamespace` or `openNamespace`. */
  constructor(
    session: NamespaceSession,
    namespace: NamespaceMessage,
    options: { keepAlive: boolean; onClose: (namespace: Namespace) => void },
  ) {
    this.name = namespace.name;
    this.leaseMs = namespace.leaseMs;
    this.createdUnixMs = namespace.createdUnixMs;
    this.#session = session;
    this.#onClose = options.onClose;
    this.#entries = new EntryStore(session);
    this.#arrivals = new Arrivals(() => this.watch(KEY_PREFIX), session.channel.timeoutMs);
    this.#heartbeat = options.keepAlive
      ? new Heartbeat({
          leaseMs: namespace.leaseMs,
          renew: async () => {
            await this.#renew();
            await session.reportUsage();
          },
          onGone: (error) => session.fail(error),
        })
      : null;
  }

  /** What carries the bytes: "shm", "tcp" or "grpc". May change when the connection is made anew. */
  get transport(): Transport["kind"] {
    return this.#session.kind;
  }

  /** Seals an object. CONDITION_FAILED where `condition` does not hold. Strings are stored as UTF-8. */
  put(key: Key, data: Uint8Array | string, condition?: Condition): Promise<ObjectInfo> {
    return this.#run(
      (transport) => transport.put(checkKey(key), checkData(data), checkCondition(condition)),
      condition,
    );
  }

  /**
   * The object's bytes, or those of a range. NOT_FOUND where there is no such object, OUT_OF_RANGE where the
   * range goes past its end. Over shm a view, see above.
   */
  async get(key: Key, range?: Range, options?: GetOptions): Promise<Uint8Array> {
    return (await this.getWithInfo(key, range, options)).bytes;
  }

  /** As `get`, but null where there is no such object. */
  async tryGet(key: Key, range?: Range, options?: GetOptions): Promise<Uint8Array | null> {
    const got = await this.#get(key, range, options);
    return got === null ? null : got.bytes;
  }

  /** As `get`, with the info of the very version read. */
  async getWithInfo(key: Key, range?: Range, options?: GetOptions): Promise<GotObject> {
    const got = await this.#get(key, range, options);
    if (got === null) throw notFound(key);
    return got;
  }

  /**
   * As `getWithInfo`, for kernels: over shm the bytes are an opaque span, which costs the engine's collector nothing.
   * Nothing is checked here: that is for whoever reads the bytes. Null where there is no such object.
   */
  getSpan(key: Key, range?: Range): Promise<GotSpan | null> {
    const options = { verify: false };
    return this.#run(async (transport) => {
      if (range !== undefined) checkRange(range);
      if (transport.getSpan !== undefined) return transport.getSpan(checkKey(key), range, options);
      const got = await transport.get(checkKey(key), range, options);
      return got === null ? null : { ...got, nvmeBytes: 0 };
    });
  }

  /**
   * Over shm: the object in place, at once, without a system call; null where there is no such object. The
   * fastest read there is. An object that lies in several stretches (above 256 MiB, or written piece by piece
   * without its size) is copied together: `viewExtents` spares that. UNSUPPORTED of an object that was demoted to
   * the nvme tier, which only `get` and streams can read, and over other transports. See above for how long a view
   * lives, and for what is checked.
   */
  view(key: Key, options?: GetOptions): Uint8Array | null {
    return this.#session.now().view(checkKey(key), options);
  }

  /** Over shm: as `view`, one view a stretch of the object, in order. */
  viewExtents(key: Key, options?: GetOptions): Uint8Array[] | null {
    return this.#session.now().viewExtents(checkKey(key), options);
  }

  /** Null where there is no such object. */
  head(key: Key): Promise<ObjectInfo | null> {
    return this.#run((transport) => transport.head(checkKey(key)));
  }

  async exists(key: Key): Promise<boolean> {
    return (await this.head(key)) !== null;
  }

  /** Whether there was one. CONDITION_FAILED where `condition` does not hold. */
  delete(key: Key, condition?: Condition): Promise<boolean> {
    return this.#run((transport) => transport.delete(checkKey(key), checkCondition(condition)), condition);
  }

  /** Copies within the namespace. NOT_FOUND, or CONDITION_FAILED where `condition` does not hold of `to`. */
  copy(from: Key, to: Key, condition?: Condition): Promise<ObjectInfo> {
    return this.#session.runOnce((transport) =>
      transport.copy(checkKey(from), checkKey(to), checkCondition(condition)),
    );
  }

  /**
   * All objects in the byte order of their keys, read page by page as the loop goes on: a listing of a
   * namespace that changes meanwhile shows each change or not, by where the loop stands.
   */
  async *list(options: ListOptions = {}): AsyncGenerator<ListedEntry, void, undefined> {
    let startAfter = options.startAfter ?? "";
    for (;;) {
      const page = await this.listPage({ ...options, startAfter });
      yield* page.objects;
      const last = page.objects.at(-1);
      if (!page.truncated || last === undefined) return;
      startAfter = last.key;
    }
  }

  /** One page of at most `limit` objects (1 to 1,000, the default). */
  async listPage(options: ListOptions & { limit?: number } = {}): Promise<ListPage> {
    const { prefix = "", startAfter = "" } = options;
    const limit = checkCount("limit", options.limit ?? LIST_PAGE_MAX, 1, LIST_PAGE_MAX);
    const page = await this.#run((transport) =>
      transport.list(checkPrefix(prefix), checkPrefix(startAfter), limit),
    );
    const objects = page.objects.map(({ key, ...info }) => ({ key: keyText(key), ...info }));
    return { objects, truncated: page.truncated };
  }

  /**
   * The object's bytes, or those of a range, as a stream with back-pressure, all of one version. Errors: as
   * `get`; ABORTED (retryable) where the object is overwritten meanwhile, which over shm cannot happen.
   */
  createReadStream(key: Key, range: Range = {}): Readable {
    checkKey(key);
    checkRange(range);
    return createReadStream((operation) => this.#session.run(operation), key, range);
  }

  /**
   * A stream that writes one object, visible as a whole once `finish` is emitted, with its info in `info`. A
   * stream that is destroyed or fails leaves nothing behind.
   */
  createWriteStream(key: Key, options: WriteStreamOptions = {}): ObjectWriteStream {
    checkKey(key);
    const { sizeBytes, ...condition } = options;
    checkCondition(condition);
    const sized = sizeBytes === undefined ? {} : { sizeBytes: checkCount("sizeBytes", sizeBytes) };
    return new ObjectWriteStream(() => this.openWriter(key, sized), condition);
  }

  /**
   * Puts that share round trips: much faster than `put` for many small objects. All batches of a handle share
   * one queue, in which puts of one key keep their order. It is held in memory: flush now and then.
   */
  batch(): Batch {
    // The transport of what is not flushed yet: if it is lost, so may be those puts, and flush must say so.
    let transport: Transport | null = null;
    return {
      put: (key, data) => {
        transport ??= this.#session.now();
        transport.enqueuePut(checkKey(key), checkData(data));
      },
      flush: async () => {
        const used = transport;
        transport = null;
        await used?.flush();
      },
    };
  }

  /**
   * Writes one object piece by piece, into memory of the store where the transport allows. `seal` makes it
   * visible; without it nothing remains. Give `sizeBytes` where known: room is prepared in one piece.
   */
  openWriter(key: Key, options: { sizeBytes?: number } = {}): Promise<ObjectWriter> {
    return this.#run((transport) => transport.openWriter(checkKey(key), options));
  }

  /** Objects sealed or deleted under a prefix, from when `ready` of the result resolves. */
  watch(prefix: Key = ""): Watch<ObjectEvent> {
    const request = { namespace: this.name, prefix: keyBytes(checkPrefix(prefix)) };
    const { channel } = this.#session;
    const { Watch: method } = loadContract().objects;
    return new Watch(channel, () => channel.serverStream(method, request), { convert: objectEvent });
  }

  /** What the job has cost so far, this handle's same-host reads included. */
  async receipt(): Promise<Receipt> {
    await this.#session.reportUsage().catch((error: MillraceError) => {
      // A namespace that ended lately still has a receipt, to which nothing is added.
      if (error.code !== "NAMESPACE_GONE") throw error;
    });
    const { namespaces } = loadContract();
    return this.#session.channel.unary(namespaces.GetReceipt, { name: this.name }, { idempotent: true });
  }

  /** What went through this handle. */
  usage(): Usage {
    return this.#session.usage();
  }

  /** Renews the lease now, for as long as at creation. Heartbeats do it by themselves, see `createNamespace`. */
  async renewLease(): Promise<void> {
    await this.#renew();
  }

  /** ALREADY_EXISTS where the namespace has a shuffle of that id. */
  createShuffle(id: string, options: ShuffleOptions): Promise<Shuffle> {
    return Shuffle.create(this.#session, id, options);
  }

  /**
   * NOT_FOUND where there is none. Whoever knows its `shape` already (function workers that were told) spares the node
   * the question; then its absence shows when it is used, and its partitioner is left out.
   */
  openShuffle(id: string, shape?: ShuffleShape): Promise<Shuffle> {
    return Shuffle.open(this.#session, id, shape ?? null);
  }

  /** Deletes the shuffle and its map outputs. */
  async deleteShuffle(id: string): Promise<void> {
    await this.#session.channel.unary(loadContract().shuffles.DeleteShuffle, {
      namespace: this.name,
      shuffle: id,
    });
  }

  /**
   * This member of a group of function workers that sum, broadcast and wait for each other. Nothing is created: members
   * find each other by the name, and by agreeing on the size.
   */
  group(name: string, options: GroupOptions): Group {
    return new Group(this.#entries, this.#arrivals, name, options);
  }

  /** A value in versions, for many readers. Nothing is created. */
  value(name: string): VersionedValue {
    return new VersionedValue(this.#entries, this.#arrivals, name);
  }

  /**
   * Ends the heartbeat, reports usage and disconnects. Views over shared memory become empty. The namespace
   * itself lives on until its lease lapses or `Client.deleteNamespace`.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  reportUsage(): Promise<void> {
    return this.#session.reportUsage();
  }

  async #close(): Promise<void> {
    this.#heartbeat?.stop();
    this.#arrivals.close();
    this.#entries.close();
    this.#onClose(this);
    // A node that is gone keeps no receipt either.
    await this.#session.reportUsage().catch(() => {});
    await this.#session.close();
  }

  async #get(key: Key, range: Range | undefined, options: GetOptions | undefined): Promise<GotObject | null> {
    checkKey(key);
    if (range !== undefined) checkRange(range);
    return this.#session.run((transport) => transport.get(key, range, options));
  }

  /** Checks belong into `operation`: so they reject and never throw past a caller's `catch`. */
  #run<T>(operation: (transport: Transport) => Promise<T>, condition?: Condition): Promise<T> {
    const isConditional = condition?.ifAbsent === true || condition?.ifSequence !== undefined;
    return isConditional ? this.#session.runOnce(operation) : this.#session.run(operation);
  }

  #renew(): Promise<RenewLeaseResponse> {
    const { channel } = this.#session;
    // The next heartbeat must not find this one still waiting.
    const timeoutMs = Math.min(channel.timeoutMs, Math.max(this.leaseMs / 3, 50));
    return channel.unary(
      loadContract().namespaces.RenewLease,
      { name: this.name, leaseMs: 0 },
      { idempotent: true, timeoutMs },
    );
  }
}

function objectEvent(event: WatchEvent): ObjectEvent {
  const { key, ...info } = event.object as ObjectInfoMessage;
  return { type: event.type === "DELETED" ? "deleted" : "sealed", key: keyText(key), info };
}

function keyText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString("utf8");
}
