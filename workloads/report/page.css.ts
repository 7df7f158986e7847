/** The look of the report. Colours are set once per scheme; the charts refer to them by name. */
export const PAGE_CSS = `
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1a2330; --soft: #5c6878; --line: #dfe3e9; --grid: #e9ecf1;
  --input: #3f8fd2; --compute: #2f9e77; --exchange: #e08a1e; --output: #8a63c9; --waiting: #c3cad4;
  --accent: #3f8fd2; --good: #1f7f5c; --bad: #c0392b; --hover: #1a2330; --hover-ink: #ffffff; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2029; --ink: #e6eaf0; --soft: #97a3b4; --line: #2b3441; --grid: #252d38;
  --input: #5aa7e6; --compute: #43b98e; --exchange: #f0a445; --output: #a583e0; --waiting: #455163;
  --accent: #5aa7e6; --good: #4cc38f; --bad: #f07167; --hover: #e6eaf0; --hover-ink: #12161c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 48px; }
header .workload { color: var(--soft); font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px; }
h1 { font-size: 26px; line-height: 1.25; margin: 4px 0; font-weight: 650; letter-spacing: -0.01em; }
header p { margin: 0; color: var(--soft); }
.badge { display: inline-block; margin-left: 10px; padding: 1px 10px; border-radius: 999px; font-size: 12px; font-weight: 600;
  vertical-align: 4px; border: 1px solid currentColor; letter-spacing: 0; }
.badge.good { color: var(--good); } .badge.bad { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 12px; }
.fact, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.fact { padding: 12px 16px; }
.fact .label { color: var(--soft); font-size: 12px; }
.fact .value { font-size: 21px; font-weight: 620; font-variant-numeric: tabular-nums; white-space: nowrap; }
.fact .note { color: var(--soft); font-size: 12px; }
section { padding: 16px 20px 18px; margin: 12px 0; overflow: hidden; }
h2 { font-size: 15px; margin: 0 0 2px; font-weight: 620; }
section > p { margin: 0 0 12px; color: var(--soft); font-size: 13px; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; } .columns section { margin: 0; }
@media (max-width: 760px) { .columns { grid-template-columns: 1fr; } }
svg { display: block; width: 100%; height: auto; } svg svg.clip { width: auto; overflow: hidden; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg text.ink { fill: var(--ink); } svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--line); }
svg .phase { fill: var(--ink); opacity: 0.035; } svg .phase.even { opacity: 0; }
svg .call-back { fill: var(--waiting); opacity: 0.45; } svg .call text { fill: #fff; font-weight: 600; pointer-events: none;
  stroke: rgb(0 0 0 / 0.45); stroke-width: 2.5px; paint-order: stroke; }
svg .call.again rect.frame { stroke: var(--bad); stroke-width: 2; } svg .frame { fill: none; stroke: var(--card); }
svg .call:hover .frame { stroke: var(--ink); stroke-width: 1.5; }
svg .stage rect { fill: var(--card); stroke: var(--line); stroke-width: 1.5; } svg .stage:hover rect { stroke: var(--ink); }
svg .stage text.title { font-weight: 600; font-size: 12px; } svg .edge { fill: none; stroke: var(--exchange); opacity: 0.55; }
svg .edge:hover { opacity: 1; } svg .edge-label { fill: var(--ink); stroke: var(--card); stroke-width: 3px; paint-order: stroke; pointer-events: none; }
.input { fill: var(--input); background: var(--input); } .compute { fill: var(--compute); background: var(--compute); }
.exchange { fill: var(--exchange); background: var(--exchange); } .output { fill: var(--output); background: var(--output); }
.line { fill: none; stroke-width: 2; } .line.line-a { stroke: var(--accent); } .line.line-b { stroke: var(--good); } .line.line-c { stroke: var(--bad); }
.dot.line-a, text.line-a { fill: var(--accent); } .dot.line-b, text.line-b { fill: var(--good); } .dot.line-c, text.line-c { fill: var(--bad); }
.waiting { fill: var(--waiting); background: var(--waiting); } .accent { fill: var(--accent); background: var(--accent); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; margin-left: 4px; }
.split { display: flex; height: 26px; border-radius: 6px; overflow: hidden; gap: 1px; } .split span { min-width: 0; }
.bar { display: grid; grid-template-columns: 64px 1fr 84px; align-items: center; gap: 10px; margin: 6px 0; }
.bar .track { background: var(--grid); height: 14px; border-radius: 4px; overflow: hidden; }
.bar .fill { height: 100%; border-radius: 4px; } .bar .value { text-align: right; font-variant-numeric: tabular-nums; }
h3 { font-size: 12px; color: var(--soft); font-weight: 600; margin: 12px 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; } td { padding: 5px 0; border-top: 1px solid var(--grid); vertical-align: top; }
tr:first-child td { border-top: 0; } td:first-child { color: var(--soft); width: 240px; padding-right: 16px; }
td:last-child { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; white-space: pre-wrap; }
#hover { position: fixed; pointer-events: none; background: var(--hover); color: var(--hover-ink); padding: 8px 11px; border-radius: 7px;
  font-size: 12px; line-height: 1.45; white-space: pre; opacity: 0; transition: opacity 80ms; z-index: 2; max-width: 420px; }
footer { color: var(--soft); font-size: 12px; margin-top: 18px; }
`;
