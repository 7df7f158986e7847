/**
 * The lines of a namespace's journal: events as JSON, and what they add up to. No I/O.
 *
 *   {"t":"namespace",...}  first, once: the namespace as it was when the file was begun or rewritten
 *   {"t":"renewed"|"used"|"shuffle"|"commit"|"lost"|"deleted",...}  one a change, in order
 *
 * Bytes are base64; offsets and checksums are the base64 of their typed arrays, little-endian as on every machine that
 * this runs on. A line that does not hold throws an Error that says why.
 */
import type { Hint, Limits, Traffic } from "../../proto/messages.js";
import type { NamespaceEvent, NamespaceState, Usage } from "../namespaces/namespaces.js";
import type { MapOutput } from "../shuffles/shuffle.js";
import { NO_PARTITION, type ShuffleEvent, type SlowestPartition } from "../shuffles/shuffles.js";

/** What a journal says: enough to go on with the namespace where it stopped. */
export interface Journaled {
  namespace: NamespaceState;
  readonly shuffles: Map<string, JournaledShuffle>;
  slowest: SlowestPartition;
}

export interface JournaledShuffle {
  readonly name: string;
  readonly maps: number;
  readonly partitions: number;
  readonly partitioner: Uint8Array;
  readonly outputs: Map<number, MapOutput>;
  readonly lost: Set<number>;
}

/** All that a journal is told but the end of its namespace, which is the end of the file. */
export type Line = Exclude<NamespaceEvent, { type: "ended" }> | ShuffleEvent;

const FORMAT = 1;

export function encode(line: Line): string {
  return `${JSON.stringify(toJson(line))}\n`;
}

/** The journal as short as it can be said. Replayed it gives the same again. */
export function* encodeAll({
  namespace,
  shuffles,
  slowest,
}: Journaled): Generator<{ shuffle: string | null; text: string }> {
  yield { shuffle: null, text: `${JSON.stringify(headerToJson(namespace, slowest))}\n` };
  for (const { name: shuffle, maps, partitions, partitioner, outputs, lost } of shuffles.values()) {
    const of = { namespace: namespace.name, shuffle };
    yield { shuffle, text: encode({ type: "shuffleCreated", ...of, maps, partitions, partitioner }) };
    for (const [map, output] of outputs) {
      yield { shuffle, text: encode({ type: "mapCommitted", ...of, map, output }) };
    }
    if (lost.size > 0) yield { shuffle, text: encode({ type: "mapsLost", ...of, maps: [...lost] }) };
  }
}

/** Adds a line to what the ones before it said; null where it is the first. */
export function replay(before: Journaled | null, text: string): Journaled {
  const line = new Fields(JSON.parse(text), "the line");
  const type = line.text("t");
  if (before === null) {
    if (type !== "namespace") throw new Error("the first line is not that of a namespace");
    return headerFromJson(line);
  }
  const { namespace, shuffles } = before;
  switch (type) {
    case "renewed":
      before.namespace = { ...namespace, lapsesAtMs: line.number("lapsesAtMs"), usage: usageFromJson(line) };
      break;
    case "used":
      before.namespace = { ...namespace, usage: usageFromJson(line) };
      break;
    case "shuffle": {
      const name = line.text("shuffle");
      if (shuffles.has(name)) throw new Error(`shuffle ${name} is created twice`);
      shuffles.set(name, {
        name,
        maps: line.whole("maps"),
        partitions: line.whole("partitions"),
        partitioner: line.bytes("partitioner"),
        outputs: new Map(),
        lost: new Set(),
      });
      break;
    }
    case "commit": {
      const shuffle = shuffleOf(shuffles, line);
      const map = mapOf(shuffle, line.whole("map"));
      shuffle.lost.delete(map);
      shuffle.outputs.set(map, outputFromJson(line, shuffle.partitions));
      break;
    }
    case "lost": {
      const shuffle = shuffleOf(shuffles, line);
      for (const map of line.list("maps")) {
        shuffle.lost.add(mapOf(shuffle, map));
        shuffle.outputs.delete(map as number);
      }
      break;
    }
    case "deleted":
      shuffles.delete(shuffleOf(shuffles, line).name);
      before.slowest = slowestFromJson(line);
      break;
    default:
      throw new Error(`${JSON.stringify(type)} is no kind of line`);
  }
  return before;
}

function toJson(line: Line): object {
  switch (line.type) {
    case "created":
      return headerToJson(line.namespace, NO_PARTITION);
    case "renewed":
      return { t: "renewed", lapsesAtMs: line.lapsesAtMs, usage: line.usage };
    case "used":
      return { t: "used", usage: line.usage };
    case "shuffleCreated": {
      const { shuffle, maps, partitions, partitioner } = line;
      return { t: "shuffle", shuffle, maps, partitions, partitioner: toBase64(partitioner) };
    }
    case "mapCommitted": {
      const { shuffle, map, output } = line;
      const { attempt, key, sequence, offsets, checksums } = output;
      return {
        t: "commit",
        shuffle,
        map,
        attempt,
        key: toBase64(key),
        sequence,
        [offsets instanceof Uint32Array ? "offsets" : "offsets64"]: toBase64(offsets),
        ...(checksums === null ? {} : { checksums: toBase64(checksums) }),
      };
    }
    case "mapsLost":
      return { t: "lost", shuffle: line.shuffle, maps: line.maps };
    case "shuffleDeleted":
      return { t: "deleted", shuffle: line.shuffle, slowest: line.slowest };
  }
}

function headerToJson(namespace: NamespaceState, slowest: SlowestPartition): object {
  const { token, ...rest } = namespace;
  return { t: "namespace", format: FORMAT, ...rest, token: Buffer.from(token).toString("hex"), slowest };
}

