/**
 * The one error class of Millrace, shared by the daemon and the SDK. `code` is stable and made for programs,
 * `message` says what to do. Codes are those of `native/base/status.h`, and of the control plane:
 * MAP_OUTPUT_LOST, ATTEMPT_LOST, CALL_FAILED, CALL_TIMED_OUT, WORKER_LOST.
 */
export class MillraceError extends Error {
  override readonly name = "MillraceError";
  readonly code: string;
  /** Whether the same call may succeed later without change. */
  readonly retryable: boolean;
  /** MAP_OUTPUT_LOST: the map tasks to run again. */
  readonly maps: readonly number[];

  constructor(
    code: string,
    message: string,
    options: { retryable?: boolean; maps?: readonly number[]; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? RETRYABLE.has(code);
    this.maps = options.maps ?? [];
  }

  /** Any thrown value as a MillraceError; native errors and system errors keep their `code`. */
  static from(thrown: unknown, fallbackCode = "INTERNAL"): MillraceError {
    if (thrown instanceof MillraceError) return thrown;
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    const code = (error as { code?: unknown }).code;
    return new MillraceError(typeof code === "string" ? code : fallbackCode, error.message, { cause: error });
  }
}

const RETRYABLE = new Set(["ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"]);
