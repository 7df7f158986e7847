/**
 * The load of one client process of the kill benchmark: random operations on keys that it alone writes, until it is
 * told to pause; then it checks what it finds against what was acknowledged. The node is killed meanwhile, again and
 * again, and this goes on by itself: that is what is tested.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, connect, MillraceError, type Namespace, type TransportKind } from "../client/index.js";
import { type Failure, Ledger } from "./kill_ledger.js";
import { type KillSetup, ShuffleLoad } from "./kill_shuffles.js";
import { type Random, randomOf } from "./random.js";

/** One look, since the last one. */
export interface KillReport {
  checked: number;
  failures: (Failure & { process: number; transport: TransportKind })[];
  /** Operations by name. */
  counts: Record<string, number>;
}

const KIB = 1024;
const MIB = 1024 * KIB;
/** Each works off one operation after the other on keys of its own. */
const LANES = 5;
const KEYS_PER_LANE = 40;
/** Checked although nothing was done to them. */
const SAMPLE_KEYS = 20;
const CHECKS_IN_FLIGHT = 8;
/** Every so many looks, all keys are listed as well. */
const LIST_EVERY = 5;

export class KillLoad {
  readonly #handles: Record<"own" | "other", Namespace>;
  readonly #setup: KillSetup;
  readonly #random: Random;
  readonly #ledger: Ledger;
  readonly #shuffles: ShuffleLoad;
  readonly #touched = new Set<string>();
  #sampleAt = 0;
  #looks = 0;
  #report: KillReport;
  #paused = true;
  #running: Promise<unknown> = Promise.resolve();

  private constructor(own: Namespace, other: Namespace, shuffles: ShuffleLoad, setup: KillSetup) {
    this.#handles = { own, other };
    this.#setup = setup;
    this.#random = randomOf(setup.seed * 31 + setup.process);
    this.#ledger = new Ledger(setup.process);
    this.#shuffles = shuffles;
    this.#report = emptyReport();
  }

  static async open(client: Client, namespace: Namespace, setup: KillSetup): Promise<KillLoad> {
    const second = await connect(client.endpoint, { transport: setup.other });
    const other = await second.openNamespace(namespace.name);
    const shuffles = new ShuffleLoad(client.endpoint, namespace, other, setup);
    return new KillLoad(namespace, other, shuffles, setup);
  }

  /** Begins; `pause` ends it. */
  run(): void {
    this.#paused = false;
    const lanes = Array.from({ length: LANES }, (_, lane) => this.#lane(lane));
    const shuffling = this.#shuffles.run(() => this.#paused, this.#fail, this.#count);
    this.#running = Promise.all([...lanes, shuffling]);
    this.#running.catch(() => {}); // told by `pause`
  }

  /** Waits for what is under way, also through restarts of the node. Rejects where something failed that must not. */
  async pause(): Promise<void> {
    this.#paused = true;
    await this.#running;
  }

  async check(): Promise<KillReport> {
    const keys = this.#keysToCheck();
    for (const transport of ["own", "other"] as const) {
      await inParallel(keys, (key) => this.#checkKey(transport, key));
      this.#report.checked += await this.#shuffles.check(transport, this.#fail);
    }
    if (this.#looks++ % LIST_EVERY === 0) await this.#checkList();
    const report = this.#report;
    this.#report = emptyReport();
    return report;
  }

  // --- load

  async #lane(lane: number): Promise<void> {
    const random = randomOf(this.#random.below(2 ** 31));
    const keys = Array.from(
      { length: KEYS_PER_LANE },
      (_, index) => `${this.#setup.process}/${lane}/${"x".repeat(index)}${index}`,
    );
    while (!this.#paused) {
      const key = random.pick(keys);
      const choice = random.next();
      if (choice < 0.45) await this.#put(key, random);
      else if (choice < 0.52) await this.#putIfAbsent(key, random);
      else if (choice < 0.59) await this.#write(key, random);
      else if (choice < 0.72) await this.#delete(key);
      // Flushes report the failures of all batches of the handle, so only one lane has batches.
      else if (choice < 0.86 && lane === 0) await this.#batch(keys, random);
      else await this.#checkKey("own", key);
      if (random.below(4) === 0) await sleep(random.below(4));
    }
  }

  #begin(key: string, sizeBytes: number | null): number {
    this.#touched.add(key);
    return this.#ledger.begin(key, sizeBytes);
  }

  async #put(key: string, random: Random): Promise<void> {
    const sizeBytes = sizeOf(random);
    const version = this.#begin(key, sizeBytes);
    try {
      await this.#handles.own.put(key, this.#ledger.content(key, version, sizeBytes));
      this.#ledger.acknowledge(key, version);
      this.#count("put");
    } catch (thrown) {
      this.#allow(thrown, ["RESOURCE_EXHAUSTED"]);
    }
  }

  async #putIfAbsent(key: string, random: Random): Promise<void> {
    const sizeBytes = sizeOf(random);
    const existed = this.#ledger.exists(key);
    const version = this.#begin(key, sizeBytes);
    try {
      await this.#handles.own.put(key, this.#ledger.content(key, version, sizeBytes), { ifAbsent: true });
      this.#ledger.acknowledge(key, version);
      this.#count("put if absent");
      if (existed === true)
        this.#fail("own", { kind: "lost", key, message: "an object was taken for absent" });
    } catch (thrown) {
      if (
        this.#allow(thrown, ["CONDITION_FAILED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"]) !== "CONDITION_FAILED"
      )
        return;
      this.#ledger.refuse(key, version);
      if (existed === false) this.#fail("own", { kind: "lost", key, message: "a deleted object was found" });
    }
  }

