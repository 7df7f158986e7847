/**
 * Who sent a request: AWS Signature Version 4, in the Authorization header or in the query (presigned).
 *
 * Where S3 is stricter or laxer than the published rules, this follows S3: any region is accepted, Content-Type need
 * not be signed, and x-amz-* headers must be, in presigned requests too.
 */
import { createHash } from "node:crypto";
import { header, type S3Request } from "../call.js";
import { S3Error } from "../errors.js";
import type { Authorization, Credentials, PayloadProtection } from "./authorization.js";
import { canonicalPath, canonicalQuery, canonicalValue, queryPairs } from "./canonical.js";
import { isSignature, SigningKeys } from "./signing.js";

const ALGORITHM = "AWS4-HMAC-SHA256";
const SKEW_MAX_MS = 15 * 60 * 1_000;
const EXPIRES_MAX_S = 7 * 24 * 60 * 60;
const PRESIGNED_NAMES = [
  "X-Amz-Algorithm",
  "X-Amz-Credential",
  "X-Amz-Date",
  "X-Amz-Expires",
  "X-Amz-SignedHeaders",
  "X-Amz-Signature",
] as const;
const UNSIGNED = "UNSIGNED-PAYLOAD";
const USE_V4 = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";

const signingKeys = new SigningKeys();

/** The signature of one request, wherever it stood. */
interface Claim {
  presigned: boolean;
  accessKey: string;
  /** Of the credential scope: YYYYMMDD. */
  scopeDate: string;
  region: string;
  signedHeaders: string[];
  signature: string;
  /** YYYYMMDDTHHMMSSZ. */
  date: string;
  sessionToken: string | null;
  /** Seconds from `date`; presigned only. */
  expiresS: number;
}

/** Throws an `S3Error` for a request that nobody vouches for. */
export function authorize(request: S3Request, credentials: Credentials, nowUnixMs: number): Authorization {
  const pairs = queryPairs(request.rawQuery);
  const authorization = one(request, "authorization") ?? "";
  const presigned = pairs.some(([name]) => /^X-Amz-(Algorithm|Credential|Signature)$/.test(name));
  if (authorization !== "" && presigned) {
    throw new S3Error(
      "InvalidArgument",
      "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified.",
    );
  }
  if (presigned) return verify(request, pairs, presignedClaim(pairs), credentials, nowUnixMs);
  if (authorization !== "") {
    return verify(request, pairs, headerClaim(request, authorization), credentials, nowUnixMs);
  }
  if (pairs.some(([name]) => name === "Signature" || name === "AWSAccessKeyId")) {
    throw new S3Error("InvalidRequest", USE_V4);
  }
  if (credentials.anonymous === null) throw new S3Error("AccessDenied", "Access Denied.");
  const sha256 = one(request, "x-amz-content-sha256") ?? UNSIGNED;
  return { grantee: credentials.anonymous, payload: protection(sha256, null) };
}

function headerClaim(request: S3Request, authorization: string): Claim {
  const [scheme = "", ...rest] = authorization.split(/[ \t]+/);
  if (scheme.startsWith("AWS4-ECDSA-")) throw noAsymmetric();
  if (scheme === "AWS") {
    // "AWS key:signature", of a client that speaks version 2; else it is nothing at all.
    if (/^[^:\s]+:[^:\s]+$/.test(rest.join(" "))) throw new S3Error("InvalidRequest", USE_V4);
    throw new S3Error(
      "InvalidArgument",
      "AWS authorization header is invalid. Expected AwsAccessKeyId:signature",
    );
  }
  if (scheme !== ALGORITHM) throw new S3Error("InvalidArgument", "Unsupported Authorization Type");

  const fields = new Map<string, string>();
  for (const field of rest.join("").split(",")) {
    const equals = field.indexOf("=");
    const name = field.slice(0, Math.max(equals, 0));
    if (!["Credential", "SignedHeaders", "Signature"].includes(name) || fields.has(name)) {
      throw malformedHeader("it must be Credential, SignedHeaders and Signature, each once");
    }
    fields.set(name, field.slice(equals + 1));
  }
  const parts = claimParts(
    fields.get("Credential") ?? "",
    fields.get("SignedHeaders") ?? "",
    fields.get("Signature") ?? "",
    malformedHeader,
  );
  const date = requestDate(request);
  if (date === null) {
    throw new S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header");
  }
  if (parts.scopeDate !== date.slice(0, 8)) {
    throw malformedHeader(`the credential is of ${parts.scopeDate}, the request of ${date.slice(0, 8)}`);
  }
  const sessionToken = one(request, "x-amz-security-token");
  return { ...parts, presigned: false, date, sessionToken, expiresS: 0 };
}

