/**
 * Errors across gRPC: a MillraceError travels as a gRPC status plus the trailer `millrace-error-bin`, so that
 * other languages see an ordinary status and this package gets its own error back whole.
 */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { MillraceError } from "./errors.js";
import { loadContract } from "./load.js";

export const ERROR_TRAILER = "millrace-error-bin";

const STATUS_BY_CODE: Record<string, status> = {
  INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  KEY_TOO_LONG: status.INVALID_ARGUMENT,
  OBJECT_TOO_LARGE: status.INVALID_ARGUMENT,
  OUT_OF_RANGE: status.OUT_OF_RANGE,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  PERMISSION_DENIED: status.PERMISSION_DENIED,
  UNSUPPORTED: status.UNIMPLEMENTED,
  NOT_FOUND: status.NOT_FOUND,
  ALREADY_EXISTS: status.ALREADY_EXISTS,
  CONDITION_FAILED: status.FAILED_PRECONDITION,
  NAMESPACE_GONE: status.NOT_FOUND,
  CLOSED: status.FAILED_PRECONDITION,
  ABORTED: status.ABORTED,
  RESOURCE_EXHAUSTED: status.RESOURCE_EXHAUSTED,
  DEADLINE_EXCEEDED: status.DEADLINE_EXCEEDED,
  CHECKSUM_MISMATCH: status.DATA_LOSS,
  CORRUPT: status.DATA_LOSS,
  MAP_OUTPUT_LOST: status.FAILED_PRECONDITION,
  UNAVAILABLE: status.UNAVAILABLE,
};

// For failures that never reached a Millrace handler and so carry no trailer.
const CODE_BY_STATUS: Partial<Record<status, string>> = {
  [status.CANCELLED]: "ABORTED",
  [status.INVALID_ARGUMENT]: "INVALID_ARGUMENT",
  [status.DEADLINE_EXCEEDED]: "DEADLINE_EXCEEDED",
  [status.NOT_FOUND]: "NOT_FOUND",
  [status.ALREADY_EXISTS]: "ALREADY_EXISTS",
  [status.PERMISSION_DENIED]: "PERMISSION_DENIED",
  [status.RESOURCE_EXHAUSTED]: "RESOURCE_EXHAUSTED",
  [status.FAILED_PRECONDITION]: "CONDITION_FAILED",
  [status.ABORTED]: "ABORTED",
  [status.OUT_OF_RANGE]: "OUT_OF_RANGE",
  [status.UNIMPLEMENTED]: "UNSUPPORTED",
  [status.UNAVAILABLE]: "UNAVAILABLE",
  [status.DATA_LOSS]: "CORRUPT",
  [status.UNAUTHENTICATED]: "UNAUTHENTICATED",
};

// HTTP/2 header lists have a limit of their own (16 KiB in grpc-js); the maps beyond this many are learnt by
// asking again once these have been rerun.
const MAPS_IN_TRAILER_MAX = 2048;
const MESSAGE_CHARS_MAX = 2048;

/** What a grpc-js handler hands to its callback, or emits as "error", to fail with `error`. */
export function toStatus(error: MillraceError): { code: status; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  const message = error.message.slice(0, MESSAGE_CHARS_MAX);
  metadata.set(
    ERROR_TRAILER,
    loadContract().error.serialize({
      code: error.code,
      retryable: error.retryable,
      message,
      maps: error.maps.slice(0, MAPS_IN_TRAILER_MAX),
    }),
  );
  return { code: STATUS_BY_CODE[error.code] ?? status.INTERNAL, details: message, metadata };
}

/** The MillraceError inside an error that a grpc-js client call failed with. */
export function fromServiceError(thrown: unknown): MillraceError {
  if (thrown instanceof MillraceError) return thrown;
  const error = thrown as Partial<ServiceError>;
  if (typeof error?.code !== "number") return MillraceError.from(thrown);
  const trailer = error.metadata?.get(ERROR_TRAILER)[0];
  if (trailer instanceof Buffer) {
    try {
      const { code, retryable, message, maps } = loadContract().error.deserialize(trailer);
      if (code !== "") return new MillraceError(code, message, { retryable, maps, cause: thrown });
    } catch {
      // A trailer that does not parse says less than the status itself, which follows.
    }
  }
  const code = CODE_BY_STATUS[error.code] ?? "INTERNAL";
  return new MillraceError(code, error.details ?? error.message ?? "the call failed", { cause: thrown });
}
