/** Memory of the daemon beyond the payload, as the kernel counts it: segments, index, ordered listing, heap. */
import { setTimeout as sleep } from "node:timers/promises";
import { connect, MillraceError } from "../client/index.js";
import type { Daemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, plainFigure } from "./figure.js";
import { residentBytes, rounded } from "./measure.js";
import { type Workbench, withWorkbench } from "./workbench.js";

const OBJECTS = 10_000_000;
const OBJECT_BYTES = 100;
const TARGET = "<= 160 B (stretch 96 B)";

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const client = await workbench.client(daemon, "shm", { expectedBytes: 0 });
  // The first objects pay for what is there once: buffers, the first segment, compiled code.
  const first = await client.run("fill", { keys: 1000, sizeBytes: OBJECT_BYTES });
  const before = await daemonBytes(daemon);
  const start = performance.now();
  const all = await client.run("fill", {
    keys: Math.max(first + 1, Math.round(OBJECTS * options.scale)),
    sizeBytes: OBJECT_BYTES,
    seconds: options.seconds,
  });
  const seconds = (performance.now() - start) / 1000;
  const objects = all - first;
  const name = `daemon bytes beyond payload, ${all.toLocaleString("en")} objects of ${OBJECT_BYTES} B`;
  const figure = (what: string, after: DaemonBytes, more: object) => {
    const each = (kind: keyof DaemonBytes) => rounded((after[kind] - before[kind]) / objects);
    return plainFigure(what, rounded(each("total") - OBJECT_BYTES), "B", TARGET, {
      segmentBytesPerObject: each("segments"),
      indexBytesPerObject: each("shared"),
      heapBytesPerObject: each("heap"),
      ...more,
    });
  };
  const figures = [
    figure(name, await daemonBytes(daemon), {
      keys: `object-0 to object-${all - 1}`,
      putsPerSecond: Math.round(all / seconds),
    }),
  ];
  try {
    const listStart = performance.now();
    await client.run("list", null);
    const listSeconds = rounded((performance.now() - listStart) / 1000);
    figures.push(
      figure(`${name}, after a listing`, await daemonBytes(daemon), { firstListSeconds: listSeconds }),
    );
  } catch (thrown) {
    options.signal.throwIfAborted();
    options.note(`the listing failed: ${MillraceError.from(thrown).message}`);
  }
  return figures;
}

interface DaemonBytes {
  /** Segments in use, and everything else that is resident. */
  total: number;
  segments: number;
  /** Shared memory that is no segment: the index, rings. */
  shared: number;
  heap: number;
}

/** As soon as the daemon has stopped preparing spare segments, which are resident before they are counted. */
async function daemonBytes(daemon: Daemon): Promise<DaemonBytes> {
  const until = performance.now() + SETTLE_MS_MAX;
  let before = await readDaemonBytes(daemon);
  for (;;) {
    await sleep(SETTLE_MS);
    const now = await readDaemonBytes(daemon);
    if (Math.abs(now.shared - before.shared) < SETTLED_BYTES || performance.now() > until) return now;
    before = now;
  }
}

const SETTLE_MS = 300;
const SETTLE_MS_MAX = 5_000;
const SETTLED_BYTES = 1 << 20;

/** Spare segments are not counted: they are prepared for whoever comes next. */
async function readDaemonBytes(daemon: Daemon): Promise<DaemonBytes> {
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
