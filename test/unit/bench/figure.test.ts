import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { comparedFigure, isMet, plainFigure } from "../../../bench/figure.js";

describe("figures", () => {
  it("are compared as figure / rival, and not at all without a rival", () => {
    expect(comparedFigure("x", 30, "ops/s", { name: "y", figure: 10 }, null, {}).ratio).toBe(3);
    expect(comparedFigure("x", 30, "ops/s", { name: "none here", figure: null }, null, {}).ratio).toBeNull();
    expect(comparedFigure("x", 30, "ops/s", { name: "y", figure: 0 }, null, {}).ratio).toBeNull();
  });

  it.each([
    [">= 3x (stretch 10x)", 30, 10, true],
    [">= 3x (stretch 10x)", 29, 10, false],
    [">= 0.8", 8, 10, true],
    ["<= 1/1000 (stretch: the same at any size)", 1, 1000, true],
    ["<= 1/1000 (stretch: the same at any size)", 1.1, 1000, false],
  ])("a target of the ratio: %s of %d to %d is met: %s", (target, figure, rival, met) => {
    expect(isMet(comparedFigure("x", figure, "us", { name: "y", figure: rival }, target, {}))).toBe(met);
  });

  it.each([
    ["<= 2 us (stretch 1 us)", 1.9, true],
    ["<= 2 us (stretch 1 us)", 2.1, false],
    [">= 200,000 us", 200_001, true],
    [">= 200,000 us", 199_999, false],
  ])("a target of the figure: %s of %d is met: %s", (target, figure, met) => {
    // Whatever the ratio is.
    for (const rival of [1, 1e9]) {
      expect(isMet(comparedFigure("x", figure, "us", { name: "y", figure: rival }, target, {}))).toBe(met);
    }
  });

  it("have no verdict without a target, or without the rival that it asks for", () => {
    expect(isMet(plainFigure("x", 1, "us", null, {}))).toBeNull();
    expect(isMet(plainFigure("x", 1, "us", "as fast as can be", {}))).toBeNull();
    expect(isMet(comparedFigure("x", 1, "us", { name: "missing", figure: null }, ">= 3x", {}))).toBeNull();
  });

  it("reach a target of the ratio exactly where the ratio does", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
        fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
        fc.integer({ min: 1, max: 100 }),
        (figure, rival, bound) => {
          const at = (target: string) =>
            isMet(comparedFigure("x", figure, "B/s", { name: "y", figure: rival }, target, {}));
          expect(at(`>= ${bound}x`)).toBe(figure / rival >= bound);
          expect(at(`<= ${bound}x`)).toBe(figure / rival <= bound);
        },
      ),
    );
  });
});
