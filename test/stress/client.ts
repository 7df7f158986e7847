/**
 * The client process of the stress tests: several lanes of random operations at once, over all transports, every
 * byte read checked. A violation ends `run` with an error; whoever started it may kill it at any moment.
 */
import { once } from "node:events";
import { openSync } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import {
  CONTENT_BYTES_MIN,
  type Identity,
  identify,
  makeContent,
  RANGE_BYTES_MIN,
} from "../../bench/content.js";
import {
  type Client,
  connect,
  kernels,
  MillraceError,
  type Namespace,
  type ObjectInfo,
  type TransportKind,
} from "../../client/index.js";
import { answerCalls } from "../support/client_process.js";
import { type Random, randomOf } from "../support/random.js";
import { note } from "./journal.js";

export interface RunOptions {
  seed: number;
  /** Of this process; never used twice. */
  id: number;
  sharedKeys: string[];
  journalPath: string;
}

export type Counts = Record<string, number>;

const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const KIB = 1024;
const MIB = 1024 * KIB;
const SHARED_LANES = 3;
const LANES_PER_PROCESS = 8; // room in the numbers of writers
const PRIVATE_KEYS = 8;
const HELD_MAX = 6;
const TIMEOUT_MS = 10_000;

const clients: Client[] = [];
const handles = {} as Record<TransportKind, Namespace>;
const counts: Counts = {};
let stopping = false;

const count = (what: string) => {
  counts[what] = (counts[what] ?? 0) + 1;
};

/** What may happen while others overwrite and delete, or while all memory is in use. */
function allowed(error: unknown, codes: string[]): string {
  const { code } = MillraceError.from(error);
  if (!codes.includes(code) && code !== "RESOURCE_EXHAUSTED") throw error;
  count(code);
  return code;
}

function sizeOf(random: Random): number {
  const band = random.next();
  const [least, most] =
    band < 0.4
      ? [CONTENT_BYTES_MIN, 64]
      : band < 0.6
        ? [64, 4 * KIB]
        : band < 0.9
          ? [4 * KIB, 128 * KIB]
          : band < 0.985
            ? [128 * KIB, 2 * MIB]
            : [2 * MIB, 12 * MIB];
  return least + random.below(most - least);
}

function* pieces(data: Buffer, random: Random): Generator<Buffer> {
  for (let at = 0; at < data.length; ) {
    const length = Math.min(data.length - at, 1 + random.below(MIB));
    yield data.subarray(at, at + length);
    at += length;
  }
}

/** Puts in one of the ways that there are. */
async function put(namespace: Namespace, key: string, data: Buffer, random: Random): Promise<ObjectInfo> {
  switch (random.below(4)) {
    case 0: {
      const writer = await namespace.openWriter(key, random.below(2) === 0 ? {} : { sizeBytes: data.length });
      for (const piece of pieces(data, random)) {
        if (random.below(2) === 0) (await writer.reserve(piece.length)).set(piece);
        else await writer.write(piece);
      }
      return writer.seal();
    }
    case 1: {
      const stream = namespace.createWriteStream(key);
      await pipeline(Readable.from(pieces(data, random), { objectMode: false }), stream);
      return stream.info as ObjectInfo;
    }
    default:
      return namespace.put(key, data);
  }
}

interface Held {
  key: string;
  extents: Uint8Array[];
  identity: Identity;
}

const sizeInAll = (extents: Uint8Array[]) => extents.reduce((sum, { length }) => sum + length, 0);

/** One after the other; what it has seen of a key it must never see older. */
class Lane {
  readonly #random: Random;
  readonly #writer: number;
  readonly #keys: string[];
  readonly #sequences = new Map<string, number>();
  /** Of a key and a writer. */
  readonly #versions = new Map<string, number>();
  readonly #held: Held[] = [];
  #version = 0;

  constructor(random: Random, writer: number, keys: string[]) {
    this.#random = random;
    this.#writer = writer;
    this.#keys = keys;
  }

