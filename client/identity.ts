/** Whether a namespace is still the one that a handle was opened for. */
import { loadContract } from "../proto/load.js";
import type { NamespaceMessage } from "../proto/messages.js";
import type { ControlChannel } from "./control.js";
import { MillraceError } from "./errors.js";

/**
 * The namespace as the node describes it now. Rejects with NAMESPACE_GONE unless it is still the one with that `id`: it
 * may have ended, and another may bear its name by now, whose bytes are none of this handle's business.
 */
export async function reopenNamespace(
  channel: ControlChannel,
  name: string,
  id: string,
): Promise<NamespaceMessage> {
  const found = await channel
    .unary(loadContract().namespaces.OpenNamespace, { name }, { failFast: true })
    .catch((error: MillraceError) => {
      if (error.code === "NOT_FOUND") return null;
      throw error;
    });
  if (found === null || found.id !== id) {
    const why = "its lease lapsed, it was deleted, or its node was restarted without its state";
    throw new MillraceError("NAMESPACE_GONE", `namespace ${name} is gone: ${why}`);
  }
  return found;
}
