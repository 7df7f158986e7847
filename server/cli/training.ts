/** What the commands of both trainers share. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { UsageError } from "./errors.js";
import type { WorkloadFlags } from "./workload.js";

/** Of training and predicting alike. */
export interface TrainerFlags extends WorkloadFlags {
  input: string[];
  model: string;
  label?: string;
}

export const SEED_MAX = 2 ** 31 - 1;

/** A model's file, opened before the work so that a path that cannot be written is known at once. */
export class ModelFile {
  readonly #path: string;
  readonly #partPath: string;
  readonly #fd: number;
  #isOpen = true;

  constructor(path: string) {
    this.#path = path;
    this.#partPath = `${path}.part-${process.pid}`;
    try {
      this.#fd = openSync(this.#partPath, "wx");
    } catch (error) {
      throw new UsageError(`--model ${path}: ${(error as Error).message}`);
    }
  }

  /** The model's text, in pieces. It takes the place of what was there when all of it is written. */
  write(text: Iterable<string>): void {
    for (const piece of text) {
      const bytes = Buffer.from(piece);
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
    }
    this.#close();
    renameSync(this.#partPath, this.#path);
  }

  discard(): void {
    this.#close();
    rmSync(this.#partPath, { force: true });
  }

  #close(): void {
    if (this.#isOpen) closeSync(this.#fd);
    this.#isOpen = false;
  }
}
