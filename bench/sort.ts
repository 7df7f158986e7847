/**
 * The sort on function workers through the store, beside the same kernels in one process with as many threads and
 * no store: the serverless tax. Both generate their input, partition, sort and check it; the runs alternate, and
 * medians are compared.
 */
import { kernels } from "../client/kernels.js";
import { runSort } from "../server/cli/sort.js";
import { RECORD_BYTES } from "../workloads/sort/records.js";
import type { SortDocument } from "../workloads/sort/result.js";
import { parseStore } from "../workloads/stores/open.js";
import { type BenchFigure, comparedFigure, plainFigure } from "./figure.js";

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

/** The middle one, or the lower of the two in the middle: a value that was really seen. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}
