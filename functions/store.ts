/**
 * Where arguments and results go that are too large to travel inline: objects of the executor's namespace,
 *
 *     calls/<executor>/<call>/argument
 *     calls/<executor>/<call>/<attempt>        the result of that attempt
 *
 * All of them go when the executor closes: with the namespace where the executor made it, else one by one.
 */
import { randomUUID } from "node:crypto";
import type { Client, Namespace } from "../client/index.js";

export class CallStore {
  readonly endpoint: string;
  readonly namespaceName: string;
  /** Resolves when the namespace is there. */
  readonly ready: Promise<void>;
  readonly #prefix: string;
  readonly #ownsNamespace: boolean;
  readonly #opened: Promise<{ client: Client; namespace: Namespace }>;
  /** Deletes that nobody waits for, so that `close` can. */
  readonly #deleting = new Set<Promise<unknown>>();

  /** `namespaceName` null: the executor's own namespace is created, and dropped at the end. */
  constructor(endpoint: string, namespaceName: string | null, executorId: string) {
    this.endpoint = endpoint;
    this.#ownsNamespace = namespaceName === null;
    this.namespaceName = namespaceName ?? `functions-${randomUUID()}`;
    this.#prefix = `calls/${executorId}/`;
    this.#opened = this.#open();
    this.ready = this.#opened.then(() => {});
    this.ready.catch(() => {});
  }

  argumentKey(callId: string): string {
    return `${this.#prefix}${callId}/argument`;
  }

  resultKey(callId: string, attempt: number): string {
    return `${this.#prefix}${callId}/${attempt}`;
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const { namespace } = await this.#opened;
    await namespace.put(key, bytes);
  }

  /** A copy of the object's bytes. NOT_FOUND where it is gone. */
  async get(key: string): Promise<Uint8Array> {
    const { namespace } = await this.#opened;
    const bytes = await namespace.get(key);
    // A view of a segment is read-only memory, and callers may do with a result what they like.
    return Uint8Array.prototype.slice.call(bytes);
  }

  /** Starts to delete an object; what remains is deleted by `close`. */
  discard(key: string): void {
    const deleting: Promise<unknown> = this.#opened
      .then(({ namespace }) => namespace.delete(key))
      .catch(() => {})
      .finally(() => this.#deleting.delete(deleting));
    this.#deleting.add(deleting);
  }

  /** Deletes what the executor stored. Call it when no function worker is left that could store more. */
  async close(): Promise<void> {
    const opened = await this.#opened.catch(() => null);
    if (opened === null) return;
    const { client, namespace } = opened;
    try {
      await Promise.all(this.#deleting);
      if (this.#ownsNamespace) await client.deleteNamespace(this.namespaceName);
      else await this.#deleteAll(namespace);
    } finally {
      await client.close();
    }
  }

  async #deleteAll(namespace: Namespace): Promise<void> {
    let startAfter = "";
    for (let truncated = true; truncated; ) {
      const page = await namespace.listPage({ prefix: this.#prefix, startAfter });
      await Promise.all(page.objects.map(({ key }) => namespace.delete(key)));
      truncated = page.truncated;
      startAfter = page.objects.at(-1)?.key ?? startAfter;
    }
  }

  async #open(): Promise<{ client: Client; namespace: Namespace }> {
    // Loaded only where there is a store: an executor without one starts without gRPC.
    const { connect } = await import("../client/index.js");
    const client = await connect(this.endpoint);
    try {
      const namespace = this.#ownsNamespace
        ? await client.createNamespace(this.namespaceName)
        : await client.openNamespace(this.namespaceName);
      return { client, namespace };
    } catch (error) {
      await client.close();
      throw error;
    }
  }
}
