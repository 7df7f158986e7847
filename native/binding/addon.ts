/**
 * The native addon, typed. One place loads it, for the client and the daemon alike.
 *
 * Conventions of the bridge: same names and order on both sides; `null`, never `undefined`; sizes and offsets
 * are JavaScript numbers of bytes (safe up to 2^53); keys are UTF-8 bytes or strings; every failure is an
 * Error whose `code` is one of the names in `native/base/status.h`; handles are closed explicitly, finalizers
 * are only the safety net.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export type Key = string | Uint8Array;

export interface NativeObjectInfo {
  sizeBytes: number;
  sequence: number;
  crc32c: number;
  sealedUnixMs: number;
}

export interface NativeCondition {
  ifAbsent: boolean;
  /** 0: none. */
  ifSequence: number;
}

export type NativeDoor = "shm" | "tcp" | "grpc" | "s3";

export interface NativeTraffic {
  bytesIn: number;
  bytesOut: number;
  operations: number;
}

export interface EngineOptions {
  dramBytes: number;
  hugePages: "auto" | "reserve" | "off";
  /** Threads of the data plane. */
  ioThreads: number;
  /** Path of the Unix socket of the shared-memory door, or null to leave it closed. */
  socketPath: string | null;
  /** Address of the TCP data door, or null to leave it closed. Port 0 picks one. */
  dataHost: string | null;
  dataPort: number;
  nodeId: string;
  /** Directories of the nvme tier; none: no such tier. */
  nvme: { path: string; limitBytes: number }[];
  /** Segments outlive the process: `recoverNamespace` of the next engine on the same directories finds them. */
  keep: boolean;
  /** Folder on a tmpfs where memory lies as files, or null for memory without names. */
  memoryDirectory: string | null;
  /** The same on a hugetlbfs, for pages of 2 MiB; null: none. */
  hugeDirectory: string | null;
}

export interface NamespaceLimits {
  /** 0: no limit but the node's. */
  limitBytes: number;
  dramLimitBytes: number;
  expectedBytes: number;
  /** 0: no limit; holds for remote doors. */
  bandwidthBytesPerSecond: number;
  /** Which namespaces are demoted first: capacity, then throughput, then latency. */
  hint: "capacity" | "throughput" | "latency";
}

export interface NativeNamespaceStats {
  objects: number;
  sizeBytes: number;
  segmentBytes: number;
  deadBytes: number;
  heldBytes: number;
  indexBytes: number;
  peakBytes: number;
  segments: number;
  sealedTotal: number;
  dramByteSeconds: number;
  nvmeByteSeconds: number;
  /** Of segments in memory, those included that clients still map. */
  dramBytes: number;
  nvmeBytes: number;
  /** Of `dramBytes`: what writers may fill. */
  grantedBytes: number;
  /** Payload moved since the namespace began. */
  demotedBytes: number;
  promotedBytes: number;
  cleanedBytes: number;
  traffic: Record<NativeDoor, NativeTraffic>;
}

export interface NativeNodeStats {
  dramLimitBytes: number;
  dramUsedBytes: number;
  dramSpareBytes: number;
  hugePageBytes: number;
  heldBytes: number;
  sessions: number;
  nvmeLimitBytes: number;
  nvmeUsedBytes: number;
  nvmeWrittenBytes: number;
  /** `fault`: why nothing new is written to it; "" where it is. */
  nvmeDirectories: { path: string; limitBytes: number; usedBytes: number; fault: string }[];
  fileBackend: "uring" | "threads";
}

export interface NativeListedObject extends NativeObjectInfo {
  key: Buffer;
  /** Null where it has none or they were not asked for. */
  attributes: Buffer | null;
}

export interface NativeWatchEvent {
  deleted: boolean;
  key: Buffer;
  info: NativeObjectInfo;
}

export interface NativeDamage {
  key: Buffer;
  /** Where the damage lies, or the first of the segments where it may. */
  segment: number;
  message: string;
}

/** What a namespace of a node that does not run has left. */
export interface NativeInspection {
  objects: number;
  sizeBytes: number;
  /** Entries that the index names and that do not hold. */
  torn: number;
  /** By number; those that nothing lives of have no live bytes. */
  segments: {
    number: number;
    tier: "dram" | "nvme";
    path: string;
    bytes: number;
    liveBytes: number;
    /** Entries that the index names: bytes in `nvme` belong to entries in `dram`. */
    objects: number;
  }[];
  damaged: NativeDamage[];
}

export interface NativeVerifyPage {
  objects: number;
  sizeBytes: number;
  damaged: NativeDamage[];
  /** Where the next page starts after; null where this was the last. */
  next: Buffer | null;
}

