/**
 * Who may do what in a guarded namespace. Pure policy: how a caller proves who it is, is for its door to check.
 * Namespaces that are not guarded are nobody's business here.
 */
import { MillraceError } from "../../proto/errors.js";
import type { LiveNamespace } from "./namespaces.js";

/** What session credentials are good for. */
export interface Scope {
  readonly bucket: string;
  /** Of the keys; "": all of them. */
  readonly prefix: string;
  readonly readOnly: boolean;
  readonly expiresUnixMs: number;
  /**
   * `id` of the guarded namespace that they were issued for: whoever had the run of an earlier namespace of the same
   * name has nothing in this one. Left out where it is not guarded.
   */
  readonly namespaceId?: string;
}

/** A caller who has proved to hold credentials: those of the node (scope null), or of a session. */
export interface Holder {
  readonly accessKey: string;
  readonly scope: Scope | null;
}

/** What a call is about to do to a namespace. */
export type Need =
  /** What every holder may: to know of it, and to keep it alive. */
  | { readonly of: "namespace" }
  /** All of its keys at once, its shuffles, its memory. */
  | { readonly of: "everything"; readonly write: boolean }
  /** One key, or all that begin with it. */
  | { readonly of: "keys"; readonly prefix: Uint8Array; readonly write: boolean }
  /** Its existence. */
  | { readonly of: "existence" };

/** Throws UNAUTHENTICATED where `holder` is nobody in this namespace, PERMISSION_DENIED where it may not do this. */
export function checkGuard(
  namespace: Pick<LiveNamespace, "name" | "id">,
  holder: Holder,
  need: Need,
  nowUnixMs: number,
): void {
  const { scope } = holder;
  if (scope === null) return;
  if (scope.bucket !== namespace.name || scope.namespaceId !== namespace.id) {
    throw denied(`these credentials are not of namespace ${namespace.name}`);
  }
  if (scope.expiresUnixMs <= nowUnixMs) throw expired();
  switch (need.of) {
    case "namespace":
      return;
    case "existence":
      throw denied("only the node's own key may do this");
    case "everything":
      if (scope.prefix !== "") throw denied(`these credentials are good for ${shownScope(scope)} alone`);
      break;
    case "keys":
      if (!startsWith(need.prefix, Buffer.from(scope.prefix))) {
        throw denied(`these credentials are good for ${shownScope(scope)} alone`);
      }
      break;
  }
  if (need.write && scope.readOnly) throw denied("these credentials are good for reading alone");
}

/** Whether its holder may look at all of the namespace, and so at its memory. */
export function mayAttach({ scope }: Holder): boolean {
  return scope === null || scope.prefix === "";
}

export function unguarded(name: string): MillraceError {
  return new MillraceError(
    "UNAUTHENTICATED",
    `namespace ${name} is guarded: it asks for credentials (connect with \`credentials\`, or set MILLRACE_ACCESS_KEY, ` +
      "MILLRACE_SECRET_KEY and, of a session, MILLRACE_SESSION_TOKEN)",
  );
}

export function expired(): MillraceError {
  return new MillraceError("UNAUTHENTICATED", "these credentials have expired; have others issued");
}

function denied(message: string): MillraceError {
  return new MillraceError("PERMISSION_DENIED", message);
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && Buffer.compare(bytes.subarray(0, prefix.length), prefix) === 0;
}

function shownScope({ prefix }: Scope): string {
  return `keys that start with ${JSON.stringify(prefix.slice(0, 100))}`;
}
