import { expect, it } from "vitest";
import { renderReport } from "../../../../workloads/report/html.js";
import type { Report } from "../../../../workloads/report/model.js";

function report(changes: Partial<Report> = {}): Report {
  return {
    workload: "millrace sort",
    headline: "10 records sorted in 1.00 s",
    subline: "1.00 kB",
    validated: true,
    facts: [{ label: "throughput", value: "1.00 kB/s" }],
    startMs: 1_000,
    endMs: 2_000,
    phases: [
      { name: "map", startMs: 1_000, endMs: 1_600 },
      { name: "reduce", startMs: 1_600, endMs: 2_000 },
    ],
    lanes: [
      {
        name: "w-0",
        calls: [
          {
            label: "map 0",
            stage: "map",
            startMs: 1_000,
            endMs: 1_600,
            attempt: 2,
            spans: [{ activity: "compute", startMs: 1_000, endMs: 1_500 }],
            details: ["10 records"],
          },
        ],
      },
    ],
    time: { input: 0.1, compute: 0.5, exchange: 0.05, output: 0 },
    seconds: 1,
    byTransport: [{ label: "shm", value: 1000 }],
    byTier: [{ label: "dram", value: 1000 }],
    partitionBytes: [400, 600],
    details: [{ label: "store", value: "millrace" }],
    ...changes,
  };
}

it("is one page that loads nothing", () => {
  const page = renderReport(report());
  expect(page).not.toMatch(/(?:src|href)\s*=|@import|url\(/);
  expect(page).toContain("10 records sorted in 1.00 s");
  expect(page).toContain("attempt 2");
  expect(page).toMatch(/class="compute" x="[\d.]+"/);
});

it("shows text as text", () => {
  const page = renderReport(
    report({ subline: `<script>alert("x")</script>`, details: [{ label: "in", value: `a"b'c&d` }] }),
  );
  expect(page).not.toContain("<script>alert");
  expect(page).toContain("&#60;script&#62;");
  expect(page).toContain("a&#34;b&#39;c&#38;d");
});

it("has an answer for runs without calls, partitions or time", () => {
  const page = renderReport(
    report({
      lanes: [],
      phases: [],
      partitionBytes: [],
      endMs: 1_000,
      seconds: 0,
      validated: null,
      byTransport: [],
    }),
  );
  expect(page).not.toContain("NaN");
  expect(page).not.toContain("Infinity");
});

it("puts many partitions into few columns", () => {
  const page = renderReport(report({ partitionBytes: Array.from({ length: 10_000 }, (_, i) => i) }));
  expect(page.match(/partitions \d+ to \d+, the largest/g)?.length).toBeLessThanOrEqual(240);
});
