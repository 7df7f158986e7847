/**
 * The native engine as the daemon sees it: the calls of `NativeEngine` with every failure turned into a
 * MillraceError that names the namespace and key it was about. No policy, no state of its own.
 */
import {
  type EngineOptions,
  type Key,
  type NamespaceLimits,
  type NativeCondition,
  type NativeDamage,
  type NativeDoor,
  type NativeDraft,
  type NativeEngine,
  type NativeListedObject,
  type NativeNamespaceStats,
  type NativeNodeStats,
  type NativeObjectInfo,
  type NativeReader,
  type NativeVerifyPage,
  type NativeWatchEvent,
  requireAddon,
} from "../../native/binding/addon.js";
import { MillraceError } from "../../proto/errors.js";

export type {
  EngineOptions,
  Key,
  NamespaceLimits,
  NativeCondition as Condition,
  NativeDoor as Door,
  NativeNamespaceStats as NamespaceStats,
  NativeNodeStats as NodeStats,
  NativeObjectInfo as ObjectInfo,
  NativeReader as ObjectReader,
  NativeWatchEvent as WatchEvent,
} from "../../native/binding/addon.js";

export const NO_CONDITION: NativeCondition = { ifAbsent: false, ifSequence: 0 };

// A caller that left is noticed after so many objects.
const VERIFY_PAGE_OBJECTS = 256;

/** What a check of a namespace's bytes found. */
export interface Verified {
  /** Objects, and their bytes. */
  checked: number;
  sizeBytes: number;
  damaged: NativeDamage[];
}

/** An object being written. Exactly one of `seal` and `abort` ends it; `abort` after either does nothing. */
export class Draft {
  private ended = false;

  constructor(
    private readonly native: NativeDraft,
    private readonly what: string,
  ) {}

  /**
   * Copies the bytes into the store and returns how many it took: fewer where room ran out midway.
   * RESOURCE_EXHAUSTED where there was room for none; the draft stays as it was.
   */
  write(bytes: Uint8Array): number {
    return guarded(this.what, () => this.native.write(bytes));
  }

  /**
   * Makes the object visible, with its attributes: opaque bytes, at most `limits.attributesBytesMax`, or null for none.
   * A failure has aborted the draft.
   */
  seal(condition: NativeCondition, crc32c: number | null, attributes: Uint8Array | null): NativeObjectInfo {
    this.ended = true;
    try {
      return guarded(this.what, () => this.native.seal(condition, crc32c, attributes));
    } catch (thrown) {
      this.native.abort();
      throw thrown;
    }
  }

  abort(): void {
    if (this.ended) return;
    this.ended = true;
    this.native.abort();
  }
}

export class Engine {
  private readonly native: NativeEngine;
  private closed = false;

  constructor(options: EngineOptions) {
    this.native = guarded("", () => new (requireAddon().Engine)(options));
  }

  /** Opens the doors asked for. UNAVAILABLE or a system error where an address cannot be had. */
  listen(): { socketPath: string; dataAddress: string } {
    return guarded("", () => this.native.listen());
  }

  setGrpcAddress(address: string): void {
    guarded("", () => this.native.setGrpcAddress(address));
  }

  createNamespace(name: string, token: Uint8Array, limits: NamespaceLimits): void {
    guarded(`namespace ${name}`, () => this.native.createNamespace(name, token, limits));
  }

  /**
   * The namespace as the node's last life left it; `torn` entries did not hold and were left out. NOT_FOUND where
   * nothing of it is left.
   */
  recoverNamespace(
    name: string,
    token: Uint8Array,
    limits: NamespaceLimits,
  ): { objects: number; torn: number } {
    return guarded(`namespace ${name}`, () => this.native.recoverNamespace(name, token, limits));
  }

  /** Removes what earlier lives left and no namespace of this one took up. */
  removeOrphans(): void {
    guarded("", () => this.native.removeOrphans());
  }

  dropNamespace(name: string): void {
    guarded(`namespace ${name}`, () => this.native.dropNamespace(name));
  }

  /** `token` (16 bytes) opens native sessions too, until then; those that it opened end then. */
  admit(name: string, token: Uint8Array, expiresUnixMs: number, readOnly: boolean): void {
    guarded(`namespace ${name}`, () => this.native.admit(name, token, expiresUnixMs, readOnly));
  }

  namespaceStats(name: string): NativeNamespaceStats {
    return guarded(`namespace ${name}`, () => this.native.namespaceStats(name));
  }

  stats(): NativeNodeStats {
    return guarded("", () => this.native.stats());
  }

  head(namespace: string, key: Key): NativeObjectInfo | null {
    return guarded(namespace, () => this.native.head(namespace, key), key);
  }

  /** As `head`, with the object's attributes; null: no such object. */
  describe(namespace: string, key: Key): { info: NativeObjectInfo; attributes: Buffer | null } | null {
    return guarded(namespace, () => this.native.describe(namespace, key), key);
  }

