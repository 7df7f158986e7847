import fc from "fast-check";
import { expect, it } from "vitest";
import {
  callRanges,
  defaultPartitions,
  PARTITIONS_MAX,
  sampleRecords,
} from "../../../../workloads/sort/plan.js";

it("calls cover every piece once, in order, and take less and less", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 500 }),
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 32 }),
      (sizes, workers, countMax) => {
        const ranges = callRanges(sizes, workers, countMax);
        const covered = ranges.flatMap(({ first, count }) =>
          Array.from({ length: count }, (_, i) => first + i),
        );
        expect(covered).toEqual(sizes.map((_, i) => i));
        expect(ranges.filter(({ count }) => count < 1 || count > countMax)).toEqual([]);
        let left = sizes.reduce((sum, size) => sum + size, 0);
        for (const { first, count } of ranges) {
          const taken = sizes.slice(first, first + count).reduce((sum, size) => sum + size, 0);
          if (count > 1) expect(taken).toBeLessThanOrEqual(left / (2 * workers));
          left -= taken;
        }
      },
    ),
    { numRuns: 50 },
  );
});

it("partitions follow the size of the input, and never outnumber its records", () => {
  expect(defaultPartitions(0, 2)).toBe(1);
  expect(defaultPartitions(1, 2)).toBe(1);
  expect(defaultPartitions(1000, 4)).toBe(4);
  expect(defaultPartitions(2 ** 40, 4)).toBe(PARTITIONS_MAX);
  expect(defaultPartitions(10_000_000, 2)).toBeGreaterThan(16);
});

it("one partition needs no sample", () => {
  expect(sampleRecords(1)).toBe(0);
  expect(sampleRecords(2)).toBeGreaterThan(1000);
});
