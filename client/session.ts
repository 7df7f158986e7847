/**
 * A namespace's transport over time: opened, lost with the node, opened again as soon as the node is back. Also
 * the one place that knows what of its traffic the node has been told.
 */
import { loadContract } from "../proto/load.js";
import type { NamespaceMessage } from "../proto/messages.js";
import { type ControlChannel, retrying } from "./control.js";
import { MillraceError } from "./errors.js";
import { reopenNamespace } from "./identity.js";
import type { Transport } from "./transport.js";
import { openTransport, type TransportKind } from "./transports/select.js";

export interface Usage {
  /** Bytes of the objects that were put through this handle. */
  bytesIn: number;
  /** Bytes of the objects that were read through this handle. */
  bytesOut: number;
  operations: number;
  /** Read in place instead of copied: views over shared memory. */
  copiesAvoidedBytes: number;
}

const NO_USAGE: Usage = { bytesIn: 0, bytesOut: 0, operations: 0, copiesAvoidedBytes: 0 };

export class NamespaceSession {
  readonly name: string;
  readonly channel: ControlChannel;
  readonly #host: string;
  readonly #id: string;
  readonly #forced: TransportKind | null;
  #live: Transport | null = null;
  #kind: TransportKind = "grpc";
  /** The attempt under way. */
  #opening: Promise<Transport> | null = null;
  /** For operations that cannot wait. */
  #openingBehind: Promise<unknown> | null = null;
  /** Why the last attempt for those failed, where to try again is not the answer. */
  #refused: MillraceError | null = null;
  #ended: MillraceError | null = null;
  /** Transports that were lost. They are closed with the handle, because views that they gave live until then. */
  readonly #dropped: Transport[] = [];
  /** Of transports that were lost. */
  #past: Usage = NO_USAGE;
  #reported: Usage = NO_USAGE;
  #reporting: Promise<void> = Promise.resolve();

  constructor(
    channel: ControlChannel,
    host: string,
    namespace: NamespaceMessage,
    forced: TransportKind | null,
  ) {
    this.channel = channel;
    this.name = namespace.name;
    this.#host = host;
    this.#id = namespace.id;
    this.#forced = forced;
  }

  /** The transport, where one is open. Null asks for `acquire`. */
  get live(): Transport | null {
    return this.#live;
  }

  get kind(): TransportKind {
    return this.#kind;
  }

  /**
   * Runs an operation that may be repeated: where the connection is lost under it, it runs again over a new one, and
   * fails with UNAVAILABLE only where the node is away for longer than the client's timeout.
   */
  async run<T>(operation: (transport: Transport) => Promise<T>): Promise<T> {
    const live = this.#live;
    if (live !== null) {
      try {
        return await operation(live);
      } catch (thrown) {
        if (!meansLost(thrown)) throw thrown;
      }
    }
    return this.#whileAway(async () => operation(await this.#connected()));
  }

  /**
   * Runs an operation that must not be repeated once it was sent. Where the connection is lost under it, it fails with
   * UNAVAILABLE, and nobody knows whether it took place.
   */
  async runOnce<T>(operation: (transport: Transport) => Promise<T>): Promise<T> {
    const transport = this.#present() ?? (await this.acquire());
    try {
      return await operation(transport);
    } catch (thrown) {
      throw meansLost(thrown) ? outcomeUnknown(thrown) : thrown;
    }
  }

