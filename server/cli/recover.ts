/** What a node of the same state directory left behind, taken up again. */
import { MillraceError } from "../../proto/errors.js";
import type { Engine } from "../engine/engine.js";
import { type NamespaceState, type Namespaces, storeLimits } from "../namespaces/namespaces.js";
import type { Shuffles } from "../shuffles/shuffles.js";
import type { StateDirectory, StateLog } from "../state/directory.js";

export interface Recovery {
  state: StateDirectory;
  engine: Engine;
  namespaces: Namespaces;
  shuffles: Shuffles;
  log: StateLog & { error(fields: object, message: string): void };
}

/**
 * Takes up every namespace that has a journal, then removes what no journal speaks of. A namespace whose journal or
 * index does not hold is left out, its files untouched, and the others go on.
 */
export function recover({ state, engine, namespaces, shuffles, log }: Recovery): void {
  const { journals } = state;
  const journaled = journals.takeUp(({ file, line, reason }) => {
    log.error({ file, line, reason }, "a namespace is left out: its journal does not hold and was set aside");
  });
  for (const { namespace, shuffles: listed, slowest } of journaled) {
    const { name } = namespace;
    const found = recoverNamespace(engine, namespace);
    if (found instanceof MillraceError) {
      log.error(
        { namespace: name, err: found, file: journals.setAside(name) },
        "a namespace is left out: its index does not hold; its journal was set aside",
      );
      continue;
    }
    namespaces.restore(namespace);
    const lostMapOutputs = shuffles.restore(name, listed.values(), slowest);
    const { objects, torn } = found;
    const level = torn > 0 || lostMapOutputs > 0 ? "warn" : "info";
    log[level](
      {
        namespace: name,
        objects,
        torn,
        shuffles: listed.size,
        lostMapOutputs,
        leaseRemainingMs: namespaces.leaseRemainingMs(name),
      },
      "namespace recovered",
    );
  }
  const bad = journals.bad();
  if (bad.length === 0) {
    engine.removeOrphans();
    return;
  }
  log.warn(
    { files: bad },
    "memory and files that no journal speaks of are kept for as long as these journals lie here: repair or remove them",
  );
}

/** An error where what is left of the namespace does not hold; throws where this start cannot go on at all. */
function recoverNamespace(
  engine: Engine,
  namespace: NamespaceState,
): { objects: number; torn: number } | MillraceError {
  const { name, token } = namespace;
  try {
    return engine.recoverNamespace(name, token, storeLimits(namespace));
  } catch (thrown) {
    const error = MillraceError.from(thrown);
    if (error.code === "CORRUPT") return error;
    if (error.code !== "NOT_FOUND") throw error;
  }
  // Nothing was ever put into it that had to be kept, or somebody removed it.
  engine.createNamespace(name, token, storeLimits(namespace));
  return { objects: 0, torn: 0 };
}
