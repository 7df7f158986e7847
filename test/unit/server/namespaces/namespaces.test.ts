import { beforeEach, describe, expect, it } from "vitest";
import type { MillraceError } from "../../../../proto/errors.js";
import {
  type CreateOptions,
  type NamespaceEvent,
  type NamespaceRecorder,
  type NamespaceState,
  type NamespaceStore,
  Namespaces,
  RESTORED_LEASE_MIN_MS,
  type StoreLimits,
  type StoreStats,
} from "../../../../server/namespaces/namespaces.js";

const SWEEP_MS = 250;
const OPTIONS: CreateOptions = {
  leaseMs: 0,
  limits: { sizeBytes: 0, dramBytes: 0, bandwidthBytesPerSecond: 0 },
  hint: "HINT_UNSPECIFIED",
  expectedBytes: 0,
  atEnd: "",
};

class Store implements NamespaceStore {
  readonly live = new Map<string, Uint8Array>();
  readonly limits = new Map<string, StoreLimits>();
  createNamespace(name: string, token: Uint8Array, limits: StoreLimits): void {
    this.live.set(name, token);
    this.limits.set(name, limits);
  }
  dropNamespace(name: string): void {
    this.live.delete(name);
  }
  namespaceStats(name: string): StoreStats {
    if (!this.live.has(name)) throw new Error(`stats of ${name}, which was dropped`);
    return {
      objects: 3,
      sizeBytes: 30,
      deadBytes: 1,
      heldBytes: 2,
      peakBytes: 40,
      dramByteSeconds: 5,
      nvmeByteSeconds: 7,
      traffic: { shm: { bytesIn: 10, bytesOut: 0, operations: 1 } },
    };
  }
}

let nowMs: number;
let store: Store;
let namespaces: Namespaces;

function make(recorder?: NamespaceRecorder): Namespaces {
  let token = 0;
  return new Namespaces({
    clock: { monotonicMs: () => nowMs, unixMs: () => 1_700_000_000_000 + nowMs },
    randomBytes: (bytes) => new Uint8Array(bytes).fill(++token),
    store,
    slowestPartition: () => ({ partition: "s/1", bytes: 9 }),
    sweepIntervalMs: SWEEP_MS,
    ...(recorder === undefined ? {} : { recorder }),
  });
}

beforeEach(() => {
  nowMs = 1_000_000;
  store = new Store();
  namespaces = make();
});

/** Time passes the way it does in a daemon: with a sweep now and then. */
function pass(ms: number): string[] {
  const ended: string[] = [];
  for (let left = ms; left > 0; left -= SWEEP_MS) {
    nowMs += Math.min(left, SWEEP_MS);
    ended.push(...namespaces.sweep());
  }
  return ended;
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    return (thrown as MillraceError).code;
  }
  return "OK";
}

describe("leases", () => {
  it("last a minute by default, and end the namespace when they lapse", () => {
    namespaces.create("job-1", OPTIONS);
    expect(pass(59_000)).toEqual([]);
    expect(namespaces.leaseRemainingMs("job-1")).toBe(1000);
    expect(pass(2_000)).toEqual(["job-1"]);
    expect(store.live.size).toBe(0);
    expect(codeOf(() => namespaces.renew("job-1", 0))).toBe("NAMESPACE_GONE");
    expect(codeOf(() => namespaces.require("job-1"))).toBe("NAMESPACE_GONE");
    expect(codeOf(() => namespaces.require("job-2"))).toBe("NOT_FOUND");
  });

  it("live on while they are renewed", () => {
    namespaces.create("job-1", { ...OPTIONS, leaseMs: 1000 });
    for (let round = 0; round < 20; round++) {
      expect(pass(750)).toEqual([]);
      expect(namespaces.renew("job-1", 0)).toBe(1000);
    }
    namespaces.renew("job-1", 5000);
    expect(pass(4_500)).toEqual([]);
    expect(pass(1_000)).toEqual(["job-1"]);
  });

  it("do not lapse while the daemon itself stood still", () => {
    namespaces.create("job-1", { ...OPTIONS, leaseMs: 2000 });
    pass(500);
    nowMs += 600_000;
    expect(namespaces.sweep()).toEqual([]);
    expect(pass(500)).toEqual([]);
    expect(pass(2_000)).toEqual(["job-1"]);
  });

  it("tell who listens for the end, once the namespace is gone", () => {
    const ends: string[] = [];
    const stop = namespaces.onEnd((name, reason) => ends.push(`${name} ${reason} ${store.live.has(name)}`));
    namespaces.create("job-1", OPTIONS);
    namespaces.create("job-2", { ...OPTIONS, leaseMs: 500 });
    namespaces.delete("job-1");
    pass(1_000);
    stop();
    namespaces.create("job-1", OPTIONS);
    namespaces.delete("job-1");
    expect(ends).toEqual(["job-1 deleted false", "job-2 lapsed false"]);
  });
});