/** An object being written by the daemon for a remote client. `seal` or `abort` ends it; both once only. */
export interface NativeDraft {
  /**
   * Copies the bytes into the store and returns how many it took: fewer where room ran out midway.
   * RESOURCE_EXHAUSTED where there was room for none.
   */
  write(bytes: Uint8Array): number;
  /**
   * `crc32c` is checked against the bytes written, or null. `attributes` (at most `limits.attributesBytesMax`, opaque,
   * or null for none) are sealed with the object and go wherever it goes.
   */
  seal(condition: NativeCondition, crc32c: number | null, attributes: Uint8Array | null): NativeObjectInfo;
  abort(): void;
}

/** A range of one version of an object, being read for a remote client. */
export interface NativeReader {
  readonly info: NativeObjectInfo;
  readonly attributes: Buffer | null;
  /** Whether any of it lies in files and so has to be read with `readAsync`. */
  readonly inFiles: boolean;
  /**
   * Fills `into` with the next bytes and returns how many there were: fewer at the end of the range, then 0.
   * CORRUPT at the end of a whole object that does not match its checksum.
   */
  read(into: Uint8Array): number;
  /**
   * The same for objects in files, some of which are read ahead; `into` must stay as it is until the promise settles.
   * CORRUPT instead of the last bytes of an extent that does not match its checksum, SYSTEM where the file cannot be
   * read.
   */
  readAsync(into: Uint8Array): Promise<number>;
  /** Lets go of the object's memory. A `readAsync` that waits fails with CLOSED. */
  close(): void;
}

/** The daemon's side: store, native transports. */
export interface NativeEngine {
  /** Opens the doors asked for; addresses really bound ("" where closed). */
  listen(): { socketPath: string; dataAddress: string };
  /** What clients of the socket and the data door are told about the control plane. */
  setGrpcAddress(address: string): void;
  createNamespace(name: string, token: Uint8Array, limits: NamespaceLimits): void;
  /**
   * The namespace as an earlier engine on the same directories left it. `torn`: entries that did not hold and were
   * left out. NOT_FOUND where nothing of it is left.
   */
  recoverNamespace(
    name: string,
    token: Uint8Array,
    limits: NamespaceLimits,
  ): { objects: number; torn: number };
  /** Removes what earlier engines left and no namespace of this one took up. */
  removeOrphans(): void;
  dropNamespace(name: string): void;
  namespaceStats(name: string): NativeNamespaceStats;
  stats(): NativeNodeStats;
  head(namespace: string, key: Key): NativeObjectInfo | null;
  /** As `head`, with the object's attributes; null: no such object. */
  describe(namespace: string, key: Key): { info: NativeObjectInfo; attributes: Buffer | null } | null;
  /**
   * Opens the range of an object for reading, pinned to the version found; close it. Length 0: to the end.
   * Null: no such object.
   */
  open(namespace: string, key: Key, offset: number, length: number): NativeReader | null;
  /** `sizeBytes` -1: not known yet. */
  begin(namespace: string, key: Key, sizeBytes: number): NativeDraft;
  remove(namespace: string, key: Key, condition: NativeCondition): boolean;
  copy(
    namespace: string,
    from: Key,
    toNamespace: string,
    to: Key,
    condition: NativeCondition,
    /** Null: those of the source. */
    attributes: Uint8Array | null,
  ): Promise<NativeObjectInfo>;
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
  ): NativeObjectInfo;
  /** Keys that start with the byte 0xff are hidden: listed only where `prefix` starts with it too. */
  list(
    namespace: string,
    prefix: Key,
    startAfter: Key,
    limit: number,
    withAttributes: boolean,
  ): { objects: NativeListedObject[]; truncated: boolean };
  count(namespace: string, door: NativeDoor, bytesIn: number, bytesOut: number, operations: number): void;
  /** Tells that an object is a map output of the shuffle `group`, with these R + 1 partition offsets. */
  setPartitions(namespace: string, key: Key, group: string, offsets: Uint32Array | Float64Array): void;
  /** Reads at most `limit` objects after the key `startAfter` again and compares them with their checksums. */
  verifyObjects(namespace: string, startAfter: Key, limit: number): Promise<NativeVerifyPage>;
  /** Events arrive in batches on the event loop. Returns an id for `unwatch`. */
  watch(namespace: string, prefix: Key, onEvents: (events: NativeWatchEvent[]) => void): number;
  unwatch(namespace: string, id: number): void;
  close(): void;
}

/**
 * Bytes of a segment, opaque: kernels take it where they take a Uint8Array. It keeps the bytes in place until it is
 * released or collected. Unlike a view it costs the engine's collector nothing, unless the bytes were read from a file
 * into memory of this process.
 */
export interface NativeSpan {
  /** Bytes. */
  readonly length: number;
  /** Lets go of the bytes; the span is empty from then on. Kernels at work are not disturbed. */
  release(): void;
}

export type ByteSpan = Uint8Array | NativeSpan;

