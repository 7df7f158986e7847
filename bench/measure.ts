/** Medians, turns, and what a process has used, from /proc. */
import { readdirSync, readFileSync } from "node:fs";
import type { BenchOptions } from "./figure.js";

/** NaN of nothing. */
export function median(values: readonly number[]): number {
  return quantile(Float64Array.from(values).sort(), 0.5);
}

/** Of values in ascending order. */
export function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Rounded to so many significant digits, for details that people read. */
export function rounded(value: number, digits = 4): number {
  return Number.isFinite(value) ? Number(value.toPrecision(digits)) : value;
}

/** One contender: does its work for about so many seconds and says what it saw. */
export type Contender<T> = (seconds: number) => Promise<T>;

/** The samples of each contender, by its name. */
export type Samples<T> = {
  [Name in keyof T]: NonNullable<T[Name]> extends Contender<infer Sample> ? Sample[] : never;
};

/**
 * Lets the contenders take turns, so that all of them meet the same neighbours on the machine: first each once
 * for warming up (`warmsUp` false: not even that), then `rounds` times for the record. Null contenders have no samples.
 * `share` of the time of `options` is used.
 */
export async function takeTurns<T extends Record<string, Contender<unknown> | null>>(
  options: BenchOptions,
  share: number,
  contenders: T,
  { warmsUp = true } = {},
): Promise<Samples<T>> {
  const names = Object.keys(contenders);
  const present = names.filter((name) => contenders[name] !== null);
  const seconds = (options.seconds * share) / (options.rounds * Math.max(1, present.length));
  const samples: Record<string, unknown[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = warmsUp ? -1 : 0; round < options.rounds; round++) {
    for (const name of present) {
      options.signal.throwIfAborted();
      const contender = contenders[name] as Contender<unknown>;
      const sample = await contender(round < 0 ? Math.min(seconds, WARM_UP_SECONDS) : seconds);
      if (round >= 0) samples[name]?.push(sample);
    }
  }
  return samples as Samples<T>;
}

const WARM_UP_SECONDS = 0.3;

/** The median of one number of all samples, or null of none. */
export function medianOf<T>(samples: readonly T[], value: (sample: T) => number): number | null {
  return samples.length === 0 ? null : median(samples.map(value));
}

export interface ProcessUsage {
  /** Of all threads, user and kernel. */
  cpuSeconds: number;
  /** Minor and major. */
  pageFaults: number;
}

// What sysconf(_SC_CLK_TCK) says on every Linux of the last decades.
const TICKS_PER_SECOND = 100;

export function usageOf(pid: number): ProcessUsage {
  // The name may have blanks and parentheses; what follows the last one has neither.
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const field = (number: number) => Number(fields[number - 3]);
  const ticks = field(14) + field(15);
  return {
    cpuSeconds: runSeconds(pid) ?? ticks / TICKS_PER_SECOND,
    pageFaults: field(10) + field(12),
  };
}

/** Nanosecond accounting, where the kernel keeps it: ticks are too coarse for short rounds. */
function runSeconds(pid: number): number | null {
  let nanoseconds = 0;
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
    }
  } catch {
    return null;
  }
  return nanoseconds > 0 ? nanoseconds / 1e9 : null;
}

/** Whether the ids of the process's threads leave no gap in which a search by counting up would end. */
export function threadsAreNear(pid: number): boolean {
  const ids = readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .sort((a, b) => a - b);
  return ids.every((id, index) => id - (ids[index - 1] ?? pid) < THREAD_GAP_MAX);
}

/** As native/bench/client_bench.cc searches. */
const THREAD_GAP_MAX = 64;

/** What a process used while `work` ran. */
export async function usedWhile<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ result: T; used: ProcessUsage }> {
  const before = usageOf(pid);
  const result = await work();
  const after = usageOf(pid);
  return {
    result,
    used: {
      cpuSeconds: after.cpuSeconds - before.cpuSeconds,
      pageFaults: after.pageFaults - before.pageFaults,
    },
  };
}

/** Resident bytes of a process by kind, its huge pages included. */
export function residentBytes(pid: number): { anonymous: number; shared: number; huge: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0);
  return {
    anonymous: kib("RssAnon") * 1024,
    shared: kib("RssShmem") * 1024,
    huge: kib("HugetlbPages") * 1024,
  };
}
