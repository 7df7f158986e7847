/**
 * What the client process of a benchmark can be told to do. Each task works for about the seconds asked for and
 * says how far it came; the driver sees from outside what daemon and client used meanwhile.
 */
import type { Client, Namespace } from "../client/index.js";
import { allReduceTasks } from "./allreduce_tasks.js";
import { receiveBareStream, sendBareStream } from "./bare_stream.js";
import { KillLoad, type KillReport } from "./kill_load.js";
import type { KillSetup } from "./kill_shuffles.js";
import { median, quantile } from "./measure.js";

export interface TaskContext {
  client: Client;
  namespace: Namespace;
}

export interface Progress {
  operations: number;
  /** Bytes of objects. */
  bytes: number;
  seconds: number;
  /** Of this process. */
  pageFaults: number;
}

interface Contents {
  /** Keys are object-0 and so on. */
  keys: number;
  sizeBytes: number;
}

interface Timed {
  sizeBytes: number;
  seconds: number;
}

type Load = Contents & Timed;

/** Between two looks at the clock. */
const OPERATIONS_A_LOOK = 64;
const SAMPLES_MAX = 1 << 20;
const FILL_FLUSH_BYTES = 16 << 20;
const FILL_FLUSH_OBJECTS = 10_000;

let killLoad: KillLoad;

