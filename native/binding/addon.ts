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
  /** On their way through doors, in memory that is no segment. */
  bufferBytes: number;
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
  /**
   * `token` (16 bytes) opens native sessions of the namespace too, until then; those that are open then end.
   * RESOURCE_EXHAUSTED where a namespace has as many such holders as it may have.
   */
  admit(name: string, token: Uint8Array, expiresUnixMs: number, readOnly: boolean): void;
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

export type SumType = "float32" | "float64" | "int32" | "int64";

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
  /**
   * Fills `out` with the sum of the inputs, all of its length: elements of `type`, added in the order of the inputs, the
   * same bit for bit on every machine. Integers wrap around. `out` may be one of the inputs, whole.
   */
  sumArrays(type: SumType, inputs: readonly ByteSpan[], out: ByteSpan): Promise<void>;
  /** The same at once, for small arrays. */
  sumArraysNow(type: SumType, inputs: readonly ByteSpan[], out: ByteSpan): void;
  /** A copy of the first `count` bytes, at most 64 KiB. */
  peek(bytes: ByteSpan, count: number): Uint8Array;
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

/** What a fragment of SQL reads beside files: stretches of map outputs, each one partition as one map left it. */
export interface NativeRowsInput {
  /** As the SQL names it: `FROM rows_in('name')`. Its columns are c0, c1, … */
  name: string;
  /** SQL types of the columns. */
  types: readonly string[];
  /** Each holds zero or more blocks (native/duckdb/block.h), all of these columns. */
  extents: readonly ByteSpan[];
  /** CRC32C of each extent, compared before anything is read; null: do not. */
  checksums: Uint32Array | null;
}

export interface NativeDuckDbOptions {
  /** Path of libduckdb.so, one a process. UNSUPPORTED where it cannot be loaded or lacks a function. */
  library: string;
  threads: number;
  /** Bytes that DuckDB may use before it spills; 0: its own default. */
  memoryBytes: number;
  /** Where it spills; null: not at all. */
  spillDirectory: string | null;
}

/** A DuckDB of its own, in memory. Statements run one after another, off the event loop. */
export interface NativeDuckDb {
  /** `v1.5.5` */
  readonly version: string;
  /**
   * Runs one statement and keeps its rows, cut into `partitions`. With more than one, the last column of the result,
   * an UINTEGER, is the partition of the row and is not kept. Errors: SQL_FAILED with DuckDB's words, CHECKSUM_MISMATCH
   * with `extents` (indices `[input, extent]` that do not match), CORRUPT for blocks that are none, RESOURCE_EXHAUSTED
   * where memory runs out, CANCELLED.
   */
  execute(sql: string, inputs: readonly NativeRowsInput[], partitions: number): Promise<NativeRows>;
  /** Ends the statement at work. */
  cancel(): void;
  /** Ends the statement at work; others fail with CLOSED. Resolves when nothing runs any more. */
  close(): Promise<void>;
}

/** The rows of a statement, in this process's memory. */
export interface NativeRows {
  readonly names: readonly string[];
  /** SQL types of the kept columns. */
  readonly types: readonly string[];
  readonly rows: number;
  /** Of each partition. */
  readonly partitionRows: Float64Array;
  /** Bytes that `write` needs: 0 where there are no rows. */
  readonly bytes: number;
  /** Lays all partitions down one after another, as `extents` of an input want them. */
  write(into: ByteSpan): Promise<{ offsets: Float64Array; checksums: Uint32Array }>;
  /** The values of a VARCHAR column from row `first` on, at most `count`: for people and JSON. One partition only. */
  texts(column: number, first: number, count: number): (string | null)[];
  close(): void;
}

/** How rows become those of linear models, and which partition gets them: native/kernels/deal_rows.h. */
export interface DealOptions {
  partitions: number;
  seed: number;
  /** One a feature: 1 for a number, for a category how many there are. */
  widths: Uint32Array;
  unitRows: boolean;
  intercept: boolean;
  inOrder: boolean;
  /** The label that becomes 1, all others -1; null: labels stay as they are. */
  positive: number | null;
}

export interface TrainingShape {
  firstRow: number;
  rows: number;
  features: number;
  nonZeros: number;
  sparse: boolean;
  /** Of the block. */
  bytes: number;
}

export interface DualAscentProblem {
  loss: "hinge" | "logistic" | "squared";
  lambda: number;
  /** Of all partitions. */
  rows: number;
  sigma: number;
  gamma: number;
  passes: number;
  seed: number;
}

/**
 * Kernels of machine learning over the blocks of workloads/ml/dataset.ts. Models and variables are little-endian doubles.
 */
