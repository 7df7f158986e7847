/** What loading decides without looking into files. */
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Dataset } from "../../../../../workloads/ml/dataset.js";
import { acceptedLines, placesOf } from "../../../../../workloads/ml/input/csv_places.js";
import { labelPaths, ofRole } from "../../../../../workloads/ml/input/idx_pairs.js";
import { chooseNumberLabel, chooseTextLabel, mergeLabels } from "../../../../../workloads/ml/input/labels.js";
import {
  BLOCK_BYTES,
  cutBytes,
  cutRows,
  groupByWeight,
  rowsPerBlock,
} from "../../../../../workloads/ml/input/plan.js";
import { looksLikeLibsvm } from "../../../../../workloads/ml/input/sniff.js";
import { csvTypes, NUMBER_TEXT, planTable } from "../../../../../workloads/ml/input/table_plan.js";

const LIKE: Dataset = {
  rows: 1,
  features: 1,
  sparse: false,
  columns: [{ name: "Code", kind: "categorical", categories: ["a"] }],
  label: { kind: "classes", classes: ["no", "yes"] },
  labelColumn: "Answer",
  blocks: [],
  bad: { count: 0, first: [] },
};
const survey = (distinct: number[], tooMany = false) => ({
  distinct: Float64Array.from(distinct),
  tooMany,
  allWhole: distinct.every(Number.isInteger),
});
const FREE = { task: null, like: null, labelOptional: false } as const;

describe("plan", () => {
  it("cuts rows and bytes into neighbours without a gap", () => {
    fc.assert(
      fc.property(fc.nat(5_000), fc.integer({ min: 1, max: 700 }), (total, size) => {
        let at = 0;
        for (const { firstRow, rows } of cutRows(total, size)) {
          expect(firstRow).toBe(at);
          expect(rows).toBeGreaterThan(0);
          at += rows;
        }
        expect(at).toBe(total);
        expect(cutBytes(total, size).reduce((sum, { begin, end }) => sum + end - begin, 0)).toBe(total);
      }),
    );
  });

  it("groups neighbours by weight, all of them, into no more groups than asked for", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(100)), fc.integer({ min: 1, max: 9 }), (weights, count) => {
        const groups = groupByWeight(weights, (weight) => weight, count);
        expect(groups.flat()).toEqual(weights);
        expect(groups.length).toBeLessThanOrEqual(count);
        expect(groups.every((group) => group.length > 0)).toBe(true);
      }),
    );
    expect(groupByWeight([1, 1, 1, 1], (weight) => weight, 2)).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  it("makes blocks of several for each function worker, and none too large", () => {
    expect(rowsPerBlock(1_000, 10, 2)).toBe(125);
    expect(rowsPerBlock(10, 10, 8)).toBe(1);
    expect(rowsPerBlock(100_000_000, 784, 2) * (8 + 4 * 784)).toBeLessThanOrEqual(BLOCK_BYTES);
    expect(rowsPerBlock(10, 2 ** 30, 1)).toBe(1);
  });
});

describe("labels", () => {
  it("are classes where they are few whole numbers", () => {
    expect(chooseNumberLabel(survey([-1, 1]), FREE).label).toEqual({ kind: "classes", classes: ["-1", "1"] });
    expect(chooseNumberLabel(survey([0.5, 1]), FREE)).toEqual({ label: { kind: "number" }, codes: null });
    const hundred = Array.from({ length: 100 }, (_, i) => i);
    expect(chooseNumberLabel(survey(hundred), FREE).label.kind).toBe("classes");
    expect(chooseNumberLabel(survey([...hundred, 100]), FREE).label.kind).toBe("number");
    expect(chooseNumberLabel(survey([...hundred, 100]), { ...FREE, task: "classify" }).label.kind).toBe(
      "classes",
    );
    expect(() => chooseNumberLabel(survey([], true), { ...FREE, task: "classify" })).toThrow(/too many/);
    expect(chooseNumberLabel(survey([1, 2]), { ...FREE, task: "regress" }).label.kind).toBe("number");
  });

  it("of several files are those of all", () => {
    const merged = mergeLabels([survey([3, 1]), survey([1, 2.5])], 3);
    expect([...merged.distinct]).toEqual([1, 2.5, 3]);
    expect(merged).toMatchObject({ tooMany: false, allWhole: false });
    expect(mergeLabels([survey([1, 2]), survey([3, 4])], 3).tooMany).toBe(true);
  });

  it("of texts have one code each, whichever file has which", () => {
    const { label, codes } = chooseTextLabel(
      [
        ["b", "c"],
        ["a", "b"],
      ],
      FREE,
      10,
    );
    expect(label).toEqual({ kind: "classes", classes: ["a", "b", "c"] });
    expect(codes.map((each) => [...each.codes])).toEqual([
      [1, 2],
      [0, 1],
    ]);
    const unseen = { task: null, like: LIKE, labelOptional: false } as const;
    expect(() => chooseTextLabel([["maybe"]], unseen, 10)).toThrow(/maybe .*no, yes/);
    const [optional] = chooseTextLabel([["maybe", "yes"]], { ...unseen, labelOptional: true }, 10).codes;
    expect([...(optional?.codes ?? [])]).toEqual([Number.NaN, 1]);
    expect(() => chooseTextLabel([["a", "b", "c"]], FREE, 2)).toThrow(/3 distinct/);
  });
});

