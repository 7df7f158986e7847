import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { MillraceError } from "../../../../proto/errors.js";
import {
  checkGuard,
  type Holder,
  mayAttach,
  type Need,
  type Scope,
} from "../../../../server/namespaces/guard.js";

const NAMESPACE = { name: "job", id: "0123" };
const NOW_MS = 1_000_000;
const SCOPE: Scope = {
  bucket: "job",
  prefix: "",
  readOnly: false,
  expiresUnixMs: NOW_MS + 1,
  namespaceId: "0123",
};
const NODE: Holder = { accessKey: "node", scope: null };
const bytes = (text: string) => Buffer.from(text);
const NEEDS: Need[] = [
  { of: "namespace" },
  { of: "existence" },
  { of: "everything", write: true },
  { of: "everything", write: false },
  { of: "keys", prefix: bytes("a/b"), write: true },
  { of: "keys", prefix: bytes(""), write: false },
];

function judge(scope: Partial<Scope> | null, need: Need, nowMs = NOW_MS): string {
  const holder = scope === null ? NODE : { accessKey: "session", scope: { ...SCOPE, ...scope } };
  try {
    checkGuard(NAMESPACE, holder, need, nowMs);
    return "OK";
  } catch (thrown) {
    return (thrown as MillraceError).code;
  }
}

describe("a guarded namespace", () => {
  it("is all open to the node's key", () => {
    expect(NEEDS.map((need) => judge(null, need))).toEqual(NEEDS.map(() => "OK"));
  });

  it("is shut to sessions of another, of an earlier one, and of none that was guarded", () => {
    for (const scope of [{ bucket: "job2" }, { namespaceId: "0124" }, { namespaceId: "" }]) {
      expect(NEEDS.map((need) => judge(scope, need))).toEqual(NEEDS.map(() => "PERMISSION_DENIED"));
    }
    const { namespaceId: _, ...unguarded } = SCOPE;
    expect(() =>
      checkGuard(NAMESPACE, { accessKey: "s", scope: unguarded }, { of: "namespace" }, NOW_MS),
    ).toThrow();
  });

  it("is shut from the very millisecond in which a session expires", () => {
    const need: Need = { of: "namespace" };
    expect(judge({}, need, SCOPE.expiresUnixMs - 1)).toBe("OK");
    expect(judge({}, need, SCOPE.expiresUnixMs)).toBe("UNAUTHENTICATED");
  });

  it("opens to a session as far as that goes", () => {
    const codes = (scope: Partial<Scope>) => NEEDS.map((need) => judge(scope, need));
    const no = "PERMISSION_DENIED";
    expect(codes({})).toEqual(["OK", no, "OK", "OK", "OK", "OK"]);
    expect(codes({ readOnly: true })).toEqual(["OK", no, no, "OK", no, "OK"]);
    expect(codes({ prefix: "a/" })).toEqual(["OK", no, no, no, "OK", no]);
    expect(codes({ prefix: "b" })).toEqual(["OK", no, no, no, no, no]);
  });

  it("opens exactly to keys that start with the prefix, byte by byte", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "/", "é", "\u{10ffff}"), maxLength: 5 });
    fc.assert(
      fc.property(text, text, (prefix, key) => {
        const right = bytes(key).subarray(0, bytes(prefix).length).equals(bytes(prefix));
        const need: Need = { of: "keys", prefix: bytes(key), write: true };
        expect(judge({ prefix }, need)).toBe(right ? "OK" : "PERMISSION_DENIED");
      }),
    );
  });

  it("shows its memory to whom all of it is open", () => {
    expect(mayAttach(NODE)).toBe(true);
    expect(mayAttach({ accessKey: "s", scope: SCOPE })).toBe(true);
    expect(mayAttach({ accessKey: "s", scope: { ...SCOPE, prefix: "a" } })).toBe(false);
  });
});