  /** Opens a range of an object for reading (length 0: to the end); null: no such object. */
  open(namespace: string, key: Key, offset: number, length: number): NativeReader | null {
    return guarded(namespace, () => this.native.open(namespace, key, offset, length), key);
  }

  /** `sizeBytes` null: not known yet. */
  begin(namespace: string, key: Key, sizeBytes: number | null): Draft {
    const native = guarded(namespace, () => this.native.begin(namespace, key, sizeBytes ?? -1), key);
    return new Draft(native, describe(namespace, key));
  }

  remove(namespace: string, key: Key, condition: NativeCondition): boolean {
    return guarded(namespace, () => this.native.remove(namespace, key, condition), key);
  }

  /** `attributes` null: those of the source. */
  copy(
    namespace: string,
    from: Key,
    toNamespace: string,
    to: Key,
    condition: NativeCondition,
    attributes: Uint8Array | null,
  ): Promise<NativeObjectInfo> {
    const copy = () => this.native.copy(namespace, from, toNamespace, to, condition, attributes);
    return guardedAsync(namespace, copy, from);
  }

  /**
   * Makes one object of the objects `parts`, in that order, without moving a byte: it becomes visible under `key` in the
   * same instant in which they are no more. NOT_FOUND where one is missing; then nothing has changed.
   */
  join(
    namespace: string,
    key: Key,
    parts: readonly Key[],
    condition: NativeCondition,
    attributes: Uint8Array | null,
  ): NativeObjectInfo {
    return guarded(namespace, () => this.native.join(namespace, key, parts, condition, attributes), key);
  }

  /** Keys that start with the byte 0xff are hidden: listed only where `prefix` starts with it too. */
  list(
    namespace: string,
    prefix: Key,
    startAfter: Key,
    limit: number,
    withAttributes: boolean,
  ): { objects: NativeListedObject[]; truncated: boolean } {
    return guarded(namespace, () => this.native.list(namespace, prefix, startAfter, limit, withAttributes));
  }

  count(namespace: string, door: NativeDoor, bytesIn: number, bytesOut: number, operations: number): void {
    // The namespace may have ended between a call's last byte and its accounting; then nobody is left to bill.
    try {
      this.native.count(namespace, door, bytesIn, bytesOut, operations);
    } catch {}
  }

  /**
   * The object is a map output of the shuffle `group` with these R + 1 partition offsets: where it is demoted its
   * partitions come to lie beside those of the others.
   */
  setPartitions(namespace: string, key: Key, group: string, offsets: Uint32Array | Float64Array): void {
    guarded(namespace, () => this.native.setPartitions(namespace, key, group, offsets), key);
  }

  /**
   * Reads every object of the namespace again, in both tiers, and compares it with its checksum. `signal` ends it early
   * with ABORTED.
   */
  async verifyNamespace(namespace: string, signal: AbortSignal): Promise<Verified> {
    const verified: Verified = { checked: 0, sizeBytes: 0, damaged: [] };
    let startAfter: Key | null = "";
    while (startAfter !== null) {
      if (signal.aborted)
        throw new MillraceError("ABORTED", `the check of namespace ${namespace} was stopped`);
      const page: NativeVerifyPage = await guardedAsync(`namespace ${namespace}`, () =>
        this.native.verifyObjects(namespace, startAfter as Key, VERIFY_PAGE_OBJECTS),
      );
      verified.checked += page.objects;
      verified.sizeBytes += page.sizeBytes;
      verified.damaged.push(...page.damaged);
      startAfter = page.next;
    }
    return verified;
  }

  watch(namespace: string, prefix: Key, onEvents: (events: NativeWatchEvent[]) => void): number {
    return guarded(namespace, () => this.native.watch(namespace, prefix, onEvents));
  }

  unwatch(namespace: string, id: number): void {
    // After the namespace's end there is nothing left to unwatch.
    try {
      this.native.unwatch(namespace, id);
    } catch {}
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.native.close();
  }
}

function describe(namespace: string, key: Key): string {
  const text = typeof key === "string" ? key : Buffer.from(key.buffer, key.byteOffset, key.length).toString();
  return `${namespace}/${text.length > 200 ? `${text.slice(0, 200)}...` : text}`;
}

/** Runs a native call. What it was about is put into words only when it fails. */
function guarded<T>(about: string, call: () => T, key?: Key): T {
  try {
    return call();
  } catch (thrown) {
    throw explained(thrown, about, key);
  }
}

async function guardedAsync<T>(about: string, call: () => Promise<T>, key?: Key): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    throw explained(thrown, about, key);
  }
}

function explained(thrown: unknown, about: string, key?: Key): MillraceError {
  const error = MillraceError.from(thrown);
  const what = key === undefined ? about : describe(about, key);
  if (what === "" || error.message.includes(what)) return error;
  return new MillraceError(error.code, `${what}: ${error.message}`, { cause: thrown });
}
