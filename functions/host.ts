/**
 * A function worker: the process that runs users' functions, one call at a time. It keeps no state between
 * calls but caches (loaded modules, the connection to the store), so that any function worker can run any call.
 *
 * It talks to its driver over the socket at CHANNEL_FD and ends when that closes, so none outlives its driver.
 * Its stdout is the driver's stderr (see backends/local.ts): what functions print never mixes with a document
 * that the driver prints.
 */
import { Socket } from "node:net";
import { MillraceError } from "../client/errors.js";
import { monotonicMs } from "./clock.js";
import { type CallContext, Connections } from "./context.js";
import { limits } from "./limits.js";
import { loadFunction } from "./modules.js";
import {
  type AttemptTimes,
  type CallMessage,
  checkToFunctionWorker,
  type EncodedValue,
  encodeFrame,
  FrameReader,
  type FromFunctionWorker,
  type SetupMessage,
  type ToFunctionWorker,
} from "./protocol.js";
import { decodeArgument, encodeResult } from "./values.js";
import { toWireError } from "./wire-error.js";

const CHANNEL_FD = 3;
/** After SIGTERM a running function has this long to notice its signal. */
const TERMINATION_GRACE_MS = 1_000;
/** Progress that comes faster than this is dropped. */
const PROGRESS_INTERVAL_MS = 50;

type Times = { -readonly [name in keyof AttemptTimes]: AttemptTimes[name] };

interface Running {
  readonly call: CallMessage;
  readonly abort: AbortController;
  readonly times: Times;
  /** The user's code is in charge of the process. */
  inUserCode: boolean;
  readonly heartbeat: NodeJS.Timeout;
  lastProgressMs: number;
}

class Host {
  readonly #channel: Socket;
  readonly #frames = new FrameReader();
  #setup: SetupMessage | undefined;
  #connections = new Connections(null, null);
  #running: Running | null = null;
  #ending = false;

