/**
 * The sort on function workers through the store, beside the same kernels in one process with as many threads and
 * no store: the serverless tax. Both generate their input, partition, sort and check it; the runs alternate, and
 * medians are compared.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kernels } from "../client/kernels.js";
import { runSort } from "../server/cli/sort.js";
import { RECORD_BYTES } from "../workloads/sort/records.js";
import type { SortDocument } from "../workloads/sort/result.js";
import { parseStore } from "../workloads/stores/open.js";
import { type BenchFigure, comparedFigure, plainFigure } from "./figure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";

export interface SortBenchOptions {
  /** Default 10,000,000, which is 1 GB. */
  records?: number;
  /** Function workers here, threads there. Default 2. */
  workers?: number;
  /** Of each kind. Default 5. */
  rounds?: number;
  skewed?: boolean;
  /** Default: by the size of the input. */
  partitions?: number;
  /** As `--store`. Default: millrace. */
  store?: string;
}

export async function run(options: SortBenchOptions = {}): Promise<BenchFigure[]> {
  const { records = 10_000_000, workers = 2, rounds = 5, skewed = false, partitions = null } = options;
  const store = parseStore(options.store ?? "millrace");
  const documents: SortDocument[] = [];
  const local: { seconds: number; withoutChecks: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const { run } = await runSort({
      input: { kind: "generated", records, skewed },
      output: null,
      force: false,
      workers,
      partitions,
      store,
      endpoint: null,
      dramBytes: null,
      hugePages: "reserve",
    });
    if (!run.document.validated) throw new Error("the sort did not validate");
    documents.push(run.document);
    const rival = await kernels().sortLocal({
      records,
      threads: workers,
      partitions: run.document.partitions,
      skewed,
    });
    const { total, check } = rival.seconds;
    local.push({ seconds: total + check, withoutChecks: total });
  }
  const seconds = median(documents.map((document) => document.seconds));
  const rivalSeconds = median(local.map((rival) => rival.seconds));
  const middle = documents.find((document) => document.seconds === seconds) as SortDocument;
  const perSecond = (taken: number): number => Math.round(records / taken);
  return [
    comparedFigure(
      `sort, ${records} records, ${workers} function workers`,
      perSecond(seconds),
      "records/s",
      {
        name: `the same kernels in one process, ${workers} threads, no store, checks included`,
        figure: perSecond(rivalSeconds),
      },
      ">= 0.85x (stretch 0.95x)",
      {
        seconds,
        rivalSeconds,
        rivalSecondsWithoutChecks: median(local.map((rival) => rival.withoutChecks)),
        bytesPerSecond: Math.round((records * RECORD_BYTES) / seconds),
        allSeconds: documents.map((document) => document.seconds),
        allRivalSeconds: local.map((rival) => rival.seconds),
        middle,
      },
    ),
    plainFigure(
      `sort, ${records} records`,
      seconds,
      "s",
      records === 10_000_000 ? "<= 1.5 s (stretch 1.1 s)" : null,
      {
        best: Math.min(...documents.map((document) => document.seconds)),
      },
    ),
  ];
}

/** The sort of records that memory has no room for, beside the device that takes them. */
export async function runSpill(options: {
  /** A third of their bytes is what the node gets of memory. */
  records: number;
  rounds: number;
  signal: AbortSignal;
  note: (sentence: string) => void;
}): Promise<BenchFigure[]> {
  const { records, rounds, signal, note } = options;
  const program = findNativeProgram("disk_bench");
  if (program === null) note("disk_bench is not built (npm run build:native, with liburing): no comparison");
  const inputBytes = records * RECORD_BYTES;
  const folder = mkdtempSync(join(tmpdir(), "millrace-bench-"));
  const seconds: number[] = [];
  const deviceSeconds: number[] = [];
  let spilledBytes = 0;
  try {
    for (let round = 0; round < rounds; round += 1) {
      const outcome = await runSort({
        input: { kind: "generated", records, skewed: false },
        output: null,
        force: false,
        workers: 2,
        partitions: null,
        store: parseStore("millrace"),
        endpoint: null,
        dramBytes: Math.ceil(inputBytes / 3),
        nvme: [{ path: folder, limitBytes: 2 * inputBytes }],
        hugePages: "reserve",
        signal,
      });
      if (!outcome.run.document.validated) throw new Error("the sort did not validate");
      seconds.push(outcome.run.document.seconds);
      spilledBytes = outcome.spilledBytes;
      if (program === null || spilledBytes === 0) continue;
      const device = await runNativeProgram<{ writeBytesPerSecond: number; readBytesPerSecond: number }>(
        program,
        ["both", folder, String(spilledBytes)],
        signal,
      );
      deviceSeconds.push(
        spilledBytes / device.writeBytesPerSecond + spilledBytes / device.readBytesPerSecond,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return [
    comparedFigure(
      `sort of ${records} records with a third of their bytes as dram`,
      median(seconds),
      "s",
      {
        name: "spilled bytes written and read once, O_DIRECT, 8 in flight",
        figure: deviceSeconds.length === 0 ? null : median(deviceSeconds),
      },
      "<= 1.5x (stretch 1.15x)",
      { seconds, deviceSeconds, spilledBytes, bytesPerSecond: Math.round(inputBytes / median(seconds)) },
    ),
  ];
}

/** The middle one, or the lower of the two in the middle: a value that was really seen. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}
