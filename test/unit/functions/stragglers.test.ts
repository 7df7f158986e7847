import { describe, expect, it } from "vitest";
import { Queue } from "../../../functions/queue.js";
import { lateAfterMs, median } from "../../../functions/stragglers.js";

const policy = { factor: 3, minDoneFraction: 0.75, minRunMs: 100 };

describe("stragglers", () => {
  it("are unknown until enough of the map is done", () => {
    expect(lateAfterMs(policy, [], 4)).toBeNull();
    expect(lateAfterMs(policy, [200, 200], 4)).toBeNull();
    expect(lateAfterMs(policy, [200, 200, 200], 4)).toBe(600);
    expect(lateAfterMs({ ...policy, minDoneFraction: 0 }, [], 4)).toBeNull();
  });

  it("never count before the least run time", () => {
    expect(lateAfterMs(policy, [1, 1, 1, 1], 5)).toBe(100);
  });

  it("are measured against the median, which outliers do not move", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([10, 9, 1, 5])).toBe(7);
    expect(lateAfterMs(policy, [100, 100, 100, 100_000], 5)).toBe(300);
  });
});

it("the queue is first in, first out, tried ones first", () => {
  const queue = new Queue<number>();
  for (let item = 0; item < 5_000; item++) queue.push(item);
  queue.pushUrgent(-2);
  queue.pushUrgent(-1);
  const got: number[] = [];
  for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
    got.push(item);
    if (item === 2_000) queue.push(5_000);
    if (item === 2_001) queue.pushUrgent(-3);
  }
  expect(got.slice(0, 3)).toEqual([-2, -1, 0]);
  expect(got[2_004]).toBe(-3);
  expect(got.filter((item) => item >= 0)).toEqual(Array.from({ length: 5_001 }, (_, item) => item));
  expect(queue.size).toBe(0);
});
