/** Draws a graph of stages: what is read first on top, the result at the bottom, bytes on the edges. */
import { formatBytes } from "./format.js";
import type { ReportEdge, ReportGraph, ReportNode } from "./model.js";
import { escapeHtml, px } from "./svg.js";

const NODE_WIDTH = 184;
const NODE_HEIGHT = 62;
const GAP_X = 18;
const GAP_Y = 54;
const WIDTH_MIN = 1100;
/** Passes over the rows that put nodes near what they are joined to. */
const PASSES = 4;
/** Of a node's title and its other lines; what a wide font does not fit is clipped. */
const TITLE_CHARACTERS = 25;
const LINE_CHARACTERS = 30;

interface Placed {
  node: ReportNode;
  row: number;
  /** Of its middle. */
  x: number;
}

export function drawGraph(graph: ReportGraph): string {
  const placed = place(graph);
  const rows = Math.max(0, ...[...placed.values()].map(({ row }) => row)) + 1;
  const widest = Math.max(0, ...[...placed.values()].map(({ x }) => x + NODE_WIDTH / 2));
  const width = Math.max(WIDTH_MIN, widest);
  const shift = (width - widest) / 2;
  const height = rows * NODE_HEIGHT + (rows - 1) * GAP_Y;
  const most = Math.max(1, ...graph.edges.map((edge) => edge.bytes));
  const edges = graph.edges.map((edge) => drawEdge(edge, placed, shift, most));
  const nodes = [...placed.values()].map((each) => drawNode(each, shift));
  return (
    `<svg viewBox="0 0 ${px(width)} ${px(height + 2)}" role="img" aria-label="Graph of the stages">` +
    `${edges.map(({ path }) => path).join("")}${nodes.join("")}${edges.map(({ label }) => label).join("")}</svg>`
  );
}

/** Rows by the distance from the result, so that most edges go from one row to the next. */
function place(graph: ReportGraph): Map<string, Placed> {
  const known = new Set(graph.nodes.map(({ id }) => id));
  const edges = graph.edges.filter(({ from, to }) => known.has(from) && known.has(to));
  const depths = new Map<string, number>();
  const depthOf = (id: string, above: ReadonlySet<string>): number => {
    const found = depths.get(id);
    if (found !== undefined) return found;
    const further = new Set(above).add(id);
    const readers = edges.filter(({ from, to }) => from === id && !further.has(to));
    const depth = Math.max(-1, ...readers.map(({ to }) => depthOf(to, further))) + 1;
    depths.set(id, depth);
    return depth;
  };
  for (const { id } of graph.nodes) depthOf(id, new Set());
  const deepest = Math.max(0, ...depths.values());
  const rows: ReportNode[][] = Array.from({ length: deepest + 1 }, () => []);
  for (const node of graph.nodes) rows[deepest - (depths.get(node.id) ?? 0)]?.push(node);
  const placed = new Map<string, Placed>();
  const widest = Math.max(1, ...rows.map((row) => row.length));
  const put = (row: readonly ReportNode[], number: number): void => {
    const margin = ((widest - row.length) * (NODE_WIDTH + GAP_X)) / 2;
    row.forEach((node, i) => {
      placed.set(node.id, { node, row: number, x: margin + i * (NODE_WIDTH + GAP_X) + NODE_WIDTH / 2 });
    });
  };
  rows.forEach(put);
  for (let pass = 0; pass < PASSES; pass += 1) {
    const downwards = pass % 2 === 1;
    const order = rows.map((_, number) => number);
    if (!downwards) order.reverse();
    for (const number of order) {
      const row = rows[number] as ReportNode[];
      const wanted = new Map(row.map(({ id }) => [id, middleOf(id, edges, placed, downwards)]));
      row.sort((a, b) => (wanted.get(a.id) ?? 0) - (wanted.get(b.id) ?? 0));
      put(row, number);
    }
  }
  return placed;
}

/** Where the nodes lie, on average, that a node reads from or is read by. */
function middleOf(
  id: string,
  edges: readonly ReportEdge[],
  placed: ReadonlyMap<string, Placed>,
  downwards: boolean,
): number {
  const others = edges.flatMap(({ from, to }) => {
    if (downwards) return to === id ? [from] : [];
    return from === id ? [to] : [];
  });
  const all = others.length === 0 ? [id] : others;
  return all.reduce((sum, other) => sum + (placed.get(other)?.x ?? 0), 0) / all.length;
}

function drawNode({ node, row, x }: Placed, shift: number): string {
  const left = px(x - NODE_WIDTH / 2 + shift);
  const top = px(row * (NODE_HEIGHT + GAP_Y) + 1);
  const hover = escapeHtml([node.title, ...node.details].join("\n"));
  const lines = node.lines.map(
    (line, i) => `<text x="10" y="${36 + i * 15}">${escapeHtml(cut(line, LINE_CHARACTERS))}</text>`,
  );
  return (
    `<g class="stage" data-hover="${hover}"><rect x="${left}" y="${top}" width="${NODE_WIDTH}" height="${NODE_HEIGHT}" rx="7"/>` +
    `<svg class="clip" x="${left}" y="${top}" width="${NODE_WIDTH - 6}" height="${NODE_HEIGHT}">` +
    `<text class="ink title" x="10" y="19">${escapeHtml(cut(node.title, TITLE_CHARACTERS))}</text>${lines.join("")}</svg></g>`
  );
}

function drawEdge(
  edge: ReportEdge,
  placed: ReadonlyMap<string, Placed>,
  shift: number,
  most: number,
): { path: string; label: string } {
  const from = placed.get(edge.from);
  const to = placed.get(edge.to);
  if (from === undefined || to === undefined) return { path: "", label: "" };
  const [x1, x2] = [from.x + shift, to.x + shift];
  const y1 = from.row * (NODE_HEIGHT + GAP_Y) + NODE_HEIGHT;
  const y2 = to.row * (NODE_HEIGHT + GAP_Y);
  const bend = (y2 - y1) / 2;
  // A tenth of the bytes is a third of the width: small edges stay visible.
  const thickness = 1 + 7 * Math.sqrt(edge.bytes / most);
  const words = `${edge.kind} ${formatBytes(edge.bytes)}`;
  const hover = escapeHtml(`${words}\nfrom ${from.node.title}\nto ${to.node.title}`);
  const dashes = edge.kind === "broadcast" ? ' stroke-dasharray="7 4"' : "";
  return {
    path: `<path class="edge" data-hover="${hover}" d="M${px(x1)} ${px(y1)} C${px(x1)} ${px(y1 + bend)} ${px(x2)} ${px(y2 - bend)} ${px(x2)} ${px(y2)}" stroke-width="${px(thickness)}"${dashes}/>`,
    // Near its beginning, where edges that meet below are still apart.
    label: `<text class="edge-label" x="${px(x1 + (x2 - x1) * 0.16)}" y="${px(y1 + 20)}" text-anchor="middle">${escapeHtml(words)}</text>`,
  };
}

function cut(text: string, characters: number): string {
  return text.length <= characters ? text : `${text.slice(0, characters - 1)}…`;
}