  async #write(key: string, random: Random): Promise<void> {
    const sizeBytes = sizeOf(random);
    const version = this.#begin(key, sizeBytes);
    const content = this.#ledger.content(key, version, sizeBytes);
    try {
      const writer = await this.#handles.own.openWriter(key, random.below(2) === 0 ? { sizeBytes } : {});
      for (let at = 0; at < sizeBytes; ) {
        const length = Math.min(sizeBytes - at, 1 + random.below(MIB));
        await writer.write(content.subarray(at, at + length));
        at += length;
      }
      await writer.seal();
      this.#ledger.acknowledge(key, version);
      this.#count("written");
    } catch (thrown) {
      this.#allow(thrown, ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]);
    }
  }

  async #delete(key: string): Promise<void> {
    const version = this.#begin(key, null);
    await this.#handles.own.delete(key);
    this.#ledger.acknowledge(key, version);
    this.#count("delete");
  }

  async #batch(keys: readonly string[], random: Random): Promise<void> {
    const batch = this.#handles.own.batch();
    const last = new Map<string, number>();
    try {
      for (let i = random.below(60); i >= 0; i--) {
        const key = random.pick(keys);
        const sizeBytes = random.below(2 * KIB);
        const version = this.#begin(key, sizeBytes);
        last.set(key, version);
        batch.put(key, this.#ledger.content(key, version, sizeBytes));
      }
      await batch.flush();
      for (const [key, version] of last) this.#ledger.acknowledge(key, version);
      this.#count("batch");
    } catch (thrown) {
      this.#allow(thrown, ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]);
    }
  }

  /** What may happen while the node is killed. Anything else ends the benchmark. */
  #allow(thrown: unknown, codes: readonly string[]): string {
    const { code } = MillraceError.from(thrown);
    if (!codes.includes(code)) throw thrown;
    this.#count(code);
    return code;
  }

  // --- checks

  #keysToCheck(): string[] {
    const all = this.#ledger.keys();
    for (let i = 0; i < Math.min(SAMPLE_KEYS, all.length); i++) {
      this.#touched.add(all[this.#sampleAt++ % all.length] as string);
    }
    const keys = [...this.#touched];
    this.#touched.clear();
    return keys;
  }

  async #checkKey(transport: "own" | "other", key: string): Promise<void> {
    this.#report.checked++;
    let failure: Failure | null;
    try {
      failure = this.#ledger.judge(key, await this.#handles[transport].tryGet(key));
    } catch (thrown) {
      const { code, message } = MillraceError.from(thrown);
      if (code !== "CORRUPT" && code !== "CHECKSUM_MISMATCH") throw thrown;
      failure = { kind: "torn", key, message: `${code}: ${message}` };
    }
    if (failure !== null) this.#fail(transport, failure);
  }

  async #checkList(): Promise<void> {
    const listed = new Set<string>();
    const prefix = `${this.#setup.process}/`;
    for await (const { key } of this.#handles.own.list({ prefix })) listed.add(key);
    for (const key of this.#ledger.keys()) {
      this.#report.checked++;
      const exists = this.#ledger.exists(key);
      if (exists === null || exists === listed.delete(key)) continue;
      const message = exists ? "missing from the list" : "deleted, and in the list";
      this.#fail("own", { kind: "lost", key, message });
    }
    for (const key of listed) {
      if (this.#ledger.exists(key) === false)
        this.#fail("own", { kind: "torn", key, message: "listed, but never put" });
    }
  }

  readonly #fail = (transport: "own" | "other", failure: Failure): void => {
    const { transport: over } = this.#handles[transport];
    this.#report.failures.push({ ...failure, process: this.#setup.process, transport: over });
  };

  readonly #count = (what: string): void => {
    this.#report.counts[what] = (this.#report.counts[what] ?? 0) + 1;
  };
}

function emptyReport(): KillReport {
  return { checked: 0, failures: [], counts: {} };
}

/** Mostly small, and now and then of several MiB. */
function sizeOf(random: Random): number {
  const band = random.next();
  if (band < 0.05) return 0;
  if (band < 0.7) return random.below(KIB);
  if (band < 0.92) return random.below(48 * KIB);
  if (band < 0.985) return random.below(256 * KIB);
  return random.below(8 * MIB);
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: CHECKS_IN_FLIGHT }, lane));
}
