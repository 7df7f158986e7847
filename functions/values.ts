/**
 * Arguments and results as bytes. An argument may hold futures anywhere in its plain arrays and objects; it
 * travels with a hole (null) at each, beside the list of holes and what belongs there:
 *
 *     argument bytes = v8.serialize({ value, holes: [{ path, value: EncodedValue }, ...] })
 *     result bytes   = v8.serialize(value)
 *
 * So the result of one call becomes the input of another without passing through the driver: where it lies in
 * the store, only its key travels.
 */
import { deserialize, serialize } from "node:v8";
import { MillraceError } from "../client/errors.js";
import { limits } from "./limits.js";
import type { EncodedValue } from "./protocol.js";

/** Array indices and object keys that lead from an argument to one of its places; [] is the argument itself. */
export type Path = readonly (string | number)[];

export interface Hole {
  readonly path: Path;
  readonly value: EncodedValue;
}

export interface Found<T> {
  readonly path: Path;
  readonly item: T;
}

/** Every place in `argument` where `isItem` holds, searched through plain arrays and objects. */
export function findInArgument<T>(argument: unknown, isItem: (value: unknown) => value is T): Found<T>[] {
  const found: Found<T>[] = [];
  const seen = new Set<object>();
  const path: (string | number)[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    if (isItem(value)) {
      found.push({ path: [...path], item: value });
      return;
    }
    const isArray = Array.isArray(value);
    // A value reached by two ways keeps its identity when it travels, so filling it once is enough.
    if ((!isArray && !isPlainObject(value)) || seen.has(value)) return;
    if (path.length >= limits.argumentDepthMax) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `an argument is nested deeper than ${limits.argumentDepthMax} levels`,
      );
    }
    seen.add(value);
    if (isArray) {
      for (let index = 0; index < value.length; index++) {
        const element: unknown = value[index];
        if (typeof element !== "object") continue;
        path.push(index);
        visit(element);
        path.pop();
      }
    } else {
      for (const key of Object.keys(value)) {
        const element = (value as Record<string, unknown>)[key];
        if (typeof element !== "object") continue;
        path.push(key);
        visit(element);
        path.pop();
      }
    }
  };
  visit(argument);
  return found;
}

/** A copy of the arrays and objects of `argument`, with null at the paths; shared parts stay shared. */
export function withHoles(argument: unknown, paths: readonly Path[]): unknown {
  if (paths.some((path) => path.length === 0)) return null;
  const copies = new Map<object, unknown>();
  const copy = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    const isArray = Array.isArray(value);
    if (!isArray && !isPlainObject(value)) return value;
    const known = copies.get(value);
    if (known !== undefined) return known;
    const made: Record<string | number, unknown> = isArray ? ([] as unknown as Record<number, unknown>) : {};
    copies.set(value, made);
    for (const key of Object.keys(value)) setOwn(made, key, copy((value as Record<string, unknown>)[key]));
    if (isArray) (made as unknown as unknown[]).length = value.length;
    return made;
  };
  const root = copy(argument);
  for (const path of paths) fill(root, path, null);
  return root;
}

/** Puts `item` at `path` of `root`; returns the root, which is the item itself where the path is []. */
export function fill(root: unknown, path: Path, item: unknown): unknown {
  if (path.length === 0) return item;
  let place = root as Record<string | number, unknown>;
  for (const step of path.slice(0, -1)) {
    const next = Object.hasOwn(place, step) ? place[step] : undefined;
    if (typeof next !== "object" || next === null) throw badPath();
    place = next as Record<string | number, unknown>;
  }
  if (typeof place !== "object" || place === null) throw badPath();
  setOwn(place, path[path.length - 1] as string | number, item);
  return root;
}

/** INVALID_ARGUMENT where the value cannot be serialized (functions, symbols, proxies, ...). */
export function encodeArgument(value: unknown, holes: readonly Hole[]): Uint8Array {
  return encode({ value, holes }, "argument");
}

/** The argument, with its holes filled from `fetch`. PROTOCOL where the bytes are not an argument. */
export async function decodeArgument(
  bytes: Uint8Array,
  fetch: (key: string) => Promise<Uint8Array>,
): Promise<unknown> {
  const parcel = deserialize(bytes) as { value: unknown; holes: Hole[] };
  if (typeof parcel !== "object" || parcel === null || !Array.isArray(parcel.holes)) {
    throw new MillraceError("PROTOCOL", "an argument that is not one");
  }
  if (parcel.holes.length === 0) return parcel.value;
  const items = await Promise.all(
    parcel.holes.map(
      async ({ value }) => deserialize("inline" in value ? value.inline : await fetch(value.key)) as unknown,
    ),
  );
  let root = parcel.value;
  parcel.holes.forEach(({ path }, index) => {
    root = fill(root, path, items[index]);
  });
  return root;
}

export function encodeResult(value: unknown): Uint8Array {
  return encode(value, "result");
}

export function decodeResult(bytes: Uint8Array): unknown {
  return deserialize(bytes);
}

function encode(value: unknown, what: string): Uint8Array {
  try {
    return serialize(value);
  } catch (error) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `the ${what} cannot be sent to another process: ${error instanceof Error ? error.message : String(error)}; ` +
        "use plain data (numbers, strings, arrays, objects, Map, Set, Date, typed arrays)",
      { cause: error },
    );
  }
}

/** Defines instead of assigning, so that a key "__proto__" stays a key. */
function setOwn(target: object, key: string | number, value: unknown): void {
  Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
}

function isPlainObject(value: object): boolean {
  // Not compared with Object.prototype, which another realm (node:vm) has one of its own of.
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function badPath(): MillraceError {
  return new MillraceError("PROTOCOL", "an argument with a hole where there is no place for one");
}
