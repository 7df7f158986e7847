/**
 * Values that were fetched over a network, for all in this process that want the same version: fetched once, at most so
 * many bytes of them, the longest unused forgotten first.
 */
interface Cached {
  sequence: number;
  sizeBytes: number;
  bytes: Promise<Uint8Array | null>;
}

export class ValueCache {
  readonly #limitBytes: number;
  /** In the order of their last use. One version a key. */
  readonly #values = new Map<string, Cached>();
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** The version `sequence` of an object of `sizeBytes`. `fetch` gives null where there is another version by now. */
  async get(
    key: string,
    sequence: number,
    sizeBytes: number,
    fetch: () => Promise<Uint8Array | null>,
  ): Promise<Uint8Array | null> {
    const cached = this.#values.get(key);
    if (cached !== undefined) this.#forget(key, cached);
    const value =
      cached !== undefined && cached.sequence === sequence ? cached : { sequence, sizeBytes, bytes: fetch() };
    if (sizeBytes <= this.#limitBytes) {
      this.#values.set(key, value);
      this.#bytes += sizeBytes;
      for (const [oldest, entry] of this.#values) {
        if (this.#bytes <= this.#limitBytes) break;
        this.#forget(oldest, entry);
      }
    }
    try {
      const bytes = await value.bytes;
      if (bytes === null) this.#forget(key, value);
      return bytes;
    } catch (error) {
      this.#forget(key, value);
      throw error;
    }
  }

  clear(): void {
    this.#values.clear();
    this.#bytes = 0;
  }

  #forget(key: string, value: Cached): void {
    if (this.#values.get(key) !== value) return;
    this.#values.delete(key);
    this.#bytes -= value.sizeBytes;
  }
}
