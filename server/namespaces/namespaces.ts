/**
 * Namespaces: names, leases, limits and receipts. Pure policy: time, randomness and the store are injected, and
 * somebody else calls `sweep` now and then.
 *
 *   create -> (renew)* -> lapse or delete -> its segments go, its receipt stays for some minutes
 *
 * Where a recorder is given it hears of every change before anybody else does, so that `restore` can bring the
 * namespaces back in the node's next life.
 */
import { createHash } from "node:crypto";
import { MillraceError } from "../../proto/errors.js";
import type { Hint, Limits, Receipt, Traffic } from "../../proto/messages.js";
import type { Clock } from "../clock.js";
import { checkNamespaceName } from "./names.js";
import { Pace } from "./pace.js";

/** What namespaces need of the store. */
export interface NamespaceStore {
  createNamespace(name: string, token: Uint8Array, limits: StoreLimits): void;
  dropNamespace(name: string): void;
  namespaceStats(name: string): StoreStats;
}

export interface StoreLimits {
  limitBytes: number;
  dramLimitBytes: number;
  expectedBytes: number;
  bandwidthBytesPerSecond: number;
  hint: StoreHint;
}

/** Which namespaces are demoted first: capacity, then throughput, then latency. */
export type StoreHint = "capacity" | "throughput" | "latency";

export interface StoreStats {
  objects: number;
  sizeBytes: number;
  deadBytes: number;
  heldBytes: number;
  peakBytes: number;
  dramByteSeconds: number;
  nvmeByteSeconds: number;
  traffic: Record<string, { bytesIn: number; bytesOut: number; operations: number }>;
}

/** What a namespace has cost up to now. */
export interface Usage {
  traffic: Traffic[];
  dramByteSeconds: number;
  nvmeByteSeconds: number;
  copiesAvoidedBytes: number;
  peakBytes: number;
}

/** What of a namespace outlives the node. */
export interface NamespaceState {
  readonly name: string;
  readonly token: Uint8Array;
  readonly leaseMs: number;
  readonly limits: Limits;
  readonly hint: Hint;
  readonly expectedBytes: number;
  readonly createdUnixMs: number;
  /** Whether every door asks for credentials. */
  readonly guarded: boolean;
  /** By the monotonic clock, which has to go on in the next life where it stopped. */
  readonly lapsesAtMs: number;
  readonly usage: Usage;
}

export type NamespaceEvent =
  | { readonly type: "created"; readonly namespace: NamespaceState }
  | { readonly type: "renewed"; readonly name: string; readonly lapsesAtMs: number; readonly usage: Usage }
  | { readonly type: "used"; readonly name: string; readonly usage: Usage }
  | { readonly type: "ended"; readonly name: string };

/** Takes note of a change, or throws; then nothing has changed. */
export interface NamespaceRecorder {
  record(event: NamespaceEvent): void;
}

export interface NamespacesOptions {
  clock: Clock;
  randomBytes: (bytes: number) => Uint8Array;
  store: NamespaceStore;
  /** The partition with the most bytes in a namespace, for its receipt. */
  slowestPartition: (namespace: string) => { partition: string; bytes: number };
  /** How often `sweep` is called; a longer gap means that the daemon itself stood still. */
  sweepIntervalMs: number;
  /** Left out: nothing outlives the node. */
  recorder?: NamespaceRecorder;
}

export interface CreateOptions {
  /** 0: the default. */
  leaseMs: number;
  limits: Limits;
  hint: Hint;
  expectedBytes: number;
  /** "drop" or "". */
  atEnd: string;
  guarded?: boolean;
}

export const LEASE_DEFAULT_MS = 60_000;
export const LEASE_MAX_MS = 7 * 24 * 3_600_000;
/** Short enough for tests and for jobs of a second, long enough for a heartbeat to fit in. */
export const LEASE_MIN_MS = 100;
/** So much of its lease a restored namespace has at least: clients need a moment to find the node again. */
export const RESTORED_LEASE_MIN_MS = 5_000;
const NAMESPACES_MAX = 10_000;
const ENDED_RECEIPTS_MAX = 1_000;
const ENDED_RECEIPT_MS = 10 * 60_000;
const TOKEN_BYTES = 16;
/** Names of transports and doors that usage may be reported for. */
const REPORTABLE = new Set(["shm", "tcp", "grpc", "s3"]);

export type EndReason = "deleted" | "lapsed";

