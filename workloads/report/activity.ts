/** What a call spends its time on, as it happens. Times are Unix milliseconds, so that processes can be compared. */

export type Activity = "input" | "compute" | "exchange" | "output";
export const ACTIVITIES: readonly Activity[] = ["input", "compute", "exchange", "output"];

export interface Span {
  activity: Activity;
  startMs: number;
  endMs: number;
}

/** Unix milliseconds with the resolution of the monotonic clock. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Gathers the spans of one call. Neighbours of the same activity become one. */
export class Stopwatch {
  readonly spans: Span[] = [];

  /** Runs `work` on the account of an activity. */
  async time<T>(activity: Activity, work: () => T | Promise<T>): Promise<T> {
    const startMs = nowMs();
    try {
      return await work();
    } finally {
      const endMs = nowMs();
      const last = this.spans.at(-1);
      if (last !== undefined && last.activity === activity && startMs - last.endMs < 0.05) last.endMs = endMs;
      else this.spans.push({ activity, startMs, endMs });
    }
  }
}

/** Seconds of each activity, summed over the spans. */
export function secondsByActivity(spans: Iterable<Span>): Record<Activity, number> {
  const seconds: Record<Activity, number> = { input: 0, compute: 0, exchange: 0, output: 0 };
  for (const span of spans) seconds[span.activity] += (span.endMs - span.startMs) / 1000;
  return seconds;
}
