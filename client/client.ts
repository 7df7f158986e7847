/** The connection to a node, and the namespaces on it. */
import { loadContract } from "../proto/load.js";
import type {
  IssueCredentialsResponse,
  NamespaceMessage,
  NamespaceSummary,
  NodeMessage,
  NodeStatsResponse,
  Receipt,
} from "../proto/messages.js";
import { ControlChannel } from "./control.js";
import { type Credentials, checkCredentials, environmentCredentials } from "./credentials.js";
import { MillraceError } from "./errors.js";
import { checkCount, parseEndpoint } from "./names.js";
import { Namespace } from "./namespace.js";
import { NamespaceSession } from "./session.js";
import type { TransportKind } from "./transports/select.js";

const TIMEOUT_DEFAULT_MS = 30_000;

/** The longest that Node.js timers take. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

export interface ConnectOptions {
  /**
   * Takes this transport or fails, instead of the best there is: "shm" on the node's own host, "tcp" where the
   * data door can be reached, else "grpc".
   */
  transport?: TransportKind;
  /**
   * How long a call may take before it fails with DEADLINE_EXCEEDED; of a stream, how long it may stand still. Also
   * how long the node may be away (it is restarted, say) before calls fail with UNAVAILABLE.
   */
  timeoutMs?: number;
  /**
   * What guarded namespaces ask for. Left out: those of the environment variables MILLRACE_ACCESS_KEY,
   * MILLRACE_SECRET_KEY and MILLRACE_SESSION_TOKEN, so that function workers inherit them; null: none.
   */
  credentials?: Credentials | null;
}

export interface CreateNamespaceOptions {
  /** How long the namespace lives without a heartbeat; 100 ms to 7 days, a minute where left out. */
  leaseMs?: number;
  limits?: {
    /** Bytes in all. */
    sizeBytes?: number;
    dramBytes?: number;
    /** Of the doors that other hosts use. */
    bandwidthBytesPerSecond?: number;
  };
  hint?: "latency" | "throughput" | "capacity";
  /** Memory is prepared for as much. */
  expectedBytes?: number;
  /** What happens to the objects at the end. */
  atEnd?: "drop";
  /**
   * Every door asks for credentials. The client needs the node's own key for it; UNSUPPORTED where the node has no keys.
   */
  guarded?: boolean;
}

export interface IssueCredentialsOptions {
  /** Of the keys that they are good for; left out: all of the namespace. */
  prefix?: string;
  readOnly?: boolean;
  /** A second to 7 days, an hour where left out. */
  ttlMs?: number;
}

export interface OpenNamespaceOptions {
  /** Renews the lease as the creator does, so that the namespace lives until both have closed. */
  keepAlive?: boolean;
}

/**
 * Connects to a node by the address of its gRPC door, `HOST:PORT` or `grpc://HOST:PORT`; by default that of
 * the environment variable MILLRACE_ENDPOINT. UNAVAILABLE where no node answers.
 */
export async function connect(
  endpoint: string | undefined = process.env.MILLRACE_ENDPOINT,
  options: ConnectOptions = {},
): Promise<Client> {
  if (endpoint === undefined || endpoint === "") {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      "no endpoint: give HOST:PORT of a node or set MILLRACE_ENDPOINT",
    );
  }
  const { address, host } = parseEndpoint(endpoint);
  const { transport } = options;
  if (transport !== undefined && !["shm", "tcp", "grpc"].includes(transport)) {
    throw new MillraceError("INVALID_ARGUMENT", `transport ${String(transport)}: use "shm", "tcp" or "grpc"`);
  }
  const timeoutMs = checkCount("timeoutMs", options.timeoutMs ?? TIMEOUT_DEFAULT_MS, 1, TIMEOUT_MAX_MS);
  const credentials =
    options.credentials === undefined
      ? environmentCredentials()
      : options.credentials && checkCredentials(options.credentials);
  const channel = new ControlChannel(address, timeoutMs, credentials);
  try {
    await channel.reach();
  } catch (error) {
    channel.close();
    throw error;
  }
  return new Client(channel, host, transport ?? null);
}

/** A connection to one node. Closing it closes its namespace handles. */
export class Client implements AsyncDisposable {
  readonly #channel: ControlChannel;
  readonly #host: string;
  readonly #forced: TransportKind | null;
  readonly #contract = loadContract();
  readonly #open = new Set<Namespace>();

  /** @internal Use `connect`. */
  constructor(channel: ControlChannel, host: string, forced: TransportKind | null) {
    this.#channel = channel;
    this.#host = host;
    this.#forced = forced;
  }

  /** HOST:PORT of the node's gRPC door. */
  get endpoint(): string {
    return this.#channel.address;
  }