  /** The transport for an operation that cannot wait. Throws UNAVAILABLE and connects again where it was lost. */
  now(): Transport {
    const live = this.#present();
    if (live !== null) return live;
    if (this.#ended !== null) throw this.#ended;
    const refused = this.#refused;
    this.#refused = null;
    this.#openingBehind ??= this.acquire()
      .catch((thrown: unknown) => {
        const error = MillraceError.from(thrown);
        if (!error.retryable) this.#refused = error;
      })
      .finally(() => {
        this.#openingBehind = null;
      });
    if (refused !== null) throw refused;
    throw new MillraceError("UNAVAILABLE", `the connection of namespace ${this.name} was lost; try again`);
  }

  /** The transport, opened where none is. UNAVAILABLE where the node is away for longer than the client's timeout. */
  async acquire(): Promise<Transport> {
    return this.#live ?? this.#whileAway(() => this.#connected());
  }

  usage(): Usage {
    return plus(this.#past, this.#live?.usage() ?? NO_USAGE);
  }

  /** Tells the node what it cannot see by itself: same-host traffic. Others the node counts at its doors. */
  reportUsage(): Promise<void> {
    const report = () => this.#report();
    this.#reporting = this.#reporting.then(report, report);
    return this.#reporting;
  }

  /** The namespace is gone, as the node says. Operations under way end by themselves. */
  fail(error: MillraceError): void {
    this.#ended ??= error;
    const live = this.#live;
    // Shared memory that was viewed stays readable until the handle is closed; only new operations fail.
    if (live !== null && live.kind === "grpc") this.#drop(live);
  }

  async close(): Promise<void> {
    this.#ended = new MillraceError(
      "CLOSED",
      `the handle of namespace ${this.name} is closed; open it again`,
    );
    await this.#opening?.catch(() => {});
    const live = this.#live;
    if (live !== null) this.#drop(live);
    await Promise.all(this.#dropped.splice(0).map((transport) => transport.close()));
  }

  /** The transport, where one is open and the node is there as far as can be told. */
  #present(): Transport | null {
    const live = this.#live;
    if (live?.isAway?.()) this.#drop(live);
    return this.#live;
  }

  #whileAway<T>(attempt: () => Promise<T>): Promise<T> {
    const { timeoutMs } = this.channel;
    return retrying(attempt, Date.now() + timeoutMs, timeoutMs);
  }

  /** One attempt to connect where nothing is open; callers at the same time share it. */
  async #connected(): Promise<Transport> {
    if (this.#live !== null) return this.#live;
    if (this.#ended !== null) throw this.#ended;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  async #open(): Promise<Transport> {
    const { nodes } = loadContract();
    const node = await this.channel.unary(nodes.DescribeNode, {}, { failFast: true });
    const found = await this.#reopened();
    const transport = await openTransport({
      channel: this.channel,
      host: this.#host,
      node,
      namespace: this.name,
      namespaceId: found.id,
      token: found.token,
      forced: this.#forced,
    });
    if (this.#ended !== null) {
      await transport.close();
      throw this.#ended;
    }
    transport.onLost(() => this.#drop(transport));
    this.#live = transport;
    this.#kind = transport.kind;
    return transport;
  }

  async #reopened(): Promise<NamespaceMessage> {
    try {
      return await reopenNamespace(this.channel, this.name, this.#id);
    } catch (thrown) {
      const error = MillraceError.from(thrown);
      if (error.code === "NAMESPACE_GONE") this.#ended ??= error;
      throw error;
    }
  }

  #drop(transport: Transport): void {
    if (this.#live !== transport) return;
    this.#past = plus(this.#past, transport.usage());
    this.#live = null;
    this.#dropped.push(transport);
  }

  async #report(): Promise<void> {
    if (this.#kind !== "shm") return;
    const usage = this.usage();
    const delta = plus(usage, this.#reported, -1);
    if (delta.operations === 0 && delta.bytesOut === 0 && delta.bytesIn === 0) return;
    const report = {
      name: this.name,
      traffic: [
        { by: "shm", bytesIn: delta.bytesIn, bytesOut: delta.bytesOut, operations: delta.operations },
      ],
      copiesAvoidedBytes: delta.copiesAvoidedBytes,
    };
    // What cannot be told now is told next time.
    await this.channel.unary(loadContract().namespaces.ReportUsage, report, { failFast: true });
    this.#reported = usage;
  }
}

/** The node or the way to it went away; an operation that was sent may or may not have taken place. */
function meansLost(thrown: unknown): boolean {
  return thrown instanceof MillraceError && thrown.code === "UNAVAILABLE" && thrown.retryable;
}

function outcomeUnknown(thrown: unknown): MillraceError {
  const { message } = MillraceError.from(thrown);
  const advice = "whether the operation took place is unknown: look before you repeat it";
  return new MillraceError("UNAVAILABLE", `${message}; ${advice}`, { cause: thrown });
}

function plus(a: Usage, b: Usage, sign = 1): Usage {
  return {
    bytesIn: a.bytesIn + sign * b.bytesIn,
    bytesOut: a.bytesOut + sign * b.bytesOut,
    operations: a.operations + sign * b.operations,
    copiesAvoidedBytes: a.copiesAvoidedBytes + sign * b.copiesAvoidedBytes,
  };
}
