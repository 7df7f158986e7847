/** Memory of the daemon beyond the payload, as the kernel counts it: segments, index, ordered listing, heap. */
import { connect } from "../client/index.js";
import type { Daemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, plainFigure } from "./figure.js";
import { residentBytes, rounded } from "./measure.js";
import { Workbench } from "./workbench.js";

const OBJECTS = 10_000_000;
const OBJECT_BYTES = 100;

export async function run(options: BenchOptions): Promise<BenchFigure[]> {
  await using workbench = new Workbench(options);
  const daemon = await workbench.daemon();
  const client = await workbench.client(daemon, "shm", { expectedBytes: 0 });
  // The first objects pay for what is there once: buffers, the first segment, compiled code.
  const first = await client.run("fill", { keys: 1000, sizeBytes: OBJECT_BYTES, seconds: options.seconds });
  const before = await daemonBytes(daemon);
  const start = performance.now();
  const all = await client.run("fill", {
    keys: Math.max(first + 1, Math.round(OBJECTS * options.scale)),
    sizeBytes: OBJECT_BYTES,
    seconds: options.seconds,
  });
  const seconds = (performance.now() - start) / 1000;
  const after = await daemonBytes(daemon);
  const objects = all - first;
  const each = (kind: keyof DaemonBytes) => rounded((after[kind] - before[kind]) / objects);
  return [
    plainFigure(
      `daemon bytes beyond payload, ${all.toLocaleString("en")} objects of ${OBJECT_BYTES} B`,
      rounded((after.total - before.total) / objects - OBJECT_BYTES),
      "B",
      "<= 160 B (stretch 96 B)",
      {
        keys: `object-0 to object-${all - 1}`,
        bytesPerObject: { total: each("total"), segments: each("segments"), shared: each("shared"), heap: each("heap") },
        putsPerSecond: Math.round(all / seconds),
      },
    ),
  ];
}

interface DaemonBytes {
  /** Segments in use, and everything else that is resident. */
  total: number;
  segments: number;
  /** Shared memory that is no segment: the index, rings. */
  shared: number;
  heap: number;
}

/** Spare segments are not counted: they are prepared for whoever comes next. */
async function daemonBytes(daemon: Daemon): Promise<DaemonBytes> {
  const client = await connect(daemon.endpoint, { transport: "grpc" });
  try {
    const { dramUsedBytes, dramSpareBytes } = await client.nodeStats();
    const resident = residentBytes(daemon.pid);
    const shared = resident.shared + resident.huge - dramUsedBytes - dramSpareBytes;
    return {
      total: dramUsedBytes + shared + resident.anonymous,
      segments: dramUsedBytes,
      shared,
      heap: resident.anonymous,
    };
  } finally {
    await client.close();
  }
}
