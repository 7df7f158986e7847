/** Training data of every format, loaded by real function workers. */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { InputPlace } from "./ml_input_helpers.js";
import { makeTables } from "./sql_helpers.js";

let place: InputPlace;

beforeAll(async () => {
  place = await InputPlace.open();
});
afterAll(() => place[Symbol.asyncDispose]());

/** An IDX file of bytes. */
function idx(dimensions: readonly number[], values: Uint8Array, type = 0x08): Buffer {
  const head = Buffer.alloc(4 + 4 * dimensions.length);
  head[2] = type;
  head[3] = dimensions.length;
  dimensions.forEach((size, i) => {
    head.writeUInt32BE(size, 4 + 4 * i);
  });
  return Buffer.concat([head, values]);
}

const IMAGES = Uint8Array.from({ length: 50 * 6 }, (_, i) => (i * 7) % 256);
const LABELS = Uint8Array.from({ length: 50 }, (_, i) => [3, 7, 9][i % 3] as number);

describe("IDX", () => {
  it("gives the same rows compressed and not, for any number of function workers", async () => {
    const plain = place.write("plain/train-images-idx3-ubyte", idx([50, 2, 3], IMAGES));
    place.write("plain/train-labels-idx1-ubyte", idx([50], LABELS));
    const packed = place.write("packed/train-images-idx3-ubyte.gz", gzipSync(idx([50, 2, 3], IMAGES)));
    place.write("packed/train-labels-idx1-ubyte.gz", gzipSync(idx([50], LABELS)));
    const expected = Array.from({ length: 50 }, (_, row) => ({
      label: row % 3,
      values: [...IMAGES.subarray(6 * row, 6 * row + 6)],
    }));
    for (const path of [plain, packed]) {
      for (const workers of [1, 2]) {
        const dataset = await place.load(path, { workers });
        expect(dataset).toMatchObject({ rows: 50, features: 6, sparse: false });
        expect(dataset.label).toEqual({ kind: "classes", classes: ["3", "7", "9"] });
        expect(dataset.columns.map(({ name }) => name)).toEqual([0, 1, 2, 3, 4, 5].map((i) => `pixel${i}`));
        expect(dataset.blocks.length).toBeGreaterThanOrEqual(4 * workers - 1);
        expect(await place.rows(dataset)).toEqual(expected);
      }
    }
  });

  it("takes the pair of the role from a directory", async () => {
    place.write("both/train-images-idx3-ubyte", idx([50, 2, 3], IMAGES));
    place.write("both/train-labels-idx1-ubyte", idx([50], LABELS));
    place.write("both/t10k-images-idx3-ubyte", idx([10, 2, 3], IMAGES.subarray(0, 60)));
    place.write("both/t10k-labels-idx1-ubyte", idx([10], LABELS.subarray(0, 10)));
    const train = await place.load(place.at("both"));
    const test = await place.load(place.at("both"), { role: "test", like: train });
    expect([train.rows, test.rows]).toEqual([50, 10]);
    expect((await place.rows(test))[1]).toEqual({ label: 1, values: [...IMAGES.subarray(6, 12)] });
  });

  it("refuses what does not go together, and takes images alone to predict", async () => {
    const images = place.write("alone/train-images-idx3-ubyte", idx([50, 2, 3], IMAGES));
    await expect(place.load(images)).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining("train-labels-idx1-ubyte"),
    });
    const train = await place.load(place.at("plain"));
    const unknown = await place.load(images, { role: "test", like: train, labelOptional: true });
    expect((await place.rows(unknown)).every(({ label }) => Number.isNaN(label))).toBe(true);
    place.write("alone/train-labels-idx1-ubyte", idx([49], LABELS.subarray(1)));
    await expect(place.load(images)).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringMatching(/50 items and .* 49 labels/),
    });
    place.write(
      "alone/train-labels-idx1-ubyte",
      idx(
        [50],
        Uint8Array.from(LABELS, (label, i) => (i === 4 ? 5 : label)),
      ),
    );
    await expect(place.load(images, { role: "test", like: train })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("a label 5 "),
    });
    const small = place.write("small/test-images-idx3-ubyte", idx([50, 3, 1], IMAGES.subarray(0, 150)));
    place.write("small/test-labels-idx1-ubyte", idx([50], LABELS));
    await expect(place.load(small, { role: "test", like: train })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  it("tells damaged files", async () => {
    const whole = idx([50, 2, 3], IMAGES);
    const packed = gzipSync(whole);
    const cases: [Uint8Array, RegExp][] = [
      [whole.subarray(0, whole.length - 1), /ends before the last of the 50 items/],
      [Buffer.concat([whole, Buffer.of(1)]), /goes on behind the 50 items/],
      [gzipSync(whole.subarray(0, whole.length - 1)), /ends before the last of the 50 items/],
      [gzipSync(Buffer.concat([whole, Buffer.of(1)])), /goes on behind the 50 items/],
      [packed.subarray(0, packed.length - 9), /damaged gzip file/],
      [whole.subarray(0, 10), /shorter than an IDX header/],
      [idx([50, 0, 3], IMAGES), /no size that is possible/],
      [idx([50, 2 ** 31, 2 ** 31], IMAGES), /no size that is possible/],
    ];
    for (const [i, [bytes, why]] of cases.entries()) {
      const path = place.write(`damaged${i}/train-images-idx3-ubyte`, bytes);
      place.write(`damaged${i}/train-labels-idx1-ubyte`, idx([50], LABELS));
      await expect(place.load(path), `case ${i}`).rejects.toMatchObject({
        code: "CORRUPT",
        message: expect.stringMatching(why),
      });
    }
  });

  const FASHION = "/usr/share/datasets/fashion-mnist";
  it.skipIf(!existsSync(FASHION))("reads Fashion-MNIST as Debian ships it", async () => {
    const train = await place.load(FASHION);
    const test = await place.load(FASHION, { role: "test", like: train });
    expect([train.rows, train.features, test.rows]).toEqual([60_000, 784, 10_000]);
    expect(train.label).toEqual({ kind: "classes", classes: [..."0123456789"] });
    const images = gunzipSync(readFileSync(`${FASHION}/t10k-images-idx3-ubyte.gz`)).subarray(16);
    const labels = gunzipSync(readFileSync(`${FASHION}/t10k-labels-idx1-ubyte.gz`)).subarray(8);
    const rows = await place.rows(test);
    for (const row of [0, 1, 4_999, 9_999]) {
      expect(rows[row]).toEqual({
        label: labels[row],
        values: [...images.subarray(784 * row, 784 * row + 784)],
      });
    }
  });
});

