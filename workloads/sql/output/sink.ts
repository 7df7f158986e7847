/** Text on its way to a stream, no faster than the stream takes it. */
import { once } from "node:events";
import type { Writable } from "node:stream";

const CHUNK_CHARACTERS = 1 << 16;

/** Gathers text and writes it in large pieces. `end` writes the rest and leaves the stream open. */
export class TextSink {
  readonly #stream: Writable;
  #parts: string[] = [];
  #characters = 0;

  constructor(stream: Writable) {
    this.#stream = stream;
  }

  async write(text: string): Promise<void> {
    this.#parts.push(text);
    this.#characters += text.length;
    if (this.#characters >= CHUNK_CHARACTERS) await this.end();
  }

  async end(): Promise<void> {
    const text = this.#parts.join("");
    this.#parts = [];
    this.#characters = 0;
    if (text !== "" && !this.#stream.write(text)) await once(this.#stream, "drain");
  }
}
