import { describe, expect, it } from "vitest";
import { makeModel, parseModel } from "../../../../../workloads/ml/cocoa/model.js";
import type { Dataset } from "../../../../../workloads/ml/dataset.js";

const dataset: Dataset = {
  rows: 3,
  features: 2,
  sparse: false,
  columns: [
    { name: "length", kind: "numeric", categories: [] },
    { name: "colour", kind: "categorical", categories: ["blue", "red"] },
  ],
  label: { kind: "classes", classes: ["no", "yes"] },
  blocks: [],
  bad: { count: 0, first: [] },
};

const model = makeModel(dataset, {
  loss: "hinge",
  penalty: "l2",
  lambda: 0.1,
  positive: "yes",
  unitRows: true,
  intercept: true,
  weights: [0.5, -1, 2, 0.25],
  trained: {
    rows: 3,
    rounds: 4,
    partitions: 1,
    mode: "add",
    seed: 1,
    primal: 0.5,
    dual: 0.4999,
    gap: 0.0001,
  },
});

describe("parseModel", () => {
  it("reads what was written", () => {
    expect(parseModel(JSON.stringify(model), "m.json")).toEqual(model);
  });

  it.each([
    ["no JSON", "{", /no JSON/],
    ["another format", JSON.stringify({ format: "millrace-forest" }), /no CoCoA model/],
    ["another version", JSON.stringify({ ...model, version: 2 }), /version 2/],
    ["another loss", JSON.stringify({ ...model, loss: "huber" }), /loss/],
    ["a penalty that is none", JSON.stringify({ ...model, penalty: "l0" }), /penalty/],
    ["columns that are none", JSON.stringify({ ...model, columns: [{ name: 1 }] }), /columns/],
    [
      "numbers with categories",
      JSON.stringify({ ...model, columns: [{ name: "a", kind: "numeric", categories: ["b"] }] }),
      /columns/,
    ],
    ["a positive class that is none", JSON.stringify({ ...model, positive: "perhaps" }), /positive/],
    ["too few weights", JSON.stringify({ ...model, weights: [1, 2, 3] }), /needs 4 weights/],
    ["weights that are no numbers", JSON.stringify({ ...model, weights: [1, 2, 3, null] }), /finite/],
    ["no flags", JSON.stringify({ ...model, intercept: "yes" }), /booleans/],
    ["nothing on its training", JSON.stringify({ ...model, trained: null }), /trained/],
  ])("refuses %s", (_, text, message) => {
    expect(() => parseModel(text, "m.json")).toThrow(expect.objectContaining({ code: "CORRUPT" }));
    expect(() => parseModel(text, "m.json")).toThrow(message);
  });
});
