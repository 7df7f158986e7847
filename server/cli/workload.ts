/**
 * What every workload command needs around its work: a node (the one at `--endpoint`, or one embedded for as long
 * as the command runs), a namespace of its own, and a pool of function workers.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Client, connect, MillraceError, type Namespace, type Receipt } from "../../client/index.js";
import { createExecutor, type Executor, localBackend } from "../../functions/index.js";
import { type RunningNode, startNode } from "./node.js";
import { type HugePages, type NvmeDirectory, resolveServeConfig } from "./serve_config.js";

export interface WorkloadOptions {
  /** Begins the namespace's name: 1 to 40 of a-z 0-9 -. */
  name: string;
  /** A node's gRPC door; null embeds a node. */
  endpoint: string | null;
  /** Of the embedded node; null: half of this machine's memory. */
  dramBytes: number | null;
  /** Of the embedded node. */
  nvme: NvmeDirectory[];
  hugePages: HugePages;
  /** Function workers. */
  workers: number;
  /** Memory is prepared for as much. */
  expectedBytes: number;
}

/** The surroundings of one run. `close` takes all of it down again, whatever state it is in. */
export class WorkloadSession {
  readonly client: Client;
  readonly namespace: Namespace;
  readonly executor: Executor;
  readonly #node: RunningNode | null;
  #closing: Promise<Receipt | null> | null = null;

  private constructor(client: Client, namespace: Namespace, executor: Executor, node: RunningNode | null) {
    this.client = client;
    this.namespace = namespace;
    this.executor = executor;
    this.#node = node;
  }

  static async open(options: WorkloadOptions): Promise<WorkloadSession> {
    let node: RunningNode | null = null;
    let client: Client | null = null;
    try {
      if (options.endpoint === null) {
        node = await startNode({
          hugePages: options.hugePages,
          nvme: options.nvme,
          ...(options.dramBytes === null ? {} : { dramBytes: options.dramBytes }),
        });
      }
      const endpoint = node?.endpoint ?? (options.endpoint as string);
      client = await connect(endpoint);
      const namespace = await client.createNamespace(`${options.name}-${randomBytes(6).toString("hex")}`, {
        hint: "throughput",
        expectedBytes: options.expectedBytes,
      });
      const executor = createExecutor({
        backend: localBackend({ env: functionWorkerEnvironment() }),
        workers: options.workers,
        endpoint,
        namespace: namespace.name,
      });
      return new WorkloadSession(client, namespace, executor, node);
    } catch (thrown) {
      await client?.close().catch(() => undefined);
      await node?.close().catch(() => undefined);
      throw thrown;
    }
  }

  /** Waits, for a little while, until the node has the memory ready that the namespace asked for. */
  async memoryReady(expectedBytes: number): Promise<void> {
    const until = performance.now() + MEMORY_WAIT_MS;
    let before = 0;
    let standingStill = 0;
    // A node stops preparing where the machine or its limit has no more to give.
    while (performance.now() < until && standingStill < MEMORY_POLLS_WITHOUT_GROWTH_MAX) {
      const { dramUsedBytes, dramSpareBytes } = await this.client.nodeStats();
      const ready = dramUsedBytes + dramSpareBytes;
      if (ready >= expectedBytes) return;
      standingStill = ready > before ? 0 : standingStill + 1;
      before = ready;
      await sleep(MEMORY_POLL_MS);
    }
  }

  /**
   * Ends the function workers, drops the namespace, stops an embedded node. What the job cost, or null where the
   * namespace could not say any more.
   */
  close(): Promise<Receipt | null> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<Receipt | null> {
    await this.executor.close().catch(() => undefined);
    const receipt = await this.client.deleteNamespace(this.namespace.name).catch(() => null);
    await this.client.close().catch(() => undefined);
    await this.#node?.close();
    return receipt;
  }
}

const MEMORY_WAIT_MS = 5_000;
const MEMORY_POLL_MS = 50;
const MEMORY_POLLS_WITHOUT_GROWTH_MAX = 10;

/**
 * Asks glibc for huge pages behind large buffers, which JavaScript cannot ask for itself. Kernels that walk over
 * hundreds of megabytes in 4 KiB pages lose a third of their time to address translation on a virtual machine.
 */
function functionWorkerEnvironment(): Record<string, string> {
  const given = process.env.GLIBC_TUNABLES;
  const wanted = "glibc.malloc.hugetlb=1";
  if (given === undefined || given === "") return { GLIBC_TUNABLES: wanted };
  return { GLIBC_TUNABLES: given.includes("glibc.malloc.hugetlb") ? given : `${given}:${wanted}` };
}

/** What `addWorkloadOptions` adds. */
export interface WorkloadFlags {
  workers?: number;
  endpoint?: string;
  dram?: string;
  nvme?: string[];
  hugePages?: string;
  json?: true;
  report?: string;
}

/** Adds the flags that all workload commands share. */
export function addWorkloadOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--workers <count>", "function workers (default: one a processor)").argParser(
        parseCount(1, 1024),
      ),
    )
    .addOption(
      new Option("--endpoint <host:port>", "use the node there instead of an embedded one").env(
        "MILLRACE_ENDPOINT",
      ),
    )
    .option("--dram <size>", "most memory of the embedded node (default: half of this machine's)")
    .option("--nvme <dir:size...>", "NVMe tier of the embedded node, for example /mnt/nvme:500GiB")
    .option(
      "--huge-pages <mode>",
      "of the embedded node: reserve raises the pool while it runs, auto, off (default: reserve)",
    )
    .option("--json", "print one JSON document on stdout, and no progress")
    .option("--report <file.html>", "write a page with the timeline of the function workers");
}

/** The embedded node's part of the flags, checked as `serve` checks them. */
export function readNodeOptions(flags: { dram?: string; nvme?: string[]; hugePages?: string }): {
  dramBytes: number;
  nvme: NvmeDirectory[];
  hugePages: HugePages;
} {
  // An embedded node has the machine to itself for as long as it runs, so it takes huge pages unless told otherwise.
  const hugePages = flags.hugePages ?? process.env.MILLRACE_HUGE_PAGES ?? "reserve";
  const config = resolveServeConfig({ ...flags, hugePages }, process.env);
  const { dramBytes, nvme } = config;
  return { dramBytes, nvme, hugePages: config.hugePages };
}

/** A parser of whole numbers for commander. */
export function parseCount(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/**
 * Runs `work` with a signal that aborts at SIGINT and SIGTERM, so that it can clean up and end with an error. A
 * second signal ends the process at once.
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort(
      new MillraceError("ABORTED", `interrupted by ${signal}; nothing is left behind`, { retryable: false }),
    );
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}
