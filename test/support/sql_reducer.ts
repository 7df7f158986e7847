/** Makes a query that shows a fault smaller, as long as it still shows it. */
import type { DuckDBConnection } from "@duckdb/node-api";
import { parseSql, printSql, type SyntaxNode, type SyntaxValue } from "../../bench/sql_syntax.js";

/** Takes parts of a query away for as long as `isFaulty` holds and there is time. */
export async function reduceSql(
  connection: DuckDBConnection,
  sql: string,
  isFaulty: (sql: string) => Promise<boolean>,
  budgetMs: number,
): Promise<string> {
  const endMs = performance.now() + budgetMs;
  // DuckDB writes more parentheses than are needed.
  const written = await parseSql(connection, sql)
    .then((tree) => printSql(connection, tree))
    .catch(() => null);
  if (written === null || !(await isFaulty(written))) return sql;
  let best = written;
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false;
    const tree = await parseSql(connection, best).catch(() => null);
    if (tree === null) return best;
    for (const attempt of smaller(tree)) {
      if (performance.now() > endMs) return best;
      const text = await printSql(connection, attempt).catch(() => null);
      if (text === null || text.length >= best.length || !(await isFaulty(text))) continue;
      best = text;
      isSmaller = true;
      break;
    }
  }
  return best;
}

/** Copies of a tree with one thing less, the largest things first. */
function* smaller(tree: SyntaxNode): Generator<SyntaxNode> {
  const edits: { path: (string | number)[]; value: SyntaxValue; bytes: number }[] = [];
  visit(tree, [], (path, value) => {
    for (const replacement of replacements(value)) {
      edits.push({ path, value: replacement, bytes: size(value) - size(replacement) });
    }
  });
  edits.sort((a, b) => b.bytes - a.bytes);
  for (const { path, value } of edits) {
    const copy = structuredClone(tree);
    let at: SyntaxValue = copy;
    for (const step of path.slice(0, -1)) at = (at as SyntaxNode)[step as string] as SyntaxValue;
    (at as SyntaxNode)[path.at(-1) as string] = value;
    yield copy;
  }
}

function visit(
  value: SyntaxValue,
  path: (string | number)[],
  see: (path: (string | number)[], value: SyntaxNode) => void,
): void {
  if (value === null || typeof value !== "object") return;
  if (Array.isArray(value)) {
    for (const [i, each] of value.entries()) visit(each, [...path, i], see);
    return;
  }
  if (path.length > 0) see(path, value);
  for (const [key, each] of Object.entries(value)) visit(each, [...path, key], see);
}

const CLAUSES = ["where_clause", "having", "qualify", "filter", "condition"];
const LISTS = [
  "modifiers",
  "select_list",
  "children",
  "orders",
  "partitions",
  "case_checks",
  "group_expressions",
];
const PARTS = ["left", "right", "child", "lower", "else_expr"];

function replacements(node: SyntaxNode): SyntaxValue[] {
  const found: SyntaxValue[] = [];
  for (const clause of CLAUSES) if (node[clause]) found.push({ ...node, [clause]: null });
  for (const name of LISTS) {
    const list = node[name];
    if (!Array.isArray(list)) continue;
    for (let i = 0; i < list.length; i += 1)
      found.push({ ...node, [name]: list.filter((_, at) => at !== i) });
    if (name === "children") found.push(...list);
  }
  for (const part of PARTS) {
    const value = node[part];
    if (value !== null && typeof value === "object" && !Array.isArray(value)) found.push(value);
  }
  const map = node.map;
  if (Array.isArray(map)) {
    for (let i = 0; i < map.length; i += 1) found.push({ ...node, map: map.filter((_, at) => at !== i) });
  }
  return found;
}

function size(value: SyntaxValue): number {
  return JSON.stringify(value).length;
}
