/**
 * The keys of a node: one that is configured, good for everything, and any number of session keys, which are good for
 * the keys under one prefix until they expire. Nothing is kept of a session key: its token says what it is good for
 * and is proof of it, and its secret follows from the token. So it outlives the process, and there is nothing to
 * revoke it by but its expiry.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { MillraceError } from "../../../../proto/errors.js";
import { checkGuard, type Scope } from "../../../namespaces/guard.js";
import type { LiveNamespace } from "../../../namespaces/namespaces.js";
import { S3Error } from "../errors.js";
import type { Credentials, Grantee } from "./authorization.js";

export interface KeyRingOptions {
  /** Null: there are no keys. Both or none. */
  accessKey: string | null;
  secretKey: string | null;
  /** Whether requests without a signature may do everything, but in guarded namespaces. */
  anonymous: boolean;
  /** The keys are no secret. */
  wellKnown?: boolean;
  nowUnixMs?: () => number;
}

export interface SessionKeys {
  accessKey: string;
  secretKey: string;
  sessionToken: string;
}

const SESSION_KEY_START = "MSTS";
const SESSION_KEY_RANDOM_BYTES = 10;
const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/** Longer than any that is issued: a prefix of 1,024 bytes, each escaped, in base64. */
const TOKEN_LENGTH_MAX = 10_000;

export class KeyRing implements Credentials {
  readonly anonymous: Grantee | null;
  private readonly configured: Grantee | null;
  private readonly proofKey: Buffer;
  private readonly secretsKey: Buffer;
  private readonly nowUnixMs: () => number;

  constructor(options: KeyRingOptions) {
    const { accessKey, secretKey } = options;
    const unproven = { unproven: true } as const;
    this.configured =
      accessKey !== null && secretKey !== null
        ? { accessKey, secretKey, scope: null, ...(options.wellKnown === true ? unproven : {}) }
        : null;
    this.anonymous = options.anonymous
      ? { accessKey: "anonymous", secretKey: "", scope: null, ...unproven }
      : null;
    // Without keys in the configuration session keys end with the process.
    const nodeSecret = this.configured?.secretKey ?? randomBytes(32);
    this.proofKey = derive(nodeSecret, "millrace session token");
    this.secretsKey = derive(nodeSecret, "millrace session secret");
    this.nowUnixMs = options.nowUnixMs ?? Date.now;
  }

  /** Throws InvalidToken or ExpiredToken for a session token that does not hold. */
  find(accessKey: string, sessionToken: string | null): Grantee | null {
    if (accessKey === this.configured?.accessKey) {
      if (sessionToken !== null) throw invalidToken();
      return this.configured;
    }
    if (!accessKey.startsWith(SESSION_KEY_START) || sessionToken === null) return null;
    const scope = this.openToken(accessKey, sessionToken);
    if (scope.expiresUnixMs <= this.nowUnixMs()) {
      throw new S3Error("ExpiredToken", "The provided token has expired.");
    }
    return { accessKey, secretKey: this.sessionSecret(sessionToken), scope };
  }

  issue(scope: Scope): SessionKeys {
    const random = randomBytes(SESSION_KEY_RANDOM_BYTES * 2);
    const accessKey = SESSION_KEY_START + Array.from(random, (byte) => BASE32[byte & 31]).join("");
    const claims = Buffer.from(JSON.stringify({ accessKey, ...scope })).toString("base64url");
    const sessionToken = `${claims}.${derive(this.proofKey, claims).toString("base64url")}`;
    return { accessKey, secretKey: this.sessionSecret(sessionToken), sessionToken };
  }

  private openToken(accessKey: string, token: string): Scope {
    const [claims = "", proof = "", ...more] = token.split(".");
    if (token.length > TOKEN_LENGTH_MAX || more.length > 0) throw invalidToken();
    const given = Buffer.from(proof, "base64url");
    const right = derive(this.proofKey, claims);
    if (given.length !== right.length || !timingSafeEqual(given, right)) throw invalidToken();
    // Nobody but this node wrote it.
    const { accessKey: of, ...scope } = JSON.parse(Buffer.from(claims, "base64url").toString()) as Scope & {
      accessKey: string;
    };
    if (of !== accessKey) throw invalidToken();
    return scope;
  }

  private sessionSecret(token: string): string {
    return derive(this.secretsKey, token).toString("base64url");
  }
}

/**
 * Throws AccessDenied where the grantee may not read (or `write`) the key. Of a listing `key` is the prefix; null is
 * the bucket itself, and a `bucket` of null the node's list of them. Holders of session keys may ask whether their
 * bucket is there, but not change it.
 */
export function allowed(
  grantee: Grantee,
  bucket: string | null,
  key: string | null,
  write: boolean,
  nowUnixMs: number,
): void {
  const scope = grantee.scope;
  if (scope === null) return;
  // It may have expired since the request's head came.
  if (scope.expiresUnixMs <= nowUnixMs) throw new S3Error("ExpiredToken", "The provided token has expired.");
  const inScope = bucket === scope.bucket && (key === null ? !write : key.startsWith(scope.prefix));
  if (!inScope || (write && scope.readOnly)) throw new S3Error("AccessDenied", "Access Denied.");
}

/**
 * Throws AccessDenied where the bucket is guarded and not open to the grantee at all. What else it may do there is for
 * `allowed` to say.
 */
export function checkAdmitted(
  grantee: Grantee,
  namespace: Pick<LiveNamespace, "name" | "id" | "guarded">,
  nowUnixMs: number,
): void {
  if (!namespace.guarded) return;
  if (grantee.unproven)
    throw new S3Error("AccessDenied", "Access Denied: the bucket asks for the node's keys.");
  try {
    checkGuard(namespace, grantee, { of: "namespace" }, nowUnixMs);
  } catch (thrown) {
    throw new S3Error("AccessDenied", `Access Denied: ${MillraceError.from(thrown).message}`);
  }
}

function derive(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

function invalidToken(): S3Error {
  return new S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.");
}
