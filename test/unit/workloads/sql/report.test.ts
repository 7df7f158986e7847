import { expect, it } from "vitest";
import { renderReport } from "../../../../workloads/report/html.js";
import { skewOf, sqlDocument } from "../../../../workloads/sql/document.js";
import type { SqlResult, SqlRun } from "../../../../workloads/sql/driver.js";
import { sqlReport } from "../../../../workloads/sql/report.js";
import type { SqlStage } from "../../../../workloads/sql/run.js";

function stage(id: number, changes: Partial<SqlStage> = {}): SqlStage {
  return {
    id,
    label: `stage <${id}>`,
    output: "hash",
    tasks: 1,
    rows: 10,
    bytes: 1000,
    partitionBytes: [900, 100],
    startMs: 1_000,
    endMs: 1_500,
    calls: [
      {
        task: 0,
        functionWorker: "w1",
        attempt: id,
        startMs: 1_000,
        endMs: 1_400,
        spans: [{ activity: "compute", startMs: 1_000, endMs: 1_300 }],
        rows: 10,
        bytes: 1000,
        exchangedBytes: 0,
      },
    ],
    inputs: [],
    ...changes,
  };
}

const RESULT: SqlResult = {
  columns: [{ name: "a", type: "INTEGER" }],
  rows: 10,
  query: () => Promise.reject(new Error("not asked for")),
  close: () => Promise.resolve(),
};

function run(changes: Partial<SqlRun> = {}): SqlRun {
  return {
    startMs: 900,
    plannedMs: 1_000,
    endMs: 2_000,
    partitions: 2,
    stages: [
      stage(0, { inputs: [{ from: { kind: "table", table: "t" }, bytes: 5_000_000 }] }),
      stage(1, { output: "broadcast", partitionBytes: [1000] }),
      stage(2, {
        output: "gather",
        partitionBytes: [1000],
        inputs: [
          { from: { kind: "stage", stage: 0 }, bytes: 1000 },
          { from: { kind: "stage", stage: 1 }, bytes: 4000 },
        ],
      }),
    ],
    time: { input: 0, compute: 0.3, exchange: 0.1, output: 0 },
    exchange: { bytes: 5000, byTransport: { shm: 5000, tcp: 0, grpc: 0 }, byTier: { dram: 5000, nvme: 0 } },
    retries: 1,
    lostAttempts: [
      { stage: 2, functionWorker: "w2", attempt: 0, startMs: 1_500, endMs: 1_600, outcome: "lost" },
    ],
    result: RESULT,
    rows: 10,
    parts: [],
    ...changes,
  };
}

const FACTS = { workers: 2, store: { kind: "millrace" }, directory: null } as const;

it("the document says what each stage left, and how evenly", () => {
  const document = sqlDocument(run(), FACTS);
  expect(document).toMatchObject({
    workload: "sql",
    seconds: 1.1,
    planSeconds: 0.1,
    rows: 10,
    columns: [{ name: "a", type: "INTEGER" }],
    retries: 1,
    workers: 2,
    partitions: 2,
    store: "millrace",
  });
  expect(document.stages[0]).toEqual({
    id: 0,
    label: "stage <0>",
    output: "hash",
    tasks: 1,
    rows: 10,
    bytes: 1000,
    seconds: 0.5,
    skew: 1.8,
  });
  expect(document).not.toHaveProperty("resultOmitted");
  expect(sqlDocument(run({ rows: 10_001 }), FACTS).resultOmitted).toContain("--output");
});

it("the document of a run with --output names the parts", () => {
  const parts = [{ name: "part-00000.parquet", rows: 10, bytes: 99 }];
  const document = sqlDocument(run({ result: null, parts }), { ...FACTS, directory: "/out" });
  expect(document).toMatchObject({ columns: [], output: { directory: "/out", parts } });
});

it("skew is the largest over the mean, and 1 of nothing", () => {
  expect(skewOf([])).toBe(1);
  expect(skewOf([0, 0])).toBe(1);
  expect(skewOf([300, 100, 200])).toBe(1.5);
});

it("the page draws stages with bytes on the edges, a bar a call, and escapes what it is given", () => {
  const document = sqlDocument(run(), FACTS);
  const page = renderReport(
    sqlReport(run(), { data: "/d", sql: "SELECT '<q>'", document, startUpSeconds: 1, receipt: null }),
  );
  expect(page.match(/<g class="stage"/g)).toHaveLength(3);
  expect(page.match(/<path class="edge"/g)).toHaveLength(2);
  expect(page).toContain("hash 1.00 kB");
  expect(page).toMatch(/broadcast 4\.00 kB[\s\S]*stroke-dasharray/);
  expect(page).toContain("t 5.00 MB");
  expect(page.match(/<g class="call/g)).toHaveLength(4);
  expect(page).not.toContain("<q>");
  expect(page).not.toContain("stage <0>");
});

it("puts the result below all that it is made of", () => {
  const document = sqlDocument(run(), FACTS);
  const { graph } = sqlReport(run(), { data: "/d", sql: "", document, startUpSeconds: 1, receipt: null });
  const page = renderReport({
    ...sqlReport(run(), { data: "/d", sql: "", document, startUpSeconds: 1, receipt: null }),
    graph: graph ?? { nodes: [], edges: [] },
  });
  const tops = [
    ...page.matchAll(/<g class="stage"[^>]*><rect x="[\d.]+" y="([\d.]+)"[\s\S]*?title" x="10" y="19">(\d)/g),
  ];
  const top = new Map(tops.map((match) => [match[2], Number(match[1])]));
  expect(top.get("2")).toBeGreaterThan(Math.max(top.get("0") ?? 0, top.get("1") ?? 0));
});
