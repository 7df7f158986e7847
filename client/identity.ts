/** Whether a namespace is still the one that a handle was opened for. */
import { loadContract } from "../proto/load.js";
import type { ControlChannel } from "./control.js";
import { MillraceError } from "./errors.js";

/**
 * Rejects with NAMESPACE_GONE unless the namespace is still the one of the token: it may have ended, and another
 * may bear its name by now, whose bytes are none of this handle's business.
 */
export async function checkNamespaceLives(
  channel: ControlChannel,
  name: string,
  token: Uint8Array,
): Promise<void> {
  const found = await channel
    .unary(loadContract().namespaces.OpenNamespace, { name }, { failFast: true })
    .catch((error: MillraceError) => {
      if (error.code === "NOT_FOUND") return null;
      throw error;
    });
  if (found === null || !Buffer.from(token).equals(found.token)) {
    const why = "its lease lapsed, it was deleted, or its node was restarted without its state";
    throw new MillraceError("NAMESPACE_GONE", `namespace ${name} is gone: ${why}`);
  }
}