describe("libsvm", () => {
  const TEXT = "# a comment\n1 1:0.5 3:-2 # note\n\n-1 qid:7 2:1e-3\n+1\n-1 1:1 2:2 3:3\n";
  const ROWS = [
    {
      label: 1,
      values: [
        [0, 0.5],
        [2, -2],
      ],
    },
    { label: 0, values: [[1, Math.fround(1e-3)]] },
    { label: 1, values: [] },
    {
      label: 0,
      values: [
        [0, 1],
        [1, 2],
        [2, 3],
      ],
    },
  ];

  it("reads sparse rows, compressed or not", async () => {
    const paths = [place.write("a.svm", TEXT), place.write("a.svm.gz", gzipSync(TEXT))];
    for (const path of paths) {
      const dataset = await place.load(path);
      expect(dataset).toMatchObject({ rows: 4, features: 3, sparse: true, bad: { count: 0 } });
      expect(dataset.label).toEqual({ kind: "classes", classes: ["-1", "1"] });
      expect(dataset.columns.map(({ name }) => name)).toEqual(["1", "2", "3"]);
      expect(await place.rows(dataset)).toEqual(ROWS);
    }
  });

  it("gives the same rows however it is cut, and names bad rows by their lines", async () => {
    const lines = Array.from({ length: 40_000 }, (_, i) => {
      if (i === 7 || i === 39_000) return `x${i} 1:1`;
      if (i === 23_456) return "2 5:nan";
      return `${i % 3} ${(i % 5) + 1}:${i} 9:${i / 8}`;
    });
    place.write("cut/1.svm", lines.slice(0, 17_000).join("\n"));
    place.write("cut/2.svm.gz", gzipSync(lines.slice(17_000).join("\r\n")));
    const [one, four] = await Promise.all([1, 4].map((workers) => place.load(place.at("cut"), { workers })));
    if (one === undefined || four === undefined) throw new Error("nothing was loaded");
    expect(four.blocks.length).toBeGreaterThan(one.blocks.length);
    const rows = await place.rows(four);
    expect(rows).toEqual(await place.rows(one));
    const good = lines.flatMap((_, i) =>
      i === 7 || i === 39_000 || i === 23_456
        ? []
        : [
            {
              label: i % 3,
              values: [
                [i % 5, i],
                [8, Math.fround(i / 8)],
              ],
            },
          ],
    );
    expect(rows).toEqual(good);
    expect(four.bad).toEqual(one.bad);
    expect(four.bad).toEqual({
      count: 3,
      first: [
        { file: place.at("cut/1.svm"), line: 8, column: 1, why: "the label is not a number" },
        { file: place.at("cut/2.svm.gz"), line: 6_457, column: 5, why: "the value is not finite" },
        { file: place.at("cut/2.svm.gz"), line: 22_001, column: 1, why: "the label is not a number" },
      ],
    });
  });

  it("gives the same rows where function workers are killed midway", async () => {
    const lines = Array.from({ length: 60_000 }, (_, i) => `${i % 2} 1:${i} 7:${i % 9}`);
    const path = place.write("killed.svm", `${lines.join("\n")}\n`);
    const whole = await place.rows(await place.load(path));
    const executor = place.executor(3);
    let killed = 0;
    const dataset = await place.load(path, {
      workers: 3,
      onProgress: (fraction) => {
        if (killed === 2 || fraction < 0.3 * (killed + 1)) return;
        const victim = executor.stats().pids[killed];
        if (victim === undefined) return;
        process.kill(victim, "SIGKILL");
        killed += 1;
      },
    });
    expect(killed).toBe(2);
    expect(executor.stats().replaced).toBeGreaterThan(0);
    expect(await place.rows(dataset)).toEqual(whole);
  });

  it("reads data to test as the training data, and begins at 0 where that does", async () => {
    const train = await place.load(place.write("zero.svm", "1 0:1 4:2\n2 1:1\n"));
    expect(train.columns.map(({ name }) => name)).toEqual(["0", "1", "2", "3", "4"]);
    const test = await place.load(place.write("zero-test.svm", "2 2:7 99:1\n1 0:3\n"), { like: train });
    expect(test).toMatchObject({ features: 5, columns: train.columns });
    expect(await place.rows(test)).toEqual([
      { label: 1, values: [[2, 7]] },
      { label: 0, values: [[0, 3]] },
    ]);
    const strange = place.write("strange.svm", "3 1:1\n1 0:3\n");
    await expect(place.load(strange, { like: train })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("a label 3 "),
    });
    const unknown = await place.load(strange, { like: train, labelOptional: true });
    expect((await place.rows(unknown)).map(({ label }) => label)).toEqual([Number.NaN, 0]);
    const numbers = await place.load(place.write("numbers.svm", "0.5 1:1\n7 2:1\n"));
    expect(numbers.label).toEqual({ kind: "number" });
    expect((await place.rows(numbers)).map(({ label }) => label)).toEqual([0.5, 7]);
  });

  it.each([
    ["1 1:1\n1 1:1\n1 3:1 2:1\n", 3, 7, /indices must ascend/],
    ["1 1:1\n1 2:x\n1 1:1\n", 2, 5, /the value is not a number/],
    ["1 1:1\n\n1 2\n1 1:1\n", 3, 4, /a colon is wanted/],
    ["1 1:1\n1 2:2\n1 1:1\n1 :2\n", 4, 3, /an index:value is wanted/],
    ["1 1:1\n1 99999999999:2\n1 1:1\n", 2, 3, /above 16777216/],
  ])("tells where %j is damaged", async (text, line, column, why) => {
    await expect(place.load(place.write("damaged.svm", text))).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringMatching(new RegExp(`line ${line}, column ${column}: .*${why.source}`)),
    });
  });
});

