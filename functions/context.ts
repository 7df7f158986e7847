/**
 * What a user's function is given beside its argument, and how a function worker keeps its connections: one
 * client a process, one handle a namespace, both made when first asked for and kept for the calls that follow.
 */

import { MillraceError } from "../client/errors.js";
import type { Client, Namespace } from "../client/index.js";

export interface CallContext {
  readonly callId: string;
  /** 0 for the first attempt; every retry and every second run of a straggler has the next number. */
  readonly attempt: number;
  /** Of the function worker; a process that was replaced never comes back under the same name. */
  readonly workerId: string;
  /** The node's gRPC door, or null where the executor has none. */
  readonly endpoint: string | null;
  /** The executor's namespace, or null where it has no endpoint. */
  readonly namespaceName: string | null;
  /** Aborts when the call is cancelled or the process is told to end. A function that goes on is killed. */
  readonly signal: AbortSignal;
  /** The executor's namespace. UNSUPPORTED where the executor has no endpoint. */
  namespace(): Promise<Namespace>;
  /** The process's connection. UNSUPPORTED where the executor has no endpoint. */
  client(): Promise<Client>;
  /** Tells the driver how much is done, from 0 to 1. Cheap: what comes too fast is dropped. */
  progress(fraction: number): void;
}

/** The connections of one function worker. */
export class Connections {
  readonly endpoint: string | null;
  readonly namespaceName: string | null;
  #client: Promise<Client> | undefined;
  #namespace: Promise<Namespace> | undefined;

  constructor(endpoint: string | null, namespaceName: string | null) {
    this.endpoint = endpoint;
    this.namespaceName = namespaceName;
  }

  client(): Promise<Client> {
    const endpoint = this.endpoint;
    if (endpoint === null) return Promise.reject(withoutEndpoint());
    this.#client ??= remember(
      import("../client/index.js").then(({ connect }) => connect(endpoint)),
      () => {
        this.#client = undefined;
      },
    );
    return this.#client;
  }

  namespace(): Promise<Namespace> {
    const name = this.namespaceName;
    if (name === null) return Promise.reject(withoutEndpoint());
    this.#namespace ??= remember(
      this.client().then((client) => client.openNamespace(name)),
      () => {
        this.#namespace = undefined;
      },
    );
    return this.#namespace;
  }

  /** Loads the SDK ahead of the first call that asks for it. */
  async warmUp(): Promise<void> {
    if (this.endpoint !== null) await import("../client/index.js");
  }
}

/** A failure is not kept: the next call may connect. */
function remember<T>(promise: Promise<T>, forget: () => void): Promise<T> {
  promise.catch(forget);
  return promise;
}

function withoutEndpoint(): MillraceError {
  return new MillraceError(
    "UNSUPPORTED",
    "this executor has no store: create it with createExecutor({endpoint: 'HOST:PORT', ...})",
  );
}