describe("create", () => {
  it("gives each namespace a token of 16 random bytes", () => {
    const first = namespaces.create("job-1", OPTIONS);
    const second = namespaces.create("job-2", OPTIONS);
    expect(first.token).toEqual(new Uint8Array(16).fill(1));
    expect(second.token).toEqual(new Uint8Array(16).fill(2));
    expect(store.live.get("job-1")).toEqual(first.token);
  });

  it.each([
    ["ab"],
    ["a".repeat(64)],
    ["Job"],
    ["-job"],
    ["job-"],
    ["job..one"],
    ["job_one"],
    ["127.0.0.1"],
    ["xn--job"],
    ["job-s3alias"],
    ["job\n"],
    [""],
  ])("refuses the name %j", (name) => {
    expect(codeOf(() => namespaces.create(name, OPTIONS))).toBe("INVALID_ARGUMENT");
    expect(store.live.size).toBe(0);
  });

  it.each([["abc"], ["a".repeat(63)], ["job.one-2"], ["1.2.3"]])("takes the name %j", (name) => {
    expect(codeOf(() => namespaces.create(name, OPTIONS))).toBe("OK");
  });

  it("refuses what cannot be", () => {
    namespaces.create("job-1", OPTIONS);
    const attempt = (options: Partial<CreateOptions>, name = "job-2") =>
      codeOf(() => namespaces.create(name, { ...OPTIONS, ...options }));
    expect(attempt({}, "job-1")).toBe("ALREADY_EXISTS");
    expect(attempt({ leaseMs: 99 })).toBe("INVALID_ARGUMENT");
    expect(attempt({ leaseMs: 1e12 })).toBe("INVALID_ARGUMENT");
    expect(attempt({ atEnd: "flush s3://b" })).toBe("UNSUPPORTED");
    expect(attempt({ expectedBytes: 11, limits: { ...OPTIONS.limits, sizeBytes: 10 } })).toBe(
      "INVALID_ARGUMENT",
    );
    expect(attempt({ limits: { ...OPTIONS.limits, dramBytes: 2 ** 53 } })).toBe("INVALID_ARGUMENT");
    expect(store.live.size).toBe(1);
  });

  it("takes a name again after its end", () => {
    namespaces.create("job-1", OPTIONS);
    namespaces.delete("job-1");
    namespaces.create("job-1", OPTIONS);
    expect(namespaces.receipt("job-1").ended).toBe(false);
  });
});

describe("receipts", () => {
  it("add what clients report to what the store counted", () => {
    namespaces.create("job-1", OPTIONS);
    const report = { by: "shm", bytesIn: 1, bytesOut: 200, operations: 3 };
    namespaces.reportUsage("job-1", [report, { ...report, by: "tcp" }], 200);
    namespaces.reportUsage("job-1", [report], 50);
    const receipt = namespaces.receipt("job-1");
    expect(receipt.traffic).toEqual([
      { by: "shm", bytesIn: 12, bytesOut: 400, operations: 7 },
      { by: "tcp", bytesIn: 1, bytesOut: 200, operations: 3 },
      { by: "grpc", bytesIn: 0, bytesOut: 0, operations: 0 },
      { by: "s3", bytesIn: 0, bytesOut: 0, operations: 0 },
    ]);
    expect(receipt).toMatchObject({
      namespace: "job-1",
      copiesAvoidedBytes: 250,
      objects: 3,
      peakBytes: 40,
      dramByteSeconds: 5,
      nvmeByteSeconds: 7,
      slowestPartition: "s/1",
      slowestPartitionBytes: 9,
      ended: false,
    });
  });

  it("are refused whole when a part is wrong", () => {
    namespaces.create("job-1", OPTIONS);
    const report = { by: "shm", bytesIn: 1, bytesOut: 1, operations: 1 };
    expect(codeOf(() => namespaces.reportUsage("job-1", [report, { ...report, by: "pigeon" }], 0))).toBe(
      "INVALID_ARGUMENT",
    );
    expect(namespaces.receipt("job-1").traffic[0]).toMatchObject({ bytesIn: 10 });
  });

  it("stay for some minutes after the end, in bounded number", () => {
    namespaces.create("job-1", OPTIONS);
    expect(namespaces.delete("job-1").ended).toBe(true);
    expect(namespaces.receipt("job-1")).toMatchObject({ ended: true, objects: 3 });
    pass(11 * 60_000);
    expect(codeOf(() => namespaces.receipt("job-1"))).toBe("NOT_FOUND");
    for (let index = 0; index < 1500; index++) {
      namespaces.create(`job-${index}`, OPTIONS);
      namespaces.delete(`job-${index}`);
    }
    expect(codeOf(() => namespaces.receipt("job-0"))).toBe("NOT_FOUND");
    expect(codeOf(() => namespaces.receipt("job-1499"))).toBe("OK");
  });
});

