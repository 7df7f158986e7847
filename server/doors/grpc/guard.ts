/**
 * Guarded namespaces at the gRPC door: who is calling, proved anew by each call's metadata (see proto/proof.ts), and
 * what it may do. Calls about other namespaces pass unasked.
 */
import { createHmac } from "node:crypto";
import type { Metadata, ServiceDefinition } from "@grpc/grpc-js";
import { MillraceError } from "../../../proto/errors.js";
import { PROOF_HEADERS, PROOF_SKEW_MS, prove, sameProof } from "../../../proto/proof.js";
import type { Engine } from "../../engine/engine.js";
import { checkGuard, expired, type Holder, mayAttach, type Need, unguarded } from "../../namespaces/guard.js";
import type { LiveNamespace, Namespaces } from "../../namespaces/namespaces.js";
import type { KeyRing } from "../s3/auth/credentials.js";
import { S3Error } from "../s3/errors.js";

/** Of a call: what tells who makes it. */
export interface Calling {
  readonly metadata: Metadata;
  getPath(): string;
}

export interface Admitted {
  readonly namespace: LiveNamespace;
  /** Null: the namespace is not guarded. */
  readonly holder: Holder | null;
}

export interface GuardOptions {
  namespaces: Pick<Namespaces, "require" | "remembered">;
  /** Null: the node has no keys of its own, so nobody gets in. */
  keyRing: Pick<KeyRing, "find"> | null;
  nowUnixMs?: () => number;
}

export class Guard {
  /** Of the first message of each call, as it came: what its proof is about. */
  private readonly encoded = new WeakMap<object, Uint8Array>();
  private readonly nowUnixMs: () => number;

  constructor(private readonly options: GuardOptions) {
    this.nowUnixMs = options.nowUnixMs ?? Date.now;
  }

  /** The service with requests of which the guard remembers how they came. */
  watched<Definition extends ServiceDefinition>(definition: Definition): Definition {
    const watched = Object.entries(definition).map(([name, method]) => {
      const requestDeserialize = (bytes: Buffer): unknown => {
        const request = method.requestDeserialize(bytes) as object;
        this.encoded.set(request, bytes);
        return request;
      };
      return [name, { ...method, requestDeserialize }];
    });
    return Object.fromEntries(watched) as Definition;
  }

  /**
   * The namespace, where `request` of `call` may do to it what it needs. NOT_FOUND, NAMESPACE_GONE, UNAUTHENTICATED,
   * PERMISSION_DENIED.
   */
  admit(call: Calling, request: object, name: string, need: Need): Admitted {
    const namespace = this.options.namespaces.require(name);
    return { namespace, holder: this.check(call, request, namespace, need) };
  }

  /** As `admit`, also of a namespace that ended lately. */
  admitRemembered(call: Calling, request: object, name: string, need: Need): void {
    this.check(call, request, this.options.namespaces.remembered(name), need);
  }

  /** Whether `admit` would let it. */
  admits(call: Calling, request: object, name: string, need: Need): boolean {
    try {
      this.admit(call, request, name, need);
      return true;
    } catch {
      return false;
    }
  }

  /** Throws unless the call is made with the node's own key. */
  requireNodeKey(call: Calling, request: object, what: string): void {
    const holder = this.holderOf(call, request);
    if (holder?.scope === null) return;
    const code = holder === null ? "UNAUTHENTICATED" : "PERMISSION_DENIED";
    throw new MillraceError(
      code,
      `${what} asks for the node's own key: set MILLRACE_ACCESS_KEY and MILLRACE_SECRET_KEY`,
    );
  }

  /** Throws UNAUTHENTICATED where the holder's credentials have expired meanwhile. */
  checkStillGood(holder: Holder | null): void {
    const scope = holder?.scope ?? null;
    if (scope !== null && scope.expiresUnixMs <= this.nowUnixMs()) throw expired();
  }

  /** Calls `end` once the holder's credentials expire; returns what forgets that. */
  whenExpired(holder: Holder | null, end: (error: MillraceError) => void): () => void {
    const scope = holder?.scope ?? null;
    if (scope === null) return () => {};
    const timer = setTimeout(() => end(expired()), Math.max(0, scope.expiresUnixMs - this.nowUnixMs()));
    return () => clearTimeout(timer);
  }

  private check(call: Calling, request: object, namespace: LiveNamespace, need: Need): Holder | null {
    if (!namespace.guarded) return null;
    const holder = this.holderOf(call, request);
    if (holder === null) throw unguarded(namespace.name);
    checkGuard(namespace, holder, need, this.nowUnixMs());
    return holder;
  }

  /** Who makes the call; null: it does not say. UNAUTHENTICATED where what it says does not hold. */
  private holderOf(call: Calling, request: object): Holder | null {
    const accessKey = header(call, PROOF_HEADERS.accessKey);
    if (accessKey === null) return null;
    const { keyRing } = this.options;
    if (keyRing === null) throw refused("this node has no keys: start it with --access-key and --secret-key");
    const date = header(call, PROOF_HEADERS.date);
    const proof = header(call, PROOF_HEADERS.proof);
    const message = this.encoded.get(request);
    if (date === null || proof === null || message === undefined) {
      throw refused(
        `a call with ${PROOF_HEADERS.accessKey} needs ${PROOF_HEADERS.date} and ${PROOF_HEADERS.proof}`,
      );
    }
    const grantee = findGrantee(keyRing, accessKey, header(call, PROOF_HEADERS.sessionToken));
    // The same words for either, so that nobody can try out which keys there are.
    if (grantee === null || !sameProof(prove(grantee.secretKey, call.getPath(), date, message), proof)) {
      throw refused("the access key is not known here, or the secret key is not its own");
    }
    if (!/^\d{1,15}$/.test(date) || Math.abs(Number(date) - this.nowUnixMs()) > PROOF_SKEW_MS) {
      throw refused("the clocks of this call and of the node are more than 15 minutes apart");
    }
    return grantee;
  }
}

/** What opens native sessions to this holder; empty: nothing does, because it may look at a part alone. */
export function attachToken(engine: Pick<Engine, "admit">, { namespace, holder }: Admitted): Uint8Array {
  const scope = holder?.scope ?? null;
  if (holder === null || scope === null) return namespace.token;
  if (!mayAttach(holder)) return new Uint8Array(0);
  // Follows from the credentials, so that asking again and again makes one pass.
  const token = createHmac("sha256", namespace.token)
    .update(`pass ${holder.accessKey}`)
    .digest()
    .subarray(0, 16);
  engine.admit(namespace.name, token, scope.expiresUnixMs, scope.readOnly);
  return token;
}

function findGrantee(keyRing: Pick<KeyRing, "find">, accessKey: string, sessionToken: string | null) {
  try {
    return keyRing.find(accessKey, sessionToken);
  } catch (thrown) {
    if (!(thrown instanceof S3Error)) throw thrown;
    throw thrown.code === "ExpiredToken" ? expired() : refused("the session token does not hold");
  }
}

function header({ metadata }: Calling, name: string): string | null {
  const [value] = metadata.get(name);
  return typeof value === "string" ? value : null;
}

function refused(message: string): MillraceError {
  return new MillraceError("UNAUTHENTICATED", message);
}
