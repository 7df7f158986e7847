/** What a query says about order, by DuckDB's own parser, and the same query without its LIMIT. */
import type { DuckDBConnection } from "@duckdb/node-api";

export interface Ordering {
  /** In SQL, over columns called as the answer's are; a number: that column, from 0. */
  keys: (string | number)[];
  /** Whether there is LIMIT or OFFSET. */
  limited: boolean;
  /** The query without them; null where there are none. */
  unlimited: string | null;
}

/** A tree as `json_serialize_sql` makes it. */
export type SyntaxNode = { [key: string]: SyntaxValue };
export type SyntaxValue = SyntaxNode | SyntaxValue[] | string | number | boolean | null;

export async function parseSql(connection: DuckDBConnection, sql: string): Promise<SyntaxNode> {
  const [text] = await column(connection, "SELECT json_serialize_sql($1::VARCHAR)::VARCHAR", sql);
  // JavaScript cannot hold integers as large as DuckDB writes them.
  const tree = JSON.parse((text as string).replace(/:(-?\d{16,})(?=[,}\]])/g, `:"${LARGE}$1"`)) as SyntaxNode;
  if (tree.error) throw new Error(`DuckDB cannot parse ${sql}: ${JSON.stringify(tree)}`);
  return tree;
}

const LARGE = "large integer ";

export async function printSql(connection: DuckDBConnection, tree: SyntaxNode): Promise<string> {
  const json = JSON.stringify(tree).replace(/"large integer (-?\d+)"/g, "$1");
  const [text] = await column(connection, "SELECT json_deserialize_sql($1::JSON)", json);
  return text as string;
}

async function column(connection: DuckDBConnection, sql: string, parameter: string): Promise<unknown[]> {
  const result = await connection.runAndReadAll(sql, [parameter]);
  return result.getRows().map(([value]) => value);
}

const LIMITS = ["LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"];

export async function orderingOf(
  connection: DuckDBConnection,
  sql: string,
  names: readonly string[],
): Promise<Ordering> {
  const tree = await parseSql(connection, sql);
  const node = ((tree.statements as SyntaxNode[])[0] as SyntaxNode).node as SyntaxNode;
  const modifiers = (node.modifiers ?? []) as SyntaxNode[];
  const orders = modifiers.filter(({ type }) => type === "ORDER_MODIFIER").flatMap((each) => each.orders);
  const keys: (string | number)[] = [];
  for (const order of orders as SyntaxNode[]) {
    const key = await keyOf(connection, order.expression as SyntaxNode, node, names);
    // What cannot be told from the answer's columns orders no further than to here.
    if (key === null) break;
    keys.push(...(key === "all" ? names.map((_, i) => i) : [key]));
  }
  const limited = modifiers.some(({ type }) => LIMITS.includes(type as string));
  if (limited) node.modifiers = modifiers.filter(({ type }) => !LIMITS.includes(type as string));
  return { keys, limited, unlimited: limited ? await printSql(connection, tree) : null };
}

async function keyOf(
  connection: DuckDBConnection,
  expression: SyntaxNode,
  node: SyntaxNode,
  names: readonly string[],
): Promise<string | number | "all" | null> {
  if (expression.class === "STAR") return "all";
  if (expression.class === "CONSTANT") {
    const number = (expression.value as SyntaxNode).value;
    return typeof number === "number" ? number - 1 : null;
  }
  const selected = ((node.select_list ?? []) as SyntaxNode[]).map(bare);
  const stars = selected.some((text) => text.includes('"class":"STAR"'));
  const same = selected.indexOf(bare(expression));
  if (same >= 0 && !stars) return same;
  if (expression.class === "COLUMN_REF") {
    const name = (expression.column_names as string[]).at(-1)?.toLowerCase();
    const at = names.flatMap((each, i) => (each.toLowerCase() === name ? [i] : []));
    return at.length === 1 ? (at[0] as number) : null;
  }
  // An expression over the answer's columns: where it is over others too, DuckDB does not bind it.
  const tree = await parseSql(connection, "SELECT 0");
  const select = ((tree.statements as SyntaxNode[])[0] as SyntaxNode).node as SyntaxNode;
  select.select_list = [unqualified(expression) as SyntaxNode];
  const text = (await printSql(connection, tree)).replace(/^SELECT /, "");
  if (/\bSELECT\b/i.test(text)) return null;
  const columns = names.map((name) => `NULL AS ${quoted(name)}`).join(", ");
  try {
    // With a column beside it, an aggregate does not bind.
    const probe = `SELECT 0 = ${quoted(names[0] as string)}, ${text} FROM (SELECT ${columns})`;
    (await connection.prepare(probe)).destroySync();
    return text;
  } catch {
    return null;
  }
}

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** An expression as text that is the same wherever it stands. */
function bare(expression: SyntaxNode): string {
  return JSON.stringify(expression, (key, value) =>
    key === "query_location" || key === "alias" ? 0 : value,
  );
}

function unqualified(value: SyntaxValue): SyntaxValue {
  if (Array.isArray(value)) return value.map(unqualified);
  if (value === null || typeof value !== "object") return value;
  const copy = Object.fromEntries(Object.entries(value).map(([key, each]) => [key, unqualified(each)]));
  if (copy.class === "COLUMN_REF") copy.column_names = (copy.column_names as string[]).slice(-1);
  return copy;
}
