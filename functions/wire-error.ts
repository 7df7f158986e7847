/**
 * Errors between processes. What a caller can act on survives: name, message, stack, `code`, `retryable`, the
 * map tasks of a MAP_OUTPUT_LOST, and the chain of causes.
 */
import { MillraceError } from "../client/errors.js";
import { limits } from "./limits.js";
import type { WireError } from "./protocol.js";

/** Any thrown value, cut to what a frame may carry. */
export function toWireError(thrown: unknown, depth = 0): WireError {
  const error = thrown instanceof Error ? thrown : null;
  const { code, retryable, maps } = (typeof thrown === "object" && thrown !== null ? thrown : {}) as Record<
    string,
    unknown
  >;
  const cause = error?.cause;
  return {
    name: cut(error?.name ?? "Error").slice(0, limits.errorNameMax),
    message: cut(error === null ? describe(thrown) : error.message),
    stack: cut(error?.stack ?? ""),
    code: typeof code === "string" ? code.slice(0, 256) : null,
    retryable: retryable === true,
    maps: Array.isArray(maps)
      ? maps.filter((map) => Number.isSafeInteger(map) && map >= 0).slice(0, limits.errorMapsMax)
      : [],
    cause: cause === undefined || depth + 1 >= limits.errorCausesMax ? null : toWireError(cause, depth + 1),
  };
}

/** The error again, with the stack of the process that threw it. */
export function fromWireError(wire: WireError): Error {
  const cause = wire.cause === null ? undefined : fromWireError(wire.cause);
  let error: Error;
  if (wire.name === "MillraceError") {
    error = new MillraceError(wire.code ?? "INTERNAL", wire.message, {
      retryable: wire.retryable,
      maps: wire.maps,
      cause,
    });
  } else {
    error = new Error(wire.message, cause === undefined ? undefined : { cause });
    error.name = wire.name;
    if (wire.code !== null) Object.assign(error, { code: wire.code });
    if (wire.retryable) Object.assign(error, { retryable: true });
  }
  if (wire.stack !== "") error.stack = wire.stack;
  return error;
}

function cut(text: unknown): string {
  return String(text).slice(0, limits.errorTextMax);
}

function describe(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "a value that has no text form";
  }
}
