/**
 * What a client knows of keys that it alone writes: which version was acknowledged, and which were begun since. From
 * it follows what a key may hold after the node was killed, and what is wrong with what it holds instead.
 */
import { CONTENT_BYTES_MIN, identify, makeContent } from "./content.js";

/** A version of a key; `sizeBytes` null: the key was deleted, or never put. */
interface Version {
  version: number;
  sizeBytes: number | null;
}

interface Entry {
  acknowledged: Version;
  /** Begun after it, without an answer: each may have taken place or not. */
  open: Version[];
}

/** `lost`: what was acknowledged is missing, or something older stands. `torn`: the bytes are of no version. */
export interface Failure {
  kind: "lost" | "torn";
  key: string;
  message: string;
}

export class Ledger {
  readonly #writer: number;
  readonly #entries = new Map<string, Entry>();
  #versions = 0;

  /** `writer` goes into the contents, so that bytes of another process's object are told from ours. */
  constructor(writer: number) {
    this.#writer = writer;
  }

  /** A new version is about to be put, or with null the key to be deleted. */
  begin(key: string, sizeBytes: number | null): number {
    const version = ++this.#versions;
    this.#entry(key).open.push({ version, sizeBytes });
    return version;
  }

  content(key: string, version: number, sizeBytes: number): Buffer {
    return makeContent(key, this.#writer, version, sizeBytes);
  }

  /** This version stands, and what was begun before it does not come back. */
  acknowledge(key: string, version: number): void {
    const entry = this.#entry(key);
    const found = entry.open.find((open) => open.version === version);
    if (found === undefined) return; // one that was seen already
    entry.acknowledged = found;
    entry.open = entry.open.filter((open) => open.version > version);
  }

  /** This version certainly did not take place. */
  refuse(key: string, version: number): void {
    const entry = this.#entry(key);
    entry.open = entry.open.filter((open) => open.version !== version);
  }

  keys(): string[] {
    return [...this.#entries.keys()];
  }

  /** Whether the key must exist; null where both is possible. */
  exists(key: string): boolean | null {
    const { acknowledged, open } = this.#entry(key);
    const exists = acknowledged.sizeBytes !== null;
    return open.every(({ sizeBytes }) => (sizeBytes !== null) === exists) ? exists : null;
  }

  /** Whether the key may hold these bytes (null: no object). What was seen once must not go back. */
  judge(key: string, bytes: Uint8Array | null): Failure | null {
    const entry = this.#entry(key);
    if (this.#is(key, entry.acknowledged, bytes)) return null;
    const seen = entry.open.find((open) => this.#is(key, open, bytes));
    if (seen !== undefined) {
      this.acknowledge(key, seen.version);
      return null;
    }
    const expected = `expected ${[entry.acknowledged, ...entry.open].map(show).join(" or ")}`;
    const [kind, found] = this.#name(key, bytes);
    return { kind, key, message: `${expected}, found ${found}` };
  }

  #entry(key: string): Entry {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { acknowledged: { version: 0, sizeBytes: null }, open: [] };
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #is(key: string, { version, sizeBytes }: Version, bytes: Uint8Array | null): boolean {
    if (bytes === null || sizeBytes === null) return bytes === sizeBytes;
    return sizeBytes === bytes.length && this.content(key, version, sizeBytes).equals(bytes);
  }

  #name(key: string, bytes: Uint8Array | null): [Failure["kind"], string] {
    if (bytes === null) return ["lost", "no object"];
    if (bytes.length < CONTENT_BYTES_MIN) {
      // Too short for its version to be told; every version of the key begins alike.
      const known = Math.min(bytes.length, 8);
      const ours = this.content(key, 0, known).equals(bytes.subarray(0, known));
      return ours
        ? ["lost", `another version of ${bytes.length} bytes`]
        : ["torn", `${bytes.length} bytes of nothing: ${Buffer.from(bytes).toString("hex")}`];
    }
    try {
      const { writer, version, sizeBytes } = identify(key, bytes, 0, bytes.length);
      if (writer !== this.#writer) return ["torn", `an object of process ${writer}`];
      return version <= this.#versions
        ? ["lost", show({ version, sizeBytes })]
        : ["torn", `version ${version}, which nobody put`];
    } catch (thrown) {
      return ["torn", (thrown as Error).message];
    }
  }
}

function show({ version, sizeBytes }: Version): string {
  return sizeBytes === null
    ? version === 0
      ? "no object"
      : `no object (deleted as version ${version})`
    : `version ${version} of ${sizeBytes} bytes`;
}
