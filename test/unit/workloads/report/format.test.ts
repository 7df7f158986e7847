import { expect, it } from "vitest";
import { formatBytes, formatCount, formatSeconds, formatShare } from "../../../../workloads/report/format.js";

it("bytes", () => {
  expect([0, 999, 1000, 999_600, 1_000_000_000, 12_345_678].map(formatBytes)).toEqual([
    "0 B",
    "999 B",
    "1.00 kB",
    "1.00 MB",
    "1.00 GB",
    "12.3 MB",
  ]);
});

it("seconds", () => {
  expect([0, 0.00005, 0.0421, 0.99999, 1.234, 123.4].map(formatSeconds)).toEqual([
    "0 s",
    "50.0 µs",
    "42.1 ms",
    "1.00 s",
    "1.23 s",
    "123 s",
  ]);
});

it("counts and shares", () => {
  expect(formatCount(10_000_000)).toBe("10,000,000");
  expect(formatShare(0.1234)).toBe("12.3 %");
});
