/**
 * Bandwidth limits of remote doors: a bucket that fills at the rate allowed and holds what may be sent in one
 * burst. It may go into debt, so a chunk is never split and the long-run rate is exact.
 */
import type { Clock } from "../clock.js";

const BURST_MS = 100;

export class Pace {
  private allowedBytes: number;
  private filledAtMs: number;

  /** `bytesPerSecond` 0: no limit. */
  constructor(
    readonly bytesPerSecond: number,
    private readonly clock: Clock,
  ) {
    this.allowedBytes = this.burstBytes;
    this.filledAtMs = clock.monotonicMs();
  }

  /** Takes note of `bytes` just moved and says how long to wait before moving more. */
  spend(bytes: number): number {
    if (this.bytesPerSecond === 0) return 0;
    const nowMs = this.clock.monotonicMs();
    const filled = this.allowedBytes + ((nowMs - this.filledAtMs) * this.bytesPerSecond) / 1000;
    this.allowedBytes = Math.min(filled, this.burstBytes) - bytes;
    this.filledAtMs = nowMs;
    return this.allowedBytes >= 0 ? 0 : (-this.allowedBytes * 1000) / this.bytesPerSecond;
  }

  private get burstBytes(): number {
    return (this.bytesPerSecond * BURST_MS) / 1000;
  }
}
