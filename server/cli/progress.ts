/** Progress on a terminal: one bar a stage, on stderr. */
import { MultiBar, Presets, type SingleBar } from "cli-progress";

export class ProgressBars {
  readonly #bars = new MultiBar(
    {
      format: "{stage} {bar} {percentage}%",
      hideCursor: true,
      clearOnComplete: true,
      stream: process.stderr,
    },
    Presets.shades_classic,
  );
  readonly #byStage = new Map<string, SingleBar>();
  #stopped = false;

  /** `fraction`: 0 to 1. */
  show(stage: string, fraction: number): void {
    let bar = this.#byStage.get(stage);
    if (bar === undefined) {
      bar = this.#bars.create(100, 0, { stage });
      this.#byStage.set(stage, bar);
    }
    bar.update(Math.floor(fraction * 100));
  }

  /** Takes a bar away: where there may be more stages than a terminal has lines. */
  hide(stage: string): void {
    const bar = this.#byStage.get(stage);
    if (bar === undefined) return;
    this.#bars.remove(bar);
    this.#byStage.delete(stage);
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#bars.stop();
  }
}

/** Bars where somebody can see them, else null. */
export function progressBars(json: boolean): ProgressBars | null {
  return !json && process.stderr.isTTY === true ? new ProgressBars() : null;
}
