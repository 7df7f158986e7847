/** What the members of `bench allreduce` are told to do, each in a process of its own. */
import { Redis } from "ioredis";
import { SUM_AT_ONCE_BYTES_MAX } from "../client/collectives/limits.js";
import { type GroupOptions, kernels, type Namespace } from "../client/index.js";
import { quantile } from "./measure.js";

export interface AllReduceLoad {
  /** A new one each time: rounds begin at 0. */
  group: string;
  rank: number;
  size: number;
  /** Of each member's array. */
  sizeBytes: number;
  rounds: number;
  /** Which exchange; null: the SDK chooses. */
  exchange: "direct" | "sharded" | null;
}

export interface AllReduceSample {
  /** Of one round, as this member saw it. */
  p50Us: number;
  p99Us: number;
  /** Of the store, by this member, in all rounds. */
  bytesIn: number;
  bytesOut: number;
  copiesAvoidedBytes: number;
}

export const allReduceTasks = {
  async allReduce({ namespace }: { namespace: Namespace }, load: AllReduceLoad): Promise<AllReduceSample> {
    const { rank, size, exchange } = load;
    const forced =
      exchange === null ? {} : { directExtraBytesMax: exchange === "direct" ? Number.MAX_SAFE_INTEGER : -1 };
    const group = namespace.group(load.group, { rank, size, ...forced } as GroupOptions);
    const { mine, into } = arrays(load);
    const before = namespace.usage();
    const times = await timeRounds(load.rounds, async (round) => {
      await group.allReduce(round, mine, { into });
    });
    const after = namespace.usage();
    return {
      ...times,
      bytesIn: after.bytesIn - before.bytesIn,
      bytesOut: after.bytesOut - before.bytesOut,
      copiesAvoidedBytes: after.copiesAvoidedBytes - before.copiesAvoidedBytes,
    };
  },

  /**
   * The same through Redis, as one would write it: everybody sets its array and tells all others by a list on which
   * they block, then gets all arrays and adds them up with the same kernel.
   */
  async allReduceRedis(
    _context: unknown,
    load: AllReduceLoad & { socketPath: string },
  ): Promise<AllReduceSample> {
    const { rank, size, group } = load;
    const redis = new Redis(load.socketPath);
    const blocking = new Redis(load.socketPath);
    const { mine, into } = arrays(load);
    const bytes = Buffer.from(mine.buffer, mine.byteOffset, mine.byteLength);
    const out = new Uint8Array(into.buffer);
    const ranks = Array.from({ length: size }, (_, other) => other);
    try {
      const times = await timeRounds(load.rounds, async (round) => {
        // Written over by later rounds and runs, when everybody is done with it.
        const of = (other: number) => `array/${round % 2}/${other}`;
        const pipeline = redis.pipeline().set(of(rank), bytes);
        for (const other of ranks) pipeline.rpush(`${group}/${round}/ready/${other}`, rank);
        await pipeline.exec();
        for (const _ of ranks) await blocking.blpop(`${group}/${round}/ready/${rank}`, 0);
        const all = await redis.mgetBuffer(ranks.map(of));
        await kernels().sumArrays("float32", all as Uint8Array[], out);
      });
      const bytesOut = load.sizeBytes * size * load.rounds;
      return { ...times, bytesIn: load.sizeBytes * load.rounds, bytesOut, copiesAvoidedBytes: 0 };
    } finally {
      redis.disconnect();
      blocking.disconnect();
    }
  },

  /** The sum of as many arrays in memory of one process, one thread. */
  async sumInProcess(
    _context: unknown,
    { size, sizeBytes, rounds }: Pick<AllReduceLoad, "size" | "sizeBytes" | "rounds">,
  ): Promise<{ p50Us: number }> {
    const inputs = Array.from(
      { length: size },
      (_, rank) => new Uint8Array(arrays({ rank, sizeBytes }).mine.buffer),
    );
    const out = new Uint8Array(sizeBytes);
    return timeRounds(rounds, () => {
      // As the SDK does it.
      if (sizeBytes * size > SUM_AT_ONCE_BYTES_MAX) return kernels().sumArrays("float32", inputs, out);
      kernels().sumArraysNow("float32", inputs, out);
      return Promise.resolve();
    });
  },
};

/** Faulted in, so that rounds do not pay for it. */
function arrays({ rank, sizeBytes }: Pick<AllReduceLoad, "rank" | "sizeBytes">) {
  const mine = new Float32Array(sizeBytes / 4).fill(rank + 0.5);
  return { mine, into: new Float32Array(mine.length).fill(1) };
}

/** The first tenth of the rounds warms up. */
async function timeRounds(
  rounds: number,
  run: (round: number) => Promise<void>,
): Promise<{ p50Us: number; p99Us: number }> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    await run(round);
    times.push((performance.now() - start) * 1000);
  }
  const sorted = Float64Array.from(times.slice(Math.floor(rounds / 10))).sort();
  return { p50Us: quantile(sorted, 0.5), p99Us: quantile(sorted, 0.99) };
}
