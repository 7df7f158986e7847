/**
 * One gRPC channel to a node, with the face the SDK wants: promises and streams of typed messages, deadlines,
 * retries where they are safe, and every failure as a MillraceError.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  type CallOptions,
  type ClientReadableStream,
  type ClientWritableStream,
  connectivityState,
  credentials,
  Client as GrpcClient,
  Metadata,
  type MethodDefinition,
} from "@grpc/grpc-js";
import { fromServiceError } from "../proto/error_codec.js";
import { GRPC_OPTIONS, loadContract } from "../proto/load.js";
import { addProof, type Credentials } from "./credentials.js";
import { MillraceError } from "./errors.js";

export interface CallSettings {
  /** Of all attempts together; 0 waits for as long as it takes. The channel's own where left out. */
  timeoutMs?: number;
  /** Repeating the call does no harm, so retryable failures are retried here. Others are sent at most once. */
  idempotent?: boolean;
  /**
   * One attempt, which fails at once where the node cannot be reached: for callers that have to look at the node
   * anew before they may call it again, or to whom the answer is not worth a wait.
   */
  failFast?: boolean;
}

/** Of failures other than a node that is away. */
const ATTEMPTS_MAX = 5;
const BACKOFF_FIRST_MS = 20;
const BACKOFF_MAX_MS = 500;

/** A node that is just being restarted is waited for; a wrong address is told soon. */
const REACH_MAX_MS = 2_000;

const CHANNEL_OPTIONS = {
  ...GRPC_OPTIONS,
  // The SDK retries by itself, by `retryable`; the channel would keep copies of what it sent for its own retries.
  "grpc.enable_retries": 0,
  // A node that was restarted is found as soon as it listens.
  "grpc.initial_reconnect_backoff_ms": BACKOFF_FIRST_MS,
  "grpc.max_reconnect_backoff_ms": BACKOFF_MAX_MS / 2,
};

export class ControlChannel {
  readonly address: string;
  readonly timeoutMs: number;
  readonly #grpc: GrpcClient;
  readonly #credentials: Credentials | null;
  #closed = false;

  /** `provesWith`: what each call proves itself with; null where nothing is guarded. */
  constructor(address: string, timeoutMs: number, provesWith: Credentials | null = null) {
    this.address = address;
    this.timeoutMs = timeoutMs;
    this.#credentials = provesWith;
    this.#grpc = new GrpcClient(address, credentials.createInsecure(), CHANNEL_OPTIONS);
  }

  /** Rejects where no node answers: with UNAVAILABLE after two seconds, or the channel's timeout where that is shorter. */
  async reach(): Promise<void> {
    const attempt = () => this.unary(loadContract().nodes.DescribeNode, {}, { failFast: true });
    await retrying(attempt, Date.now() + this.timeoutMs, Math.min(this.timeoutMs, REACH_MAX_MS));
  }

  /** Whether a call would leave at once. */
  get connected(): boolean {
    return this.#grpc.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  async unary<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    settings: CallSettings = {},
  ): Promise<Response> {
    const timeoutMs = settings.timeoutMs ?? this.timeoutMs;
    const deadline = timeoutMs === 0 ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
    const { idempotent = false, failFast = false } = settings;
    // What is sent at most once waits for the node before it is sent; what may be repeated asks again and again.
    const metadata = new Metadata({ waitForReady: !idempotent && !failFast });
    const attempt = () => this.#unaryOnce(method, request, metadata, deadline);
    return idempotent && !failFast ? retrying(attempt, deadline, this.timeoutMs) : attempt();
  }