export const tasks = {
  ...allReduceTasks,

  async openKillLoad({ client, namespace }: TaskContext, setup: KillSetup): Promise<void> {
    killLoad = await KillLoad.open(client, namespace, setup);
  },

  /** Begins the load and returns. */
  async runKillLoad(_: TaskContext, _none: null): Promise<void> {
    killLoad.run();
  },

  /** Ends the load, and checks what it has done. */
  async checkKillLoad(_: TaskContext, _none: null): Promise<KillReport> {
    await killLoad.pause();
    return killLoad.check();
  },

  /** Puts objects 0 to keys - 1; fewer where `seconds` are given and are over. How many it were. */
  async fill({ namespace }: TaskContext, load: Contents & { seconds?: number }): Promise<number> {
    const data = pattern(load.sizeBytes);
    const until = performance.now() + (load.seconds ?? Number.POSITIVE_INFINITY) * 1000;
    const batch = namespace.batch();
    const flushEvery = Math.max(
      1,
      Math.min(FILL_FLUSH_OBJECTS, Math.floor(FILL_FLUSH_BYTES / (load.sizeBytes + 1))),
    );
    let done = 0;
    while (done < load.keys && performance.now() < until) {
      const end = Math.min(load.keys, done + flushEvery);
      for (; done < end; done++) batch.put(keyOf(done), data);
      await batch.flush();
    }
    return done;
  },

  /** Views over shared memory, each timed by itself. */
  async viewOneByOne({ namespace }: TaskContext, load: Load) {
    const keys = shuffledKeys(load.keys);
    const times = new Float64Array(SAMPLES_MAX).fill(1);
    let sum = 0;
    const progress = await repeat(load, async (until) => {
      let count = 0;
      while (count < SAMPLES_MAX) {
        const key = keys[count % keys.length] as string;
        const start = performance.now();
        const bytes = namespace.view(key);
        const end = performance.now();
        sum += (bytes as Uint8Array)[0] as number;
        times[count++] = end - start;
        if (end > until) break;
      }
      return count;
    });
    const clock = new Float64Array(10_000);
    for (let i = 0; i < clock.length; i++) {
      const start = performance.now();
      clock[i] = performance.now() - start;
    }
    const sorted = times.slice(0, progress.operations).sort();
    return {
      ...progress,
      p50Us: quantile(sorted, 0.5) * 1000,
      p99Us: quantile(sorted, 0.99) * 1000,
      /** What timing nothing takes: a part of the above. */
      clockUs: quantile(clock.sort(), 0.5) * 1000,
      sum,
    };
  },

  /** Views over shared memory in a tight loop, first and last byte read. */
  async viewInLoop({ namespace }: TaskContext, load: Load): Promise<Progress> {
    const keys = shuffledKeys(load.keys);
    let sum = 0;
    let next = 0;
    return repeat(load, async (until) => {
      let count = 0;
      do {
        for (let i = 0; i < OPERATIONS_A_LOOK; i++) {
          const bytes = namespace.view(keys[next] as string) as Uint8Array;
          sum += (bytes[0] as number) + (bytes[bytes.length - 1] as number);
          next = next + 1 === keys.length ? 0 : next + 1;
        }
        count += OPERATIONS_A_LOOK;
      } while (performance.now() < until);
      return sum < 0 ? 0 : count;
    });
  },

  /** `get` by promise, one after the other. */
  async getInTurn({ namespace }: TaskContext, load: Load): Promise<Progress> {
    return inFlight(load, 1, async (i) => {
      await namespace.get(keyOf(i % load.keys));
    });
  },

  /** `get` with so many promises in flight. */
  async get({ namespace }: TaskContext, load: Load & { inFlight: number }): Promise<Progress> {
    const keys = shuffledKeys(load.keys);
    return inFlight(load, load.inFlight, async (i) => {
      const bytes = await namespace.get(keys[i % keys.length] as string);
      if (bytes.length !== load.sizeBytes)
        throw new Error(`got ${bytes.length} bytes, not ${load.sizeBytes}`);
    });
  },

  /** `put` with so many promises in flight, over the same keys again and again. */
  async put({ namespace }: TaskContext, load: Load & { inFlight: number }): Promise<Progress> {
    const data = kept(load.sizeBytes, 0);
    const keys = keyList(load.keys);
    return inFlight(load, load.inFlight, async (i) => {
      await namespace.put(keys[i % keys.length] as string, data);
    });
  },

  /** `pipeline` puts, then a flush that waits until all of them are sealed, again and again. */
  async putInBatches({ namespace }: TaskContext, load: Load & { pipeline: number }): Promise<Progress> {
    const data = kept(load.sizeBytes, 0);
    const keys = keyList(load.keys);
    const batch = namespace.batch();
    let next = 0;
    return repeat(load, async (until) => {
      let count = 0;
      do {
        for (let i = 0; i < load.pipeline; i++) {
          batch.put(keys[next] as string, data);
          next = next + 1 === keys.length ? 0 : next + 1;
        }
        await batch.flush();
        count += load.pipeline;
      } while (performance.now() < until);
      return count;
    });
  },

  /** Create and seal (one request), look up, delete: three requests an object, `inFlight` objects at a time. */
  async metadata({ namespace }: TaskContext, load: Load & { inFlight: number }): Promise<Progress> {
    const empty = new Uint8Array(0);
    const keys = keyList(load.keys);
    const progress = await inFlight(load, load.inFlight, async (i) => {
      const key = keys[i % keys.length] as string;
      await namespace.put(key, empty);
      if ((await namespace.head(key)) === null) throw new Error(`${key} is not there`);
      await namespace.delete(key);
    });
    return { ...progress, operations: progress.operations * 3 };
  },

  /** The time from asking for a large object to a view whose first byte was read; median, and the first of all. */
  async viewLarge({ namespace }: TaskContext, load: Load) {
    const keys = keyList(load.keys);
    const times = new Float64Array(SAMPLES_MAX).fill(1);
    let sum = 0;
    const progress = await repeat(load, async (until) => {
      let count = 0;
      do {
        const key = keys[count % keys.length] as string;
        const start = performance.now();
        const bytes = namespace.view(key) as Uint8Array;
        sum += bytes[0] as number;
        times[count++] = performance.now() - start;
      } while (performance.now() < until && count < SAMPLES_MAX);
      return count;
    });
    const firstUs = (times[0] ?? 0) * 1000;
    const sorted = times.slice(0, progress.operations).sort();
    return { ...progress, medianUs: quantile(sorted, 0.5) * 1000, firstUs, sum };
  },

  /** Copies between two buffers that are faulted in. */
  async memoryCopy(_context: TaskContext, load: Timed) {
    const from = kept(load.sizeBytes, 0);
    const to = kept(load.sizeBytes, 1);
    const times: number[] = [];
    const progress = await repeat(load, async (until) => {
      do {
        const start = performance.now();
        to.set(from);
        times.push(performance.now() - start);
      } while (performance.now() < until);
      return times.length;
    });
    return { ...progress, medianUs: median(times) * 1000 };
  },

  /** Streams of `sizeBytes` in chunks to the bare gRPC server at `address`, one after the other. */
  async sendBare(_context: TaskContext, load: BareLoad): Promise<Progress> {
    const data = kept(load.sizeBytes, 0);
    return inFlight(load, 1, () => sendBareStream(load.address, data, load.chunkBytes));
  },

  async receiveBare(_context: TaskContext, load: BareLoad): Promise<Progress> {
    return inFlight(load, 1, () => receiveBareStream(load.address, load.sizeBytes, load.chunkBytes));
  },

  /** The first page of a listing, which has the daemon put all keys in order. Its length. */
  async list({ namespace }: TaskContext, _parameters: null): Promise<number> {
    return (await namespace.listPage()).objects.length;
  },

  /** Deletes a namespace; how long that took. */
  async drop({ client }: TaskContext, { namespace }: { namespace: string }): Promise<number> {
    const start = performance.now();
    await client.deleteNamespace(namespace);
    return (performance.now() - start) / 1000;
  },

  /** As `fill`, in a namespace of its own that stays when this returns. */
  async fillNamespace({ client }: TaskContext, load: Contents & { namespace: string }): Promise<number> {
    const namespace = await client.createNamespace(load.namespace, {
      leaseMs: KEPT_LEASE_MS,
      expectedBytes: load.keys * load.sizeBytes,
    });
    try {
      return await tasks.fill({ client, namespace }, load);
    } finally {
      await namespace.close();
    }
  },
};