  async run(): Promise<void> {
    while (!stopping) {
      const key = this.#random.pick(this.#keys);
      const namespace = handles[this.#random.pick(KINDS)];
      const choice = this.#random.next();
      if (choice < 0.22) await this.#put(namespace, key);
      else if (choice < 0.27) await this.#batch(namespace);
      else if (choice < 0.32) await this.#delete(namespace, key);
      else if (choice < 0.37) await this.#conditional(namespace, key);
      else if (choice < 0.4) await this.#copy(namespace, key);
      else if (choice < 0.65) await this.#get(namespace, key);
      else if (choice < 0.75) await this.#getRange(namespace, key);
      else if (choice < 0.85) this.#hold(key);
      else if (choice < 0.91) await this.#stream(namespace, key);
      else if (choice < 0.94) await this.#list(namespace);
      else await this.#head(namespace, key);
    }
    for (const held of this.#held) this.#recheck(held);
  }

  #content(key: string): Buffer {
    return makeContent(key, this.#writer, ++this.#version, sizeOf(this.#random));
  }

  /** `at` is what it was seen by; only for keys that are not copies. */
  #seen(key: string, sequence: number, identity?: Identity): void {
    const before = this.#sequences.get(key) ?? 0;
    if (sequence < before) throw new Error(`${key}: sequence ${sequence} was seen after ${before}`);
    this.#sequences.set(key, sequence);
    if (identity === undefined) return;
    const ofWriter = `${key} of writer ${identity.writer}`;
    const newest = this.#versions.get(ofWriter) ?? 0;
    if (identity.version < newest) {
      throw new Error(`${ofWriter}: version ${identity.version} was seen after ${newest}`);
    }
    this.#versions.set(ofWriter, identity.version);
  }

  async #put(namespace: Namespace, key: string): Promise<void> {
    const data = this.#content(key);
    const before = this.#sequences.get(key) ?? 0;
    try {
      const info = await put(namespace, key, data, this.#random);
      if (info.sizeBytes !== data.length)
        throw new Error(`${key}: ${data.length} bytes put, ${info.sizeBytes} sealed`);
      if (info.crc32c !== kernels().crc32c(0, data)) throw new Error(`${key}: sealed with another checksum`);
      if (info.sequence <= before)
        throw new Error(`${key}: put as ${info.sequence}, ${before} was seen before`);
      this.#seen(key, info.sequence);
      count("put");
    } catch (error) {
      allowed(error, []);
    }
  }

  async #batch(namespace: Namespace): Promise<void> {
    const batch = namespace.batch();
    try {
      for (let i = 0; i < 20; i++) {
        const key = this.#random.pick(this.#keys);
        const sizeBytes = CONTENT_BYTES_MIN + this.#random.below(500);
        batch.put(key, makeContent(key, this.#writer, ++this.#version, sizeBytes));
      }
      await batch.flush();
      count("batch");
    } catch (error) {
      allowed(error, []);
    }
  }

  async #delete(namespace: Namespace, key: string): Promise<void> {
    await namespace.delete(key);
    count("delete");
  }

  async #conditional(namespace: Namespace, key: string): Promise<void> {
    const data = this.#content(key);
    const sequence = this.#sequences.get(key);
    try {
      if (sequence === undefined) await namespace.put(key, data, { ifAbsent: true });
      else {
        const info = await namespace.put(key, data, { ifSequence: sequence });
        this.#seen(key, info.sequence);
      }
      count("conditional put");
    } catch (error) {
      allowed(error, ["CONDITION_FAILED"]);
    }
  }

