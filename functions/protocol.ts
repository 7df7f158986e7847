/**
 * What a driver and a function worker say to each other, and the frames that carry it:
 *
 *     | length: u32, little-endian | v8-serialized message: `length` bytes |      length <= limits.frameBytesMax
 *
 * The side that reads trusts nothing: lengths, types and ranges are checked here, once, and a frame that does
 * not pass is a PROTOCOL error that ends the channel. (Against Node's IPC with 'advanced' serialization these
 * frames over a socket pair were measured equal in the median and better in the tail; and IPC cannot be bounded.)
 */
import { deserialize, serialize } from "node:v8";
import { MillraceError } from "../client/errors.js";
import { limits } from "./limits.js";

/** A value on its way: its bytes, as `values.ts` makes them, or the key of the object that holds them. */
export type EncodedValue =
  | { readonly inline: Uint8Array }
  | { readonly key: string; readonly sizeBytes: number };

export interface SetupMessage {
  readonly type: "setup";
  readonly workerId: string;
  readonly endpoint: string | null;
  readonly namespaceName: string | null;
  /** While a call runs the function worker sends a heartbeat this often. */
  readonly heartbeatMs: number;
}

export interface CallMessage {
  readonly type: "call";
  readonly callId: string;
  readonly attempt: number;
  /** `file:` URL. */
  readonly module: string;
  readonly name: string;
  readonly argument: EncodedValue;
  /** Where a result goes that is too large to be sent inline; null where there is no store. */
  readonly resultKey: string | null;
}

export interface CancelMessage {
  readonly type: "cancel";
  readonly callId: string;
  readonly attempt: number;
}

export type ToFunctionWorker = SetupMessage | CallMessage | CancelMessage;

/** Where an attempt's time went. */
export interface AttemptTimes {
  /** `monotonicMs()` when the user's function was entered; 0 where it was not. */
  readonly startedAtMs: number;
  readonly importMs: number;
  /** Fetching and decoding the argument. */
  readonly inputMs: number;
  readonly runMs: number;
  /** Encoding and storing the result. */
  readonly outputMs: number;
}

/** An Error as it travels. */
export interface WireError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  readonly code: string | null;
  readonly retryable: boolean;
  readonly maps: readonly number[];
  readonly cause: WireError | null;
}

export interface ReadyMessage {
  readonly type: "ready";
}

export interface HeartbeatMessage {
  readonly type: "heartbeat";
}

export interface ProgressMessage {
  readonly type: "progress";
  readonly callId: string;
  readonly attempt: number;
  readonly fraction: number;
}

export interface ResultMessage {
  readonly type: "result";
  readonly callId: string;
  readonly attempt: number;
  readonly value: EncodedValue;
  /** The process ends after this message. */
  readonly retiring: boolean;
  readonly times: AttemptTimes;
}

export interface FailureMessage {
  readonly type: "failure";
  readonly callId: string;
  readonly attempt: number;
  /** False where the user's code was never entered: no such module or export, argument not readable. */
  readonly byUserCode: boolean;
  /** The process ends after this message: it was told to, or what failed may have left it in a bad state. */
  readonly retiring: boolean;
  readonly error: WireError;
  readonly times: AttemptTimes;
}

export type FromFunctionWorker =
  | ReadyMessage
  | HeartbeatMessage
  | ProgressMessage
  | ResultMessage
  | FailureMessage;

const HEADER_BYTES = 4;

/** INVALID_ARGUMENT where the message is larger than a frame may be. */
export function encodeFrame(message: ToFunctionWorker | FromFunctionWorker): Buffer {
  const body = serialize(message);
  if (body.length > limits.frameBytesMax) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `a message of ${body.length} bytes exceeds the frame limit of ${limits.frameBytesMax}`,
    );
  }
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame.set(body, HEADER_BYTES);
  return frame;
}

/** Cuts a stream of bytes into messages. Holds at most one frame and one chunk. */
export class FrameReader {
  #held: Buffer = Buffer.alloc(0);

  /** The messages that are complete with `chunk`, unchecked. PROTOCOL where a length or a body is broken. */
  *read(chunk: Buffer): Generator<unknown> {
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (bytes.length >= HEADER_BYTES) {
      const length = bytes.readUInt32LE(0);
      if (length === 0 || length > limits.frameBytesMax) throw broken(`a frame of ${length} bytes`);
      if (bytes.length < HEADER_BYTES + length) break;
      const body = bytes.subarray(HEADER_BYTES, HEADER_BYTES + length);
      bytes = bytes.subarray(HEADER_BYTES + length);
      let message: unknown;
      try {
        message = deserialize(body);
      } catch (error) {
        throw broken("a frame that cannot be deserialized", error);
      }
      yield message;
    }
    this.#held = bytes;
  }
}

