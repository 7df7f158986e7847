import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Pace } from "../../../../server/namespaces/pace.js";

const seed = Number(process.env.MILLRACE_SEED ?? Date.now() % 2 ** 31);
console.log(`pace.test seed ${seed}`);

describe("Pace", () => {
  it("keeps the long-run rate whatever the sizes", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1_000, max: 1e9 }),
        fc.array(fc.integer({ min: 0, max: 1 << 20 }), { minLength: 1, maxLength: 50 }),
        (bytesPerSecond, sizes) => {
          let nowMs = 0;
          const pace = new Pace(bytesPerSecond, { monotonicMs: () => nowMs, unixMs: () => nowMs });
          for (const bytes of sizes) nowMs += pace.spend(bytes);
          const total = sizes.reduce((sum, bytes) => sum + bytes, 0);
          const atFullRateMs = (total * 1000) / bytesPerSecond;
          expect(nowMs).toBeGreaterThanOrEqual(atFullRateMs - 100 - 1e-6);
          expect(nowMs).toBeLessThanOrEqual(atFullRateMs + 1e-6);
        },
      ),
      { seed },
    );
  });

  it("never waits without a limit", () => {
    const pace = new Pace(0, { monotonicMs: () => 0, unixMs: () => 0 });
    expect(pace.spend(1e12)).toBe(0);
  });
});
