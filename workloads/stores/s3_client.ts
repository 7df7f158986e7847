/**
 * S3 as workloads speak it, for the exchange, the input and the output alike. Credentials, region and
 * AWS_ENDPOINT_URL come from the environment and the shared configuration, as for every AWS tool.
 */
import { S3Client } from "@aws-sdk/client-s3";
import { MillraceError } from "../../client/errors.js";

const ATTEMPTS_MAX = 5;
const CONNECTION_TIMEOUT_MS = 10_000;
/** Of a connection on which nothing moves; completing a large upload takes a server a while. */
const IDLE_TIMEOUT_MS = 120_000;

export function createS3Client(): S3Client {
  // A remark of the SDK's on Node 20, which is the floor here, that would end up between the lines of ours.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= "true";
  const custom = process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL;
  return new S3Client({
    region: findRegion,
    // Of Amazon's own, a bucket may lie elsewhere.
    followRegionRedirects: true,
    // Servers other than Amazon's are rarely reachable under a host name per bucket.
    forcePathStyle: custom !== undefined,
    maxAttempts: ATTEMPTS_MAX,
    requestHandler: { connectionTimeout: CONNECTION_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
    // Records and partitions carry checksums of the workload's own from end to end.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  });
}

async function findRegion(): Promise<string> {
  const named = process.env.AWS_REGION ?? process.env.AWS_DEFAULT_REGION;
  if (named !== undefined && named !== "") return named;
  // The SDK's own way to the shared configuration, which fails where that names none.
  const client = new S3Client({});
  try {
    return await client.config.region();
  } catch {
    return "us-east-1";
  } finally {
    client.destroy();
  }
}

let shared: S3Client | null = null;

/** One for as long as the process lives: a function worker's, whose connections outlast its calls. */
export function sharedS3Client(): S3Client {
  shared ??= createS3Client();
  return shared;
}

/** HTTP status of what the SDK threw; 0 where no answer came. */
export function s3Status(error: unknown): number {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0;
}

/** What the SDK threw, in our words. `failed` begins the sentence: "the exchange through s3://b/x failed". */
export function s3Error(url: string, failed: string, error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const { name, message, code } = error as Error & { code?: unknown };
  if (name === "NotFound" || name === "NoSuchBucket") {
    return new MillraceError("NOT_FOUND", `the bucket of ${url} does not exist`, { cause: error });
  }
  if (name === "CredentialsProviderError") {
    return new MillraceError(
      "UNAUTHENTICATED",
      `no credentials for ${url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY`,
      { cause: error },
    );
  }
  const said = message || (typeof code === "string" ? code : name);
  if (s3Status(error) === 403) {
    return new MillraceError(
      "UNAUTHENTICATED",
      `${failed}: the credentials in use may not do that (${said})`,
      { cause: error },
    );
  }
  return new MillraceError("UNAVAILABLE", `${failed}: ${said}`, { retryable: false, cause: error });
}
