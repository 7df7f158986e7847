/** Failures in S3's own words. */
import { MillraceError } from "../../../proto/errors.js";

/** HTTP status of each error code that this door answers with. */
const STATUS = {
  AccessDenied: 403,
  AuthorizationHeaderMalformed: 400,
  AuthorizationQueryParametersError: 400,
  BadRequest: 400,
  BadDigest: 400,
  BucketAlreadyExists: 409,
  BucketAlreadyOwnedByYou: 409,
  BucketNotEmpty: 409,
  ConditionalRequestConflict: 409,
  EntityTooLarge: 400,
  EntityTooSmall: 400,
  ExpiredToken: 400,
  IncompleteBody: 400,
  InternalError: 500,
  InvalidAccessKeyId: 403,
  InvalidArgument: 400,
  InvalidBucketName: 400,
  InvalidDigest: 400,
  InvalidPart: 400,
  InvalidPartOrder: 400,
  InvalidRange: 416,
  InvalidRequest: 400,
  InvalidTag: 400,
  InvalidToken: 400,
  InvalidURI: 400,
  KeyTooLongError: 400,
  MalformedXML: 400,
  MetadataTooLarge: 400,
  MethodNotAllowed: 405,
  MissingContentLength: 411,
  NoSuchBucket: 404,
  NoSuchKey: 404,
  NoSuchLifecycleConfiguration: 404,
  NoSuchTagSet: 404,
  NoSuchUpload: 404,
  NotImplemented: 501,
  NotModified: 304,
  PreconditionFailed: 412,
  RequestHeaderSectionTooLarge: 431,
  RequestTimeout: 400,
  RequestTimeTooSkewed: 403,
  ServiceUnavailable: 503,
  SignatureDoesNotMatch: 403,
  SlowDown: 503,
  XAmzContentSHA256Mismatch: 400,
} as const;

export type S3ErrorCode = keyof typeof STATUS;

export class S3Error extends Error {
  override readonly name = "S3Error";
  readonly status: number;

  constructor(
    readonly code: S3ErrorCode,
    message: string,
    /** Further elements of the error's XML, by name. */
    readonly details: Readonly<Record<string, string>> = {},
    /** Headers that the answer has beside the usual ones. */
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.status = STATUS[code];
  }

  /** Any thrown value in S3's words. */
  static from(thrown: unknown): S3Error {
    if (thrown instanceof S3Error) return thrown;
    const error = MillraceError.from(thrown);
    const code = CODES[error.code];
    // What is not foreseen is told to the log, not to the caller.
    if (code === undefined) {
      return new S3Error("InternalError", "the node failed in a way it should not; its log says more");
    }
    return new S3Error(code, error.message);
  }
}

const CODES: Readonly<Record<string, S3ErrorCode | undefined>> = {
  NAMESPACE_GONE: "NoSuchBucket",
  NOT_FOUND: "NoSuchKey",
  KEY_TOO_LONG: "KeyTooLongError",
  INVALID_ARGUMENT: "InvalidArgument",
  OBJECT_TOO_LARGE: "EntityTooLarge",
  OUT_OF_RANGE: "InvalidRange",
  CONDITION_FAILED: "PreconditionFailed",
  CHECKSUM_MISMATCH: "BadDigest",
  RESOURCE_EXHAUSTED: "SlowDown",
  UNAVAILABLE: "ServiceUnavailable",
  ABORTED: "ConditionalRequestConflict",
  UNSUPPORTED: "NotImplemented",
  UNAUTHENTICATED: "AccessDenied",
  PERMISSION_DENIED: "AccessDenied",
};