describe("CSV", () => {
  /** Values of all kinds; `make` says what a row is, null for a good one. */
  function table(rows: number, make: (row: number) => string | null): string {
    const lines = ["when,on,count,kind,target"];
    for (let i = 0; i < rows; i += 1) {
      const kind = i % 4 === 0 ? "" : `"k ""${(i * 7) % 3}"", x"`;
      const count = i % 10 === 1 ? "" : String(i / 2);
      lines.push(make(i) ?? `2020-01-0${(i % 9) + 1},${i % 2 === 0},${count},${kind},${["a", "b"][i % 2]}`);
    }
    return `${lines.join("\n")}\n`;
  }
  const expected = (i: number) => ({
    label: i % 2,
    values: [
      18_262 + (i % 9),
      i % 2 === 0 ? 1 : 0,
      i % 10 === 1 ? Number.NaN : i / 2,
      i % 4 === 0 ? Number.NaN : (i * 7) % 3,
    ],
  });

  it("reads dates, booleans, numbers and texts, with nulls and quotes", async () => {
    for (const [name, packed] of [
      ["good.csv", false],
      ["good.csv.gz", true],
    ] as const) {
      const text = table(500, () => null);
      const dataset = await place.load(place.write(name, packed ? gzipSync(text) : text));
      expect(dataset).toMatchObject({ rows: 500, features: 4, sparse: false, labelColumn: "target" });
      expect(dataset.label).toEqual({ kind: "classes", classes: ["a", "b"] });
      expect(dataset.columns).toEqual([
        { name: "when", kind: "numeric", categories: [] },
        { name: "on", kind: "numeric", categories: [] },
        { name: "count", kind: "numeric", categories: [] },
        { name: "kind", kind: "categorical", categories: ['k "0", x', 'k "1", x', 'k "2", x'] },
      ]);
      expect(await place.rows(dataset)).toEqual(Array.from({ length: 500 }, (_, i) => expected(i)));
    }
  });

  it("counts bad rows and names them by line and column", async () => {
    const bad: Record<number, string> = {
      5: "2020-01-01,true,x,k,a",
      9: "2020-01-01,true,1,k",
      12: "2020-01-01,true,1,k,a,7",
      20: "2020-01-01,true,inf,k,a",
      30: "2020-01-01,true,1,k,",
    };
    const path = place.write(
      "bad.csv",
      table(500, (row) => bad[row] ?? null),
    );
    const dataset = await place.load(path);
    expect(dataset.rows).toBe(495);
    expect(dataset.bad.count).toBe(5);
    expect(dataset.bad.first.map(({ file, line, column }) => [file, line, column])).toEqual([
      [path, 7, 0],
      [path, 11, 20],
      [path, 14, 22],
      [path, 22, 0],
      [path, 32, 0],
    ]);
    expect(dataset.bad.first.map(({ why }) => why).join("\n")).toMatchInlineSnapshot(`
      "column count is not a number
      Expected Number of Columns: 5 Found: 4
      Expected Number of Columns: 5 Found: 6
      column count is not finite
      the label is missing"
    `);
    const rows = await place.rows(dataset);
    expect(rows).toEqual(
      Array.from({ length: 500 }, (_, i) => i).flatMap((i) => (bad[i] === undefined ? [expected(i)] : [])),
    );
  });

  it("tells what cannot be read far behind the rows that were guessed from, where lines are not rows too", async () => {
    const lines = Array.from(
      { length: 30_000 },
      (_, i) => `${i},"two\nlines",2020-02-0${(i % 9) + 1},${i % 2}`,
    );
    lines[25_000] = "1,x,2020-02-31,1";
    lines[25_002] = "one,x,2020-02-01,1";
    lines[25_003] = "1,x,2020-02-01,";
    lines[25_004] = "1,x,2020-02-01,yes";
    const path = place.write("far.csv", `a,b,c,y\n${lines.join("\n")}\n`);
    const dataset = await place.load(path);
    expect(dataset).toMatchObject({ rows: 29_996, features: 3, bad: { count: 4 } });
    expect(dataset.bad.first).toEqual([
      { file: path, line: 50_002, column: 5, why: 'column c holds "2020-02-31", which is no DATE' },
      { file: path, line: 50_005, column: 1, why: 'column a holds "one", which is no BIGINT' },
      { file: path, line: 50_006, column: 16, why: "the label is missing" },
      { file: path, line: 50_007, column: 16, why: 'column y holds "yes", which is no BIGINT' },
    ]);
    const rows = await place.rows(dataset);
    expect(rows[25_000]).toEqual({ label: 1, values: [25_001, 0, 18_293 + (25_001 % 9)] });
  });

  it("keeps the order of rows over files and pools of any size", async () => {
    for (let file = 0; file < 3; file += 1) {
      const lines = Array.from(
        { length: 3_000 },
        (_, i) => `${file * 3_000 + i},c${(i * 31 + file) % 17},${i % 5 === 0 ? "" : i % 7}`,
      );
      place.write(`many/${file}.csv`, `a,b,y\n${lines.join("\n")}\n`);
    }
    const [one, three] = await Promise.all(
      [1, 3].map((workers) => place.load(place.at("many"), { workers })),
    );
    if (one === undefined || three === undefined) throw new Error("nothing was loaded");
    expect(one).toMatchObject({ rows: 7_200, bad: { count: 1_800 } });
    expect(three.columns).toEqual(one.columns);
    expect(one.columns[1]?.categories).toHaveLength(17);
    const rows = await place.rows(three);
    expect(rows).toEqual(await place.rows(one));
    expect(rows.map(({ values }) => values[0])).toEqual(
      Array.from({ length: 9_000 }, (_, i) => i).filter((i) => (i % 3_000) % 5 !== 0),
    );
    expect(three.bad).toEqual(one.bad);
    expect(three.bad.first[0]).toMatchObject({
      file: place.at("many/0.csv"),
      line: 2,
      why: "the label is missing",
    });
  });

  it("reads data to test with the columns, categories and classes of the training data", async () => {
    const train = await place.load(
      place.write(
        "train.csv",
        `code,size,y\n${Array.from({ length: 60 }, (_, i) => `x${i % 3},${i},${i % 2}`).join("\n")}\n`,
      ),
    );
    expect(train.label).toEqual({ kind: "classes", classes: ["0", "1"] });
    const test = await place.load(
      place.write("test.csv", "extra,size,code,y\n0,5,x2,1\n0,NA,new,0\n0,,,1\n"),
      {
        like: train,
        role: "test",
      },
    );
    expect(await place.rows(test)).toEqual([
      { label: 1, values: [2, 5] },
      { label: 0, values: [Number.NaN, Number.NaN] },
      { label: 1, values: [Number.NaN, Number.NaN] },
    ]);
    const unknown = await place.load(place.write("unknown.csv", "size,code\n5,x1\n"), {
      like: train,
      role: "test",
      labelOptional: true,
    });
    expect(unknown.labelColumn).toBeUndefined();
    expect(await place.rows(unknown)).toEqual([{ label: Number.NaN, values: [1, 5] }]);
    const cases: [string, string, RegExp][] = [
      ["size,y\n5,1\n", "INVALID_ARGUMENT", /no column code/],
      ["size,code\n5,x1\n", "NOT_FOUND", /no column y/],
      ["size,code,y\n5,x1,7\n", "INVALID_ARGUMENT", /a label 7 .*classes are 0, 1/],
    ];
    for (const [text, code, message] of cases) {
      await expect(place.load(place.write("wrong.csv", text), { like: train })).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    }
  });

  it("takes text that is nearly all numbers for numbers, and words such as NA for nothing", async () => {
    const value = (i: number): string => (i % 4 === 0 ? "NA" : i === 50 ? "oops" : String(i));
    const lines = Array.from({ length: 200 }, (_, i) => `${value(i)},${i % 2}`);
    const dataset = await place.load(place.write("na.csv", `v,label\n${lines.join("\n")}\n`));
    expect(dataset.columns).toEqual([{ name: "v", kind: "numeric", categories: [] }]);
    expect(dataset.bad).toEqual({
      count: 1,
      first: [{ file: place.at("na.csv"), line: 52, column: 0, why: "column v is not a number" }],
    });
    expect((await place.rows(dataset)).slice(0, 3).map(({ values }) => values[0])).toEqual([
      Number.NaN,
      1,
      2,
    ]);
  });

  it("chooses the task by the data", async () => {
    const many = `x,y\n${Array.from({ length: 300 }, (_, i) => `${i},${i % 150}`).join("\n")}\n`;
    const path = place.write("many.csv", many);
    expect((await place.load(path)).label).toEqual({ kind: "number" });
    expect((await place.load(path, { task: "classify" })).label).toMatchObject({
      classes: expect.arrayContaining(["0", "149"]),
    });
    const halves = place.write("halves.csv", "x,y\n1,0.5\n2,1\n");
    expect((await place.load(halves)).label).toEqual({ kind: "number" });
    expect((await place.load(halves, { task: "classify" })).label).toEqual({
      kind: "classes",
      classes: ["0.5", "1"],
    });
    const texts = place.write("texts.csv", "x,y\n1,a\n2,b\n");
    await expect(place.load(texts, { task: "regress" })).rejects.toMatchObject({ code: "CORRUPT" });
    const truths = place.write("truths.csv", "x,y\n1,true\n2,false\n");
    expect((await place.load(truths)).label).toEqual({ kind: "classes", classes: ["false", "true"] });
    await expect(place.load(place.write("nolabel.csv", "a,b\n1,2\n3,4\n"))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringMatching(/--label.*a, b/),
    });
    expect((await place.load(place.at("nolabel.csv"), { label: "b" })).features).toBe(1);
  });
});

