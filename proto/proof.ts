/**
 * How a caller of the gRPC door proves that it holds credentials, without sending their secret: with a keyed hash over
 * what it calls, when, and the message that it sends first. Both sides make it here.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** Metadata of a call. */
export const PROOF_HEADERS = {
  accessKey: "millrace-access-key",
  /** Of session credentials. */
  sessionToken: "millrace-session-token",
  /** When the call was made, in Unix milliseconds. */
  date: "millrace-date",
  proof: "millrace-proof",
} as const;

/** How far the clocks of caller and node may be apart: as for signatures of S3. */
export const PROOF_SKEW_MS = 15 * 60_000;

/** `path` as in "/millrace.v1.Objects/Get", `message` as it goes over the wire. Hexadecimal. */
export function prove(secretKey: string, path: string, date: string, message: Uint8Array): string {
  const digest = createHash("sha256").update(message).digest("hex");
  return createHmac("sha256", secretKey).update(`MILLRACE1\n${path}\n${date}\n${digest}`).digest("hex");
}

/** Compares two proofs in a time that tells nothing of them. */
export function sameProof(right: string, given: string): boolean {
  const a = Buffer.from(right);
  const b = Buffer.from(given);
  return a.length === b.length && timingSafeEqual(a, b);
}