/** A namespace that lives. Read-only for all but this file. */
export interface LiveNamespace {
  readonly name: string;
  /** The right to open data sessions; 16 random bytes. */
  readonly token: Uint8Array;
  readonly leaseMs: number;
  readonly limits: Limits;
  readonly hint: Hint;
  readonly createdUnixMs: number;
  /** Whether every door asks for credentials. */
  readonly guarded: boolean;
  /** Tells it from others of its name, earlier and later. No secret, in hexadecimal. */
  readonly id: string;
  /** For remote doors that JavaScript serves. */
  readonly pace: Pace;
}

interface Held extends LiveNamespace {
  readonly expectedBytes: number;
  lapsesAtMs: number;
  /** What the store has not counted: reported by clients, and spent in earlier lives of the node. */
  added: Added;
}

interface Added extends Omit<Usage, "traffic"> {
  readonly traffic: Map<string, Traffic>;
}

export const NO_USAGE: Usage = {
  traffic: [],
  dramByteSeconds: 0,
  nvmeByteSeconds: 0,
  copiesAvoidedBytes: 0,
  peakBytes: 0,
};

/** What the store is told of a namespace's limits. */
export function storeLimits({
  limits,
  expectedBytes,
  hint,
}: Pick<NamespaceState, "limits" | "expectedBytes" | "hint">): StoreLimits {
  return {
    limitBytes: limits.sizeBytes,
    dramLimitBytes: limits.dramBytes,
    expectedBytes,
    bandwidthBytesPerSecond: limits.bandwidthBytesPerSecond,
    hint: STORE_HINTS[hint],
  };
}

const STORE_HINTS: Record<Hint, StoreHint> = {
  HINT_UNSPECIFIED: "throughput",
  HINT_LATENCY: "latency",
  HINT_THROUGHPUT: "throughput",
  HINT_CAPACITY: "capacity",
};

export class Namespaces {
  private readonly live = new Map<string, Held>();
  // In the order in which they ended, so that the oldest is the first.
  private readonly ended = new Map<
    string,
    { namespace: LiveNamespace; receipt: Receipt; forgetAtMs: number }
  >();
  private readonly endListeners = new Set<(name: string, reason: EndReason) => void>();
  private sweptAtMs: number;

  constructor(private readonly options: NamespacesOptions) {
    this.sweptAtMs = options.clock.monotonicMs();
  }

  get size(): number {
    return this.live.size;
  }

  names(): string[] {
    return [...this.live.keys()];
  }

