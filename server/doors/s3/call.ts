/** One request of the S3 door on its way: what was asked, by whom, and what answers it. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Engine } from "../../engine/engine.js";
import type { Namespaces } from "../../namespaces/namespaces.js";
import type { DoorLog } from "../grpc/context.js";
import type { Patience } from "./arrivals.js";
import type { Authorization, Credentials } from "./auth/authorization.js";

/** What the parts of the S3 door share. */
export interface S3Context {
  engine: Engine;
  namespaces: Namespaces;
  /** The limits of native/base/limits.h. */
  limits: Record<string, number>;
  credentials: Credentials;
  log: DoorLog;
  /** With those who send bodies; left out: `PATIENCE`. */
  patience?: Patience;
}

/** What was asked, taken apart and decoded, and checked for form alone. */
export interface S3Request {
  /** Of this request alone; in every answer and in the log. */
  readonly id: string;
  readonly method: string;
  /** The path as it was sent, percent-encoded, without the query: what was signed. */
  readonly rawPath: string;
  /** The query as it was sent, without "?". */
  readonly rawQuery: string;
  readonly query: ReadonlyMap<string, string>;
  /** Null: the service itself (the list of buckets). */
  readonly bucket: string | null;
  /** Null: the bucket itself. */
  readonly key: string | null;
  readonly message: IncomingMessage;
}

/** A request that is authorized, and its response. */
export interface S3Call {
  readonly context: S3Context;
  readonly request: S3Request;
  readonly response: ServerResponse;
  readonly authorization: Authorization;
}

/** Answers the call, or throws an `S3Error` or `MillraceError` before any of the answer is sent. */
export type Handler = (call: S3Call) => Promise<void>;

/** A header's one value, or null. */
export function header(request: S3Request, name: string): string | null {
  const value = request.message.headers[name];
  return value === undefined ? null : Array.isArray(value) ? value.join(",") : value;
}

/** Whether any bytes follow the head of a request, or are announced. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}
