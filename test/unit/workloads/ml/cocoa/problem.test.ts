import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { orderSeed, partitionRanges } from "../../../../../workloads/ml/cocoa/plan.js";
import { lassoObjectives, ridgeObjectives } from "../../../../../workloads/ml/cocoa/problem.js";

describe("objectives", () => {
  it("of the hinge loss, by hand", () => {
    // One row x = 1, y = 1, lambda = 1: alpha = 1 is w = 1, where the loss is 0 and both sides are 1/2.
    expect(ridgeObjectives({ loss: 0, dual: 1 }, 1, 1, 1)).toEqual({ primal: 0.5, dual: 0.5, gap: 0 });
    // At alpha = 0: the loss is 1 and nothing is known.
    expect(ridgeObjectives({ loss: 1, dual: 0 }, 1, 1, 0)).toEqual({ primal: 1, dual: 0, gap: 1 });
  });

  it("of the lasso of one feature, by hand", () => {
    // A = (1, 1), y = (1, 3): the slope at w is w - 2, so the optimum for lambda = 1/2 is w = 3/2.
    const y = [1, 3];
    const at = (w: number) => {
      const r = y.map((value) => w - value);
      return lassoObjectives(
        { absolute: Math.abs(w), steepest: Math.abs((r[0] as number) + (r[1] as number)) / 2 },
        2,
        0.5,
        {
          square: r.reduce((sum, value) => sum + value * value, 0),
          timesLabels: r.reduce((sum, value, i) => sum + value * (y[i] as number), 0),
        },
      );
    };
    expect(at(1.5).gap).toBeCloseTo(0, 12);
    expect(at(0).primal).toBeCloseTo(10 / 4, 12);
    fc.assert(
      fc.property(fc.double({ min: -10, max: 10, noNaN: true }), (w) => {
        const { gap, primal, dual } = at(w);
        expect(gap).toBeGreaterThanOrEqual(-1e-9);
        expect(primal).toBeGreaterThanOrEqual(at(1.5).primal - 1e-12);
        expect(dual).toBeLessThanOrEqual(at(1.5).dual + 1e-9);
      }),
    );
  });
});

describe("partitionRanges", () => {
  it("gives every partition to one call, the calls about the same number", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 500 }),
        fc.integer({ min: 1, max: 64 }),
        (partitions, workers) => {
          const ranges = partitionRanges(partitions, workers);
          expect(
            ranges.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)),
          ).toEqual(Array.from({ length: partitions }, (_, i) => i));
          const counts = ranges.map(({ count }) => count);
          expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
          expect(ranges.length).toBeLessThanOrEqual(workers);
        },
      ),
    );
  });
});

describe("orderSeed", () => {
  it("is a safe integer of its own for every round and partition", () => {
    const plan = { seed: 2 ** 31 - 1, partitions: 64 };
    const seeds = new Set<number>();
    for (let round = 0; round < 100; round += 1) {
      for (let k = 0; k < plan.partitions; k += 1) seeds.add(orderSeed(plan, round, k));
    }
    expect(seeds.size).toBe(6400);
    expect(Math.max(...seeds)).toBeLessThan(2 ** 53);
    expect(orderSeed({ seed: 1, partitions: 8 }, 0, 0)).not.toBe(orderSeed({ seed: 2, partitions: 8 }, 0, 0));
  });
});