  constructor(channel: Socket) {
    this.#channel = channel;
    channel.on("data", (chunk: Buffer) => this.#onData(chunk));
    channel.on("error", () => this.#onDriverGone());
    channel.on("close", () => this.#onDriverGone());
    process.on("SIGTERM", () => this.#onTerminate());
    // A terminal sends Ctrl-C to the whole process group; the driver decides what it means.
    process.on("SIGINT", () => {});
    process.on("uncaughtException", (error) => this.#onStrayError(error));
    process.on("unhandledRejection", (reason) => this.#onStrayError(reason));
  }

  #onData(chunk: Buffer): void {
    try {
      for (const raw of this.#frames.read(chunk)) this.#onMessage(checkToFunctionWorker(raw));
    } catch (error) {
      // Without a channel that can be trusted there is nobody to report to.
      console.error("millrace function worker:", error);
      process.exit(1);
    }
  }

  #onMessage(message: ToFunctionWorker): void {
    if (message.type === "setup") {
      this.#setup = message;
      this.#connections = new Connections(message.endpoint, message.namespaceName);
      this.#send({ type: "ready" });
      // In the background: most calls exchange data through the store, and loading the SDK takes a while.
      setImmediate(() => void this.#connections.warmUp().catch(() => {}));
    } else if (message.type === "call") {
      if (this.#setup === undefined || this.#running !== null) {
        throw new MillraceError("PROTOCOL", "a call arrived before the setup or during another call");
      }
      void this.#run(message, this.#setup);
    } else if (
      this.#running?.call.callId === message.callId &&
      this.#running.call.attempt === message.attempt
    ) {
      this.#running.abort.abort(
        new MillraceError("ABORTED", `call ${message.callId} was cancelled`, { retryable: false }),
      );
    }
  }

  async #run(call: CallMessage, setup: SetupMessage): Promise<void> {
    const running: Running = {
      call,
      abort: new AbortController(),
      times: { startedAtMs: 0, importMs: 0, inputMs: 0, runMs: 0, outputMs: 0 },
      inUserCode: false,
      heartbeat: setInterval(() => this.#send({ type: "heartbeat" }), setup.heartbeatMs),
      lastProgressMs: Number.NEGATIVE_INFINITY,
    };
    this.#running = running;
    const { times } = running;
    let result: unknown;
    try {
      const receivedMs = monotonicMs();
      // Loading runs the module's own code, so what it throws is the user's.
      running.inUserCode = true;
      const fn = await loadFunction(call.module, call.name);
      running.inUserCode = false;
      const importedMs = monotonicMs();
      times.importMs = importedMs - receivedMs;
      const argument = await this.#argument(call.argument);
      running.inUserCode = true;
      times.startedAtMs = monotonicMs();
      times.inputMs = times.startedAtMs - importedMs;
      result = await fn(argument, this.#context(running, setup));
    } catch (error) {
      if (times.startedAtMs > 0) times.runMs = monotonicMs() - times.startedAtMs;
      this.#fail(running, error);
      return;
    }
    const returnedMs = monotonicMs();
    times.runMs = returnedMs - times.startedAtMs;
    try {
      const value = await this.#result(call, result);
      times.outputMs = monotonicMs() - returnedMs;
      // A stray error may have ended the call while its result was being stored.
      if (!this.#finish(running)) return;
      this.#send({
        type: "result",
        callId: call.callId,
        attempt: call.attempt,
        value,
        retiring: this.#ending,
        times,
      });
    } catch (error) {
      running.inUserCode = false;
      this.#fail(running, error);
    }
  }

  /** The driver hears of this end of the call, unless it has heard of another. */
  #fail(running: Running, error: unknown): void {
    if (!this.#finish(running)) return;
    const { call, times } = running;
    const isLookup = error instanceof MillraceError && error.code === "NOT_FOUND" && times.startedAtMs === 0;
    this.#send({
      type: "failure",
      callId: call.callId,
      attempt: call.attempt,
      byUserCode: running.inUserCode && !isLookup,
      retiring: this.#ending,
      error: toWireError(error),
      times,
    });
  }

  /** False where the call had ended already. */
  #finish(running: Running): boolean {
    if (this.#running !== running) return false;
    clearInterval(running.heartbeat);
    this.#running = null;
    if (this.#ending) setImmediate(() => this.#exit(0));
    return true;
  }

  async #argument(argument: EncodedValue): Promise<unknown> {
    const fetch = async (key: string): Promise<Uint8Array> => {
      const namespace = await this.#connections.namespace();
      const bytes = await namespace.get(key);
      // A view of a segment is read-only memory, and a function may do with its argument what it likes.
      return Uint8Array.prototype.slice.call(bytes);
    };
    return decodeArgument("inline" in argument ? argument.inline : await fetch(argument.key), fetch);
  }

  async #result(call: CallMessage, result: unknown): Promise<EncodedValue> {
    const bytes = encodeResult(result);
    if (bytes.length <= limits.inlineBytesMax) return { inline: bytes };
    if (call.resultKey === null) {
      throw new MillraceError(
        "OBJECT_TOO_LARGE",
        `the result of ${call.name} has ${bytes.length} bytes; without a store a result may have ` +
          `${limits.inlineBytesMax}. Give createExecutor an endpoint`,
      );
    }
    const namespace = await this.#connections.namespace();
    await namespace.put(call.resultKey, bytes);
    return { key: call.resultKey, sizeBytes: bytes.length };
  }

  #context(running: Running, setup: SetupMessage): CallContext {
    const connections = this.#connections;
    return {
      callId: running.call.callId,
      attempt: running.call.attempt,
      workerId: setup.workerId,
      endpoint: setup.endpoint,
      namespaceName: setup.namespaceName,
      signal: running.abort.signal,
      namespace: () => connections.namespace(),
      client: () => connections.client(),
      progress: (fraction) => this.#progress(running, fraction),
    };
  }

  #progress(running: Running, fraction: number): void {
    if (typeof fraction !== "number" || !(fraction >= 0 && fraction <= 1)) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `progress is a fraction from 0 to 1, not ${String(fraction)}`,
      );
    }
    const nowMs = monotonicMs();
    if (this.#running !== running || nowMs - running.lastProgressMs < PROGRESS_INTERVAL_MS) return;
    running.lastProgressMs = nowMs;
    this.#send({ type: "progress", callId: running.call.callId, attempt: running.call.attempt, fraction });
  }

  /**
   * An exception or rejection that nothing caught. It can only come from users' code, so the call at hand
   * fails with it; and since what the code left running may still do harm, the process ends.
   */
  #onStrayError(error: unknown): void {
    console.error("millrace function worker: uncaught in user code:", error);
    this.#ending = true;
    if (this.#running === null) this.#exit(1);
    else this.#fail(this.#running, error);
  }

  #onTerminate(): void {
    this.#ending = true;
    if (this.#running === null) {
      this.#exit(0);
      return;
    }
    this.#running.abort.abort(new MillraceError("ABORTED", "the function worker was told to end"));
    setTimeout(() => process.exit(143), TERMINATION_GRACE_MS);
  }

  #onDriverGone(): void {
    this.#running?.abort.abort(new MillraceError("ABORTED", "the driver is gone"));
    setImmediate(() => process.exit(0));
  }

  #send(message: FromFunctionWorker): void {
    if (!this.#channel.destroyed) this.#channel.write(encodeFrame(message));
  }

  #exit(code: number): void {
    this.#channel.end(() => process.exit(code));
  }
}

new Host(new Socket({ fd: CHANNEL_FD, readable: true, writable: true }));
