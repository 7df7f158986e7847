/** What a client proves itself with to guarded namespaces, and how: the secret itself never leaves the process. */
import type { Metadata } from "@grpc/grpc-js";
import { PROOF_HEADERS, prove } from "../proto/proof.js";
import { MillraceError } from "./errors.js";

/** The node's own key, or session credentials as `Client.issueCredentials` gives them. */
export interface Credentials {
  accessKey: string;
  secretKey: string;
  /** Of session credentials. */
  sessionToken?: string;
}

/** MILLRACE_ACCESS_KEY, MILLRACE_SECRET_KEY and MILLRACE_SESSION_TOKEN; null where they are not set. */
export function environmentCredentials(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Credentials | null {
  const accessKey = environment.MILLRACE_ACCESS_KEY || undefined;
  const secretKey = environment.MILLRACE_SECRET_KEY || undefined;
  const sessionToken = environment.MILLRACE_SESSION_TOKEN || undefined;
  if (accessKey === undefined && secretKey === undefined) return null;
  if (accessKey === undefined || secretKey === undefined) {
    throw invalid("MILLRACE_ACCESS_KEY and MILLRACE_SECRET_KEY belong together; set both or none");
  }
  return checkCredentials({ accessKey, secretKey, ...(sessionToken === undefined ? {} : { sessionToken }) });
}

// What can be a value of metadata.
const PRINTABLE = /^[\x20-\x7e]+$/;

/** Throws INVALID_ARGUMENT, in words that do not show the secret. */
export function checkCredentials(credentials: Credentials): Credentials {
  const { accessKey, secretKey, sessionToken } = credentials;
  if (typeof accessKey !== "string" || !PRINTABLE.test(accessKey)) {
    throw invalid("credentials.accessKey must be printable ASCII");
  }
  if (typeof secretKey !== "string" || secretKey === "")
    throw invalid("credentials.secretKey must not be empty");
  if (sessionToken !== undefined && (typeof sessionToken !== "string" || !PRINTABLE.test(sessionToken))) {
    throw invalid("credentials.sessionToken must be printable ASCII; leave it out for the node's own key");
  }
  return credentials;
}

/** Adds to a call's metadata the proof that its caller holds the credentials; `message` is what it sends first. */
export function addProof(
  metadata: Metadata,
  { accessKey, secretKey, sessionToken }: Credentials,
  path: string,
  message: Uint8Array,
): Metadata {
  const date = String(Date.now());
  metadata.set(PROOF_HEADERS.accessKey, accessKey);
  if (sessionToken !== undefined) metadata.set(PROOF_HEADERS.sessionToken, sessionToken);
  metadata.set(PROOF_HEADERS.date, date);
  metadata.set(PROOF_HEADERS.proof, prove(secretKey, path, date, message));
  return metadata;
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
