/** Draws how something went on: lines over rounds, trees, and the like. */
import type { ReportCurve } from "./model.js";
import { escapeHtml, px } from "./svg.js";

const WIDTH = 520;
const HEIGHT = 240;
const LEFT = 64;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 34;
const TICKS = 5;
/** As many lines can be told apart; their classes are in page.css.ts. */
const LINE_CLASSES = ["line-a", "line-b", "line-c"];

interface Axis {
  min: number;
  max: number;
  ticks: number[];
}

export function drawCurve(curve: ReportCurve): string {
  const points = curve.lines.flatMap((line) => line.points);
  if (points.length === 0) return "<p>Nothing happened.</p>";
  const along = linearAxis(points.map(([x]) => x));
  const up = curve.logarithmic
    ? logarithmicAxis(points.map(([, y]) => y))
    : linearAxis(points.map(([, y]) => y));
  const x = (value: number) => LEFT + place(value, along) * (WIDTH - LEFT - RIGHT);
  const height = (value: number) => (curve.logarithmic ? Math.log10(value) : value);
  const y = (value: number) => HEIGHT - BOTTOM - place(height(value), up) * (HEIGHT - TOP - BOTTOM);
  const grid = up.ticks.map((tick) => {
    const value = curve.logarithmic ? 10 ** tick : tick;
    return (
      `<line class="grid" x1="${LEFT}" y1="${px(y(value))}" x2="${WIDTH - RIGHT}" y2="${px(y(value))}"/>` +
      `<text x="${LEFT - 6}" y="${px(y(value) + 4)}" text-anchor="end">${label(value)}</text>`
    );
  });
  const feet = along.ticks.map(
    (tick) =>
      `<text x="${px(x(tick))}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${label(tick)}</text>`,
  );
  const lines = curve.lines.map((line, i) => {
    const colour = LINE_CLASSES[i % LINE_CLASSES.length];
    const path = line.points
      .map(([px0, py0], n) => `${n === 0 ? "M" : "L"}${px(x(px0))} ${px(y(py0))}`)
      .join("");
    const last = line.points.at(-1);
    // One point is no line.
    const dot =
      last === undefined
        ? ""
        : `<circle class="dot ${colour}" cx="${px(x(last[0]))}" cy="${px(y(last[1]))}" r="3"/>`;
    return `<path class="line ${colour}" d="${path}"/>${dot}`;
  });
  const legend = curve.lines.map(
    (line, i) =>
      `<text class="name ${LINE_CLASSES[i % LINE_CLASSES.length]}" x="${WIDTH - RIGHT}" y="${TOP + 12 + 15 * i}" text-anchor="end">${escapeHtml(line.label)}</text>`,
  );
  return (
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(curve.title)}">${grid.join("")}${feet.join("")}` +
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 4}" text-anchor="end">${escapeHtml(curve.along)}</text>` +
    `${lines.join("")}${legend.join("")}</svg>`
  );
}

function place(value: number, axis: Axis): number {
  return axis.max === axis.min ? 0.5 : (value - axis.min) / (axis.max - axis.min);
}

/** Ticks at round numbers, the ends at ticks. */
function linearAxis(values: readonly number[]): Axis {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const rough = (high - low) / TICKS;
  if (rough === 0) return { min: low, max: high, ticks: [low] };
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? rough;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return { min: first * step, max: last * step, ticks };
}

/** In powers of ten: minimum, maximum and ticks are exponents. */
function logarithmicAxis(values: readonly number[]): Axis {
  const min = Math.floor(Math.log10(Math.min(...values)) + 1e-9);
  const max = Math.max(min + 1, Math.ceil(Math.log10(Math.max(...values)) - 1e-9));
  const every = Math.ceil((max - min) / (2 * TICKS));
  const ticks = Array.from({ length: Math.floor((max - min) / every) + 1 }, (_, i) => min + i * every);
  return { min, max, ticks };
}

function label(value: number): string {
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6)) return value.toExponential(0);
  return String(Number(value.toPrecision(6)));
}
