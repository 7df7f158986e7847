/** The sizes that a query is planned by. Pure. */
import type { Catalog } from "./catalog.js";
import type { PlanOptions } from "./plan/planner.js";

/** Partitions a function worker: enough that tasks can be of one size, few enough that each is worth a read. */
const PARTITIONS_PER_FUNCTION_WORKER = 4;
const PARTITIONS_MIN = 16;
const PARTITIONS_MAX = 1024;
/** Of the tables, as they are compressed, for a partition more. */
const TABLE_BYTES_PER_PARTITION = 64 << 20;
/** What each task can afford to read, and to build a hash table of. */
const BROADCAST_BYTES = 8 << 20;
/** What all function workers but one may scan again, rather than that one of them scans it and exchanges it. */
const SCAN_BYTES = 64 << 20;
/** One task takes less time for it than an exchange takes. */
const SMALL_BYTES = 1 << 20;

export interface SizesAsked {
  catalog: Catalog;
  workers: number;
  /** Null: by the size of the tables. */
  partitions: number | null;
  /** Null: the default. 0: whatever can be exchanged is. */
  broadcastBytes: number | null;
}

export function planSizes({ catalog, workers, partitions, broadcastBytes }: SizesAsked): {
  partitions: number;
  plan: PlanOptions;
} {
  const tableBytes = [...catalog.tables.values()].reduce((sum, table) => sum + table.bytes, 0);
  const wanted = Math.max(
    PARTITIONS_MIN,
    workers * PARTITIONS_PER_FUNCTION_WORKER,
    tableBytes / TABLE_BYTES_PER_PARTITION,
  );
  const power = 2 ** Math.ceil(Math.log2(wanted));
  return {
    partitions: partitions ?? Math.min(PARTITIONS_MAX, power),
    plan: {
      partitionsHint: workers * PARTITIONS_PER_FUNCTION_WORKER,
      broadcastBytes: broadcastBytes ?? BROADCAST_BYTES,
      scanBytes: broadcastBytes ?? SCAN_BYTES / Math.max(1, workers - 1),
      smallBytes: Math.min(SMALL_BYTES, broadcastBytes ?? SMALL_BYTES),
    },
  };
}