export interface Learning {
  dealtShape(deal: DealOptions, partition: number, blocks: readonly ByteSpan[]): Promise<TrainingShape>;
  dealRows(deal: DealOptions, partition: number, blocks: readonly ByteSpan[], out: ByteSpan): Promise<void>;
  dealtFeaturesShape(
    deal: DealOptions,
    partition: number,
    blocks: readonly ByteSpan[],
    rows: number,
  ): Promise<TrainingShape>;
  dealFeatures(
    deal: DealOptions,
    partition: number,
    blocks: readonly ByteSpan[],
    rows: number,
    out: ByteSpan,
  ): Promise<void>;
  dealLabels(deal: DealOptions, blocks: readonly ByteSpan[], out: ByteSpan): Promise<void>;
  /** Sums are of (w, alpha) as they come in. `alphaOut` and `deltaOut` are filled. */
  dualAscent(
    problem: DualAscentProblem,
    block: ByteSpan,
    w: ByteSpan,
    alpha: ByteSpan,
    alphaOut: ByteSpan,
    deltaOut: ByteSpan,
  ): Promise<{ loss: number; dual: number; right: number }>;
  lassoDescent(
    problem: { lambda: number; sigma: number; gamma: number; passes: number; seed: number },
    block: ByteSpan,
    residual: ByteSpan,
    weights: ByteSpan,
    weightsOut: ByteSpan,
    deltaOut: ByteSpan,
  ): Promise<{ absolute: number; steepest: number; used: number }>;
  linearScores(block: ByteSpan, w: ByteSpan, out: ByteSpan): Promise<void>;
  /** Sums over the rows, whose labels are as the loss wants them. */
  linearMetrics(
    loss: DualAscentProblem["loss"],
    block: ByteSpan,
    w: ByteSpan,
  ): Promise<{ loss: number; right: number; squaredError: number }>;
  dot(a: ByteSpan, b: ByteSpan): Promise<number>;
}

/** What becomes of labels: `codes` in place of `values`, which ascend. */
export interface LabelCodes {
  values: Float64Array;
  codes: Float64Array;
}

/** Which labels there are: `distinct`, ascending, is empty where `tooMany`. */
export interface LabelSurvey {
  distinct: Float64Array;
  tooMany: boolean;
  allWhole: boolean;
}

export interface LibsvmOptions {
  /** Indices that a row may have: from `indexBegin` to below `indexEnd`. */
  indexBegin: number;
  indexEnd: number;
  /** Indices above are skipped, and no fault. */
  skipBeyond: boolean;
  /** A row without a label has NaN. */
  labelOptional: boolean;
}

/** A place in text, from 1. */
export interface TextFault {
  line: number;
  column: number;
  why: string;
}

export interface LibsvmSurvey {
  lines: number;
  rows: number;
  nonZeros: number;
  /** Null where there are no values. */
  indexLowest: number | null;
  indexHighest: number | null;
  labels: LabelSurvey;
  badCount: number;
  /** The first of them. */
  bad: TextFault[];
  /** Where the text is no libsvm; nothing behind it was read. */
  fault: TextFault | null;
}

/** Rows of a table, as `NativeRows.write` laid them down: the label (DOUBLE), if any, then the features (FLOAT). */
export interface TableStretch {
  scan: ByteSpan;
  first: number;
  count: number;
  labels: LabelCodes | null;
  /** Of each feature: null where it is a number, else what its values 0, 1, … become. */
  categories: readonly (Float32Array | null)[];
}

/** Files of training data to the blocks of workloads/ml/dataset.ts. Codes null: labels stay as they are. */
export interface TrainingInput {
  readonly distinctLabelsMax: number;
  readonly libsvmIndexMax: number;
  readonly idxHeaderBytesMax: number;
  blockBytes(shape: Omit<TrainingShape, "bytes">): number;
  /** Of a file that begins with `head`. CORRUPT where it is no IDX. */
  idxHeader(head: Uint8Array): {
    dimensions: number[];
    headerBytes: number;
    valueBytes: number;
    features: number;
  };
  surveyIdxLabels(head: Uint8Array, values: Uint8Array): Promise<LabelSurvey>;
  writeIdxBlock(
    shape: Omit<TrainingShape, "bytes">,
    head: Uint8Array,
    values: Uint8Array,
    /** Null: no labels. */
    labelHead: Uint8Array | null,
    labels: Uint8Array,
    codes: LabelCodes | null,
    out: ByteSpan,
  ): Promise<void>;
  surveyLibsvm(text: Uint8Array, options: LibsvmOptions): Promise<LibsvmSurvey>;
  /** ABORTED where the text is not the one that was surveyed. */
  writeLibsvmBlock(
    text: Uint8Array,
    options: LibsvmOptions,
    shape: Omit<TrainingShape, "bytes">,
    codes: LabelCodes | null,
    out: ByteSpan,
  ): Promise<void>;
  writeTableBlock(
    shape: Omit<TrainingShape, "bytes">,
    hasLabel: boolean,
    stretches: readonly TableStretch[],
    out: ByteSpan,
  ): Promise<void>;
}

