import type { MillraceError } from "../../../proto/errors.js";

/** Calls that would not end by themselves: watches and waits. A shutdown ends them. */
export class OpenStreams {
  private readonly enders = new Set<(error: MillraceError) => void>();

  /** Returns what takes the call off the list again. */
  add(end: (error: MillraceError) => void): () => void {
    this.enders.add(end);
    return () => this.enders.delete(end);
  }

  endAll(error: MillraceError): void {
    for (const end of [...this.enders]) end(error);
    this.enders.clear();
  }
}