function presignedClaim(pairs: readonly [string, string][]): Claim {
  const fields = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (!name.startsWith("X-Amz-")) continue;
    if (fields.has(name)) throw malformedQuery(`${name} must be given once`);
    fields.set(name, decodeURIComponentOr(value, malformedQuery));
  }
  const [algorithm, credential, date, expires, signedHeaders, signature] = PRESIGNED_NAMES.map((name) => {
    const value = fields.get(name);
    if (value === undefined)
      throw malformedQuery(`version 4 requires the parameters ${PRESIGNED_NAMES.join(", ")}`);
    return value;
  }) as [string, string, string, string, string, string];
  if (algorithm.startsWith("AWS4-ECDSA-")) throw noAsymmetric();
  if (algorithm !== ALGORITHM) throw malformedQuery(`X-Amz-Algorithm only supports "${ALGORITHM}"`);
  const parts = claimParts(credential, signedHeaders, signature, malformedQuery);
  if (parseDate(date) === null) throw malformedQuery(`X-Amz-Date must be in the form "yyyyMMdd'T'HHmmss'Z'"`);
  if (parts.scopeDate !== date.slice(0, 8)) {
    throw malformedQuery(`the credential is of ${parts.scopeDate}, the request of ${date.slice(0, 8)}`);
  }
  if (!/^[0-9]{1,9}$/.test(expires))
    throw malformedQuery("X-Amz-Expires must be a number that is not negative");
  const expiresS = Number(expires);
  if (expiresS > EXPIRES_MAX_S)
    throw malformedQuery(`X-Amz-Expires must be at most ${EXPIRES_MAX_S} seconds`);
  return {
    ...parts,
    presigned: true,
    date,
    sessionToken: fields.get("X-Amz-Security-Token") ?? null,
    expiresS,
  };
}

type Malformed = (what: string) => S3Error;

