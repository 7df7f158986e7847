import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  balancedWeights,
  cutsOf,
  evenRanges,
  featuresPerNode,
  fixedPointOf,
} from "../../../../../workloads/ml/forest/plan.js";

describe("evenRanges", () => {
  it("covers everything once, in order, in no more parts than asked for", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1000), { maxLength: 60 }),
        fc.integer({ min: 1, max: 20 }),
        (sizes, parts) => {
          const ranges = evenRanges(sizes, parts);
          expect(ranges.length).toBeLessThanOrEqual(parts);
          expect(ranges.every(({ count }) => count > 0)).toBe(true);
          expect(
            ranges.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)),
          ).toEqual(sizes.map((_, i) => i));
        },
      ),
    );
  });

  it("is even", () => {
    expect(evenRanges([1, 1, 1, 1, 1, 1], 3)).toEqual([
      { first: 0, count: 2 },
      { first: 2, count: 2 },
      { first: 4, count: 2 },
    ]);
    expect(evenRanges([9, 1, 1, 1], 2)).toEqual([
      { first: 0, count: 1 },
      { first: 1, count: 3 },
    ]);
    expect(cutsOf(evenRanges([1, 1, 1], 2))).toEqual(Uint32Array.of(0, 2, 3));
  });
});

it("features of a node", () => {
  expect(featuresPerNode("sqrt", 784)).toBe(28);
  expect(featuresPerNode("third", 10)).toBe(3);
  expect(featuresPerNode("third", 2)).toBe(1);
  expect(featuresPerNode("all", 5)).toBe(5);
  expect(featuresPerNode(9, 5)).toBe(5);
});

it("balanced classes weigh the same in all", () => {
  expect(balancedWeights([10, 30, 0])).toEqual([2, 40 / 60, 1]);
});

describe("fixedPointOf", () => {
  it("leaves room for the sum of all rows", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 28 }),
        fc.double({ min: -1e30, max: 1e30, noNaN: true }),
        fc.double({ min: 0, max: 1e30, noNaN: true }),
        (rows, min, width) => {
          const max = min + width;
          const { center, scale } = fixedPointOf({ rows, min, max });
          const most = Math.max(Math.abs((min - center) * scale), Math.abs((max - center) * scale));
          expect(most * rows * 12).toBeLessThan(2 ** 62);
        },
      ),
    );
  });

  it("is fine where there are few rows", () => {
    const { center, scale } = fixedPointOf({ rows: 1000, min: 0, max: 1 });
    expect(center).toBe(0.5);
    expect(scale).toBeGreaterThanOrEqual(2 ** 40);
  });
});
