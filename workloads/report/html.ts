/** Turns a `Report` into one self-contained page: styles, charts and script inline, nothing loaded from anywhere. */
import { ACTIVITIES, secondsByActivity } from "./activity.js";
import { drawCurve } from "./curve.js";
import { formatBytes, formatCount, formatSeconds, formatShare } from "./format.js";
import { drawGraph } from "./graph.js";
import type { Report, ReportBar, ReportCall, ReportFact, ReportRanking } from "./model.js";
import { PAGE_CSS } from "./page.css.js";
import { escapeHtml, px } from "./svg.js";

/** Shows the lines of whatever lies under the pointer. */
const HOVER_SCRIPT = `
const box = document.getElementById("hover");
document.addEventListener("pointermove", (event) => {
  const target = event.target.closest("[data-hover]");
  if (target === null) { box.style.opacity = 0; return; }
  box.textContent = target.dataset.hover;
  const x = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
  const y = event.clientY + 18 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 12 : event.clientY + 18;
  box.style.left = Math.max(8, x) + "px"; box.style.top = y + "px"; box.style.opacity = 1;
});`;

export function renderReport(report: Report): string {
  const badge =
    report.validated === null
      ? ""
      : report.validated
        ? '<span class="badge good">validated</span>'
        : '<span class="badge bad">not valid</span>';
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(report.workload)}: ${escapeHtml(report.headline)}</title><style>${PAGE_CSS}</style></head>
<body><main>
<header><div class="workload">${escapeHtml(report.workload)}</div><h1>${escapeHtml(report.headline)}${badge}</h1><p>${escapeHtml(report.subline)}</p></header>
<div class="facts">${report.facts.map(factTile).join("")}</div>
${graphSection(report)}${curveSections(report)}<section><h2>Timeline</h2><p>One row a function worker, one bar a call, coloured by what the call was doing. Grey is a call waiting, blank a function worker without one.</p>
${timeline(report)}${activityLegend()}</section>
<section><h2>Where the time went</h2><p>Time of the calls, divided by the number of function workers: the parts add up to the wall-clock time.</p>
${timeSplit(report)}</section>
<div class="columns">
<section><h2>Bytes exchanged</h2><p>What calls took from the outputs of others.</p>
<h3>By transport</h3>${bars(report.byTransport, "exchange")}<h3>By tier</h3>${bars(report.byTier, "accent")}</section>
<section><h2>Partition sizes</h2>${partitions(report)}</section>
</div>
<section><h2>Details</h2><table>${report.details.map(detailRow).join("")}</table></section>
<footer>Written by millrace on ${escapeHtml(new Date(report.endMs).toISOString())}.</footer>
</main><div id="hover" role="tooltip"></div><script>${HOVER_SCRIPT}</script></body></html>
`;
}

function graphSection({ graph }: Report): string {
  if (graph === undefined) return "";
  return `<section><h2>Stages</h2><p>From the tables down to the result; on the edges what was read, broadcasts by every task.</p>