describe("IDX pairs", () => {
  it("go by their names", () => {
    expect(labelPaths("/d/train-images-idx3-ubyte.gz")).toEqual([
      "/d/train-labels-idx1-ubyte.gz",
      "/d/train-labels-idx1-ubyte",
    ]);
    expect(labelPaths("/images/T10K-IMAGES.IDX3")).toEqual([
      "/images/T10K-LABELS.idx1",
      "/images/T10K-LABELS.idx1.gz",
    ]);
    expect(labelPaths("/images/data")).toBeNull();
    const found = ["a/train-images", "a/t10k-images", "a/test-images"].map((path) => ({
      path,
      isFound: true,
    }));
    expect(ofRole(found, "train").map(({ path }) => path)).toEqual(["a/train-images"]);
    expect(ofRole(found, "test").map(({ path }) => path)).toEqual(["a/t10k-images", "a/test-images"]);
    const named = [{ path: "a/test-images", isFound: false }];
    expect(ofRole(named, "train")).toEqual(named);
    expect(ofRole(found.slice(1), "train")).toHaveLength(2);
  });
});

describe("sniffing", () => {
  it.each([
    ["1 1:0.5 2:3\n-1 4:1\n", true],
    ["# libsvm\n\n0\n0\n1 qid:3 7:1e-3 # a, b\n", true],
    ["1 1:1\n1 x:1\n1 2:2\n", true],
    ["a,b\n1,2\n", false],
    ["time,value\n12:30,4\n", false],
    ["time\tvalue\n1 12:30\n", false],
    ["1\n2\n", false],
    ["a 1:2,b\n", false],
  ])("%j", (text, expected) => {
    expect(looksLikeLibsvm(text, false)).toBe(expected);
  });
});

describe("tables", () => {
  const columns = [
    { name: "a", type: "BIGINT" },
    { name: "Y", type: "VARCHAR" },
    { name: "code", type: "BIGINT" },
    { name: "answer", type: "BOOLEAN" },
  ];
  it("have a label, by its name or by what such columns are called", () => {
    const plan = planTable(columns, { ...FREE, label: null });
    expect(plan.label).toMatchObject({ name: "Y", kind: "categorical" });
    expect(plan.features.map(({ name }) => name)).toEqual(["a", "code", "answer"]);
    expect(planTable(columns, { ...FREE, label: "a" }).label?.kind).toBe("numeric");
    expect(planTable(columns, { ...FREE, label: "answer" }).label?.kind).toBe("categorical");
    expect(planTable(columns, { ...FREE, label: "answer", task: "regress" }).label?.kind).toBe("numeric");
    expect(() => planTable(columns, { ...FREE, label: "z" })).toThrow(/no column z .*a, Y, code, answer/);
    expect(() => planTable([{ name: "y", type: "BIGINT" }], { ...FREE, label: null })).toThrow(
      /nothing to learn/,
    );
    const blob = [...columns, { name: "b", type: "BLOB" }];
    expect(() => planTable(blob, { ...FREE, label: null })).toThrow(/column b is BLOB/);
  });

  it("are read like the training data", () => {
    const plan = planTable(columns, { ...FREE, like: LIKE, label: null });
    expect(plan.label?.name).toBe("answer");
    expect(plan.features).toMatchObject([{ name: "code", kind: "categorical" }]);
    expect(csvTypes(columns, [], LIKE)[2]).toEqual({ name: "code", type: "VARCHAR" });
    expect(csvTypes(columns, [{ name: "Y", values: 100, numbers: 95 }], null)[1]?.type).toBe(NUMBER_TEXT);
    expect(csvTypes(columns, [{ name: "Y", values: 100, numbers: 94 }], null)[1]?.type).toBe("VARCHAR");
    expect(csvTypes(columns, [{ name: "Y", values: 0, numbers: 0 }], null)[1]?.type).toBe("VARCHAR");
  });
});

describe("places in CSV", () => {
  it("are lines and columns of bytes, and lines of rows", async () => {
    const path = join(tmpdir(), `millrace-places-${process.pid}.csv`);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.stringMatching(/^[a,]{0,5}$/), { minLength: 1, maxLength: 8 }),
        async (lines) => {
          const text = lines.join("\n");
          writeFileSync(path, text);
          const places = await placesOf(
            path,
            Array.from(text, (_, i) => ({ line: 0, position: i + 1 })),
          );
          let line = 1;
          let column = 1;
          const expected = Array.from(text, (character) => {
            const place = { line, column };
            if (character === "\n") {
              line += 1;
              column = 1;
            } else column += 1;
            return place;
          });
          expect(places).toEqual(expected);
        },
      ),
    );
    writeFileSync(path, "head\n0\nbad\nbad\n1\n2\nbad\n3");
    const read = { linesBefore: 1, accepted: 4, rejectedLines: [3, 4, 7], rows: [0, 1, 2, 3] };
    expect(await acceptedLines(path, read)).toEqual([2, 5, 6, 8]);
    expect(await acceptedLines(path, { ...read, accepted: 5 })).toBeNull();
    expect(await acceptedLines(path, { ...read, rejectedLines: null })).toBeNull();
  });
});
