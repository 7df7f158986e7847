/**
 * The tiers against the device below them: what demotion and promotion move a second beside bare O_DIRECT io_uring,
 * and how soon a killed node serves its first get.
 */
import { connect } from "../client/index.js";
import { startDaemon } from "./daemon.js";
import { type BenchFigure, type BenchOptions, comparedFigure, plainFigure } from "./figure.js";
import { median, rounded } from "./measure.js";
import { findNativeProgram, runNativeProgram } from "./native_program.js";
import { freshName, type Workbench, withWorkbench } from "./workbench.js";

const MOVED_BYTES = 2 * 1024 ** 3;
const RESTART_BYTES = 8 * 1024 ** 3;
const RESTART_OBJECT_BYTES = 1024 ** 2;
const RESTART_ROUNDS_MAX = 3;
const DRAM_BYTES = 12 * 1024 ** 3;

interface Moved {
  demoteBytesPerSecond: number;
  promoteBytesPerSecond: number;
}

interface Device {
  writeBytesPerSecond: number;
  readBytesPerSecond: number;
}

/** Takes turns between the tier and the device, on the same directory and with as many bytes. */
function runMoves(
  options: BenchOptions,
  {
    name,
    rival,
    moved,
    device,
  }: {
    name: string;
    rival: string;
    moved: (one: Moved) => number;
    device: (one: Device) => number;
  },
): Promise<BenchFigure[]> {
  return withWorkbench(options, async ({ folder }) => {
    const tierProgram = findNativeProgram("tier_bench");
    const deviceProgram = findNativeProgram("disk_bench");
    if (tierProgram === null || deviceProgram === null) {
      options.note("tier_bench or disk_bench is not built (npm run build:native, with liburing)");
      return [];
    }
    const bytes = String(Math.max(256 * 1024 ** 2, Math.round(MOVED_BYTES * options.scale)));
    const figures: { moved: number[]; device: number[] } = { moved: [], device: [] };
    for (let round = 0; round < options.rounds; round += 1) {
      const { hugePages, signal } = options;
      figures.device.push(device(await runNativeProgram(deviceProgram, ["both", folder, bytes], signal)));
      figures.moved.push(moved(await runNativeProgram(tierProgram, [folder, bytes, hugePages], signal)));
    }
    return [
      comparedFigure(
        name,
        Math.round(median(figures.moved)),
        "B/s",
        { name: rival, figure: Math.round(median(figures.device)) },
        ">= 0.9x",
        figures,
      ),
    ];
  });
}

export function runDemote(options: BenchOptions): Promise<BenchFigure[]> {
  return runMoves(options, {
    name: "demotion of objects of 16 MiB",
    rival: "O_DIRECT writes of 1 MiB, 8 in flight",
    moved: ({ demoteBytesPerSecond }) => demoteBytesPerSecond,
    device: ({ writeBytesPerSecond }) => writeBytesPerSecond,
  });
}

export function runPromote(options: BenchOptions): Promise<BenchFigure[]> {
  return runMoves(options, {
    name: "promotion of objects of 16 MiB",
    rival: "O_DIRECT reads of 1 MiB, 8 in flight",
    moved: ({ promoteBytesPerSecond }) => promoteBytesPerSecond,
    device: ({ readBytesPerSecond }) => readBytesPerSecond,
  });
}

export function runRestart(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, restart);
}

async function restart(workbench: Workbench): Promise<BenchFigure[]> {
  const { options, folder } = workbench;
  const { hugePages, signal } = options;
  const objects = Math.max(16, Math.round((RESTART_BYTES / RESTART_OBJECT_BYTES) * options.scale));
  const start = () =>
    startDaemon(folder, {
      hugePages,
      signal,
      dramBytes: Math.max(256 * 1024 ** 2, Math.round(DRAM_BYTES * options.scale)),
      state: folder,
    });
  let daemon = await start();
  workbench.defer(() => daemon.stop());
  const filler = await workbench.client(daemon, "shm", { expectedBytes: 0 });
  const name = freshName();
  await filler.run("fillNamespace", { namespace: name, keys: objects, sizeBytes: RESTART_OBJECT_BYTES });
  await filler.stop();
  const seconds: number[] = [];
  for (let round = 0; round < Math.min(options.rounds, RESTART_ROUNDS_MAX); round += 1) {
    await daemon.kill();
    const begin = performance.now();
    daemon = await start();
    const client = await connect(daemon.endpoint);
    try {
      const namespace = await client.openNamespace(name);
      const got = await namespace.get(`object-${objects - 1}`);
      seconds.push((performance.now() - begin) / 1000);
      if (got.byteLength !== RESTART_OBJECT_BYTES)
        throw new Error(`${name}: the first get had the wrong size`);
    } finally {
      await client.close();
    }
  }
  return [
    plainFigure(
      `first get after kill -9, ${objects.toLocaleString("en")} objects of 1 MiB in dram`,
      rounded(median(seconds)),
      "s",
      "<= 1 s (stretch 0.1 s)",
      { seconds },
    ),
  ];
}