${drawGraph(graph)}</section>
`;
}

function curveSections({ curves = [], rankings = [] }: Report): string {
  const drawn = [
    ...curves.map((curve) => `<section><h2>${escapeHtml(curve.title)}</h2>${drawCurve(curve)}</section>`),
    ...rankings.map(
      (ranking) => `<section><h2>${escapeHtml(ranking.title)}</h2>${drawRanking(ranking)}</section>`,
    ),
  ];
  return drawn.length === 0 ? "" : `<div class="columns">${drawn.join("\n")}</div>\n`;
}

function factTile(fact: ReportFact): string {
  const note = fact.note === undefined ? "" : `<div class="note">${escapeHtml(fact.note)}</div>`;
  return `<div class="fact"><div class="label">${escapeHtml(fact.label)}</div><div class="value">${escapeHtml(fact.value)}</div>${note}</div>`;
}

function detailRow(fact: ReportFact): string {
  return `<tr><td>${escapeHtml(fact.label)}</td><td>${escapeHtml(fact.value)}</td></tr>`;
}

const WIDTH = 1100;
const GUTTER = 118;
const ROW = 40;
const BAR = 28;
const TOP = 24;

function timeline(report: Report): string {
  const totalMs = Math.max(1e-3, report.endMs - report.startMs);
  const scale = (WIDTH - GUTTER - 8) / totalMs;
  const x = (ms: number): number => GUTTER + Math.min(totalMs, Math.max(0, ms - report.startMs)) * scale;
  const bottom = TOP + report.lanes.length * ROW;
  const parts: string[] = [];
  report.phases.forEach((phase, i) => {
    const [from, to] = [x(phase.startMs), x(phase.endMs)];
    parts.push(
      `<rect class="phase${i % 2 === 0 ? "" : " even"}" x="${px(from)}" y="0" width="${px(to - from)}" height="${bottom}"/>`,
    );
    const name = `${phase.name} ${formatSeconds((phase.endMs - phase.startMs) / 1000)}`;
    // A phase too short for its name is told by its shade and by the figures above.
    if (to - from > name.length * 6.2)
      parts.push(`<text class="ink" x="${px(from + 5)}" y="15">${escapeHtml(name)}</text>`);
  });
  for (const tick of ticks(totalMs)) {
    const at = px(x(report.startMs + tick));
    parts.push(`<line class="grid" x1="${at}" x2="${at}" y1="${TOP - 2}" y2="${bottom}"/>`);
    parts.push(
      `<text x="${at}" y="${bottom + 15}" text-anchor="middle">${escapeHtml(formatSeconds(tick / 1000))}</text>`,
    );
  }
  report.lanes.forEach((lane, row) => {
    const y = TOP + row * ROW + (ROW - BAR) / 2;
    parts.push(`<text class="ink" x="0" y="${px(y + BAR / 2 + 4)}">${escapeHtml(lane.name)}</text>`);
    for (const call of lane.calls) parts.push(drawCall(call, x, y));
  });
  parts.push(`<line class="axis" x1="${GUTTER}" x2="${WIDTH - 8}" y1="${bottom}" y2="${bottom}"/>`);
  return `<svg viewBox="0 0 ${WIDTH} ${bottom + 22}" role="img" aria-label="Timeline of the function workers">${parts.join("")}</svg>`;
}

function drawCall(call: ReportCall, x: (ms: number) => number, y: number): string {
  const from = x(call.startMs);
  const width = Math.max(1, x(call.endMs) - from);
  const seconds = secondsByActivity(call.spans);
  const hover = [
    `${call.label}${call.attempt > 1 ? ` (attempt ${call.attempt})` : ""}`,
    `took ${formatSeconds((call.endMs - call.startMs) / 1000)}`,
    ...ACTIVITIES.filter((activity) => seconds[activity] > 0).map(
      (activity) => `  ${activity} ${formatSeconds(seconds[activity])}`,
    ),
    ...call.details,
  ].join("\n");
  const spans = call.spans.map(
    (span) =>
      `<rect class="${span.activity}" x="${px(x(span.startMs))}" y="${px(y)}" width="${px(Math.max(0.3, x(span.endMs) - x(span.startMs)))}" height="${BAR}"/>`,
  );
  const label =
    width > call.label.length * 6.4 + 8
      ? `<text x="${px(from + width / 2)}" y="${px(y + BAR / 2 + 4)}" text-anchor="middle">${escapeHtml(call.label)}</text>`
      : "";
  return (
    `<g class="call${call.attempt > 1 ? " again" : ""}" data-hover="${escapeHtml(hover)}">` +
    `<rect class="call-back" x="${px(from)}" y="${px(y)}" width="${px(width)}" height="${BAR}"/>${spans.join("")}` +
    `<rect class="frame" x="${px(from)}" y="${px(y)}" width="${px(width)}" height="${BAR}"/>${label}</g>`
  );
}

/** Round marks from 0 on, at most ten of them. */
function ticks(totalMs: number): number[] {
  const rough = totalMs / 8;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step =
    [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? power * 10;
  const marks: number[] = [];
  for (let i = 0; i * step <= totalMs; i += 1) marks.push(i * step);
  return marks;
}

function activityLegend(): string {
  return `<div class="legend">${ACTIVITIES.map((name) => `<span><i class="${name}"></i>${name}</span>`).join("")}</div>`;
}

function timeSplit(report: Report): string {
  const known = ACTIVITIES.reduce((sum, activity) => sum + report.time[activity], 0);
  const parts = [
    ...ACTIVITIES.map((name) => ({ name: name as string, seconds: report.time[name] })),
    { name: "waiting", seconds: Math.max(0, report.seconds - known) },
  ];
  const total = parts.reduce((sum, part) => sum + part.seconds, 0) || 1;
  const describe = (part: { name: string; seconds: number }): string =>
    `${part.name} ${formatSeconds(part.seconds)}, ${formatShare(part.seconds / total)}`;
  const strip = parts
    .map(
      (part) =>
        `<span class="${part.name}" style="flex:${part.seconds / total} 0 0" data-hover="${escapeHtml(describe(part))}"></span>`,
    )
    .join("");
  const legend = parts
    .map(
      (part) =>
        `<span><i class="${part.name}"></i>${part.name}<b>${formatSeconds(part.seconds)}</b> ${formatShare(part.seconds / total)}</span>`,
    )
    .join("");
  return `<div class="split">${strip}</div><div class="legend">${legend}</div>`;
}

function bars(items: readonly ReportBar[], colour: string): string {
  const most = Math.max(1, ...items.map((item) => item.value));
  return items
    .map(
      (item) =>
        `<div class="bar"><span>${escapeHtml(item.label)}</span><span class="track"><span class="fill ${colour}" style="display:block;width:${((item.value / most) * 100).toFixed(2)}%"></span></span><span class="value">${escapeHtml(formatBytes(item.value))}</span></div>`,
    )
    .join("");
}

/** At most this many columns; more partitions than that share columns, each as high as its largest. */
const COLUMNS_MAX = 240;

function partitions({ partitionBytes: bytes, partitionsOf }: Report): string {
  if (bytes.length === 0) return "<p>There are no partitions.</p>";
  const width = 520;
  const height = 170;
  const left = 58;
  const most = Math.max(1, ...bytes);
  const mean = bytes.reduce((sum, size) => sum + size, 0) / bytes.length;
  const perColumn = Math.ceil(bytes.length / COLUMNS_MAX);
  const columns = Math.ceil(bytes.length / perColumn);
  const step = (width - left) / columns;
  const y = (size: number): number => height - (size / most) * (height - 14);
  const drawn: string[] = [];
  for (let column = 0; column < columns; column += 1) {
    const first = column * perColumn;
    const group = bytes.slice(first, first + perColumn);
    const top = Math.max(...group);
    const name =
      group.length === 1
        ? `partition ${first}`
        : `partitions ${first} to ${first + group.length - 1}, the largest`;
    drawn.push(
      `<rect class="accent" data-hover="${escapeHtml(`${name}: ${formatBytes(top)}`)}" x="${px(left + column * step)}" y="${px(y(top))}" width="${px(Math.max(0.5, step - Math.min(2, step * 0.2)))}" height="${px(height - y(top))}"/>`,
    );
  }
  const skew = mean === 0 ? 1 : most / mean;
  const of = partitionsOf === undefined ? "" : ` of ${escapeHtml(partitionsOf)}`;
  return `<p>${formatCount(bytes.length)} partitions${of}, ${formatBytes(Math.round(mean))} on average; the largest is ${skew.toFixed(2)} times that.</p>
