/**
 * What every handler of the gRPC door does in the same way: check the request's numbers, turn errors into a
 * status with its trailer, notice that the caller is gone, end on shutdown.
 */
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerUnaryCall,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import { toStatus } from "../../../proto/error_codec.js";
import { MillraceError } from "../../../proto/errors.js";
import type { GrpcDoorContext } from "./context.js";

/** The status to fail a call with. Only what is our fault is logged as an error. */
export function failure(
  context: GrpcDoorContext,
  path: string,
  thrown: unknown,
): ReturnType<typeof toStatus> & Error {
  const error = MillraceError.from(thrown);
  if (error.code === "INTERNAL" || error.code === "CORRUPT") {
    context.log.error({ path, err: thrown }, "call failed");
  } else {
    context.log.debug({ path, code: error.code, reason: error.message }, "call refused");
  }
  return Object.assign(new Error(error.message), toStatus(error));
}

export function unary<Request, Response>(
  context: GrpcDoorContext,
  handle: (request: Request, call: ServerUnaryCall<Request, Response>) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return async (call, callback) => {
    const path = call.getPath();
    try {
      context.contract.checkRequest(path, call.request);
      callback(null, await handle(call.request, call));
    } catch (thrown) {
      callback(failure(context, path, thrown));
    }
  };
}

/** `handle` writes; when its promise resolves the stream ends well, when it rejects with the error's status. */
export function serverStream<Request, Response>(
  context: GrpcDoorContext,
  handle: (
    request: Request,
    out: OutStream<Response>,
    call: ServerWritableStream<Request, Response>,
  ) => Promise<void>,
): handleServerStreamingCall<Request, Response> {
  return async (call) => {
    const path = call.getPath();
    const out = new OutStream(call);
    try {
      context.contract.checkRequest(path, call.request);
      await handle(call.request, out, call);
      if (!out.gone) call.end();
    } catch (thrown) {
      if (!out.gone) call.emit("error", failure(context, path, thrown));
    }
  };
}

/** The sending half of a stream: back-pressure as promises, and the caller's leaving as a signal. */
export class OutStream<Message> {
  private readonly leaving = new AbortController();

  constructor(private readonly call: ServerWritableStream<unknown, Message>) {
    const leave = () => this.leaving.abort();
    call.on("cancelled", leave);
    call.on("close", leave);
  }

  /** Aborts when the caller cancelled or its connection broke. */
  get left(): AbortSignal {
    return this.leaving.signal;
  }

  get gone(): boolean {
    return this.leaving.signal.aborted;
  }

  /** Messages accepted and not yet on their way. */
  get backlog(): number {
    return this.call.writableLength;
  }

  /** Sends the headers now, so that the caller knows that the call is being served. */
  open(): void {
    if (!this.gone) this.call.sendMetadata(new Metadata());
  }

  /** Queues a message without waiting; does nothing once the call has ended. */
  push(message: Message): void {
    if (!this.gone && !this.call.writableEnded) this.call.write(message);
  }

  /**
   * Sends a message that is encoded already. Resolves when it is on its way and its memory may be used again:
   * true; or false when the caller left, and then gRPC may still hold it.
   */
  send(encoded: Buffer): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.gone) return resolve(false);
      const onLeft = () => resolve(false);
      this.left.addEventListener("abort", onLeft, { once: true });
      this.call.write(encoded as Message, (error: Error | null | undefined) => {
        this.left.removeEventListener("abort", onLeft);
        resolve(!error);
      });
    });
  }
}

/** Resolves after `ms`, or at once when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
