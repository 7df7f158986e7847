/**
 * The SDK of Millrace, and its only public API. `connect` is the way in; docs/sdk.md is the guide.
 */
export type {
  NamespaceSummary,
  NodeMessage,
  NodeStatsResponse,
  Receipt,
  Traffic,
} from "../proto/messages.js";
export {
  Client,
  type ConnectOptions,
  type CreateNamespaceOptions,
  connect,
  type IssueCredentialsOptions,
  type OpenNamespaceOptions,
} from "./client.js";
export {
  type BroadcastOptions,
  Group,
  type GroupOptions,
  type ReduceOptions,
  type SumOptions,
} from "./collectives/group.js";
export type { NumberArray } from "./collectives/numbers.js";
export {
  type PublishedValue,
  type ReadVersionOptions,
  VersionedValue,
} from "./collectives/versioned_value.js";
export type { WaitOptions } from "./collectives/waiting.js";
export type { Credentials } from "./credentials.js";
export {
  type DuckDb,
  type DuckDbInput,
  type DuckDbOptions,
  type DuckDbRows,
  openDuckDb,
} from "./duckdb.js";
export { MillraceError } from "./errors.js";
export { type Kernels, kernels, type RecordsSummary } from "./kernels.js";
export {
  type Batch,
  type ListedEntry,
  type ListOptions,
  type ListPage,
  Namespace,
  type ObjectEvent,
} from "./namespace.js";
export type { Usage } from "./session.js";
export {
  type RunOptions,
  Shuffle,
  type ShuffleEvent,
  type ShuffleOptions,
  type ShuffleProgress,
  type ShuffleShape,
} from "./shuffle.js";
export {
  type PartitionExtent,
  PartitionReader,
  type PartitionSpan,
  type ReadOptions,
} from "./shuffle_reader.js";
export { type CommitResult, type MapOutputIndex, ShuffleWriter } from "./shuffle_writer.js";
export type { ObjectWriteStream, WriteStreamOptions } from "./streams.js";
export type {
  ByteSpan,
  Condition,
  GetOptions,
  GotObject,
  GotSpan,
  Key,
  NativeSpan,
  ObjectInfo,
  ObjectWriter,
  Range,
} from "./transport.js";
export type { TransportKind } from "./transports/select.js";
export type { Watch } from "./watch.js";
