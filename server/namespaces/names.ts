/**
 * Names of namespaces. A namespace is an S3 bucket, so the rules are those of general-purpose buckets: 3 to 63
 * of a-z, 0-9, '.' and '-', a letter or digit at both ends, no two dots in a row, not an IPv4 address, and none
 * of the prefixes and suffixes that S3 keeps for itself.
 */
import { MillraceError } from "../../proto/errors.js";

const NAMESPACE_NAME = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const IPV4 = /^\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}$/;
const RESERVED_PREFIXES = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/** Throws INVALID_ARGUMENT unless `name` may name a namespace. */
export function checkNamespaceName(name: string): void {
  const problem = problemOf(name);
  if (problem === null) return;
  const shown = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
  throw new MillraceError("INVALID_ARGUMENT", `namespace name ${shown} ${problem}`);
}

function problemOf(name: string): string | null {
  if (!NAMESPACE_NAME.test(name)) {
    return "must have 3 to 63 of a-z, 0-9, '.' and '-', with a letter or digit at both ends";
  }
  if (name.includes("..")) return "must not have two dots in a row";
  if (IPV4.test(name)) return "must not look like an IPv4 address";
  const prefix = RESERVED_PREFIXES.find((reserved) => name.startsWith(reserved));
  if (prefix !== undefined) return `must not start with ${prefix}, which S3 reserves`;
  const suffix = RESERVED_SUFFIXES.find((reserved) => name.endsWith(reserved));
  if (suffix !== undefined) return `must not end with ${suffix}, which S3 reserves`;
  return null;
}