  async #copy(namespace: Namespace, key: string): Promise<void> {
    try {
      const info = await namespace.copy(key, `copy/${key}`);
      const got = await namespace.tryGet(`copy/${key}`);
      if (got !== null) identify(key, got, 0, got.length);
      if (info.sizeBytes < CONTENT_BYTES_MIN) throw new Error(`copy/${key}: ${info.sizeBytes} bytes`);
      count("copy");
    } catch (error) {
      allowed(error, ["NOT_FOUND"]);
    }
  }

  async #get(namespace: Namespace, key: string): Promise<void> {
    const got = await namespace.getWithInfo(key).catch((error) => {
      allowed(error, ["NOT_FOUND"]);
      return null;
    });
    if (got === null) return;
    const { bytes, info } = got;
    if (bytes.length !== info.sizeBytes)
      throw new Error(`${key}: ${bytes.length} of ${info.sizeBytes} bytes`);
    const identity = identify(key, bytes, 0, info.sizeBytes);
    if (kernels().crc32c(0, bytes) !== info.crc32c) throw new Error(`${key}: another checksum`);
    this.#seen(key, info.sequence, identity);
    count("get");
  }

  async #getRange(namespace: Namespace, key: string): Promise<void> {
    const scale = this.#random.pick([KIB, 16 * KIB, 256 * KIB]);
    const offset = this.#random.below(scale);
    const length = RANGE_BYTES_MIN + this.#random.below(scale);
    const got = await namespace.getWithInfo(key, { offset, length }).catch((error) => {
      allowed(error, ["NOT_FOUND", "OUT_OF_RANGE"]);
      return null;
    });
    if (got === null) return;
    if (got.bytes.length !== length) throw new Error(`${key}: ${got.bytes.length} of ${length} bytes`);
    this.#seen(key, got.info.sequence, identify(key, got.bytes, offset, got.info.sizeBytes));
    count("range");
  }

  #hold(key: string): void {
    const extents = handles.shm.viewExtents(key);
    if (extents !== null) {
      const identity = identify(key, Buffer.concat(extents), 0, sizeInAll(extents));
      this.#held.push({ key, extents, identity });
      count("view");
    }
    // Some are held for long.
    if (this.#held.length > HELD_MAX) {
      const [dropped] = this.#held.splice(this.#random.below(this.#held.length), 1);
      this.#recheck(dropped as Held);
    }
    if (this.#held.length > 0) this.#recheck(this.#random.pick(this.#held));
  }

  #recheck({ key, extents, identity }: Held): void {
    const now = identify(key, Buffer.concat(extents), 0, sizeInAll(extents));
    if (now.writer !== identity.writer || now.version !== identity.version) {
      throw new Error(`a view of ${key} changed from ${JSON.stringify(identity)} to ${JSON.stringify(now)}`);
    }
    count("view again");
  }

  async #stream(namespace: Namespace, key: string): Promise<void> {
    try {
      const chunks: Uint8Array[] = [];
      const stream = namespace.createReadStream(key);
      for await (const chunk of stream) {
        chunks.push(chunk as Uint8Array);
        if (this.#random.below(200) === 0) return; // leaves it midway
      }
      const bytes = Buffer.concat(chunks);
      identify(key, bytes, 0, bytes.length);
      count("stream");
    } catch (error) {
      allowed(error, ["NOT_FOUND", "ABORTED"]);
    }
  }

  async #list(namespace: Namespace): Promise<void> {
    const prefix = this.#random.pick(["shared/", "copy/"]);
    let last = "";
    for await (const { key, sizeBytes } of namespace.list({ prefix })) {
      if (Buffer.compare(Buffer.from(key), Buffer.from(last)) <= 0)
        throw new Error(`${key} listed after ${last}`);
      if (!key.startsWith(prefix)) throw new Error(`${key} listed under ${prefix}`);
      if (sizeBytes < CONTENT_BYTES_MIN) throw new Error(`${key} listed with ${sizeBytes} bytes`);
      last = key;
    }
    count("list");
  }

  async #head(namespace: Namespace, key: string): Promise<void> {
    const info = await namespace.head(key);
    if (info !== null) this.#seen(key, info.sequence);
    count("head");
  }
}

