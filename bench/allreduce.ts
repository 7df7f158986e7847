/**
 * The all-reduce of four members, processes of their own on one host, over shared memory; beside it the same through
 * Redis, and the mere sum in one process.
 */
import type { AllReduceLoad, AllReduceSample } from "./allreduce_tasks.js";
import type { ClientProcess } from "./client_process.js";
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, medianOf, rounded, takeTurns } from "./measure.js";
import { freshName, type Workbench, withWorkbench } from "./workbench.js";

const MEMBERS = 4;
const KB = 1000;
const MB = 1000 * KB;
const SIZES: readonly { name: string; sizeBytes: number; share: number }[] = [
  { name: "8 B", sizeBytes: 8, share: 0.15 },
  { name: "100 KB", sizeBytes: 100 * KB, share: 0.2 },
  { name: "100 MB", sizeBytes: 100 * MB, share: 0.5 },
];
/** At which the two exchanges are compared: see DIRECT_EXTRA_BYTES_MAX of client/collectives/limits.ts. */
const EXCHANGES = { name: "2 MB", sizeBytes: 2 * MB, share: 0.15 };
const ROUNDS_MIN = 2;
const ROUNDS_MAX = 100_000;
/** To find out how long a round takes: as many, but not more bytes. */
const PROBE_ROUNDS = 10;
const PROBE_BYTES = 10 * MB;

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

interface Sample {
  p50Us: number;
  p99Us: number;
  bytesPerRound: number;
  copiesAvoidedBytesPerRound: number;
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const redis = await workbench.redis();
  const largest = Math.max(4, ...SIZES.map(({ sizeBytes }) => scaled(sizeBytes, options.scale)));
  const first = await workbench.client(daemon, "shm", { expectedBytes: 4 * MEMBERS * largest });
  const members: ClientProcess[] = [first];
  while (members.length < MEMBERS) members.push(await workbench.client(daemon, "shm", first.namespace));

  const figures: BenchFigure[] = [];
  for (const { name, sizeBytes: unscaled, share } of SIZES) {
    const sizeBytes = scaled(unscaled, options.scale);
    const turns = await takeTurns(options, share, {
      millrace: exchange(members, sizeBytes, (member, load) => member.run("allReduce", load)),
      redis:
        redis === null
          ? null
          : exchange(members, sizeBytes, (member, load) =>
              member.run("allReduceRedis", { ...load, socketPath: redis.socketPath }),
            ),
      sum: (seconds: number) => sumInProcess(first, sizeBytes, seconds),
    });
    const figure = median(turns.millrace.map(({ p50Us }) => p50Us));
    const sum = median(turns.sum.map(({ p50Us }) => p50Us));
    figures.push(
      comparedFigure(
        `all-reduce of ${name}, ${MEMBERS} members, p50`,
        rounded(figure),
        "us",
        {
          name: redis === null ? "Redis is not installed" : "the same through Redis, Unix socket",
          figure: medianOf(turns.redis, ({ p50Us }) => p50Us),
        },
        null,
        {
          sizeBytes,
          latency_us_p99: rounded(median(turns.millrace.map(({ p99Us }) => p99Us))),
          bytesPerRound: median(turns.millrace.map(({ bytesPerRound }) => bytesPerRound)),
          bytesReadInPlacePerRound: median(
            turns.millrace.map(({ copiesAvoidedBytesPerRound }) => copiesAvoidedBytesPerRound),
          ),
          sumInOneProcess_us: rounded(sum),
          timesTheSum: rounded(figure / sum),
        },
      ),
    );
  }
  return [...figures, await compareExchanges(members, options)];
}

async function compareExchanges(
  members: readonly ClientProcess[],
  options: BenchOptions,
): Promise<BenchFigure> {
  const sizeBytes = scaled(EXCHANGES.sizeBytes, options.scale);
  const forced = (kind: "direct" | "sharded") =>
    exchange(members, sizeBytes, (member, load) => member.run("allReduce", { ...load, exchange: kind }));
  const turns = await takeTurns(options, EXCHANGES.share, {
    sharded: forced("sharded"),
    direct: forced("direct"),
  });
  return comparedFigure(
    `${EXCHANGES.name}, a slice summed by each member, p50`,
    rounded(median(turns.sharded.map(({ p50Us }) => p50Us))),
    "us",
    { name: "all summed by each member", figure: rounded(median(turns.direct.map(({ p50Us }) => p50Us))) },
    null,
    { sizeBytes },
  );
}

/** A contender that has all members do as many rounds together as the time allows. */
function exchange(
  members: readonly ClientProcess[],
  sizeBytes: number,
  run: (member: ClientProcess, load: AllReduceLoad) => Promise<AllReduceSample>,
): (seconds: number) => Promise<Sample> {
  let roundSeconds = 0;
  return async (seconds) => {
    const wanted =
      roundSeconds === 0
        ? Math.min(PROBE_ROUNDS, PROBE_BYTES / sizeBytes)
        : Math.ceil(seconds / roundSeconds);
    const rounds = Math.max(ROUNDS_MIN, Math.min(ROUNDS_MAX, Math.floor(wanted)));
    const group = freshName();
    const samples = await Promise.all(
      members.map((member, rank) =>
        run(member, { group, rank, size: members.length, sizeBytes, rounds, exchange: null }),
      ),
    );
    const p50Us = median(samples.map((sample) => sample.p50Us));
    roundSeconds = p50Us / 1e6;
    const perRound = (value: (sample: AllReduceSample) => number) =>
      Math.round(samples.reduce((sum, sample) => sum + value(sample), 0) / rounds);
    return {
      p50Us,
      p99Us: median(samples.map((sample) => sample.p99Us)),
      bytesPerRound: perRound(({ bytesIn, bytesOut }) => bytesIn + bytesOut),
      copiesAvoidedBytesPerRound: perRound(({ copiesAvoidedBytes }) => copiesAvoidedBytes),
    };
  };
}

async function sumInProcess(
  client: ClientProcess,
  sizeBytes: number,
  seconds: number,
): Promise<{ p50Us: number }> {
  // Some 3 GB/s, to be done in the time.
  const roundSeconds = (sizeBytes * MEMBERS) / 3e9 + 1e-5;
  const rounds = Math.max(ROUNDS_MIN, Math.min(1000, Math.ceil(seconds / roundSeconds)));
  return client.run("sumInProcess", { size: MEMBERS, sizeBytes, rounds });
}

function scaled(sizeBytes: number, scale: number): number {
  return Math.max(8, Math.round((sizeBytes * scale) / 8) * 8);
}