  /** Cancel the call to end it early. Errors of the stream still have to go through `error`. */
  serverStream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
  ): ClientReadableStream<Response> {
    this.#checkOpen();
    const { message, metadata } = this.#proved(method, request, new Metadata());
    return this.#grpc.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      message,
      metadata,
    );
  }

  /** Whether calls carry proofs, which are about their first message: a stream has to begin with it then. */
  get proves(): boolean {
    return this.#credentials !== null;
  }

  /** `first` is sent at once; null: the caller writes all messages. */
  clientStream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    first: Request | null,
  ): { call: ClientWritableStream<Request>; response: Promise<Response> } {
    this.#checkOpen();
    let call: ClientWritableStream<Request> | null = null;
    const { message, metadata } =
      first === null
        ? { message: null, metadata: new Metadata() }
        : this.#proved(method, first, new Metadata());
    const response = new Promise<Response>((resolve, reject) => {
      call = this.#grpc.makeClientStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        metadata,
        (error, value) => (error !== null ? reject(this.error(error)) : resolve(value as Response)),
      );
    });
    // The writer looks at it only when it is done or stuck.
    response.catch(() => {});
    const stream = call as unknown as ClientWritableStream<Request>;
    if (message !== null) stream.write(message);
    return { call: stream, response };
  }

  /** A failure of this channel's calls, as the error that the node sent or the best that can be told of it. */
  error(thrown: unknown): MillraceError {
    const error = fromServiceError(thrown);
    if (thrown === error) return error;
    if (this.#closed && error.code === "ABORTED") return closedError();
    if (error.code !== "UNAVAILABLE" && error.code !== "DEADLINE_EXCEEDED") return error;
    const what = error.code === "UNAVAILABLE" ? "cannot be reached" : "did not answer in time";
    return new MillraceError(error.code, `the node at ${this.address} ${what}: ${error.message}`, {
      retryable: error.retryable,
      cause: thrown,
    });
  }

  close(): void {
    this.#closed = true;
    this.#grpc.close();
  }

  #unaryOnce<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    metadata: Metadata,
    deadline: number,
  ): Promise<Response> {
    this.#checkOpen();
    const options: CallOptions = Number.isFinite(deadline) ? { deadline } : {};
    const { message, metadata: proved } = this.#proved(method, request, metadata);
    return new Promise((resolve, reject) => {
      this.#grpc.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        message,
        proved,
        options,
        (error, value) => (error !== null ? reject(this.error(error)) : resolve(value as Response)),
      );
    });
  }

  /** The request, encoded where a proof is made of it, and metadata with that proof. */
  #proved<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    metadata: Metadata,
  ): { message: Request; metadata: Metadata } {
    if (this.#credentials === null) return { message: request, metadata };
    const encoded = method.requestSerialize(request);
    const proved = addProof(metadata.clone(), this.#credentials, method.path, encoded);
    // The contract takes what is encoded already as it is.
    return { message: encoded as Request, metadata: proved };
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError();
  }
}

function closedError(): MillraceError {
  return new MillraceError("CLOSED", "the client is closed; connect again");
}

/**
 * Repeats what failed retryably, with exponential backoff and jitter, until `deadline` (Unix ms): for as long as
 * the node is away, but for no more than `awayMs` on end; other failures a few times. Only for calls that may be
 * repeated.
 */
export async function retrying<T>(attempt: () => Promise<T>, deadline: number, awayMs: number): Promise<T> {
  let awaySinceMs: number | null = null;
  for (let tried = 1; ; tried++) {
    const begunMs = Date.now();
    try {
      return await attempt();
    } catch (thrown) {
      const error = MillraceError.from(thrown);
      const nowMs = Date.now();
      const isAway = error.code === "UNAVAILABLE";
      // A call that stood for so long had found the node, which therefore went away just now.
      if (nowMs - begunMs > BACKOFF_MAX_MS) {
        awaySinceMs = null;
        tried = 1;
      }
      if (isAway) awaySinceMs ??= nowMs;
      const waitMs = backoffMs(tried);
      const late = nowMs + waitMs >= Math.min(deadline, (awaySinceMs ?? nowMs) + awayMs);
      const enough = !isAway && tried >= ATTEMPTS_MAX;
      if (!error.retryable || error.code === "DEADLINE_EXCEEDED" || enough || late) throw error;
      await sleep(waitMs);
    }
  }
}

/** Before attempt `tried` + 1: doubles each time, and half of it is random so that clients do not come in step. */
export function backoffMs(tried: number): number {
  const full = Math.min(BACKOFF_FIRST_MS * 2 ** (tried - 1), BACKOFF_MAX_MS);
  return full * (0.5 + Math.random() / 2);
}
