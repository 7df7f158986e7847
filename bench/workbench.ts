/** What a benchmark works with: a folder, a daemon, a Redis, clients. Closing it takes all of it down. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TransportKind } from "../client/index.js";
import { type ClientProcess, startClient } from "./client_process.js";
import { type Daemon, startDaemon } from "./daemon.js";
import type { BenchOptions } from "./figure.js";
import { type Redis, startRedis } from "./redis.js";

/** Runs a benchmark and takes down whatever it has started, also where it fails. */
export async function withWorkbench<T>(
  options: BenchOptions,
  work: (workbench: Workbench) => Promise<T>,
): Promise<T> {
  const workbench = new Workbench(options);
  try {
    return await work(workbench);
  } finally {
    await workbench.close();
  }
}

export class Workbench {
  readonly folder: string;
  readonly options: BenchOptions;
  readonly #steps: (() => unknown)[] = [];

  constructor(options: BenchOptions) {
    this.options = options;
    this.folder = mkdtempSync(join(tmpdir(), "millrace-bench-"));
    const remove = () => rmSync(this.folder, { recursive: true, force: true });
    // A second interrupt ends the process at once.
    process.once("exit", remove);
    this.#steps.push(() => {
      process.off("exit", remove);
      remove();
    });
  }

  async daemon(more: { s3?: { accessKey: string; secretKey: string } } = {}): Promise<Daemon> {
    const { hugePages, signal } = this.options;
    const daemon = await startDaemon(this.folder, { hugePages, signal, ...more });
    this.#steps.push(() => daemon.stop());
    return daemon;
  }

  /** Null, with a note, where Redis is not installed. */
  async redis(): Promise<Redis | null> {
    const redis = await startRedis(this.folder, this.options.signal, this.options.note);
    if (redis !== null) this.#steps.push(() => redis.stop());
    return redis;
  }

  /** A client in a process of its own, in a new namespace or, with a name, in that of another client. */
  async client(
    daemon: Daemon,
    transport: TransportKind,
    namespace: { expectedBytes: number } | string,
  ): Promise<ClientProcess & { namespace: string }> {
    const create = typeof namespace !== "string";
    const name = create ? freshName() : namespace;
    const client = await startClient(
      {
        endpoint: daemon.endpoint,
        transport,
        namespace: name,
        expectedBytes: create ? namespace.expectedBytes : null,
      },
      this.options.signal,
    );
    this.defer(() => client.stop());
    return { ...client, namespace: name };
  }

  /** Has `step` run when this is closed; the last one runs first. */
  defer(step: () => unknown): void {
    this.#steps.push(step);
  }

  async close(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        await step();
      } catch {
        // What could not be stopped is killed with this process.
      }
    }
  }
}

export function freshName(): string {
  return `bench-${randomBytes(6).toString("hex")}`;
}
