import { describe, expect, it } from "vitest";
import { Ledger } from "../../../bench/kill_ledger.js";

const KEY = "a/key";

function put(ledger: Ledger, sizeBytes: number | null, acknowledged = true): Buffer | null {
  const version = ledger.begin(KEY, sizeBytes);
  if (acknowledged) ledger.acknowledge(KEY, version);
  return sizeBytes === null ? null : ledger.content(KEY, version, sizeBytes);
}

describe("the ledger of the kill benchmark", () => {
  it.each([0, 1, 7, 12, 16, 100, 5000])(
    "takes an acknowledged object of %d bytes, and no other",
    (sizeBytes) => {
      const ledger = new Ledger(3);
      expect(ledger.judge(KEY, null)).toBeNull();
      const bytes = put(ledger, sizeBytes);
      expect(ledger.judge(KEY, bytes)).toBeNull();
      expect(ledger.exists(KEY)).toBe(true);
      expect(ledger.judge(KEY, null)).toMatchObject({ kind: "lost", key: KEY });
      if (sizeBytes > 0) {
        const flipped = Buffer.from(bytes as Buffer);
        flipped[sizeBytes - 1] = (flipped[sizeBytes - 1] as number) ^ 1;
        const failure = ledger.judge(KEY, flipped);
        expect(failure).not.toBeNull();
        // Of very short objects the version cannot be told.
        if (sizeBytes >= 16) expect(failure?.kind).toBe("torn");
      }
    },
  );

  it("calls an older version lost, and a deleted one that came back", () => {
    const ledger = new Ledger(3);
    const older = put(ledger, 500);
    put(ledger, 400);
    expect(ledger.judge(KEY, older)).toMatchObject({ kind: "lost" });
    put(ledger, null);
    expect(ledger.exists(KEY)).toBe(false);
    expect(ledger.judge(KEY, older)).toMatchObject({ kind: "lost" });
    expect(ledger.judge(KEY, null)).toBeNull();
  });

  it("calls bytes of two versions torn, and bytes of another process or key", () => {
    const ledger = new Ledger(3);
    const first = put(ledger, 4096) as Buffer;
    const second = put(ledger, 4096) as Buffer;
    const mixed = Buffer.concat([second.subarray(0, 2048), first.subarray(2048)]);
    expect(ledger.judge(KEY, mixed)).toMatchObject({ kind: "torn" });
    expect(ledger.judge(KEY, second.subarray(0, 4000))).toMatchObject({ kind: "torn" });
    expect(ledger.judge(KEY, new Ledger(4).content(KEY, 2, 4096))).toMatchObject({ kind: "torn" });
    expect(ledger.judge(KEY, ledger.content("other", 2, 4096))).toMatchObject({ kind: "torn" });
    expect(ledger.judge(KEY, new Uint8Array(4096))).toMatchObject({ kind: "torn" });
    expect(ledger.judge(KEY, second)).toBeNull();
  });

  it("takes either outcome of what was not acknowledged, until one was seen", () => {
    const ledger = new Ledger(3);
    const acknowledged = put(ledger, 100);
    const first = put(ledger, 200, false);
    const second = put(ledger, 300, false);
    expect(ledger.judge(KEY, acknowledged)).toBeNull();
    expect(ledger.judge(KEY, first)).toBeNull();
    expect(ledger.judge(KEY, acknowledged)).toMatchObject({ kind: "lost" });
    expect(ledger.judge(KEY, second)).toBeNull();
    expect(ledger.judge(KEY, first)).toMatchObject({ kind: "lost" });
  });

  it("knows what may exist", () => {
    const ledger = new Ledger(3);
    put(ledger, 100);
    const deleting = ledger.begin(KEY, null);
    expect(ledger.exists(KEY)).toBeNull();
    expect(ledger.judge(KEY, null)).toBeNull();
    ledger.acknowledge(KEY, deleting);
    expect(ledger.exists(KEY)).toBe(false);
    const refused = ledger.begin(KEY, 50);
    ledger.refuse(KEY, refused);
    expect(ledger.exists(KEY)).toBe(false);
    expect(ledger.judge(KEY, ledger.content(KEY, refused, 50))).toMatchObject({ kind: "lost" });
  });
});
