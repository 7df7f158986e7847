/** The shuffles of one client process of the kill benchmark: map outputs committed, and looked for afterwards. */
import { setTimeout as sleep } from "node:timers/promises";
import { ControlChannel } from "../client/control.js";
import { MillraceError, type Namespace, type Shuffle, type TransportKind } from "../client/index.js";
import { loadContract } from "../proto/load.js";
import type { PartitionExtent } from "../proto/messages.js";
import { makeContent } from "./content.js";
import type { Failure } from "./kill_ledger.js";
import { type Random, randomOf } from "./random.js";

export interface KillSetup {
  seed: number;
  /** Number of this process. */
  process: number;
  /** Over which the checks look a second time. */
  other: TransportKind;
}

type Fail = (transport: "own" | "other", failure: Failure) => void;
type Count = (what: string) => void;

const MAPS = 12;
const PARTITIONS = 3;
const PARTITION_BYTES_MAX = 40_000;
/** Between two commits, at most. */
const PAUSE_MS = 12;
const TIMEOUT_MS = 30_000;

/** One output, committed or not: attempts of all shuffles are numbered on. */
interface Attempt {
  map: number;
  offsets: number[];
}

interface Exchange {
  shuffle: Shuffle;
  attempts: Map<number, Attempt>;
  /** By map, the attempt that stands for certain. */
  committed: Map<number, number>;
}

export class ShuffleLoad {
  readonly #channel: ControlChannel;
  readonly #handles: Record<"own" | "other", Namespace>;
  readonly #process: number;
  readonly #random: Random;
  #exchange: Exchange | null = null;
  #shuffles = 0;
  #attempts = 0;

  constructor(endpoint: string, own: Namespace, other: Namespace, { seed, process }: KillSetup) {
    this.#channel = new ControlChannel(endpoint, TIMEOUT_MS);
    this.#handles = { own, other };
    this.#process = process;
    this.#random = randomOf(seed * 37 + process);
  }

  async run(paused: () => boolean, fail: Fail, count: Count): Promise<void> {
    while (!paused()) {
      this.#exchange ??= await this.#create();
      await this.#commit(this.#exchange, fail, count);
      await sleep(this.#random.below(PAUSE_MS));
    }
  }

  /** Looks for every output that was committed; how many extents were checked. */
  async check(transport: "own" | "other", fail: Fail): Promise<number> {
    const exchange = this.#exchange;
    if (exchange === null) return 0;
    let checked = 0;
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const extents = await this.#locate(exchange.shuffle.id, partition);
      const found = new Map(extents.map((extent) => [extent.map, extent]));
      for (const map of exchange.committed.keys()) {
        if (found.has(map)) continue;
        checked++;
        fail(transport, { kind: "lost", key: `${exchange.shuffle.id}/m${map}`, message: "not located" });
      }
      for (const extent of extents) {
        checked++;
        const failure = await this.#checkExtent(exchange, transport, partition, extent);
        if (failure !== null) fail(transport, failure);
      }
    }
    // Both transports have looked.
    if (transport === "other" && exchange.committed.size === MAPS) {
      this.#exchange = null;
      await this.#handles.own.deleteShuffle(exchange.shuffle.id);
    }
    return checked;
  }

  async #create(): Promise<Exchange> {
    const id = `p${this.#process}-${this.#shuffles++}`;
    const { own } = this.#handles;
    const options = { maps: MAPS, partitions: PARTITIONS, partitioner: Buffer.from(id) };
    let shuffle: Shuffle;
    try {
      shuffle = await own.createShuffle(id, options);
    } catch (thrown) {
      if (MillraceError.from(thrown).code !== "UNAVAILABLE") throw thrown;
      // It may have been created all the same.
      shuffle = await own.openShuffle(id).catch(() => own.createShuffle(id, options));
    }
    return { shuffle, attempts: new Map(), committed: new Map() };
  }

  async #commit(exchange: Exchange, fail: Fail, count: Count): Promise<void> {
    const { shuffle, attempts, committed } = exchange;
    const map = this.#random.below(MAPS);
    const attempt = ++this.#attempts;
    const offsets = [0];
    for (let i = 0; i < PARTITIONS; i++) {
      offsets.push((offsets[i] as number) + this.#random.below(PARTITION_BYTES_MAX));
    }
    attempts.set(attempt, { map, offsets });
    try {
      const writer = await shuffle.writer(map, attempt);
      (await writer.reserve(offsets[PARTITIONS] as number)).set(this.#content(shuffle, attempt, offsets));
      const { winningAttempt } = await writer.commit({ offsets });
      count("commit");
      const key = `${shuffle.id}/m${map}`;
      const before = committed.get(map) ?? winningAttempt;
      if (before !== winningAttempt) {
        const message = `attempt ${before} was committed, now attempt ${winningAttempt} is said to stand`;
        fail("own", { kind: "lost", key, message });
      } else if (attempts.get(winningAttempt)?.map !== map) {
        fail("own", {
          kind: "torn",
          key,
          message: `attempt ${winningAttempt}, which nobody committed, stands`,
        });
      }
      committed.set(map, winningAttempt);
    } catch (thrown) {
      const { code } = MillraceError.from(thrown);
      if (code !== "UNAVAILABLE" && code !== "RESOURCE_EXHAUSTED") throw thrown;
      count(code);
    }
  }

  #content(shuffle: Shuffle, attempt: number, offsets: readonly number[]): Buffer {
    return makeContent(shuffle.id, this.#process, attempt, offsets[PARTITIONS] as number);
  }

  async #locate(shuffle: string, partition: number): Promise<PartitionExtent[]> {
    const { LocatePartition } = loadContract().shuffles;
    const request = { namespace: this.#handles.own.name, shuffle, partition, count: 1, wait: false };
    return (await this.#channel.unary(LocatePartition, request, { idempotent: true })).extents;
  }

  async #checkExtent(
    { shuffle, attempts, committed }: Exchange,
    transport: "own" | "other",
    partition: number,
    { map, key, offset, length, sequence }: PartitionExtent,
  ): Promise<Failure | null> {
    const text = Buffer.from(key).toString();
    const attempt = Number(/\.a(\d+)\./.exec(text)?.[1]);
    const known = attempts.get(attempt);
    const stands = committed.get(map);
    const torn = (message: string): Failure => ({ kind: "torn", key: text, message });
    if (known?.map !== map) return torn(`map ${map}: attempt ${attempt}, which nobody committed`);
    if (stands !== undefined && stands !== attempt) {
      return { kind: "lost", key: text, message: `attempt ${stands} of map ${map} was committed` };
    }
    committed.set(map, attempt);
    const [begin, end] = [known.offsets[partition] as number, known.offsets[partition + 1] as number];
    if (offset !== begin || length !== end - begin) {
      return torn(`located at ${offset} with ${length} bytes, not at ${begin} with ${end - begin}`);
    }
    if (length === 0) return null;
    try {
      const { bytes, info } = await this.#handles[transport].getWithInfo(text, { offset, length });
      if (info.sequence !== sequence) return torn(`sequence ${info.sequence}, not ${sequence}`);
      const expected = this.#content(shuffle, attempt, known.offsets).subarray(begin, end);
      return expected.equals(bytes) ? null : torn(`partition ${partition}: other bytes than were committed`);
    } catch (thrown) {
      const { code, message } = MillraceError.from(thrown);
      if (code === "NOT_FOUND")
        return { kind: "lost", key: text, message: "the committed object is missing" };
      if (code === "CORRUPT" || code === "CHECKSUM_MISMATCH") return torn(`${code}: ${message}`);
      throw thrown;
    }
  }
}