interface BareLoad extends Timed {
  address: string;
  chunkBytes: number;
}

export type ClientTasks = typeof tasks;

const KEPT_LEASE_MS = 600_000;

const buffers = new Map<string, Uint8Array>();

/** A buffer that is faulted in and stays for later rounds. */
function kept(sizeBytes: number, which: number): Uint8Array {
  const name = `${sizeBytes} ${which}`;
  let data = buffers.get(name);
  if (data === undefined) {
    data = pattern(sizeBytes);
    buffers.set(name, data);
  }
  return data;
}

function pattern(sizeBytes: number): Uint8Array {
  const data = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) data[i] = (i * 31 + (i >>> 8)) & 0xff;
  return data;
}

function keyOf(index: number): string {
  return `object-${index}`;
}

let keyLists = new Map<number, string[]>();

function keyList(count: number): string[] {
  let keys = keyLists.get(count);
  if (keys === undefined) {
    keys = Array.from({ length: count }, (_, index) => keyOf(index));
    keyLists = new Map([[count, keys]]);
  }
  return keys;
}

/** In an order that no cache foresees, the same in every run. */
function shuffledKeys(count: number): string[] {
  const keys = [...keyList(count)];
  let state = 12_345;
  for (let i = keys.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    const j = state % (i + 1);
    [keys[i], keys[j]] = [keys[j] as string, keys[i] as string];
  }
  return keys;
}

async function repeat(load: Timed, work: (until: number) => Promise<number>): Promise<Progress> {
  const faultsBefore = process.resourceUsage().minorPageFault;
  const start = performance.now();
  const operations = await work(start + load.seconds * 1000);
  const seconds = (performance.now() - start) / 1000;
  const pageFaults = process.resourceUsage().minorPageFault - faultsBefore;
  return { operations, bytes: operations * load.sizeBytes, seconds, pageFaults };
}

/** `width` operations at a time until the time is up. */
function inFlight(
  load: Timed,
  width: number,
  operation: (index: number) => Promise<void>,
): Promise<Progress> {
  return repeat(load, async (until) => {
    let next = 0;
    const lane = async () => {
      while (performance.now() < until) await operation(next++);
    };
    await Promise.all(Array.from({ length: width }, lane));
    return next;
  });
}