/** Keeps what it is told, as a journal does; refuses while `full`. */
class Recorder implements NamespaceRecorder {
  readonly events: NamespaceEvent[] = [];
  full = false;

  record(event: NamespaceEvent): void {
    if (this.full) throw new Error("no room for the record");
    this.events.push(event);
  }

  /** The namespaces as the record has them. */
  states(): NamespaceState[] {
    const states = new Map<string, NamespaceState>();
    for (const event of this.events) {
      if (event.type === "created") states.set(event.namespace.name, event.namespace);
      else if (event.type === "ended") states.delete(event.name);
      else states.set(event.name, { ...(states.get(event.name) as NamespaceState), ...event });
    }
    return [...states.values()];
  }
}

describe("with a recorder", () => {
  let recorder: Recorder;
  beforeEach(() => {
    recorder = new Recorder();
    namespaces = make(recorder);
  });

  /** The next life of the node: the clock goes on where it stopped, and the store has counted nothing yet. */
  function restart(): void {
    namespaces = make(recorder);
    for (const state of recorder.states()) namespaces.restore(state);
  }

  it("leases go on with what was left of them", () => {
    const { token } = namespaces.create("job-1", { ...OPTIONS, hint: "HINT_CAPACITY", expectedBytes: 3 });
    pass(20_000);
    namespaces.renew("job-1", 30_000);
    pass(10_000);
    restart();
    expect(namespaces.leaseRemainingMs("job-1")).toBe(20_000);
    expect(namespaces.require("job-1")).toMatchObject({ token, leaseMs: 60_000, hint: "HINT_CAPACITY" });
    expect(store.limits.get("job-1")).toMatchObject({ hint: "capacity", expectedBytes: 3 });
    expect(namespaces.renew("job-1", 0)).toBe(60_000);
    expect(pass(60_500)).toEqual(["job-1"]);
    expect(recorder.states()).toEqual([]);
  });

  it("a lease that is nearly over leaves clients time to come back", () => {
    namespaces.create("job-1", { ...OPTIONS, leaseMs: 200 });
    nowMs += 100;
    restart();
    expect(namespaces.leaseRemainingMs("job-1")).toBe(RESTORED_LEASE_MIN_MS);
    expect(pass(RESTORED_LEASE_MIN_MS + 500)).toEqual(["job-1"]);
  });

  it("time that the daemon stood still stays added to leases", () => {
    namespaces.create("job-1", OPTIONS);
    pass(10_000);
    nowMs += 600_000;
    namespaces.sweep();
    const left = namespaces.leaseRemainingMs("job-1");
    expect(left).toBeGreaterThan(49_000);
    restart();
    expect(namespaces.leaseRemainingMs("job-1")).toBe(left);
  });

  it("receipts add up over the node's lives", () => {
    namespaces.create("job-1", OPTIONS);
    namespaces.reportUsage("job-1", [{ by: "shm", bytesIn: 1, bytesOut: 200, operations: 3 }], 50);
    restart();
    namespaces.recordUsage();
    restart();
    const receipt = namespaces.receipt("job-1");
    // The store of each life counted the same again.
    expect(receipt.traffic[0]).toEqual({ by: "shm", bytesIn: 31, bytesOut: 200, operations: 6 });
    expect(receipt).toMatchObject({
      dramByteSeconds: 15,
      nvmeByteSeconds: 21,
      copiesAvoidedBytes: 50,
      peakBytes: 40,
    });
  });

  it("what cannot be recorded does not happen", () => {
    namespaces.create("job-1", OPTIONS);
    pass(10_000);
    recorder.full = true;
    const before = namespaces.receipt("job-1");
    expect(() => namespaces.create("job-2", OPTIONS)).toThrow(/no room/);
    expect(() => namespaces.renew("job-1", 0)).toThrow(/no room/);
    expect(() =>
      namespaces.reportUsage("job-1", [{ by: "tcp", bytesIn: 9, bytesOut: 9, operations: 9 }], 9),
    ).toThrow(/no room/);
    expect(() => namespaces.delete("job-1")).toThrow(/no room/);
    expect([...store.live.keys()]).toEqual(["job-1"]);
    expect(namespaces.leaseRemainingMs("job-1")).toBe(50_000);
    expect(namespaces.receipt("job-1")).toEqual(before);
    recorder.full = false;
    namespaces.delete("job-1");
    expect(recorder.states()).toEqual([]);
  });

  it("the record of an end comes before the end", () => {
    namespaces.create("job-1", OPTIONS);
    const drop = store.dropNamespace.bind(store);
    store.dropNamespace = (name) => {
      expect(recorder.states()).toEqual([]);
      drop(name);
    };
    namespaces.delete("job-1");
    expect(store.live.size).toBe(0);
  });
});
