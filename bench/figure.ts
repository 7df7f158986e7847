/** What a benchmark says: figures, each beside its rival's from the same run and beside its target. */
import type { HugePages } from "../server/cli/serve_config.js";

/** One line of a benchmark's outcome. */
export interface BenchFigure {
  name: string;
  /** In `unit`; a median where there were several rounds. */
  figure: number;
  unit: string;
  /** The rival's, in the same unit; null where there is none, or none on this machine (`rivalName` says so). */
  rival: number | null;
  rivalName: string | null;
  /** figure / rival, so that below 1 is better for times and above 1 for rates. Null without a rival. */
  ratio: number | null;
  /**
   * From TARGETS.md, as text that `isMet` reads: it begins with `<=` or `>=` and a number. Followed by the
   * figure's unit it bounds the figure, else (`>= 3x`) the ratio. Null where there is none.
   */
  target: string | null;
  /** What else was seen, and how it was measured. */
  details: object;
}

/** What a benchmark is run with. */
export interface BenchOptions {
  /** Time for measuring in all; setting up comes on top. */
  seconds: number;
  /** How often the contenders take turns. */
  rounds: number;
  /** Multiplies counts of objects and records. */
  scale: number;
  /** Of the daemon that is measured. */
  hugePages: HugePages;
  /** Count system calls in a round of its own, under strace. */
  countSystemCalls: boolean;
  /** Aborted: stop and clean up. */
  signal: AbortSignal;
  /** Takes sentences on what could not be measured here and why. */
  note: (sentence: string) => void;
}

/** A figure without rival: `target` bounds the figure itself. */
export function plainFigure(
  name: string,
  figure: number,
  unit: string,
  target: string | null,
  details: object,
): BenchFigure {
  return { name, figure, unit, rival: null, rivalName: null, ratio: null, target, details };
}

/** A figure beside its rival's; `rival` null: it is missing, and `rivalName` says why. */
export function comparedFigure(
  name: string,
  figure: number,
  unit: string,
  rival: { name: string; figure: number | null },
  target: string | null,
  details: object,
): BenchFigure {
  return {
    name,
    figure,
    unit,
    rival: rival.figure,
    rivalName: rival.name,
    ratio: rival.figure === null || rival.figure === 0 ? null : figure / rival.figure,
    target,
    details,
  };
}

const TARGET = /^(<=|>=)\s*([\d.,]+)(?:\/([\d.,]+))?\s*(\S*)/;

/** Whether the figure reaches its target; null where there is none, or nothing to compare with. */
export function isMet(figure: BenchFigure): boolean | null {
  const match = figure.target === null ? null : TARGET.exec(figure.target);
  if (match === null) return null;
  const [, direction, number, divisor, unit] = match as unknown as [string, string, string, string?, string?];
  const bound = parseNumber(number) / (divisor === undefined ? 1 : parseNumber(divisor));
  const value = unit === figure.unit ? figure.figure : figure.ratio;
  if (value === null || !Number.isFinite(bound)) return null;
  return direction === "<=" ? value <= bound : value >= bound;
}

function parseNumber(text: string): number {
  return Number(text.replaceAll(",", ""));
}
