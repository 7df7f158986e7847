/** Forests as files: what is written is read back, and what is none is told. */
import { describe, expect, it } from "vitest";
import {
  encodeForest,
  type ForestModel,
  modelText,
  parseModel,
} from "../../../../../workloads/ml/forest/model.js";

type Loose = Record<string, unknown>;

function model(): ForestModel {
  return {
    format: "millrace-forest",
    version: 1,
    columns: [
      { name: "a", kind: "numeric", categories: [] },
      { name: "b", kind: "categorical", categories: ["x", "y", "z"] },
    ],
    label: { kind: "classes", classes: ["no", "yes"] },
    sparse: false,
    trained: {
      rows: 10,
      seed: 1,
      bins: 8,
      criterion: "gini",
      featuresPerNode: 1,
      minLeaf: 1,
      maxDepth: 64,
      bagging: true,
    },
    classWeights: [],
    importances: [0.5, 0.5],
    trees: [
      {
        feature: [0, -1, 1, 0, -1, -1, -1],
        right: [2, 0, 6, 5, 0, 0, 0],
        threshold: [1.5, 0, 2.25],
        missingLeft: [1, 0, 0],
        sets: [[0, 2]],
        ends: [1, 2, 4, 5],
        classes: [0, 1, 0, 1, 1],
        rows: [3, 2, 1, 2, 4],
      },
    ],
  };
}

function text(value: unknown): string {
  return JSON.stringify(value);
}

/** The model with something of its tree put differently. */
function withTree(changes: Loose): string {
  const changed = model() as unknown as { trees: Loose[] };
  changed.trees[0] = { ...changed.trees[0], ...changes };
  return text(changed);
}

describe("a forest's file", () => {
  it("is read as it was written", () => {
    const written = [...modelText(model())].join("");
    expect(parseModel(written, "m.json")).toEqual(model());
    const two = { ...model(), trees: [...model().trees, ...model().trees] };
    expect(parseModel([...modelText(two)].join(""), "m.json")).toEqual(two);
  });

  it("is encoded with all of its nodes, leaves and sets", () => {
    const bytes = encodeForest(model());
    // Header and starts, 7 nodes of 24 bytes, 5 entries of 16, a set of one word and its count.
    expect(bytes.length).toBe(56 + 8 + 7 * 24 + 5 * 16 + 8);
  });

  it.each<[string, Loose]>([
    ["a right child before its parent", { right: [2, 0, 1, 5, 0, 0, 0] }],
    ["a right child that is the left one", { right: [1, 0, 6, 5, 0, 0, 0] }],
    ["a right child beyond the end", { right: [7, 0, 6, 5, 0, 0, 0] }],
    ["a right child within its sibling", { right: [2, 0, 5, 6, 0, 0, 0] }],
    ["two parents of a node", { right: [2, 0, 5, 5, 0, 0, 0] }],
    ["a leaf with a child", { right: [2, 3, 6, 5, 0, 0, 0] }],
    ["nodes that are missing", { feature: [0, -1, 1, 0, -1, -1], right: [2, 0, 5, 4, 0, 0] }],
    ["an unknown column", { feature: [0, -1, 2, 0, -1, -1, -1] }],
    ["a column that is no number", { feature: [0, -1, "1", 0, -1, -1, -1] }],
    ["no nodes", { feature: [], right: [] }],
    ["too few thresholds", { threshold: [1.5, 0] }],
    ["a threshold that is none", { threshold: [null, 0, 2.25] }],
    ["a set that is not there", { threshold: [1.5, 1, 2.25] }],
    ["half a set", { threshold: [1.5, 0.5, 2.25] }],
    ["a category that is not there", { sets: [[0, 3]] }],
    ["a set out of order", { sets: [[2, 0]] }],
    ["a side of missing values that is none", { missingLeft: [1, 0, 2] }],
    ["leaves that end before they begin", { ends: [1, 2, 2, 5] }],
    ["leaves that leave entries over", { ends: [1, 2, 3, 4] }],
    ["an unknown class", { classes: [0, 1, 0, 1, 2] }],
    ["a leaf without rows", { rows: [3, 2, 1, 0, 4] }],
  ])("is refused for %s", (_, changes) => {
    expect(() => parseModel(withTree(changes), "m.json")).toThrow(
      expect.objectContaining({ code: "CORRUPT", message: expect.stringMatching(/^m\.json: tree 0: /) }),
    );
  });

  it.each<[string, unknown]>([
    ["no JSON", "{"],
    ["another format", text({ ...model(), format: "millrace-cocoa" })],
    ["a later version", text({ ...model(), version: 2 })],
    ["no trees", text({ ...model(), trees: [] })],
    ["no columns", text({ ...model(), columns: [] })],
    ["a column of no kind", text({ ...model(), columns: [{ name: "a", kind: "x", categories: [] }] })],
    ["no classes", text({ ...model(), label: { kind: "classes", classes: [] } })],
    ["a weight that is none", text({ ...model(), classWeights: [1, 0] })],
    ["too few weights", text({ ...model(), classWeights: [1] })],
    ["importances of others", text({ ...model(), importances: [1] })],
    ["a list", "[]"],
    ["null", "null"],
  ])("is refused for %s", (_, written) => {
    expect(() => parseModel(written as string, "m.json")).toThrow(
      expect.objectContaining({ code: "CORRUPT", message: expect.stringMatching(/^m\.json: /) }),
    );
  });
});