export interface Kernels {
  generateRecords(firstRecord: number, count: number, skewed: boolean, out: ByteSpan): Promise<void>;
  sampleKeys(
    recordBytes: number,
    keyBytes: number,
    input: Uint8Array,
    count: number,
    seed: number,
  ): Uint8Array;
  chooseSplitters(recordBytes: number, keyBytes: number, samples: Uint8Array, partitions: number): Uint8Array;
  partitionRecords(
    recordBytes: number,
    keyBytes: number,
    input: ByteSpan,
    splitters: Uint8Array,
    dest: ByteSpan,
  ): Promise<{ offsets: Float64Array; checksums: Uint32Array }>;
  sortRecords(
    recordBytes: number,
    keyBytes: number,
    extents: readonly ByteSpan[],
    checksums: Uint32Array | null,
    out: ByteSpan,
  ): Promise<{ bytes: number }>;
  mergeRecords(
    recordBytes: number,
    keyBytes: number,
    runs: readonly ByteSpan[],
    out: ByteSpan,
  ): Promise<{ bytes: number }>;
  checkRecords(
    recordBytes: number,
    keyBytes: number,
    input: ByteSpan,
    options: { ordered: boolean },
  ): Promise<RecordsSummary>;
  crc32c(seed: number, bytes: ByteSpan): number;
  sortLocal(options: {
    records: number;
    threads: number;
    partitions: number;
    skewed: boolean;
  }): Promise<SortLocalResult>;
}

export interface RecordsSummary {
  count: number;
  /** 128 bits, big-endian: the sum of the zlib CRC32 of every record. */
  checksum: Uint8Array;
  unordered: number;
  duplicates: number;
  firstKey: Uint8Array;
  lastKey: Uint8Array;
}

export interface SortLocalResult {
  /** `total` is the sum of input, map and reduce; `setup` (touching memory) and `check` are apart. */
  seconds: { setup: number; input: number; map: number; reduce: number; check: number; total: number };
  checksum: string;
  validated: boolean;
}

export type CrcName = "crc32" | "crc32c" | "crc64nvme";
export type DigestName = "md5" | "sha1" | "sha256" | CrcName;

/** Digests of a stream of bytes, all in one pass on a thread of the pool; a few bytes are digested at once. */
export interface NativeDigests {
  /** Bytes that were given and are not digested yet. */
  readonly backlogBytes: number;
  /** Keeps `bytes`, which must stay as they are, until they are digested. */
  update(bytes: Uint8Array): void;
  /** Resolves when the backlog is at most `backlogBytes`. */
  drained(backlogBytes: number): Promise<void>;
  /** The digests in the order of the names; CRCs are big-endian. Once only, last. */
  finish(): Promise<Buffer[]>;
}

export interface SessionOptions {
  /** Unix socket path for shm, or null. */
  socketPath: string | null;
  /** For tcp, where socketPath is null. */
  host: string;
  port: number;
  namespace: string;
  token: Uint8Array;
  timeoutMs: number;
}

export interface Addon {
  /** The table of `native/base/limits.h`, by name. */
  readonly limits: Record<string, number>;
  readonly protocolVersion: number;
  readonly kernels: Kernels;
  readonly Engine: new (options: EngineOptions) => NativeEngine;
  readonly Digests: new (names: readonly DigestName[]) => NativeDigests;
  /** The CRC of a whole from those of its parts, one behind the other, and their sizes in bytes. CRCs are big-endian. */
  combineCrcs(name: CrcName, crcs: Uint8Array, sizesBytes: Float64Array): Buffer;
  /** See `client/transports/native.ts`, the only caller. */
  openSession(options: SessionOptions): Promise<unknown>;
  /** What this machine offers and what is built. */
  doctor(): Record<string, string | number | boolean>;
  /**
   * Locks the file, which must exist, and returns the descriptor that holds the lock; null where another process
   * holds it. The lock goes with the descriptor, and so with the process.
   */
  lockFile(path: string): number | null;
  /**
   * Reads what is left of a namespace, and changes nothing. The folders are the namespace's own; those of memory after
   * the first lie on a hugetlbfs. NOT_FOUND where nothing is left, CORRUPT where its index is none.
   */
  inspectNamespace(options: {
    name: string;
    token: Uint8Array;
    memoryFolders: string[];
    nvmeFolders: string[];
    /** Reads all objects and compares them with their checksums. */
    verify: boolean;
  }): Promise<NativeInspection>;
}

let loaded: Addon | null | undefined;

/** The package's root folder: where package.json lies, whether run from sources or from dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error("millrace: package.json not found above the native binding");
    folder = parent;
  }
  return folder;
}

/** The addon, or null where it is not built for this machine (the SDK then speaks gRPC). */
export function loadAddon(): Addon | null {
  if (loaded === undefined) {
    const path = process.env.MILLRACE_ADDON ?? join(packageRoot(), "build", "native", "millrace.node");
    loaded = existsSync(path) ? (createRequire(import.meta.url)(path) as Addon) : null;
  }
  return loaded;
}

/** The addon, or an error that says how to build it. */
export function requireAddon(): Addon {
  const addon = loadAddon();
  if (addon === null) throw new Error("millrace: the native addon is not built; run `npm run build:native`");
  return addon;
}
