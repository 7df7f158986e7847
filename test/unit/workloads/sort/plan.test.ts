import fc from "fast-check";
import { expect, it } from "vitest";
import {
  defaultPartitions,
  PARTITIONS_MAX,
  reduceRanges,
  sampleRecords,
} from "../../../../workloads/sort/plan.js";

it("reduce calls cover every partition once, in order, and get smaller", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5_000 }),
      fc.integer({ min: 1, max: 64 }),
      (partitions, workers) => {
        const ranges = reduceRanges(partitions, workers);
        const covered = ranges.flatMap(({ first, count }) =>
          Array.from({ length: count }, (_, i) => first + i),
        );
        expect(covered).toEqual(Array.from({ length: partitions }, (_, i) => i));
        expect(ranges.filter(({ count }, i) => count > (ranges[i - 1]?.count ?? count))).toEqual([]);
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
