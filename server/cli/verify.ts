/** `millrace doctor --verify`: whether a running node's objects are still the bytes that were sealed. */

import { MillraceError } from "../../proto/errors.js";
import { loadContract } from "../../proto/load.js";
import { type ConnectionFlags, withControl } from "./connection.js";
import { printJson, printTable } from "./output.js";
import { formatSize } from "./values.js";

export interface VerifiedNamespace {
  namespace: string;
  /** Objects, and their bytes. */
  checked: number;
  sizeBytes: number;
  damaged: Damage[];
}

export interface Damage {
  key: string;
  segment: number;
  message: string;
}

/** With keys as text. */
export function readable(
  damaged: readonly { key: Uint8Array; segment: number; message: string }[],
): Damage[] {
  return damaged.map(({ key, segment, message }) => ({ key: Buffer.from(key).toString(), segment, message }));
}

/** Prints what is found, and ends with CORRUPT where anything is damaged. */
export async function verifyNode(flags: ConnectionFlags): Promise<void> {
  reportVerified(await withControl(flags, verifyAll), flags);
}

async function verifyAll(
  channel: Parameters<Parameters<typeof withControl>[1]>[0],
): Promise<VerifiedNamespace[]> {
  const { namespaces, nodes } = loadContract();
  const list = await channel.unary(namespaces.ListNamespaces, {}, { idempotent: true });
  const verified: VerifiedNamespace[] = [];
  for (const { name: namespace } of list.namespaces) {
    try {
      const settings = { timeoutMs: 0, failFast: true };
      const { checked, sizeBytes, damaged } = await channel.unary(nodes.Verify, { namespace }, settings);
      verified.push({ namespace, checked, sizeBytes, damaged: readable(damaged) });
    } catch (thrown) {
      // It ended meanwhile, as namespaces do.
      if (!["NOT_FOUND", "NAMESPACE_GONE"].includes(MillraceError.from(thrown).code)) throw thrown;
    }
  }
  return verified;
}

function reportVerified(verified: readonly VerifiedNamespace[], flags: { json?: boolean }): void {
  const sum = (of: (one: VerifiedNamespace) => number) => verified.reduce((total, one) => total + of(one), 0);
  const checked = sum((one) => one.checked);
  const sizeBytes = sum((one) => one.sizeBytes);
  const damaged = sum((one) => one.damaged.length);
  if (flags.json) {
    printJson({ checked, sizeBytes, damaged, namespaces: verified });
  } else {
    process.stdout.write(
      `${checked} objects of ${verified.length} namespaces checked, ${formatSize(sizeBytes)}, ${damaged} damaged\n`,
    );
    printDamage(verified);
  }
  if (damaged > 0) throw new MillraceError("CORRUPT", `${damaged} of ${checked} objects are damaged`);
}

/** A row an object. */
export function printDamage(verified: readonly Pick<VerifiedNamespace, "namespace" | "damaged">[]): void {
  const rows = verified.flatMap(({ namespace, damaged }) =>
    damaged.map(({ key, segment, message }) => [namespace, key, String(segment), message]),
  );
  if (rows.length > 0) printTable([["NAMESPACE", "KEY", "SEGMENT", "WHAT IS WRONG"], ...rows]);
}