  create(name: string, options: CreateOptions): LiveNamespace {
    checkNamespaceName(name);
    if (options.atEnd !== "" && options.atEnd !== "drop") {
      throw new MillraceError(
        "UNSUPPORTED",
        `at_end ${JSON.stringify(options.atEnd)} is not built in this version; use "drop"`,
      );
    }
    const leaseMs = checkLease(options.leaseMs === 0 ? LEASE_DEFAULT_MS : options.leaseMs);
    const { limits } = options;
    checkBytes("limits.size_bytes", limits.sizeBytes);
    checkBytes("limits.dram_bytes", limits.dramBytes);
    checkBytes("limits.bandwidth_bytes_per_second", limits.bandwidthBytesPerSecond);
    checkBytes("expected_bytes", options.expectedBytes);
    if (limits.sizeBytes !== 0 && options.expectedBytes > limits.sizeBytes) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `expected_bytes ${options.expectedBytes} is more than limits.size_bytes ${limits.sizeBytes}`,
      );
    }
    if (this.live.has(name)) {
      throw new MillraceError(
        "ALREADY_EXISTS",
        `namespace ${name} exists already; open it or choose another name`,
      );
    }
    if (this.live.size >= NAMESPACES_MAX) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `this node has ${NAMESPACES_MAX} namespaces, which is its limit; delete some`,
      );
    }
    const { clock, store, recorder } = this.options;
    const state: NamespaceState = {
      name,
      token: this.options.randomBytes(TOKEN_BYTES),
      leaseMs,
      limits: { ...limits },
      hint: options.hint,
      expectedBytes: options.expectedBytes,
      createdUnixMs: clock.unixMs(),
      guarded: options.guarded ?? false,
      lapsesAtMs: clock.monotonicMs() + leaseMs,
      usage: NO_USAGE,
    };
    // The store first: what it has and nobody recorded is swept away by the next start.
    store.createNamespace(name, state.token, storeLimits(state));
    try {
      recorder?.record({ type: "created", namespace: state });
    } catch (thrown) {
      store.dropNamespace(name);
      throw thrown;
    }
    return this.hold(state);
  }

  /** Brings back a namespace of the node's last life, which the store has back already. */
  restore(state: NamespaceState): LiveNamespace {
    const { clock } = this.options;
    const lapsesAtMs = Math.max(state.lapsesAtMs, clock.monotonicMs() + RESTORED_LEASE_MIN_MS);
    return this.hold({ ...state, lapsesAtMs });
  }

  /** The namespace, or NAMESPACE_GONE where it ended lately, NOT_FOUND where there never was one. */
  require(name: string): LiveNamespace {
    return this.held(name);
  }

  find(name: string): LiveNamespace | null {
    return this.live.get(name) ?? null;
  }

  /** The namespace, also where it ended lately and has but a receipt. NOT_FOUND. */
  remembered(name: string): LiveNamespace {
    const namespace = this.live.get(name) ?? this.ended.get(name)?.namespace;
    if (namespace === undefined) throw notFound(name);
    return namespace;
  }

  leaseRemainingMs(name: string): number {
    return Math.max(0, Math.round(this.held(name).lapsesAtMs - this.options.clock.monotonicMs()));
  }

  /** Extends the lease to now + `leaseMs` (0: as at creation) and returns what remains. */
  renew(name: string, leaseMs: number): number {
    const namespace = this.held(name);
    const forMs = leaseMs === 0 ? namespace.leaseMs : checkLease(leaseMs);
    this.setLapse(namespace, this.options.clock.monotonicMs() + forMs);
    return forMs;
  }

  /** Records what every namespace has cost so far: for a node that is about to stop. */
  recordUsage(): void {
    for (const namespace of this.live.values()) {
      this.options.recorder?.record({ type: "used", name: namespace.name, usage: this.usageOf(namespace) });
    }
  }

  delete(name: string): Receipt {
    return this.end(this.held(name), "deleted");
  }

  /** What the job has cost so far, or, of a namespace that ended lately, in all. */
  receipt(name: string): Receipt {
    const namespace = this.live.get(name);
    if (namespace !== undefined) return this.receiptOf(namespace, false);
    const past = this.ended.get(name);
    if (past !== undefined) return past.receipt;
    throw notFound(name);
  }

  /** Adds what a client did without the daemon's knowledge. */
  reportUsage(name: string, traffic: readonly Traffic[], copiesAvoidedBytes: number): void {
    const namespace = this.held(name);
    // Check all before adding any, so that a refused report leaves no half of itself.
    for (const { by } of traffic) {
      if (!REPORTABLE.has(by)) {
        throw new MillraceError(
          "INVALID_ARGUMENT",
          `usage by ${JSON.stringify(by)}: must be one of ${[...REPORTABLE].join(", ")}`,
        );
      }
    }
    const { added } = namespace;
    const more: Added = {
      ...added,
      traffic: sumOfTraffic([...added.traffic.values(), ...traffic]),
      copiesAvoidedBytes: saturatingAdd(added.copiesAvoidedBytes, copiesAvoidedBytes),
    };
    const { recorder } = this.options;
    recorder?.record({ type: "used", name, usage: this.usageOf({ name, added: more }) });
    namespace.added = more;
  }

  /**
   * Ends what has lapsed and forgets old receipts; returns the names ended. Time during which the daemon itself
   * stood still (a busy event loop, a suspended machine) does not count against leases, because heartbeats sent
   * meanwhile wait unread: every lease is extended by it.
   */
  sweep(): string[] {
    const nowMs = this.options.clock.monotonicMs();
    const stalledMs = nowMs - this.sweptAtMs - 2 * this.options.sweepIntervalMs;
    this.sweptAtMs = nowMs;
    if (stalledMs > 0) {
      for (const namespace of this.live.values()) {
        this.setLapse(namespace, namespace.lapsesAtMs + stalledMs);
      }
    }
    const lapsed = [...this.live.values()].filter((namespace) => namespace.lapsesAtMs <= nowMs);
    for (const namespace of lapsed) this.end(namespace, "lapsed");
    for (const [name, past] of this.ended) {
      if (past.forgetAtMs > nowMs) break;
      this.ended.delete(name);
    }
    return lapsed.map((namespace) => namespace.name);
  }

  /** `listener` runs after a namespace has ended. Returns what unsubscribes it. */
  onEnd(listener: (name: string, reason: EndReason) => void): () => void {
    this.endListeners.add(listener);
    return () => this.endListeners.delete(listener);
  }

  private held(name: string): Held {
    const namespace = this.live.get(name);
    if (namespace !== undefined) return namespace;
    if (this.ended.has(name)) {
      throw new MillraceError(
        "NAMESPACE_GONE",
        `namespace ${name} has ended: it was deleted or its lease lapsed`,
      );
    }
    throw notFound(name);
  }

  private end(namespace: Held, reason: EndReason): Receipt {
    const { name } = namespace;
    const receipt = this.receiptOf(namespace, true);
    // The record first: what the store has and nobody recorded is swept away by the next start.
    this.options.recorder?.record({ type: "ended", name });
    this.options.store.dropNamespace(name);
    this.live.delete(name);
    const forgetAtMs = this.options.clock.monotonicMs() + ENDED_RECEIPT_MS;
    this.ended.set(name, { namespace, receipt, forgetAtMs });
    while (this.ended.size > ENDED_RECEIPTS_MAX) {
      const oldest = this.ended.keys().next();
      if (oldest.done === true) break;
      this.ended.delete(oldest.value);
    }
    for (const listener of this.endListeners) listener(name, reason);
    return receipt;
  }

  private hold(state: NamespaceState): LiveNamespace {
    const { usage, ...rest } = state;
    const namespace: Held = {
      ...rest,
      id: idOf(state.token),
      pace: new Pace(state.limits.bandwidthBytesPerSecond, this.options.clock),
      added: { ...usage, traffic: sumOfTraffic(usage.traffic) },
    };
    this.live.set(state.name, namespace);
    this.ended.delete(state.name);
    return namespace;
  }

  private setLapse(namespace: Held, lapsesAtMs: number): void {
    const { name } = namespace;
    const { recorder } = this.options;
    recorder?.record({ type: "renewed", name, lapsesAtMs, usage: this.usageOf(namespace) });
    namespace.lapsesAtMs = lapsesAtMs;
  }

  private usageOf(
    { name, added }: Pick<Held, "name" | "added">,
    stats: StoreStats = this.options.store.namespaceStats(name),
  ): Usage {
    const traffic = [...REPORTABLE].map((by) => {
      const { bytesIn, bytesOut, operations } = stats.traffic[by] ?? NO_TRAFFIC;
      const more = added.traffic.get(by) ?? NO_TRAFFIC;
      return {
        by,
        bytesIn: saturatingAdd(bytesIn, more.bytesIn),
        bytesOut: saturatingAdd(bytesOut, more.bytesOut),
        operations: saturatingAdd(operations, more.operations),
      };
    });
    return {
      traffic,
      dramByteSeconds: added.dramByteSeconds + stats.dramByteSeconds,
      nvmeByteSeconds: added.nvmeByteSeconds + stats.nvmeByteSeconds,
      copiesAvoidedBytes: added.copiesAvoidedBytes,
      peakBytes: Math.max(added.peakBytes, stats.peakBytes),
    };
  }

  private receiptOf(namespace: Held, ended: boolean): Receipt {
    const stats = this.options.store.namespaceStats(namespace.name);
    const slowest = this.options.slowestPartition(namespace.name);
    return {
      namespace: namespace.name,
      ...this.usageOf(namespace, stats),
      objects: stats.objects,
      sizeBytes: stats.sizeBytes,
      deadBytes: stats.deadBytes,
      heldBytes: stats.heldBytes,
      slowestPartition: slowest.partition,
      slowestPartitionBytes: slowest.bytes,
      ended,
    };
  }
}

