/**
 * A value that is published in ever higher versions, each over the one before; readers wait for a version, or a later
 * one, and are woken when it comes. It lies under `_millrace/value/<name>`.
 */
import { MillraceError } from "../errors.js";
import { checkCount, checkData, checkKey } from "../names.js";
import type { Arrivals } from "./arrivals.js";
import type { Header } from "./entry.js";
import { KEY_PREFIX, NAME_CHARACTERS_MAX, WRITE_ATTEMPTS_MAX } from "./limits.js";
import type { EntryStore } from "./store.js";
import { Patience, type WaitOptions } from "./waiting.js";

export interface ReadVersionOptions extends WaitOptions {
  /** Waits for this version or a later one; 0, any, where left out. */
  atLeast?: number;
}

export interface PublishedValue {
  version: number;
  /**
   * Over shm a view in place, see `Namespace` for how long it lives; else memory that all readers of this version in
   * this process share. Not to be changed.
   */
  bytes: Uint8Array;
}

export class VersionedValue {
  readonly name: string;
  readonly #key: string;
  readonly #store: EntryStore;
  readonly #arrivals: Arrivals;

  /** @internal Use `Namespace.value`. */
  constructor(store: EntryStore, arrivals: Arrivals, name: string) {
    if (typeof name !== "string" || name.length === 0 || name.length > NAME_CHARACTERS_MAX) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `the name of a value has 1 to ${NAME_CHARACTERS_MAX} characters`,
      );
    }
    this.name = name;
    this.#key = checkKey(`${KEY_PREFIX}value/${name}`) as string;
    this.#store = store;
    this.#arrivals = arrivals;
  }

  /**
   * Publishes a version. False, and nothing happens, where this version or a later one is there: so an attempt that is
   * run again does no harm.
   */
  async publish(version: number, data: Uint8Array | string): Promise<boolean> {
    checkCount("version", version);
    const payload = checkData(data);
    const header: Header = {
      operation: "value",
      type: null,
      sharded: false,
      rank: 0,
      size: 0,
      root: 0,
      slots: 0,
      round: version,
      payloadBytes: payload.length,
    };
    for (let unknown = 0; ; ) {
      const before = await this.#store.head(this.#key);
      if (before !== null && before.header.round >= version) return false;
      try {
        const condition = before === null ? { ifAbsent: true } : { ifSequence: before.sequence };
        await this.#store.put(this.#key, header, payload, condition);
        return true;
      } catch (thrown) {
        const error = MillraceError.from(thrown);
        if (error.code === "UNAVAILABLE" && ++unknown < WRITE_ATTEMPTS_MAX) continue;
        if (error.code !== "CONDITION_FAILED") throw error;
      }
    }
  }

  /** The latest version, once it is `atLeast` what is asked for. */
  async read(options: ReadVersionOptions = {}): Promise<PublishedValue> {
    const atLeast = checkCount("atLeast", options.atLeast ?? 0);
    const patience = new Patience(options);
    // Mostly it is there, and nothing has to be watched.
    const value = await this.#look(atLeast);
    if (value !== null) return value;
    let latest = "none";
    const look = () =>
      this.#look(atLeast, (version) => {
        latest = String(version);
      });
    const late = () =>
      `value ${this.name}: after ${patience.timeoutMs} ms there is no version ${atLeast} or later; the latest is ${latest}`;
    const [found] = await this.#arrivals.find([this.#key], look, patience, late);
    return found as PublishedValue;
  }

  async #look(atLeast: number, older?: (version: number) => void): Promise<PublishedValue | null> {
    for (;;) {
      const entry = await this.#store.head(this.#key);
      if (entry === null) return null;
      const version = entry.header.round;
      if (version < atLeast) {
        older?.(version);
        return null;
      }
      const bytes = await this.#store.value(this.#key, entry);
      if (bytes !== null) return { version, bytes };
      // A later one came in between.
    }
  }
}
