/** Buckets as this door sees namespaces. */
import { LEASE_MAX_MS } from "../../namespaces/namespaces.js";
import type { Grantee } from "./auth/authorization.js";
import { checkAdmitted } from "./auth/credentials.js";
import type { S3Context } from "./call.js";
import { liveBucket } from "./target.js";

/** So far apart are the renewals of a bucket that is in use. */
const RENEWAL_MS = 60_000;

/**
 * Checks that the bucket is there and open to the grantee, and renews its lease where that is this door's to do.
 * NoSuchBucket, AccessDenied.
 */
export function useBucket(context: S3Context, name: string, grantee: Grantee): void {
  const { namespaces } = context;
  const namespace = liveBucket(context, name);
  checkAdmitted(grantee, namespace, Date.now());
  const { leaseMs } = namespace;
  // Others hold namespaces with leases of their own, and mean them to end when they stop renewing.
  if (leaseMs === LEASE_MAX_MS && namespaces.leaseRemainingMs(name) < LEASE_MAX_MS - RENEWAL_MS) {
    namespaces.renew(name, 0);
  }
}