/** How trees are grown: native/kernels/forest.h. */
export interface ForestSettings {
  seed: number;
  features: number;
  /** Of a feature at most, that of missing values included. */
  bins: number;
  /** 0: regression. */
  classes: number;
  featuresPerNode: number;
  depthMax: number;
  leafMin: number;
  entropy: boolean;
  bagging: boolean;
  /** One a class, or none: 1 each. */
  classWeights: Float64Array;
  /** One a feature: 1 where it is a category. */
  categorical: Uint8Array;
}

export interface ForestLabelFacts {
  rows: number;
  sampled: number;
  /** Of classification. */
  classRows: Float64Array;
  /** Of regression. */
  min: number;
  max: number;
}

/** What the bins of features are, one after another: native/kernels/forest_bins.h. */
export interface ForestBinTables {
  /** In `values`, one a feature. */
  ends: Uint32Array;
  values: Float64Array;
}

export interface ForestNodeSums {
  /** Each as often as it was drawn. */
  rows: number;
  /** Regression: of the labels as fixed-point numbers. */
  sum: bigint;
  classRows: Float64Array;
}

export interface ForestSlotSplit {
  /** again: no feature of this round told any rows apart. */
  state: "leaf" | "split" | "again";
  feature: number;
  gain: number;
  /** Which bins go left: 256 bits. */
  left: Uint32Array;
  all: ForestNodeSums;
  leftSums: ForestNodeSums;
  /** Of the children, for the slots that they become. */
  leftId: bigint;
  rightId: bigint;
}

/** How rows with a label fared after 1, 2, … trees. */
export interface ForestTally {
  rows: Float64Array;
  right: Float64Array;
  /** Sums of squared errors. */
  squares: Float64Array;
  /** Rows of class i taken for j at [i * classes + j]. */
  confusion: Float64Array;
  labelSum: number;
  labelSquares: number;
  /** A class or a number for each row, NaN where no tree votes. Empty where they were not asked for. */
  predictions: Float64Array;
}

export interface PartedOutput {
  offsets: Float64Array;
  checksums: Uint32Array;
}

/** Kernels of random forests. Levels, histograms and subtrees are native/kernels/forest_*.h. */
export interface ForestKernels {
  labelFacts(
    seed: number,
    share: number,
    classes: number,
    blocks: readonly ByteSpan[],
  ): Promise<ForestLabelFacts>;
  sampleFeatures(
    seed: number,
    share: number,
    blocks: readonly ByteSpan[],
    cuts: Uint32Array,
    out: ByteSpan,
  ): Promise<PartedOutput>;
  chooseBins(bins: number, categories: Uint32Array, samples: readonly ByteSpan[]): Promise<ForestBinTables>;
  binnedBytes(rows: number, features: number, classes: number): number;
  binRows(
    settings: ForestSettings,
    tables: ForestBinTables,
    fixedPoint: { center: number; scale: number },
    block: ByteSpan,
    out: ByteSpan,
  ): Promise<void>;
  slotHistogramBytes(settings: ForestSettings): number;
  levelHistograms(
    settings: ForestSettings,
    level: ByteSpan,
    blocks: readonly ByteSpan[],
    cuts: Uint32Array,
    out: ByteSpan,
  ): Promise<PartedOutput>;
  /** CHECKSUM_MISMATCH where histograms do not have theirs. */
  levelSplits(
    settings: ForestSettings,
    level: ByteSpan,
    first: number,
    count: number,
    histograms: readonly ByteSpan[],
    checksums: Uint32Array,
  ): Promise<ForestSlotSplit[]>;
  finishSlots(
    settings: ForestSettings,
    level: ByteSpan,
    first: number,
    count: number,
    blocks: readonly ByteSpan[],
  ): Promise<Uint8Array>;
  /** With `outOfBag`, trees vote on rows alone that they did not draw. */
  forestVotes(
    forest: ByteSpan,
    block: ByteSpan,
    outOfBag: ForestSettings | null,
    around: number,
    wantsPredictions: boolean,
  ): Promise<ForestTally>;
}

export interface Addon {
  /** The table of `native/base/limits.h`, by name. */
  readonly limits: Record<string, number>;
  readonly protocolVersion: number;
  readonly kernels: Kernels;
  readonly learning: Learning;
  readonly forest: ForestKernels;
  readonly trainingInput: TrainingInput;
  readonly Engine: new (options: EngineOptions) => NativeEngine;
  readonly Digests: new (names: readonly DigestName[]) => NativeDigests;
  readonly DuckDb: new (options: NativeDuckDbOptions) => NativeDuckDb;
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