describe("Parquet", () => {
  it("is cut by row groups, and gives the rows in order", async () => {
    await makeTables(place.at("parquet"), {
      "a.parquet":
        "SELECT i, CASE WHEN i % 5 <> 0 THEN 'c' || i % 11 END AS c, CAST(i AS DECIMAL(9, 2)) / 4 AS d, " +
        "CASE WHEN i % 1000 <> 7 THEN CAST(i * 0.5 AS DOUBLE) END AS y FROM range(10000) AS r(i)",
      "b.parquet":
        "SELECT i, 'z' AS c, CAST(i AS DECIMAL(9, 2)) / 4 AS d, CASE WHEN i = 10003 THEN 'inf'::DOUBLE ELSE CAST(i * 0.5 AS DOUBLE) END AS y " +
        "FROM range(10000, 10010) AS r(i)",
    });
    const [one, three] = await Promise.all(
      [1, 3].map((workers) => place.load(place.at("parquet"), { workers })),
    );
    if (one === undefined || three === undefined) throw new Error("nothing was loaded");
    expect(one).toMatchObject({ rows: 9_999, features: 3, label: { kind: "number" } });
    expect(three.columns).toEqual(one.columns);
    const sorted = [...Array.from({ length: 11 }, (_, i) => `c${i}`), "z"].sort();
    expect(one.columns[1]).toEqual({ name: "c", kind: "categorical", categories: sorted });
    const rows = await place.rows(one);
    expect(await place.rows(three)).toEqual(rows);
    const wanted = Array.from({ length: 10_010 }, (_, i) => i).filter((i) => i % 1000 !== 7 || i > 9_999);
    expect(rows).toEqual(
      wanted
        .filter((i) => i !== 10_003 && i !== 10_007 + 1_000)
        .map((i) => ({
          label: i * 0.5,
          values: [
            i,
            i >= 10_000 ? 11 : i % 5 === 0 ? Number.NaN : sorted.indexOf(`c${i % 11}`),
            Math.fround(i / 4),
          ],
        })),
    );
    expect(one.bad).toEqual(three.bad);
    expect(one.bad.count).toBe(11);
    expect(one.bad.first[1]).toEqual({
      file: place.at("parquet/a.parquet"),
      line: 0,
      column: 0,
      why: "the label is missing (row 1008)",
    });
    expect(one.bad.first.at(-1)).toMatchObject({
      file: place.at("parquet/b.parquet"),
      why: "the label is not a finite number (row 4)",
    });
  });

  it("tells what is damaged, and what is no training data at all", async () => {
    const bytes = readFileSync(place.at("parquet/a.parquet"));
    const cut = place.write("cut.parquet", bytes.subarray(0, bytes.length - 100));
    await expect(place.load(cut)).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining(cut),
    });
    const damaged = Buffer.from(bytes);
    damaged.fill(0xa5, 100, 2_000);
    const path = place.write("damaged.parquet", damaged);
    await expect(place.load(path)).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining(path),
    });
    await expect(place.load(place.write("zeros.csv", Buffer.alloc(100, "a\0b")))).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("NUL"),
    });
    await expect(place.load(place.write("empty.csv", ""))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await expect(place.load(place.at("nothing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(
      place.load([place.at("good.csv"), place.write("mixed.svm", "1 1:1\n")]),
    ).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringMatching(/one format/),
    });
    await makeTables(place.at("lists"), { "l.parquet": "SELECT [1, 2] AS l, 1 AS y" });
    await expect(place.load(place.at("lists"))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("column l is INTEGER[]"),
    });
  });
});