function claimParts(credential: string, signedHeaders: string, signature: string, malformed: Malformed) {
  // From the end: an access key may have slashes.
  const scope = credential.split("/");
  const [scopeDate = "", region = "", service, end] = scope.slice(-4);
  const accessKey = scope.slice(0, -4).join("/");
  if (accessKey === "" || !/^[0-9]{8}$/.test(scopeDate) || !/^[\w*.-]{0,64}$/.test(region)) {
    throw malformed("the credential must be KEY/YYYYMMDD/REGION/s3/aws4_request");
  }
  if (service !== "s3") throw malformed(`the credential is for the service "${service}"; it must be "s3"`);
  if (end !== "aws4_request") throw malformed(`the credential ends in "${end}"; it must be "aws4_request"`);
  const names = signedHeaders.split(";");
  if (!names.every((name) => /^[a-z0-9!#$%&'*+.^_`|~-]+$/.test(name)) || new Set(names).size < names.length) {
    throw malformed("SignedHeaders must be names of headers in lower case, each once, with ; between them");
  }
  if (!/^[0-9a-f]{64}$/.test(signature))
    throw malformed("the signature must be 64 lower-case hexadecimal digits");
  return { accessKey, scopeDate, region, signedHeaders: names, signature };
}

function verify(
  request: S3Request,
  pairs: readonly [string, string][],
  claim: Claim,
  credentials: Credentials,
  nowUnixMs: number,
): Authorization {
  const grantee = credentials.find(claim.accessKey, claim.sessionToken);
  if (grantee === null) {
    throw new S3Error(
      "InvalidAccessKeyId",
      "The AWS Access Key Id you provided does not exist in our records.",
      {
        AWSAccessKeyId: claim.accessKey,
      },
    );
  }
  checkTime(claim, nowUnixMs);
  checkSignedHeaders(request, claim);

  const { signed, used } = contentSha256(request, pairs, claim);
  const headers = claim.signedHeaders
    .map((name) => `${name}:${canonicalValue(values(request, name))}\n`)
    .join("");
  const canonicalRequest = [
    request.method,
    canonicalPath(request.rawPath),
    canonicalQuery(pairs, claim.presigned ? "X-Amz-Signature" : ""),
    headers,
    claim.signedHeaders.join(";"),
    signed,
  ].join("\n");
  const scope = `${claim.scopeDate}/${claim.region}/s3/aws4_request`;
  // node:http gives one character a byte.
  const hash = createHash("sha256").update(canonicalRequest, "latin1").digest("hex");
  const stringToSign = `${ALGORITHM}\n${claim.date}\n${scope}\n${hash}`;
  const { accessKey, scopeDate, region } = claim;
  const key = signingKeys.get(accessKey, grantee.secretKey, scopeDate, region);
  if (!isSignature(key, stringToSign, claim.signature)) {
    throw new S3Error(
      "SignatureDoesNotMatch",
      "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
      {
        AWSAccessKeyId: accessKey,
        StringToSign: stringToSign,
        SignatureProvided: claim.signature,
        CanonicalRequest: canonicalRequest,
      },
    );
  }
  signingKeys.remember(accessKey, grantee.secretKey, scopeDate, region, key);
  const signing = { signingKey: key, seed: claim.signature, date: claim.date, scope };
  return { grantee, payload: protection(used, signing) };
}

function checkTime(claim: Claim, nowUnixMs: number): void {
  const sentUnixMs = parseDate(claim.date) as number;
  if (!claim.presigned) {
    if (Math.abs(nowUnixMs - sentUnixMs) <= SKEW_MAX_MS) return;
    throw new S3Error(
      "RequestTimeTooSkewed",
      "The difference between the request time and the current time is too large.",
      {
        RequestTime: claim.date,
        ServerTime: new Date(nowUnixMs).toISOString(),
        MaxAllowedSkewMilliseconds: String(SKEW_MAX_MS),
      },
    );
  }
  if (sentUnixMs - nowUnixMs > SKEW_MAX_MS) throw new S3Error("AccessDenied", "Request is not valid yet");
  const expiresUnixMs = sentUnixMs + claim.expiresS * 1_000;
  if (nowUnixMs > expiresUnixMs) {
    throw new S3Error("AccessDenied", "Request has expired", {
      "X-Amz-Expires": String(claim.expiresS),
      Expires: new Date(expiresUnixMs).toISOString(),
      ServerTime: new Date(nowUnixMs).toISOString(),
    });
  }
}

/** Headers that change what a request means must not be added to it by someone else. */
function checkSignedHeaders(request: S3Request, claim: Claim): void {
  const unsigned = Object.keys(request.message.headers).filter(
    (name) =>
      (name === "host" || name.startsWith("x-amz-")) &&
      !claim.signedHeaders.includes(name) &&
      // Of a presigned request it only tells how the body is sent.
      !(claim.presigned && name === "x-amz-content-sha256"),
  );
  if (!claim.signedHeaders.includes("host") && !unsigned.includes("host")) unsigned.push("host");
  if (unsigned.length === 0) return;
  throw new S3Error("AccessDenied", "There were headers present in the request which were not signed", {
    HeadersNotSigned: unsigned.join(", "),
  });
}

/** x-amz-content-sha256 as it was signed, and as it holds for the body. */
function contentSha256(
  request: S3Request,
  pairs: readonly [string, string][],
  claim: Claim,
): { signed: string; used: string } {
  const sent = one(request, "x-amz-content-sha256");
  if (!claim.presigned) {
    if (sent !== null) return { signed: sent, used: sent };
    throw new S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256");
  }
  // Presigners move headers there, some in lower case.
  const inQuery = pairs.find(([name]) => name.toLowerCase() === "x-amz-content-sha256")?.[1];
  if (inQuery !== undefined) return { signed: inQuery, used: inQuery };
  const signed = claim.signedHeaders.includes("x-amz-content-sha256") ? (sent ?? "") : UNSIGNED;
  return { signed, used: sent ?? UNSIGNED };
}

/** `signing` null: nobody signed the request. */
function protection(
  sha256: string,
  signing: Extract<PayloadProtection, { kind: "chunks" }>["signing"],
): PayloadProtection {
  switch (sha256) {
    case UNSIGNED:
      return { kind: "unsigned" };
    case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
      return { kind: "chunks", trailer: true, signing: null };
    case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
    case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
      if (signing === null) {
        throw new S3Error("InvalidRequest", `${sha256} needs a request that is signed`);
      }
      return { kind: "chunks", trailer: sha256.endsWith("-TRAILER"), signing };
  }
  if (/^[0-9A-Fa-f]{64}$/.test(sha256)) return { kind: "sha256", hash: sha256.toLowerCase() };
  if (sha256.startsWith("STREAMING-AWS4-ECDSA-")) throw noAsymmetric();
  throw new S3Error(
    "InvalidArgument",
    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
    { ArgumentName: "x-amz-content-sha256", ArgumentValue: sha256 },
  );
}

/** x-amz-date, or Date in its stead, in the form of x-amz-date; null where neither is one. */
function requestDate(request: S3Request): string | null {
  const amzDate = one(request, "x-amz-date");
  if (amzDate !== null) return parseDate(amzDate) === null ? null : amzDate;
  const date = header(request, "date");
  if (date === null || parseDate(date) !== null) return date;
  if (!/^[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} (GMT|UTC|[+-]0000)$/.test(date))
    return null;
  const unixMs = Date.parse(date);
  return Number.isNaN(unixMs) ? null : compactDate(unixMs);
}

/** Most requests were signed in the second in which the one before them was. */
let lastDate = { text: "", unixMs: 0 };

/** Unix ms, or null where `date` is no YYYYMMDDTHHMMSSZ. */
function parseDate(date: string): number | null {
  if (date === lastDate.text) return lastDate.unixMs;
  const fields = /^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z$/.exec(date);
  if (fields === null) return null;
  const unixMs = Date.parse(
    `${fields[1]}-${fields[2]}-${fields[3]}T${fields[4]}:${fields[5]}:${fields[6]}.000Z`,
  );
  if (Number.isNaN(unixMs) || compactDate(unixMs) !== date) return null;
  lastDate = { text: date, unixMs };
  return unixMs;
}

function compactDate(unixMs: number): string {
  return new Date(unixMs).toISOString().replace(/[-:]|\.\d{3}/g, "");
}

function values(request: S3Request, name: string): readonly string[] {
  return request.message.headersDistinct[name] ?? [];
}

/** A header that may be there once; null: it is not. */
function one(request: S3Request, name: string): string | null {
  const found = values(request, name);
  if (found.length > 1) throw new S3Error("InvalidArgument", `the header ${name} must be given once`);
  return found[0] ?? null;
}

function decodeURIComponentOr(encoded: string, malformed: Malformed): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw malformed("its parameters must be UTF-8");
  }
}

function malformedHeader(what: string): S3Error {
  return new S3Error("AuthorizationHeaderMalformed", `The authorization header is malformed; ${what}.`);
}

function malformedQuery(what: string): S3Error {
  return new S3Error(
    "AuthorizationQueryParametersError",
    `Error parsing the parameters of the signature in the query; ${what}.`,
  );
}

function noAsymmetric(): S3Error {
  return new S3Error(
    "NotImplemented",
    "Signature Version 4A is not implemented. Please use AWS4-HMAC-SHA256.",
  );
}
