import { expect, it } from "vitest";
import { describeSort, type SortDocument } from "../../../../workloads/sort/result.js";

const document: SortDocument = {
  workload: "sort",
  records: 1_000_000,
  bytes: 100_000_000,
  workers: 2,
  partitions: 13,
  seconds: 0.5,
  phases: { sample: 0.01, map: 0.24, reduce: 0.25 },
  time: { input: 0.05, compute: 0.4, exchange: 0.02, output: 0 },
  exchange: {
    bytes: 100_000_000,
    byTransport: { shm: 100_000_000, tcp: 0, grpc: 0 },
    byTier: { dram: 100_000_000, nvme: 0 },
  },
  partitionSkew: 1.04,
  retries: 0,
  validated: true,
  checksum: "7a0e0d4868cd4",
  store: "millrace",
};

it("says in lines what the document says in fields", () => {
  const text = describeSort(document, 0.6);
  expect(text).toContain("1,000,000 (100 MB)");
  expect(text).toContain("500 ms, 200 MB/s; start-up 600 ms");
  expect(text).toContain("compute 400 ms (80.0 %)");
  expect(text).toContain("waiting 30.0 ms");
  expect(text).toContain("100 MB over shm (store: millrace)");
  expect(text).toContain("yes, checksum 7a0e0d4868cd4");
});

it("has words for runs of nothing and for runs that failed", () => {
  const nothing = {
    ...document,
    records: 0,
    bytes: 0,
    seconds: 0,
    exchange: { bytes: 0, byTransport: { shm: 0, tcp: 0, grpc: 0 }, byTier: { dram: 0, nvme: 0 } },
    validated: false,
  };
  const text = describeSort(nothing, 0.1);
  expect(text).not.toMatch(/NaN|Infinity/);
  expect(text).toMatch(/exchange\s+nothing/);
  expect(text).toMatch(/validated\s+NO/);
});