function idOf(token: Uint8Array): string {
  return createHash("sha256").update("millrace namespace").update(token).digest("hex").slice(0, 32);
}

const NO_TRAFFIC = { bytesIn: 0, bytesOut: 0, operations: 0 };

function sumOfTraffic(traffic: readonly Traffic[]): Map<string, Traffic> {
  const sums = new Map<string, Traffic>();
  for (const { by, bytesIn, bytesOut, operations } of traffic) {
    const before = sums.get(by) ?? NO_TRAFFIC;
    sums.set(by, {
      by,
      bytesIn: saturatingAdd(before.bytesIn, bytesIn),
      bytesOut: saturatingAdd(before.bytesOut, bytesOut),
      operations: saturatingAdd(before.operations, operations),
    });
  }
  return sums;
}

function notFound(name: string): MillraceError {
  const shown = name.length > 80 ? `${name.slice(0, 80)}...` : name;
  return new MillraceError("NOT_FOUND", `there is no namespace ${JSON.stringify(shown)}; create it first`);
}

function checkLease(leaseMs: number): number {
  if (!Number.isSafeInteger(leaseMs) || leaseMs < LEASE_MIN_MS || leaseMs > LEASE_MAX_MS) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `a lease must last from ${LEASE_MIN_MS} to ${LEASE_MAX_MS} ms, not ${leaseMs}`,
    );
  }
  return leaseMs;
}

function checkBytes(field: string, bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new MillraceError("INVALID_ARGUMENT", `${field} must be a whole number of bytes, not ${bytes}`);
  }
}

function saturatingAdd(a: number, b: number): number {
  return Math.min(a + b, Number.MAX_SAFE_INTEGER);
}
