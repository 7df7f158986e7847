/**
 * How a function is named: the module that exports it, and the name of the export. Only names travel to a
 * function worker, never source text, so a function runs as it was written, types, imports and all.
 */
import { isAbsolute } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { MillraceError } from "../client/errors.js";
import type { CallContext } from "./context.js";
import { limits } from "./limits.js";

/** What a function worker can run. `arg` arrives as a copy of the function worker's own. */
// biome-ignore lint/suspicious/noExplicitAny: a constraint that every function of this shape has to meet
export type WorkerFunction<A = any, R = any> = (arg: A, context: CallContext) => R | Promise<R>;

declare const signature: unique symbol;

export interface FunctionName {
  /** `file:` URL of the module. */
  readonly module: string;
  /** Of the export. */
  readonly name: string;
}

/** The name of a function. The types of its argument and result are known to the compiler only. */
export interface FunctionRef<A = unknown, R = unknown> extends FunctionName {
  readonly [signature]?: (arg: A) => R;
}

const registered = Symbol("millrace.functionRef");

/** A function that knows its own name; made by `workerFunction`. */
export type RegisteredFunction<A, R> = WorkerFunction<A, R> & { readonly [registered]: FunctionRef<A, R> };

/** What `callAsync` and `map` take for a function. */
export type Callable<A, R> = FunctionRef<A, R> | RegisteredFunction<A, R>;

/** A function that takes nothing may be given anything. */
type ArgumentOf<F> = F extends (...args: infer P) => unknown
  ? P extends [infer A, ...unknown[]]
    ? A
    : unknown
  : unknown;
type ResultOf<F> = F extends (...args: never[]) => infer R ? Awaited<R> : unknown;

/**
 * Names an exported function. `module` is `import.meta.url`, another `file:` URL, or an absolute path.
 * `functionRef<typeof mySquare>(import.meta.url, "mySquare")` also carries the types.
 * Throws INVALID_ARGUMENT for anything else.
 */
export function functionRef<F = WorkerFunction<unknown, unknown>>(
  module: string | URL,
  name: string,
): FunctionRef<ArgumentOf<F>, ResultOf<F>> {
  return checkReference({ module: module instanceof URL ? module.href : module, name });
}

/**
 * Gives a function its name, so that it can be handed to an executor itself:
 *
 *     export const square = workerFunction(import.meta.url, "square", (x: number) => x * x);
 *     await executor.callAsync(square, 7);
 *
 * `name` must be the name under which the module exports it; a call says so where it is not.
 */
export function workerFunction<A, R>(
  module: string | URL,
  name: string,
  fn: WorkerFunction<A, R>,
): RegisteredFunction<A, R> {
  if (typeof fn !== "function")
    throw invalid(`workerFunction(..., ${JSON.stringify(name)}, fn): fn must be a function`);
  const reference = functionRef(module, name);
  return Object.defineProperty(fn, registered, { value: reference }) as RegisteredFunction<A, R>;
}

/** The checked name behind a callable. INVALID_ARGUMENT where it has none. */
export function referenceOf<A, R>(callable: Callable<A, R>): FunctionRef<A, R> {
  if (typeof callable === "function") {
    const reference = (callable as RegisteredFunction<A, R>)[registered];
    if (reference !== undefined) return reference;
    throw invalid(
      `function ${callable.name === "" ? "(anonymous)" : callable.name} has no module to import it from: ` +
        "pass functionRef(import.meta.url, 'exportName'), or export it through workerFunction(...)",
    );
  }
  if (typeof callable !== "object" || callable === null) {
    throw invalid("a function is named by functionRef(import.meta.url, 'exportName') or {module, name}");
  }
  return checkReference(callable);
}

function checkReference<A, R>(reference: { module: string; name: string }): FunctionRef<A, R> {
  const { module, name } = reference;
  if (typeof name !== "string" || name.length === 0 || name.length > limits.exportNameMax) {
    throw invalid(
      `the name of an exported function must be a string of 1 to ${limits.exportNameMax} characters`,
    );
  }
  if (typeof module !== "string" || module.length > limits.moduleNameMax) {
    throw invalid(`a module must be a string of at most ${limits.moduleNameMax} characters`);
  }
  if (isAbsolute(module)) return { module: pathToFileURL(module).href, name };
  if (module.startsWith("file:")) {
    try {
      fileURLToPath(module);
      return { module, name };
    } catch {
      // Falls through to the one message about modules.
    }
  }
  throw invalid(`module ${JSON.stringify(module)}: give import.meta.url, a file: URL, or an absolute path`);
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