  /**
   * Creates a namespace, whose name follows the rules of S3 buckets, and keeps its lease alive until the handle
   * is closed. ALREADY_EXISTS, INVALID_ARGUMENT.
   */
  async createNamespace(name: string, options: CreateNamespaceOptions = {}): Promise<Namespace> {
    const { limits = {}, hint, leaseMs = 0, expectedBytes = 0, atEnd = "drop", guarded = false } = options;
    const created = await this.#channel.unary(this.#contract.namespaces.CreateNamespace, {
      name,
      leaseMs: checkCount("leaseMs", leaseMs),
      limits: {
        sizeBytes: checkCount("limits.sizeBytes", limits.sizeBytes ?? 0),
        dramBytes: checkCount("limits.dramBytes", limits.dramBytes ?? 0),
        bandwidthBytesPerSecond: checkCount(
          "limits.bandwidthBytesPerSecond",
          limits.bandwidthBytesPerSecond ?? 0,
        ),
      },
      hint: hint === undefined ? "HINT_UNSPECIFIED" : HINTS[hint],
      expectedBytes: checkCount("expectedBytes", expectedBytes),
      atEnd,
      guarded,
    });
    try {
      return await this.#handle(created, true);
    } catch (error) {
      // Nobody holds it, so nobody would delete it before its lease lapses.
      const { DeleteNamespace } = this.#contract.namespaces;
      await this.#channel.unary(DeleteNamespace, { name }, { failFast: true }).catch(() => {});
      throw error;
    }
  }

  /** NOT_FOUND, or NAMESPACE_GONE where it ended lately. */
  async openNamespace(name: string, options: OpenNamespaceOptions = {}): Promise<Namespace> {
    const { namespaces } = this.#contract;
    const opened = await this.#channel.unary(namespaces.OpenNamespace, { name }, { idempotent: true });
    return this.#handle(opened, options.keepAlive ?? false);
  }

  async listNamespaces(): Promise<NamespaceSummary[]> {
    const { namespaces } = this.#contract;
    return (await this.#channel.unary(namespaces.ListNamespaces, {}, { idempotent: true })).namespaces;
  }

  /** Ends a namespace with all of its objects, at once, and says what it cost in all. */
  async deleteNamespace(name: string): Promise<Receipt> {
    const handles = [...this.#open].filter((namespace) => namespace.name === name);
    // What these handles read in place belongs on the receipt; a handle that cannot say loses only that.
    await Promise.all(handles.map((namespace) => namespace.reportUsage().catch(() => {})));
    const { receipt } = await this.#channel.unary(this.#contract.namespaces.DeleteNamespace, { name });
    if (receipt === null)
      throw new MillraceError("PROTOCOL", "the node deleted the namespace without a receipt");
    return receipt;
  }

  /**
   * Session credentials: keys with which clients of S3 may use a namespace, or a part of it, for a while; of a guarded
   * namespace also this SDK, see `ConnectOptions.credentials`. UNSUPPORTED where the node has no keys of its own,
   * NOT_FOUND. Of a guarded namespace whoever issues them needs the node's key, or credentials without a prefix, which
   * they do not outlast.
   */
  issueCredentials(
    namespace: string,
    options: IssueCredentialsOptions = {},
  ): Promise<IssueCredentialsResponse> {
    const { prefix = "", readOnly = false, ttlMs = 0 } = options;
    return this.#channel.unary(
      this.#contract.namespaces.IssueCredentials,
      { namespace, prefix, readOnly, ttlMs: checkCount("ttlMs", ttlMs) },
      { idempotent: true },
    );
  }

  describeNode(): Promise<NodeMessage> {
    return this.#channel.unary(this.#contract.nodes.DescribeNode, {}, { idempotent: true });
  }

  nodeStats(): Promise<NodeStatsResponse> {
    return this.#channel.unary(this.#contract.nodes.NodeStats, {}, { idempotent: true });
  }

  /** Closes all namespace handles of this client, then the connection. */
  async close(): Promise<void> {
    await Promise.all([...this.#open].map((namespace) => namespace.close()));
    this.#channel.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #handle(message: NamespaceMessage, keepAlive: boolean): Promise<Namespace> {
    const session = new NamespaceSession(this.#channel, this.#host, message, this.#forced);
    await session.acquire();
    const onClose = (closed: Namespace) => this.#open.delete(closed);
    const namespace = new Namespace(session, message, { keepAlive, onClose });
    this.#open.add(namespace);
    return namespace;
  }
}

const HINTS = {
  latency: "HINT_LATENCY",
  throughput: "HINT_THROUGHPUT",
  capacity: "HINT_CAPACITY",
} as const;
