import { serialize } from "node:v8";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { limits } from "../../../functions/limits.js";
import {
  decodeArgument,
  decodeResult,
  encodeArgument,
  encodeResult,
  fill,
  findInArgument,
  withHoles,
} from "../../../functions/values.js";

class Marker {
  constructor(readonly item: unknown) {}
}
const isMarker = (value: unknown): value is Marker => value instanceof Marker;
const noStore = () => Promise.reject(new Error("no store"));

/** Replaces markers by what they stand for, the slow and plain way. */
function replaced(value: unknown): unknown {
  if (isMarker(value)) return value.item;
  if (Array.isArray(value)) return value.map(replaced);
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, element]) => [key, replaced(element)]));
  }
  return value;
}

function send(argument: unknown): Promise<unknown> {
  const found = findInArgument(argument, isMarker);
  const holes = found.map(({ path, item }) => ({ path, value: { inline: serialize(item.item) } }));
  const bytes = encodeArgument(
    withHoles(
      argument,
      found.map(({ path }) => path),
    ),
    holes,
  );
  return decodeArgument(bytes, noStore);
}

describe("arguments", () => {
  it("arrive equal, with every marker replaced, whatever their shape", async () => {
    const leaf = fc.oneof(
      fc.integer(),
      fc.string(),
      fc.constant(null),
      fc.constant(undefined),
      fc.uint8Array({ maxLength: 8 }),
      fc.anything({ maxDepth: 1 }).map((item) => new Marker(structuredClone(serializable(item)))),
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.array(tie("tree"), { maxLength: 4 }),
        fc.dictionary(fc.string({ maxLength: 3 }), tie("tree"), { maxKeys: 4, noNullPrototype: true }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(tree, async (argument) => {
        const before = structuredClone(serializable(replaced(argument)));
        expect(await send(argument)).toEqual(replaced(argument));
        // The caller's own value is left as it was.
        expect(serializable(replaced(argument))).toEqual(before);
      }),
      { verbose: 1 },
    );
  });

  it("keep what structured values hold: maps, sets, dates, typed arrays, shared parts and cycles", async () => {
    const shared = { inside: new Marker(7) };
    const cyclic: Record<string, unknown> = {
      map: new Map([[1, new Set(["a"])]]),
      at: new Date(5),
      floats: Float64Array.of(1, 2),
      big: 2n ** 70n,
      a: shared,
      b: [shared],
    };
    cyclic.self = cyclic;
    const got = (await send(cyclic)) as typeof cyclic & { a: { inside: number }; b: unknown[] };
    expect(got.self).toBe(got);
    expect(got.a).toBe(got.b[0]);
    expect(got.a.inside).toBe(7);
    expect(got.map).toEqual(cyclic.map);
    expect(got.floats).toEqual(cyclic.floats);
    expect(got.big).toBe(2n ** 70n);
    expect(isMarker(shared.inside)).toBe(true);
  });

  it("take a key named __proto__ for a key", async () => {
    const argument = JSON.parse('{"__proto__": {"polluted": true}}') as Record<string, unknown>;
    argument.m = new Marker(1);
    const got = (await send(argument)) as Record<string, unknown>;
    expect(Object.keys(got).sort()).toEqual(["__proto__", "m"]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it("are refused where they cannot travel or are nested too deep", () => {
    expect(() => encodeArgument(() => 0, [])).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    let deep: unknown = 0;
    for (let level = 0; level <= limits.argumentDepthMax + 1; level++) deep = [deep];
    expect(() => findInArgument(deep, isMarker)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });

  it("fail where a hole has no place", () => {
    expect(() => fill({ a: 1 }, ["b", "c"], 0)).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
    expect(() => fill(3, ["b"], 0)).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
    expect(() => fill({}, ["__proto__", "x"], 0)).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
  });
});

it("results come back as they were", () => {
  expect(decodeResult(encodeResult(new Map([["k", Uint8Array.of(1, 2)]])))).toEqual(
    new Map([["k", Uint8Array.of(1, 2)]]),
  );
  expect(decodeResult(encodeResult(undefined))).toBeUndefined();
});

/** fast-check's `anything` may hold what does not serialize; its JSON form always does. */
function serializable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return String(value);
  }
}
