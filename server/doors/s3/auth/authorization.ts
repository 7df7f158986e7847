/** Who may do what: the outcome of checking a request's signature. */
import type { Scope } from "../../../namespaces/guard.js";

/** Keys that requests are signed with. */
export interface Credentials {
  /** Secret of an access key; null: no such key, or its session token does not hold. */
  find(accessKey: string, sessionToken: string | null): Grantee | null;
  /** What a request without any signature may do; null: nothing. */
  readonly anonymous: Grantee | null;
}

/** The holder of a key, and what the key is good for. */
export interface Grantee {
  readonly accessKey: string;
  readonly secretKey: string;
  /** Null: all of the node. Else one bucket's keys that start with `prefix`, until then. */
  readonly scope: Scope | null;
  /** The keys are known to everybody, or none were asked for: nothing that is guarded opens to them. */
  readonly unproven?: true;
}

/** How the body of a request is protected, by `x-amz-content-sha256` and the signature. */
export type PayloadProtection =
  | { readonly kind: "unsigned" }
  /** Lower-case hexadecimal SHA-256 of the whole body. */
  | { readonly kind: "sha256"; readonly hash: string }
  /**
   * aws-chunked. `signing`: each chunk bears a signature that continues from `seed`; null: chunks are bare.
   * `trailer`: headers follow the last chunk.
   */
  | { readonly kind: "chunks"; readonly trailer: boolean; readonly signing: ChunkSigning | null };

export interface ChunkSigning {
  readonly signingKey: Buffer;
  /** Signature of the request's head, hexadecimal. */
  readonly seed: string;
  /** x-amz-date. */
  readonly date: string;
  /** DATE/REGION/s3/aws4_request. */
  readonly scope: string;
}

export interface Authorization {
  readonly grantee: Grantee;
  readonly payload: PayloadProtection;
}