<svg viewBox="0 0 ${width} ${height + 18}" role="img" aria-label="Bytes of each partition">${drawn.join("")}
<line x1="${left}" x2="${width}" y1="${px(y(mean))}" y2="${px(y(mean))}" stroke="var(--ink)" stroke-dasharray="4 4" opacity="0.6"/>
<text x="${left - 6}" y="${px(y(mean) + 4)}" text-anchor="end">mean</text>
<text x="${left - 6}" y="${height + 2}" text-anchor="end">0</text>
${Math.abs(y(most) - y(mean)) > 14 ? `<text x="${left - 6}" y="${px(y(most) + 4)}" text-anchor="end">${formatBytes(most)}</text>` : ""}
<line class="axis" x1="${left}" x2="${width}" y1="${height}" y2="${height}"/>
<text x="${left}" y="${height + 14}">0</text><text x="${width}" y="${height + 14}" text-anchor="end">${bytes.length - 1}</text></svg>`;
}

function drawRanking({ items }: ReportRanking): string {
  const most = Math.max(...items.map(({ value }) => value), 0);
  const row = 22;
  const rows = items.map(({ label, value, text }, i) => {
    const width = most === 0 ? 0 : (value / most) * 250;
    const y = i * row;
    return (
      `<text x="142" y="${y + 15}" text-anchor="end">${escapeHtml(label)}</text>` +
      `<rect class="accent" x="150" y="${y + 3}" width="${px(width)}" height="16" rx="2"/>` +
      `<text x="${px(156 + width)}" y="${y + 15}">${escapeHtml(text)}</text>`
    );
  });
  return `<svg viewBox="0 0 480 ${items.length * row}" role="img">${rows.join("")}</svg>`;
}
