/** `millrace sort`: sorts gensort records on function workers. */
import { randomBytes } from "node:crypto";
import { availableParallelism } from "node:os";
import { type Command, Option } from "commander";
import { MillraceError, type Receipt } from "../../client/index.js";
import type { Executor } from "../../functions/index.js";
import { renderReport } from "../../workloads/report/html.js";
import { type SortProgress, type SortRun, sort, warmUp } from "../../workloads/sort/driver.js";
import { openInput, type SortInput } from "../../workloads/sort/input.js";
import { openOutput } from "../../workloads/sort/output.js";
import { PARTITIONS_MAX } from "../../workloads/sort/plan.js";
import { RECORD_BYTES } from "../../workloads/sort/records.js";
import { sortReport } from "../../workloads/sort/report.js";
import { describeSort } from "../../workloads/sort/result.js";
import { parseStore, type StoreChoice } from "../../workloads/stores/open.js";
import { progressBars } from "./progress.js";
import { ReportFile } from "./report_file.js";
import type { HugePages, NvmeDirectory } from "./serve_config.js";
import {
  addWorkloadOptions,
  parseCount,
  readNodeOptions,
  untilInterrupted,
  type WorkloadFlags,
  WorkloadSession,
} from "./workload.js";

interface Flags extends WorkloadFlags {
  input: string[];
  output: string;
  force?: true;
  partitions?: number;
  store: string;
}

export function register(program: Command): void {
  const command = program
    .command("sort")
    .description(
      "sort 100-byte records (gensort's) by their first 10 bytes on function workers, and check the result",
    )
    .addOption(
      new Option(
        "--input <what...>",
        "gen:N makes N records, gen:N,skew with skewed keys; else files, directories, s3://BUCKET/KEY-OR-PREFIX",
      ).makeOptionMandatory(true),
    )
    .option(
      "--output <where>",
      "directory or s3://BUCKET/PREFIX where part-00000 and so on go; none only checks",
      "none",
    )
    .option("--force", "replace the parts that are in the output")
    .addOption(
      new Option("--partitions <count>", "output parts (default: by size)").argParser(
        parseCount(1, PARTITIONS_MAX),
      ),
    )
    .option(
      "--store <url>",
      "exchange through millrace, redis://HOST:PORT, s3://BUCKET/PREFIX or file://DIR",
      "millrace",
    );
  addWorkloadOptions(command).action(async (flags: Flags) => {
    const outcome = await untilInterrupted((signal) => runFlags(flags, signal));
    if (flags.json) process.stdout.write(`${JSON.stringify(outcome.run.document)}\n`);
    else process.stdout.write(`${describeSort(outcome.run.document, outcome.startUpSeconds)}\n`);
    if (!outcome.run.document.validated) {
      throw new MillraceError("CORRUPT", "the sorted records are not those of the input, or not in order");
    }
  });
}

async function runFlags(flags: Flags, signal: AbortSignal): Promise<SortOutcome> {
  const report = flags.report === undefined ? null : new ReportFile(flags.report);
  const bars = progressBars(flags.json ?? false);
  try {
    const outcome = await runSort({
      input: await openInput(flags.input),
      output: flags.output === "none" ? null : flags.output,
      force: flags.force ?? false,
      workers: flags.workers ?? availableParallelism(),
      partitions: flags.partitions ?? null,
      store: parseStore(flags.store),
      endpoint: flags.endpoint ?? null,
      ...readNodeOptions(flags),
      ...(bars === null
        ? {}
        : { onProgress: ({ stage, fraction }: SortProgress) => bars.show(stage.padEnd(6), fraction) }),
      signal,
    });
    report?.write(
      renderReport(
        sortReport(outcome.run, {
          input: flags.input.join(" "),
          output: flags.output,
          startUpSeconds: outcome.startUpSeconds,
          receipt: outcome.receipt,
        }),
      ),
    );
    return outcome;
  } catch (thrown) {
    report?.discard();
    throw thrown;
  } finally {
    bars?.stop();
  }
}

export interface RunSortOptions {
  input: SortInput;
  /** A directory or s3://BUCKET/PREFIX, or null to check only. */
  output: string | null;
  force: boolean;
  workers: number;
  /** Null: by the size of the input. */
  partitions: number | null;
  store: StoreChoice;
  /** Null: an embedded node. */
  endpoint: string | null;
  dramBytes: number | null;
  /** Left out: the embedded node has no such tier. */
  nvme?: NvmeDirectory[];
  hugePages: HugePages;
  onProgress?: (progress: SortProgress) => void;
  signal?: AbortSignal;
  /** Called when everything is up and the sort begins. */
  onStart?: (executor: Executor) => void;
}

export interface SortOutcome {
  run: SortRun;
  startUpSeconds: number;
  receipt: Receipt | null;
  /** What the node has written to its NVMe tier. */
  spilledBytes: number;
}

/** Segments are filled to the brim only by luck, and plans, samples and the rehearsal need a little. */
const ROOM_FACTOR = 1.3;

/** One sort from nothing to nothing: whatever it starts is ended, and a failed one leaves no output. */
export async function runSort(options: RunSortOptions): Promise<SortOutcome> {
  const { input, store, workers, signal } = options;
  const startMs = performance.now();
  const output = options.output === null ? null : await openOutput(options.output, options.force, input);
  let session: WorkloadSession | null = null;
  try {
    const expectedBytes =
      store.kind === "millrace" ? Math.ceil(input.records * RECORD_BYTES * ROOM_FACTOR) : 0;
    session = await WorkloadSession.open({
      name: "sort",
      endpoint: options.endpoint,
      dramBytes: options.dramBytes,
      nvme: options.nvme ?? [],
      hugePages: options.hugePages,
      workers,
      expectedBytes,
    });
    await checkRoom(session, options);
    const surroundings = {
      namespace: session.namespace,
      executor: session.executor,
      ...(signal === undefined ? {} : { signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    };
    const sortOptions = {
      input,
      output: output?.place ?? null,
      store,
      workers,
      partitions: options.partitions,
      run: `sort-${randomBytes(6).toString("hex")}`,
    };
    if (input.records > 0) {
      await Promise.all([session.memoryReady(expectedBytes), warmUp(sortOptions, surroundings)]);
      signal?.throwIfAborted();
    }
    options.onStart?.(session.executor);
    const startUpSeconds = (performance.now() - startMs) / 1000;
    const run = await sort(sortOptions, surroundings);
    const spilledBytes = (await session.client.nodeStats()).nvmeWrittenBytes;
    const receipt = await session.close();
    // Only when no function worker is left is it certain that nobody writes any more.
    if (run.document.validated) await output?.keep();
    else await output?.remove();
    return { run, startUpSeconds, receipt, spilledBytes };
  } catch (thrown) {
    await session?.close().catch(() => undefined);
    await output?.remove().catch(() => undefined);
    throw thrown;
  }
}

/** What cannot fit fails now and not after minutes of waiting for room. */
async function checkRoom(session: WorkloadSession, { input, store }: RunSortOptions): Promise<void> {
  if (store.kind !== "millrace") return;
  const neededBytes = input.records * RECORD_BYTES;
  const { dramLimitBytes, nvmeLimitBytes } = await session.client.nodeStats();
  if (neededBytes <= dramLimitBytes + nvmeLimitBytes) return;
  throw new MillraceError(
    "RESOURCE_EXHAUSTED",
    `no room: ${neededBytes} bytes of records are to be exchanged and the node has ${dramLimitBytes} bytes of dram ` +
      `and ${nvmeLimitBytes} of nvme; give it more (--dram, --nvme), or exchange through another --store`,
    { retryable: false },
  );
}