/** Keys that only this process writes, each step written down; read back exactly as written. */
async function privateLane(random: Random, writer: number, id: number, journalPath: string): Promise<void> {
  const journal = openSync(journalPath, "a");
  const keys = Array.from({ length: PRIVATE_KEYS }, (_, index) => `private/${id}/${index}`);
  let version = 0;
  const check = async (key: string, expected: number | null) => {
    const got = await handles[random.pick(KINDS)].tryGet(key);
    const found = got === null ? null : identify(key, got, 0, got.length);
    const matches =
      found === null ? expected === null : found.writer === writer && found.version === expected;
    if (!matches) throw new Error(`${key}: ${JSON.stringify(found)} where version ${expected} was put`);
  };
  while (!stopping) {
    const namespace = handles[random.pick(KINDS)];
    const key = random.pick(keys);
    const choice = random.next();
    if (choice < 0.6) {
      const data = makeContent(key, writer, ++version, sizeOf(random));
      note(journal, { key, intent: { version, sizeBytes: data.length } });
      try {
        await put(namespace, key, data, random);
        note(journal, { key, done: true });
        await check(key, version);
      } catch (error) {
        allowed(error, []);
      }
    } else if (choice < 0.75) {
      const batch = namespace.batch();
      const last = new Map<string, number>();
      try {
        for (let i = 0; i < 12; i++) {
          const one = random.pick(keys);
          const data = makeContent(one, writer, ++version, CONTENT_BYTES_MIN + random.below(3000));
          note(journal, { key: one, intent: { version, sizeBytes: data.length } });
          batch.put(one, data);
          last.set(one, version);
        }
        await batch.flush();
        for (const one of last.keys()) note(journal, { key: one, done: true });
        for (const [one, put] of last) await check(one, put);
      } catch (error) {
        allowed(error, []);
      }
    } else if (choice < 0.85) {
      note(journal, { key, intent: null });
      await namespace.delete(key);
      note(journal, { key, done: true });
      await check(key, null);
    } else {
      // Never sealed: nothing of it may show.
      try {
        const writer = await namespace.openWriter(key);
        await writer.write(Buffer.alloc(1 + random.below(2 * MIB), 0xee));
        await writer.abort();
        const stream = namespace.createWriteStream(key);
        stream.on("error", () => {});
        if (!stream.write(Buffer.alloc(1 + random.below(2 * MIB), 0xdd))) await once(stream, "drain");
        stream.destroy();
      } catch (error) {
        allowed(error, []);
      }
    }
    count("private");
  }
}

const functions = {
  async open(endpoint: string, name: string, timeoutMs = TIMEOUT_MS): Promise<void> {
    for (const transport of KINDS) {
      const client = await connect(endpoint, { transport, timeoutMs });
      clients.push(client);
      handles[transport] = await client.openNamespace(name);
    }
  },

  /** Until `stop`, or until something is wrong. */
  async run({ seed, id, sharedKeys, journalPath }: RunOptions): Promise<Counts> {
    const lanes: Promise<void>[] = [];
    for (let lane = 0; lane < SHARED_LANES; lane++) {
      const random = randomOf(seed * 31 + id * 7 + lane);
      lanes.push(new Lane(random, id * LANES_PER_PROCESS + lane, sharedKeys).run());
    }
    const writer = id * LANES_PER_PROCESS + SHARED_LANES;
    lanes.push(privateLane(randomOf(seed * 31 + id * 7 + SHARED_LANES), writer, id, journalPath));
    try {
      await Promise.all(lanes);
    } finally {
      stopping = true;
    }
    return counts;
  },

  stop(): void {
    stopping = true;
  },

  async close(): Promise<void> {
    await Promise.all(clients.map((client) => client.close()));
  },

  /** Takes all the room that there is and seals nothing; how many bytes it was let to write. */
  async hoard(transport: TransportKind): Promise<number> {
    let bytes = 0;
    const piece = Buffer.alloc(MIB, 0xcc);
    try {
      const writer = await handles[transport].openWriter("hoarded");
      for (;;) {
        await writer.write(piece);
        bytes += piece.length;
      }
    } catch (error) {
      if (MillraceError.from(error).code !== "RESOURCE_EXHAUSTED") throw error;
      return bytes;
    }
  },

  /** Begins puts of all kinds that a kill will cut off, and answers while they are under way. */
  async beginPuts(transport: TransportKind): Promise<void> {
    const namespace = handles[transport];
    const cutOff = (promise: Promise<unknown>) => void promise.catch(() => {});
    const batch = namespace.batch();
    for (let i = 0; i < 200; i++) batch.put(`cut/batch/${i}`, Buffer.alloc(1000, 0xcc));
    cutOff(batch.flush());
    for (let i = 0; i < 4; i++) cutOff(namespace.put(`cut/large/${i}`, Buffer.alloc(6 * MIB, 0xcc)));
    const stream = namespace.createWriteStream("cut/stream");
    stream.on("error", () => {});
    stream.write(Buffer.alloc(3 * MIB, 0xcc));
    const writer = await namespace.openWriter("cut/writer");
    await writer.write(Buffer.alloc(3 * MIB, 0xcc));
  },
};

export type StressClient = typeof functions;
answerCalls(functions);
