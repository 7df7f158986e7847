/**
 * The messages of `millrace/v1/*.proto` as they look in JavaScript: camelCase names, 64-bit numbers as
 * numbers (refused from 2^53 on), bytes as Buffer, enums by name, absent messages null. What is sent may
 * carry any Uint8Array as bytes.
 */
import type { MethodDefinition } from "@grpc/grpc-js";

// --- errors.proto

export interface ErrorMessage {
  code: string;
  retryable: boolean;
  message: string;
  maps: number[];
}

// --- namespaces.proto

export type Hint = "HINT_UNSPECIFIED" | "HINT_LATENCY" | "HINT_THROUGHPUT" | "HINT_CAPACITY";

export interface Limits {
  sizeBytes: number;
  dramBytes: number;
  bandwidthBytesPerSecond: number;
}

export interface CreateNamespaceRequest {
  name: string;
  leaseMs: number;
  limits: Limits | null;
  hint: Hint;
  expectedBytes: number;
  atEnd: string;
  guarded?: boolean;
}

export interface OpenNamespaceRequest {
  name: string;
}

export interface NamespaceMessage {
  name: string;
  token: Uint8Array;
  leaseMs: number;
  leaseRemainingMs: number;
  limits: Limits | null;
  hint: Hint;
  createdUnixMs: number;
  guarded: boolean;
  id: string;
}

export type ListNamespacesRequest = Record<string, never>;

export interface NamespaceSummary {
  name: string;
  objects: number;
  sizeBytes: number;
  leaseRemainingMs: number;
  createdUnixMs: number;
  dramBytes: number;
  nvmeBytes: number;
  guarded: boolean;
  /** On their way through doors, in memory that is no segment. */
  bufferBytes: number;
}

export interface ListNamespacesResponse {
  namespaces: NamespaceSummary[];
}

export interface RenewLeaseRequest {
  name: string;
  leaseMs: number;
}

export interface RenewLeaseResponse {
  leaseRemainingMs: number;
}

export interface DeleteNamespaceRequest {
  name: string;
}

export interface DeleteNamespaceResponse {
  receipt: Receipt | null;
}

export interface GetReceiptRequest {
  name: string;
}

export interface Traffic {
  by: string;
  bytesIn: number;
  bytesOut: number;
  operations: number;
}

export interface Receipt {
  namespace: string;
  traffic: Traffic[];
  dramByteSeconds: number;
  nvmeByteSeconds: number;
  copiesAvoidedBytes: number;
  objects: number;
  sizeBytes: number;
  peakBytes: number;
  deadBytes: number;
  heldBytes: number;
  slowestPartition: string;
  slowestPartitionBytes: number;
  ended: boolean;
}

export interface ReportUsageRequest {
  name: string;
  traffic: Traffic[];
  copiesAvoidedBytes: number;
}

export type ReportUsageResponse = Record<string, never>;

export interface IssueCredentialsRequest {
  namespace: string;
  prefix: string;
  readOnly: boolean;
  ttlMs: number;
}

export interface IssueCredentialsResponse {
  accessKey: string;
  secretKey: string;
  sessionToken: string;
  expiresUnixMs: number;
}

// --- objects.proto

export interface ConditionMessage {
  ifAbsent: boolean;
  ifSequence: number;
}

export interface PutHeader {
  namespace: string;
  key: Uint8Array;
  sizeBytes: number;
  sizeKnown: boolean;
  condition: ConditionMessage | null;
  crc32c: number;
  hasCrc32c: boolean;
  endsWithTrailer: boolean;
  roomWaitMs: number;
}

export interface PutRequest {
  header: PutHeader | null;
  data: Uint8Array;
  trailer: PutTrailer | null;
}

export interface PutTrailer {
  condition: ConditionMessage | null;
  crc32c: number;
  hasCrc32c: boolean;
}

export interface GetRequest {
  namespace: string;
  key: Uint8Array;
  offset: number;
  length: number;
  ifSequence: number;
}

export interface GetResponse {
  info: ObjectInfoMessage | null;
  data: Uint8Array;
}

export interface ObjectInfoMessage {
  key: Uint8Array;
  sizeBytes: number;
  sequence: number;
  crc32c: number;
  sealedUnixMs: number;
}

export interface HeadRequest {
  namespace: string;
  key: Uint8Array;
}

export interface DeleteRequest {
  namespace: string;
  key: Uint8Array;
  condition: ConditionMessage | null;
}

export interface DeleteResponse {
  existed: boolean;
}

export interface ListRequest {
  namespace: string;
  prefix: Uint8Array;
  startAfter: Uint8Array;
  limit: number;
}

export interface ListResponse {
  objects: ObjectInfoMessage[];
  truncated: boolean;
}

export interface CopyRequest {
  namespace: string;
  fromKey: Uint8Array;
  toKey: Uint8Array;
  condition: ConditionMessage | null;
  toNamespace: string;
}

export interface WatchRequest {
  namespace: string;
  prefix: Uint8Array;
}

export interface WatchEvent {
  type: "SEALED" | "DELETED";
  object: ObjectInfoMessage | null;
}

// --- shuffles.proto

export interface CreateShuffleRequest {
  namespace: string;
  shuffle: string;
  maps: number;
  partitions: number;
  partitioner: Uint8Array;
}

export interface DescribeShuffleRequest {
  namespace: string;
  shuffle: string;
}

export interface ShuffleMessage {
  namespace: string;
  shuffle: string;
  maps: number;
  partitions: number;
  partitioner: Uint8Array;
  committed: number;
  partitionBytes: number[];
  lostMaps: number[];
}

