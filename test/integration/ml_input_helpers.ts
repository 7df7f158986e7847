/** Training data loaded by real function workers, and the blocks read back without any code of the trainers. */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { createExecutor, type Executor } from "../../functions/index.js";
import { BLOCK_MAGIC, type Dataset } from "../../workloads/ml/dataset.js";
import { type LoadOptions, loadDataset } from "../../workloads/ml/input/load.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

export interface LoadedRow {
  label: number;
  /** Dense: all of them. Sparse: `[column, value]`. */
  values: number[] | [number, number][];
}

/** A daemon, pools of function workers, a folder for files. Ends all of it when disposed. */
export class InputPlace implements AsyncDisposable {
  readonly directory: string;
  readonly daemon: Daemon;
  readonly client: Client;
  readonly namespace: Namespace;
  readonly #executors = new Map<number, Executor>();

  private constructor(directory: string, daemon: Daemon, client: Client, namespace: Namespace) {
    this.directory = directory;
    this.daemon = daemon;
    this.client = client;
    this.namespace = namespace;
  }

  static async open(): Promise<InputPlace> {
    const directory = mkdtempSync(join(tmpdir(), "millrace-ml-input-test-"));
    const daemon = await startDaemon({ dram: "2GiB" });
    const client = await connect(daemon.endpoint);
    const namespace = await client.createNamespace(`ml-input-${randomBytes(4).toString("hex")}`);
    return new InputPlace(directory, daemon, client, namespace);
  }

  at(name: string): string {
    return join(this.directory, name);
  }

  write(name: string, data: string | Uint8Array): string {
    mkdirSync(dirname(this.at(name)), { recursive: true });
    writeFileSync(this.at(name), data);
    return this.at(name);
  }

  executor(workers: number): Executor {
    let executor = this.#executors.get(workers);
    if (executor === undefined) {
      executor = createExecutor({
        workers,
        endpoint: this.daemon.endpoint,
        namespace: this.namespace.name,
      });
      this.#executors.set(workers, executor);
    }
    return executor;
  }

  load(
    paths: string | readonly string[],
    options: Partial<LoadOptions> & { workers?: number; onProgress?: (fraction: number) => void } = {},
  ): Promise<Dataset> {
    const { workers = 2, onProgress, ...rest } = options;
    return loadDataset(
      {
        paths: typeof paths === "string" ? [paths] : paths,
        label: null,
        task: null,
        role: "train",
        like: null,
        prefix: `data-${randomBytes(4).toString("hex")}`,
        ...rest,
      },
      {
        namespace: this.namespace,
        executor: this.executor(workers),
        ...(onProgress === undefined ? {} : { onProgress }),
      },
    );
  }

  /** All rows, in order. */
  async rows(dataset: Dataset): Promise<LoadedRow[]> {
    const rows: LoadedRow[] = [];
    for (const block of dataset.blocks) {
      const bytes = await this.namespace.get(block.key);
      if (bytes.length !== block.bytes) throw new Error(`${block.key} has ${bytes.length} bytes`);
      if (block.firstRow !== rows.length) throw new Error(`${block.key} begins at row ${block.firstRow}`);
      rows.push(...readBlock(bytes, dataset));
      if (rows.length !== block.firstRow + block.rows) throw new Error(`${block.key} has other rows`);
    }
    if (rows.length !== dataset.rows) throw new Error(`${rows.length} rows and not ${dataset.rows}`);
    return rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const executor of this.#executors.values()) await executor.close();
    await this.client.close();
    await this.daemon.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const HEADER_BYTES = 64;

/** By the layout that workloads/ml/dataset.ts tells. */
function readBlock(bytes: Uint8Array, dataset: Dataset): LoadedRow[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const header = Array.from({ length: 6 }, (_, i) => view.getBigUint64(8 * i, true));
  if (header[0] !== BLOCK_MAGIC) throw new Error("a block without its magic");
  const [, , rows, features, nonZeros, flags] = header.map(Number) as number[] as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (features !== dataset.features || (flags === 1) !== dataset.sparse)
    throw new Error("a block of other data");
  const align = (at: number): number => Math.ceil(at / 64) * 64;
  const f64 = (at: number): number => view.getFloat64(at, true);
  const f32 = (at: number): number => view.getFloat32(at, true);
  const labels = HEADER_BYTES;
  let at = align(labels + 8 * rows);
  if (!dataset.sparse) {
    return Array.from({ length: rows }, (_, row) => ({
      label: f64(labels + 8 * row),
      values: Array.from({ length: features }, (_, i) => f32(at + 4 * (row * features + i))),
    }));
  }
  const ends = at;
  at = align(at + 8 * rows);
  const columns = at;
  const values = align(at + 4 * nonZeros);
  let begin = 0;
  return Array.from({ length: rows }, (_, row) => {
    const end = Number(view.getBigUint64(ends + 8 * row, true));
    const pairs: [number, number][] = [];
    for (let i = begin; i < end; i += 1)
      pairs.push([view.getUint32(columns + 4 * i, true), f32(values + 4 * i)]);
    begin = end;
    return { label: f64(labels + 8 * row), values: pairs };
  });
}
