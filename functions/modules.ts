/** Finds the function that a call names, in a function worker. Modules are loaded once a process, by Node. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MillraceError } from "../client/errors.js";
import type { WorkerFunction } from "./reference.js";

const found = new Map<string, WorkerFunction>();

/**
 * The exported function. NOT_FOUND where there is no such file or export; what the module itself throws while
 * it loads is thrown as it is.
 */
export async function loadFunction(module: string, name: string): Promise<WorkerFunction> {
  const id = `${module}\n${name}`;
  const known = found.get(id);
  if (known !== undefined) return known;
  let exports: Record<string, unknown>;
  try {
    exports = (await import(module)) as Record<string, unknown>;
  } catch (error) {
    if (existsSync(fileURLToPath(module))) throw error;
    throw new MillraceError("NOT_FOUND", `no module ${module} to import ${name} from`, { cause: error });
  }
  const fn = Object.hasOwn(exports, name) ? exports[name] : undefined;
  if (typeof fn !== "function") {
    const names = Object.keys(exports).filter((key) => typeof exports[key] === "function");
    throw new MillraceError(
      "NOT_FOUND",
      `module ${module} exports no function ${JSON.stringify(name)}; ` +
        (names.length === 0 ? "it exports none" : `it exports ${names.slice(0, 20).join(", ")}`),
    );
  }
  found.set(id, fn as WorkerFunction);
  return fn as WorkerFunction;
}