/** The message, if it is one that a function worker may send. PROTOCOL otherwise. */
export function checkFromFunctionWorker(raw: unknown): FromFunctionWorker {
  const message = fields(raw, "message");
  switch (message.type) {
    case "ready":
      return { type: "ready" };
    case "heartbeat":
      return { type: "heartbeat" };
    case "progress":
      return { type: "progress", ...attemptName(message), fraction: number(message, "fraction", 0, 1) };
    case "result":
      return {
        type: "result",
        ...attemptName(message),
        value: encodedValue(message.value),
        retiring: boolean(message, "retiring"),
        times: attemptTimes(message.times),
      };
    case "failure":
      return {
        type: "failure",
        ...attemptName(message),
        byUserCode: boolean(message, "byUserCode"),
        retiring: boolean(message, "retiring"),
        error: wireError(message.error, 0),
        times: attemptTimes(message.times),
      };
    default:
      throw broken(`a message of unknown type ${String(message.type).slice(0, 32)}`);
  }
}

/** The message, if it is one that a driver may send. PROTOCOL otherwise. */
export function checkToFunctionWorker(raw: unknown): ToFunctionWorker {
  const message = fields(raw, "message");
  switch (message.type) {
    case "setup":
      return {
        type: "setup",
        workerId: string(message, "workerId", 256),
        endpoint: nullable(message, "endpoint", limits.endpointMax),
        namespaceName: nullable(message, "namespaceName", limits.namespaceNameMax),
        heartbeatMs: number(message, "heartbeatMs", 1, limits.timeoutMsMax),
      };
    case "call":
      return {
        type: "call",
        ...attemptName(message),
        module: string(message, "module", limits.moduleNameMax * 3),
        name: string(message, "name", limits.exportNameMax),
        argument: encodedValue(message.argument),
        resultKey: nullable(message, "resultKey", 1024),
      };
    case "cancel":
      return { type: "cancel", ...attemptName(message) };
    default:
      throw broken(`a message of unknown type ${String(message.type).slice(0, 32)}`);
  }
}

function attemptName(message: Fields): { callId: string; attempt: number } {
  return { callId: string(message, "callId", 256), attempt: whole(message, "attempt", 2 ** 31) };
}

function encodedValue(raw: unknown): EncodedValue {
  const value = fields(raw, "value");
  const inline = value.inline;
  if (inline === undefined) {
    return { key: string(value, "key", 1024), sizeBytes: whole(value, "sizeBytes", Number.MAX_SAFE_INTEGER) };
  }
  if (!(inline instanceof Uint8Array)) throw broken("an inline value that is not bytes");
  if (inline.length > limits.inlineBytesMax) throw broken(`an inline value of ${inline.length} bytes`);
  return { inline };
}

function attemptTimes(raw: unknown): AttemptTimes {
  const times = fields(raw, "times");
  const duration = (name: string) => number(times, name, 0, Number.MAX_SAFE_INTEGER);
  return {
    startedAtMs: duration("startedAtMs"),
    importMs: duration("importMs"),
    inputMs: duration("inputMs"),
    runMs: duration("runMs"),
    outputMs: duration("outputMs"),
  };
}

function wireError(raw: unknown, depth: number): WireError {
  if (depth >= limits.errorCausesMax) throw broken("an error with too long a chain of causes");
  const error = fields(raw, "error");
  const maps = error.maps;
  if (
    !Array.isArray(maps) ||
    maps.length > limits.errorMapsMax ||
    !maps.every((map) => Number.isSafeInteger(map) && map >= 0)
  ) {
    throw broken("an error whose maps are not map numbers");
  }
  return {
    name: string(error, "name", limits.errorNameMax),
    message: string(error, "message", limits.errorTextMax),
    stack: string(error, "stack", limits.errorTextMax),
    code: nullable(error, "code", 256),
    retryable: boolean(error, "retryable"),
    maps: maps as number[],
    cause: error.cause === null ? null : wireError(error.cause, depth + 1),
  };
}

type Fields = Record<string, unknown>;

function fields(raw: unknown, what: string): Fields {
  if (typeof raw !== "object" || raw === null) throw broken(`a ${what} that is not an object`);
  return raw as Fields;
}

function string(from: Fields, name: string, charactersMax: number): string {
  const value = from[name];
  if (typeof value !== "string" || value.length > charactersMax) throw broken(`a bad field ${name}`);
  return value;
}

function nullable(from: Fields, name: string, charactersMax: number): string | null {
  return from[name] === null ? null : string(from, name, charactersMax);
}

function number(from: Fields, name: string, min: number, max: number): number {
  const value = from[name];
  if (typeof value !== "number" || !(value >= min && value <= max)) throw broken(`a bad field ${name}`);
  return value;
}

function whole(from: Fields, name: string, max: number): number {
  const value = number(from, name, 0, max);
  if (!Number.isSafeInteger(value)) throw broken(`a bad field ${name}`);
  return value;
}

function boolean(from: Fields, name: string): boolean {
  const value = from[name];
  if (typeof value !== "boolean") throw broken(`a bad field ${name}`);
  return value;
}

function broken(what: string, cause?: unknown): MillraceError {
  return new MillraceError("PROTOCOL", `the channel of a function worker carried ${what}`, { cause });
}
