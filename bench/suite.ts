/** The benchmarks by name. Each lies in a module of its own that is loaded when it is asked for. */
import { availableParallelism, release, totalmem } from "node:os";
import { loadAddon } from "../native/binding/addon.js";
import type { BenchFigure, BenchOptions } from "./figure.js";

export interface Benchmark {
  name: string;
  summary: string;
  run(options: BenchOptions): Promise<BenchFigure[]>;
}

export const BENCHMARKS: readonly Benchmark[] = [
  {
    name: "get-local",
    summary: "get on the same host: 1 KiB in JavaScript and C++, 64 MiB against memcpy",
    run: async (options) => (await import("./get_local.js")).run(options),
  },
  {
    name: "put-local",
    summary: "put on the same host: 1 KiB against Redis SET, 64 MiB against memcpy",
    run: async (options) => (await import("./put_local.js")).run(options),
  },
  {
    name: "get-tcp",
    summary: "get over TCP: 1 KiB against Redis GET, 1 and 64 MiB against a plain socket copy",
    run: async (options) => (await import("./tcp.js")).runGet(options),
  },
  {
    name: "put-tcp",
    summary: "put over TCP: 1 KiB against Redis SET, 1 and 64 MiB against a plain socket copy",
    run: async (options) => (await import("./tcp.js")).runPut(options),
  },
  {
    name: "metadata",
    summary: "create, seal, look up and delete of empty objects over TCP",
    run: async (options) => (await import("./metadata.js")).run(options),
  },
  {
    name: "grpc",
    summary: "put and get over gRPC against bare grpc-js streams of the same chunks",
    run: async (options) => (await import("./grpc.js")).run(options),
  },
  {
    name: "s3",
    summary: "put and get through the S3 door: 1 KiB, 1 MiB, 64 MiB, 1 to 64 at a time, against MinIO",
    run: async (options) => (await import("./s3.js")).run(options),
  },
  {
    name: "allreduce",
    summary:
      "all-reduce of 8 B, 100 KB and 100 MB on the same host, against Redis and the sum in one process",
    run: async (options) => (await import("./allreduce.js")).run(options),
  },
  {
    name: "dispatch",
    summary: "from a call to the start of the function on a warm function worker",
    run: async (options) => {
      const { run } = await import("./dispatch.js");
      return run({ calls: Math.max(10, Math.round(DISPATCH_CALLS * options.scale)) });
    },
  },
  {
    name: "sort-local",
    summary: "the sort on function workers through the store against the same kernels on threads",
    run: async ({ scale, rounds }) => {
      const { run } = await import("./sort.js");
      return run({ records: Math.max(1_000, Math.round(SORT_RECORDS * scale)), rounds });
    },
  },
  {
    name: "cocoa",
    summary: "CoCoA through the store against the same kernels in one process, and scikit-learn",
    run: async (options) => (await import("./cocoa.js")).run(options),
  },
  {
    name: "forest",
    summary: "a random forest on function workers against the same kernels on threads, and scikit-learn",
    run: async ({ scale, rounds, hugePages, signal, note }) => {
      const { run } = await import("./forest.js");
      return run({ trees: Math.max(1, Math.round(FOREST_TREES * scale)), rounds, hugePages, signal, note });
    },
  },
  {
    name: "kernels",
    summary: "partition, sort, merge and checksum of records against memcpy, one thread",
    run: async (options) => (await import("./kernels.js")).run(options),
  },
  {
    name: "overhead",
    summary: "memory of the daemon beyond the payload, for many small objects",
    run: async (options) => (await import("./overhead.js")).run(options),
  },
  {
    name: "demote",
    summary: "objects moved from memory to files a second, against bare O_DIRECT writes",
    run: async (options) => (await import("./tiers.js")).runDemote(options),
  },
  {
    name: "promote",
    summary: "objects moved from files to memory a second, against bare O_DIRECT reads",
    run: async (options) => (await import("./tiers.js")).runPromote(options),
  },
  {
    name: "restart",
    summary: "from the restart of a killed node to its first get, with 8 GiB sealed in memory",
    run: async (options) => (await import("./tiers.js")).runRestart(options),
  },
  {
    name: "sort-spill",
    summary: "sort of three times the memory against O_DIRECT write and read of what was spilled",
    run: async ({ scale, rounds, signal, note }) => {
      const { runSpill } = await import("./sort.js");
      return runSpill({
        records: Math.max(3_000_000, Math.round(3 * SORT_RECORDS * scale)),
        rounds,
        signal,
        note,
      });
    },
  },
  {
    name: "sql",
    summary: "queries of TPC-DS and TPC-H on function workers against DuckDB alone; --scale is the data's",
    run: async (options) => (await import("./sql.js")).run(options),
  },
  {
    name: "drop",
    summary: "drop of a namespace of very many objects against one of few",
    run: async (options) => (await import("./drop.js")).run(options),
  },
];

const DISPATCH_CALLS = 3_000;
const SORT_RECORDS = 10_000_000;
const FOREST_TREES = 32;

export interface Machine {
  cpus: number;
  memoryBytes: number;
  kernel: string;
  node: string;
  /** What the kernels use; null where the addon is not built. */
  simd: string | null;
}

export function describeMachine(): Machine {
  const simd = loadAddon()?.doctor().simd;
  return {
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    simd: typeof simd === "string" ? simd : null,
  };
}