function headerFromJson(line: Fields): Journaled {
  const format = line.whole("format");
  if (format !== FORMAT) throw new Error(`its format is ${format}; this version reads ${FORMAT}`);
  const limits = line.fields("limits");
  const token = Buffer.from(line.text("token"), "hex");
  if (token.length !== 16) throw new Error("the token does not have 16 bytes");
  const namespace: NamespaceState = {
    name: line.text("name"),
    token: Uint8Array.from(token),
    leaseMs: line.number("leaseMs"),
    limits: {
      sizeBytes: limits.whole("sizeBytes"),
      dramBytes: limits.whole("dramBytes"),
      bandwidthBytesPerSecond: limits.whole("bandwidthBytesPerSecond"),
    } satisfies Limits,
    hint: hintOf(line.text("hint")),
    expectedBytes: line.whole("expectedBytes"),
    createdUnixMs: line.whole("createdUnixMs"),
    // Journals of before namespaces could be guarded do not say.
    guarded: line.has("guarded") && line.flag("guarded"),
    lapsesAtMs: line.number("lapsesAtMs"),
    usage: usageFromJson(line),
  };
  return { namespace, shuffles: new Map(), slowest: slowestFromJson(line) };
}

const HINTS: readonly Hint[] = ["HINT_UNSPECIFIED", "HINT_LATENCY", "HINT_THROUGHPUT", "HINT_CAPACITY"];

function hintOf(text: string): Hint {
  const hint = HINTS.find((candidate) => candidate === text);
  if (hint === undefined) throw new Error(`${JSON.stringify(text)} is no hint`);
  return hint;
}

function usageFromJson(line: Fields): Usage {
  const usage = line.fields("usage");
  return {
    traffic: usage.list("traffic").map((item): Traffic => {
      const traffic = new Fields(item, "traffic");
      return {
        by: traffic.text("by"),
        bytesIn: traffic.whole("bytesIn"),
        bytesOut: traffic.whole("bytesOut"),
        operations: traffic.whole("operations"),
      };
    }),
    dramByteSeconds: usage.number("dramByteSeconds"),
    nvmeByteSeconds: usage.number("nvmeByteSeconds"),
    copiesAvoidedBytes: usage.whole("copiesAvoidedBytes"),
    peakBytes: usage.whole("peakBytes"),
  };
}

function slowestFromJson(line: Fields): SlowestPartition {
  const slowest = line.fields("slowest");
  return { partition: slowest.text("partition"), bytes: slowest.whole("bytes") };
}

function shuffleOf(shuffles: Journaled["shuffles"], line: Fields): JournaledShuffle {
  const name = line.text("shuffle");
  const shuffle = shuffles.get(name);
  if (shuffle === undefined) throw new Error(`there is no shuffle ${name}`);
  return shuffle;
}

function mapOf(shuffle: JournaledShuffle, map: unknown): number {
  if (!isWhole(map) || map >= shuffle.maps) {
    throw new Error(`shuffle ${shuffle.name} has ${shuffle.maps} maps, not a map ${JSON.stringify(map)}`);
  }
  return map;
}

function outputFromJson(line: Fields, partitions: number): MapOutput {
  const offsets = line.has("offsets")
    ? new Uint32Array(line.aligned("offsets", 4))
    : new Float64Array(line.aligned("offsets64", 8));
  if (offsets.length !== partitions + 1 || offsets[0] !== 0) {
    throw new Error(`it has not the ${partitions + 1} offsets of its partitions`);
  }
  if (offsets.some((offset, at) => at > 0 && !(offset >= (offsets[at - 1] as number)))) {
    throw new Error("its offsets do not ascend");
  }
  const checksums = line.has("checksums") ? new Uint32Array(line.aligned("checksums", 4)) : null;
  if (checksums !== null && checksums.length !== partitions) {
    throw new Error(`it has not the ${partitions} checksums of its partitions`);
  }
  const { attempt, sequence } = { attempt: line.whole("attempt"), sequence: line.whole("sequence") };
  return { attempt, key: line.bytes("key"), sequence, offsets, checksums };
}

function toBase64(bytes: ArrayBufferView): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The fields of an object that came from a file, each checked as it is read. */
class Fields {
  private readonly values: Record<string, unknown>;

  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new Error(`${what} is no object`);
    }
    this.values = value as Record<string, unknown>;
  }

  has(name: string): boolean {
    return this.values[name] !== undefined;
  }

  text(name: string): string {
    const value = this.values[name];
    return typeof value === "string" ? value : this.wrong(name, "text");
  }

  flag(name: string): boolean {
    const value = this.values[name];
    return typeof value === "boolean" ? value : this.wrong(name, "true or false");
  }

  number(name: string): number {
    const value = this.values[name];
    return typeof value === "number" ? value : this.wrong(name, "a number");
  }

  /** From 0 to 2^53. */
  whole(name: string): number {
    const value = this.values[name];
    return isWhole(value) ? value : this.wrong(name, "a whole number");
  }

  list(name: string): readonly unknown[] {
    const value = this.values[name];
    return Array.isArray(value) ? value : this.wrong(name, "a list");
  }

  fields(name: string): Fields {
    return new Fields(this.values[name], name);
  }

  bytes(name: string): Uint8Array {
    return new Uint8Array(Buffer.from(this.text(name), "base64"));
  }

  /** Memory of its own, of elements of `elementBytes`. */
  aligned(name: string, elementBytes: number): ArrayBuffer {
    const { buffer } = this.bytes(name);
    if (buffer.byteLength % elementBytes !== 0) this.wrong(name, `elements of ${elementBytes} bytes`);
    return buffer as ArrayBuffer;
  }

  private wrong(name: string, wanted: string): never {
    throw new Error(`${name} is not ${wanted}`);
  }
}
