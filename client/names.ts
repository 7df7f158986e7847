/**
 * Checks of what a caller names: keys, ranges, endpoints. The daemon checks keys again; here they are checked
 * before a native transport sees them, so that a mistake fails at once and says what was wrong. Names of
 * namespaces and shuffles go to the daemon as they are, which answers INVALID_ARGUMENT.
 */
import { isUtf8 } from "node:buffer";
import { MillraceError } from "./errors.js";
import type { Condition, Key, Range } from "./transport.js";

/** As `kKeyBytesMax` of native/base/limits.h; the addon may be absent here, a test compares the two. */
export const KEY_BYTES_MAX = 1024;

/** The key, if it is one: 1 to 1,024 bytes of UTF-8. INVALID_ARGUMENT or KEY_TOO_LONG otherwise. */
export function checkKey(key: Key): Key {
  if (typeof key === "string") {
    // A lone surrogate has no UTF-8 form; encoding would silently make another key of it.
    if (!isWellFormed(key)) throw invalid("a key must be well-formed Unicode (it has a lone surrogate)");
    // No character takes more than three bytes a UTF-16 unit, so most keys need no counting.
    if (key.length * 3 > KEY_BYTES_MAX) checkKeyBytes(Buffer.byteLength(key));
    else if (key.length === 0) checkKeyBytes(0);
  } else if (key instanceof Uint8Array) {
    checkKeyBytes(key.length);
    if (!isUtf8(key)) throw invalid("a key must be valid UTF-8");
  } else {
    throw invalid("a key must be a string or a Uint8Array");
  }
  return key;
}

function checkKeyBytes(bytes: number): void {
  if (bytes === 0) throw invalid("a key must have at least one byte");
  if (bytes > KEY_BYTES_MAX) {
    throw new MillraceError(
      "KEY_TOO_LONG",
      `the key has ${bytes} bytes of UTF-8, the most is ${KEY_BYTES_MAX}`,
    );
  }
}

/** A prefix or start-after of a listing: like a key, but it may be empty. */
export function checkPrefix(prefix: Key): Key {
  return prefix.length === 0 ? prefix : checkKey(prefix);
}

/** The key's bytes as gRPC carries them. */
export function keyBytes(key: Key): Uint8Array {
  return typeof key === "string" ? Buffer.from(key, "utf8") : key;
}

/** The key as messages have it. */
export function showKey(key: Key): string {
  const text = typeof key === "string" ? key : Buffer.from(key).toString("utf8");
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}...` : text);
}

/** Strings become UTF-8. */
export function checkData(data: Uint8Array | string): Uint8Array {
  if (typeof data === "string") return Buffer.from(data, "utf8");
  if (data instanceof Uint8Array) return data;
  throw invalid("data must be a Uint8Array or a string");
}

/** Sequences begin at 1; on the wire a 0 would mean that there is no condition. */
export function checkCondition(condition: Condition | undefined): Condition | undefined {
  if (condition?.ifSequence !== undefined) checkCount("ifSequence", condition.ifSequence, 1);
  return condition;
}

export function checkRange(range: Range): Range {
  if (range.offset !== undefined) checkCount("range.offset", range.offset);
  if (range.length !== undefined) checkCount("range.length", range.length);
  return range;
}

/** A whole number from `min` to `max`; sizes and numbers of tasks alike. */
export function checkCount(what: string, value: number, min = 0, max = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw invalid(`${what} must be a whole number from ${min} to ${max}, not ${String(value)}`);
  }
  return value;
}

export interface Endpoint {
  /** As gRPC takes it. */
  address: string;
  host: string;
}

/** Reads `HOST:PORT` or `grpc://HOST:PORT`; IPv6 hosts in brackets. */
export function parseEndpoint(endpoint: string): Endpoint {
  const address = endpoint.replace(/^grpc:\/\//, "").replace(/\/$/, "");
  const parsed = splitAddress(address);
  if (parsed === null) {
    throw invalid(
      `endpoint ${JSON.stringify(endpoint)}: give the gRPC door as HOST:PORT or grpc://HOST:PORT`,
    );
  }
  return { address, host: parsed.host };
}

/** `host:port` apart, or null where it is not of that form. */
export function splitAddress(address: string): { host: string; port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.%a-z]+)\]|([^\s:/[\]@]+)):(\d{1,5})$/.exec(address);
  if (match === null) return null;
  const port = Number(match[3]);
  if (port < 1 || port > 65535) return null;
  return { host: (match[1] ?? match[2]) as string, port };
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}

/** In Node 20, but in TypeScript's library only from ES2024. */
function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}
