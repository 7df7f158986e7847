/** What a sort reports: the JSON document, which is a contract, and the summary for people. */
import type { Activity } from "../report/activity.js";
import { formatBytes, formatCount, formatSeconds, formatShare } from "../report/format.js";

/** `millrace sort --json` prints this document. Times are wall-clock seconds. */
export interface SortDocument {
  workload: "sort";
  records: number;
  bytes: number;
  workers: number;
  partitions: number;
  /** From the first sample to the last validation, on function workers that are up. */
  seconds: number;
  phases: { sample: number; map: number; reduce: number };
  /**
   * What the calls spent, summed over all of them and divided by the number of function workers, so that the parts
   * compare with `seconds`; what is missing is function workers waiting. `exchange` is asking for room, committing
   * and locating: records are written to the store and read from it by the kernels, which is `compute`.
   */
  time: Record<Activity, number>;
  exchange: {
    /** What the reduce calls took from the map outputs. */
    bytes: number;
    /** Millrace's transports; another store adds its own name. */
    byTransport: { shm: number; tcp: number; grpc: number; [store: string]: number };
    /** Where they lay when they were read. Over tcp and grpc the node reads files, and they count as `dram`. */
    byTier: { dram: number; nvme: number };
  };
  /** Bytes of the largest partition over the mean. */
  partitionSkew: number;
  /** Fresh attempts of calls whose attempt before had failed. */
  retries: number;
  validated: boolean;
  /** 128-bit sum of the zlib CRC32 of every record, hexadecimal. */
  checksum: string;
  store: "millrace" | "redis" | "file" | "s3";
}

/** The summary that the command prints on a terminal. */
export function describeSort(document: SortDocument, startUpSeconds: number): string {
  const { seconds, phases, time, exchange } = document;
  const share = (part: number): string => (seconds === 0 ? "" : ` (${formatShare(part / seconds)})`);
  const known = time.input + time.compute + time.exchange + time.output;
  const moved = Object.entries(exchange.byTransport)
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${formatBytes(bytes)} over ${name}`);
  const rows: [string, string][] = [
    ["records", `${formatCount(document.records)} (${formatBytes(document.bytes)})`],
    ["time", `${formatSeconds(seconds)}, ${throughput(document)}; start-up ${formatSeconds(startUpSeconds)}`],
    [
      "phases",
      `sample ${formatSeconds(phases.sample)}, map ${formatSeconds(phases.map)}, reduce ${formatSeconds(phases.reduce)}`,
    ],
    [
      "split",
      `input ${formatSeconds(time.input)}${share(time.input)}, compute ${formatSeconds(time.compute)}${share(time.compute)}, ` +
        `exchange ${formatSeconds(time.exchange)}${share(time.exchange)}, output ${formatSeconds(time.output)}${share(time.output)}, ` +
        `waiting ${formatSeconds(Math.max(0, seconds - known))}`,
    ],
    ["exchange", moved.length === 0 ? "nothing" : `${moved.join(", ")} (store: ${document.store})`],
    [
      "partitions",
      `${formatCount(document.partitions)} on ${formatCount(document.workers)} function workers, ` +
        `the largest ${document.partitionSkew.toFixed(2)} times the mean`,
    ],
    ["retries", formatCount(document.retries)],
    ["validated", `${document.validated ? "yes" : "NO"}, checksum ${document.checksum}`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(11)} ${value}`).join("\n");
}

export function throughput(document: SortDocument): string {
  return document.seconds === 0 ? "" : `${formatBytes(Math.round(document.bytes / document.seconds))}/s`;
}