export interface CommitMapOutputRequest {
  namespace: string;
  shuffle: string;
  map: number;
  attempt: number;
  key: Uint8Array;
  offsets: number[];
  checksums: number[];
}

export interface CommitMapOutputResponse {
  won: boolean;
  winningAttempt: number;
}

export interface LocatePartitionRequest {
  namespace: string;
  shuffle: string;
  partition: number;
  wait: boolean;
  count: number;
}

export interface PartitionExtent {
  partition: number;
  map: number;
  key: Uint8Array;
  sequence: number;
  offset: number;
  length: number;
  crc32c: number;
  hasCrc32c: boolean;
}

export interface LocatePartitionResponse {
  extents: PartitionExtent[];
  complete: boolean;
}

export interface WatchShuffleRequest {
  namespace: string;
  shuffle: string;
}

export interface WatchShuffleEvent {
  map: number;
  attempt: number;
  lost: boolean;
  committed: number;
  complete: boolean;
}

export interface ReportLostRequest {
  namespace: string;
  shuffle: string;
  maps: number[];
}

export interface ReportLostResponse {
  lostMaps: number[];
}

export interface DeleteShuffleRequest {
  namespace: string;
  shuffle: string;
}

export type DeleteShuffleResponse = Record<string, never>;

// --- nodes.proto

export type DescribeNodeRequest = Record<string, never>;

export interface NodeMessage {
  nodeId: string;
  version: string;
  hostId: string;
  socketPath: string;
  grpcAddress: string;
  dataAddress: string;
  s3Address: string;
  adminAddress: string;
  protocolVersion: number;
  startedUnixMs: number;
}

export type NodeStatsRequest = Record<string, never>;

export interface NodeStatsResponse {
  dramLimitBytes: number;
  dramUsedBytes: number;
  dramSpareBytes: number;
  heldBytes: number;
  namespaces: number;
  sessions: number;
  segments: number;
  objects: number;
  sealedTotal: number;
  hugePageBytes: number;
  /** 0: there is no such tier. */
  nvmeLimitBytes: number;
  nvmeUsedBytes: number;
  nvmeWrittenBytes: number;
  nvmeDirectories: NvmeDirectoryMessage[];
  /** "uring" or "threads". */
  fileBackend: string;
  grantedBytes: number;
  demotedBytes: number;
  promotedBytes: number;
  cleanedBytes: number;
  /** On their way through doors, in memory that is no segment. */
  bufferBytes: number;
}

export interface NvmeDirectoryMessage {
  path: string;
  limitBytes: number;
  usedBytes: number;
  /** Why nothing new goes there at the moment; "" where it does. */
  fault: string;
}

export interface VerifyRequest {
  namespace: string;
}

export interface VerifyResponse {
  checked: number;
  sizeBytes: number;
  damaged: DamageMessage[];
}

export interface DamageMessage {
  key: Uint8Array;
  segment: number;
  message: string;
}

// --- services

// These are type aliases and not interfaces because grpc-js asks for an index signature, which only aliases get.
export type NamespacesDefinition = {
  CreateNamespace: MethodDefinition<CreateNamespaceRequest, NamespaceMessage>;
  OpenNamespace: MethodDefinition<OpenNamespaceRequest, NamespaceMessage>;
  ListNamespaces: MethodDefinition<ListNamespacesRequest, ListNamespacesResponse>;
  RenewLease: MethodDefinition<RenewLeaseRequest, RenewLeaseResponse>;
  DeleteNamespace: MethodDefinition<DeleteNamespaceRequest, DeleteNamespaceResponse>;
  GetReceipt: MethodDefinition<GetReceiptRequest, Receipt>;
  ReportUsage: MethodDefinition<ReportUsageRequest, ReportUsageResponse>;
  IssueCredentials: MethodDefinition<IssueCredentialsRequest, IssueCredentialsResponse>;
};

export type ObjectsDefinition = {
  /** What is sent may also be a Buffer, the message encoded already: see chunks.ts. The same holds for Get's. */
  Put: MethodDefinition<PutRequest, ObjectInfoMessage>;
  Get: MethodDefinition<GetRequest, GetResponse>;
  Head: MethodDefinition<HeadRequest, ObjectInfoMessage>;
  Delete: MethodDefinition<DeleteRequest, DeleteResponse>;
  List: MethodDefinition<ListRequest, ListResponse>;
  Copy: MethodDefinition<CopyRequest, ObjectInfoMessage>;
  Watch: MethodDefinition<WatchRequest, WatchEvent>;
};

export type ShufflesDefinition = {
  CreateShuffle: MethodDefinition<CreateShuffleRequest, ShuffleMessage>;
  DescribeShuffle: MethodDefinition<DescribeShuffleRequest, ShuffleMessage>;
  CommitMapOutput: MethodDefinition<CommitMapOutputRequest, CommitMapOutputResponse>;
  LocatePartition: MethodDefinition<LocatePartitionRequest, LocatePartitionResponse>;
  WatchShuffle: MethodDefinition<WatchShuffleRequest, WatchShuffleEvent>;
  ReportLost: MethodDefinition<ReportLostRequest, ReportLostResponse>;
  DeleteShuffle: MethodDefinition<DeleteShuffleRequest, DeleteShuffleResponse>;
};

export type NodesDefinition = {
  DescribeNode: MethodDefinition<DescribeNodeRequest, NodeMessage>;
  NodeStats: MethodDefinition<NodeStatsRequest, NodeStatsResponse>;
  Verify: MethodDefinition<VerifyRequest, VerifyResponse>;
};
