/** Exchanges: where a lazy relation is run, and how what it leaves is read. */

import { unsupported } from "./errors.js";
import type { Key, Needed, Planner } from "./planner.js";
import {
  chooseColumns,
  columnNames,
  from,
  mark,
  moveHash,
  named,
  type Read,
  type Relation,
  rigid,
  selectSql,
  wholeBytes,
} from "./relation.js";
import type { Exchanged, Share } from "./stage.js";

/** A relation that reads an exchange. */
export function readExchange(
  planner: Planner,
  exchange: Exchanged,
  of: Relation,
  share: "split" | "whole",
  keys: readonly Key[] | null,
): Relation {
  const id = planner.nextRead();
  const split = share === "split";
  // DuckDB filters the other side of a join by a Bloom filter of the keys only where it sees a filter on this side. It
  // does not see those that the rows have passed already, so it is shown one that holds for all.
  const passed = !split && of.kept < 1 ? " WHERE c0 IS NOT DISTINCT FROM c0" : "";
  return {
    sql: `SELECT ${columnNames(of.types.length).join(", ")} FROM ${mark(id)}${passed}`,
    types: of.types,
    reads: [{ id, source: { kind: "exchange", exchange }, share, bytes: exchange.bytes }],
    spread: share,
    hash: split && keys !== null ? hashOf(keys) : null,
    divisible: split ? id : null,
    ordered: false,
    stable: true,
    emptyOnEmpty: true,
    cheap: true,
    recurring: false,
    // Now that the rows are known, their share is known better. Where nothing was left out, nothing is.
    kept: of.kept === 1 ? 1 : Math.min(1, of.kept * (exchange.rows / Math.max(1, of.rows))),
    rows: exchange.rows,
    bytes: exchange.bytes,
    label: [`stage ${exchange.stage}`],
  };
}

function hashOf(keys: readonly Key[]): Relation["hash"] {
  if (keys.some((key) => key.column === null)) return null;
  return keys.map((key) => ({ columns: [key.column!], type: key.type }));
}

/** The same rows with all that is read being read in another way. */
function reshared(planner: Planner, relation: Relation, share: Share): Pick<Relation, "sql" | "reads"> {
  const ids = new Map<number, number>();
  const reads = relation.reads.map((read): Read => {
    const id = planner.nextRead();
    ids.set(read.id, id);
    return { ...read, id, share };
  });
  const sql = named(relation.sql, (id) => mark(ids.get(id)!));
  return { sql, reads };
}

/**
 * Whether every task can as well evaluate all of it, to meet rows of `other`: nothing is exchanged then. What filters
 * leave is less than what is scanned for it, and so better exchanged, unless all of it is small.
 */
export function canBeWhole(planner: Planner, relation: Relation, other: Relation): boolean {
  if (relation.spread === "whole") return true;
  if (!relation.cheap || !relation.stable) return false;
  const { broadcastBytes, scanBytes } = planner.options;
  const bytes = wholeBytes(relation);
  if (bytes <= broadcastBytes) return true;
  return relation.kept === 1 && bytes <= scanBytes && relation.bytes * FAR_LARGER <= other.bytes;
}

const FAR_LARGER = 4;

/** All of it in each task, without an exchange. */
export function evaluatedWhole(planner: Planner, relation: Relation): Relation {
  if (relation.spread === "whole") return relation;
  return { ...rigid(relation), ...reshared(planner, relation, "whole"), spread: "whole", hash: null };
}

/** All of it in task 0: rows that are whole become a split of their own. */
export async function evaluatedOnce(planner: Planner, relation: Relation): Promise<Relation> {
  if (relation.spread === "split") return relation;
  const safe = relation.emptyOnEmpty ? relation : await exchangedWhole(planner, relation);
  return { ...safe, ...reshared(planner, safe, "once"), spread: "split", hash: null, divisible: null };
}

function refuseRecurring(relation: Relation): void {
  if (relation.recurring) throw unsupported("an exchange within a recursive query");
}

/** Runs it, and gives its rows to every task that asks. Order is kept. */
export async function exchangedWhole(planner: Planner, relation: Relation): Promise<Relation> {
  refuseRecurring(relation);
  const exchange = await planner.run(relation, { kind: "broadcast" }, { ordered: relation.ordered });
  return { ...readExchange(planner, exchange, relation, "whole", null), ordered: relation.ordered };
}

/** Brings all rows to one task, where they are not already. */
export async function gathered(planner: Planner, relation: Relation): Promise<Relation> {
  if (relation.spread === "whole") return relation;
  refuseRecurring(relation);
  const exchange = await planner.run(relation, { kind: "gather" });
  return readExchange(planner, exchange, relation, "whole", null);
}

/** Makes sure that two evaluations of it see the same rows. */
export async function settled(planner: Planner, relation: Relation): Promise<Relation> {
  return relation.stable ? relation : exchangedWhole(planner, relation);
}

/** Runs it with its rows hashed by the keys, without a decision on how they are read. */
export async function hashExchange(
  planner: Planner,
  relation: Relation,
  keys: readonly Key[],
): Promise<Exchanged> {
  refuseRecurring(relation);
  return planner.run(relation, { kind: "hash", keys: keys.map((key) => key.sql) });
}

export function isSmall(planner: Planner, exchange: Exchanged): boolean {
  return exchange.bytes <= planner.options.smallBytes;
}

/** Rows hashed by the keys, or whole where they turn out to be few. */
export async function hashed(planner: Planner, relation: Relation, keys: readonly Key[]): Promise<Relation> {
  const exchange = await hashExchange(planner, relation, keys);
  return readExchange(planner, exchange, relation, isSmall(planner, exchange) ? "whole" : "split", keys);
}

/** Whether rows that are equal in `keys` lie together already. */
export function liesBy(relation: Relation, keys: readonly Key[]): boolean {
  if (relation.hash === null) return false;
  return relation.hash.every((part) =>
    keys.some((key) => key.column !== null && key.type === part.type && part.columns.includes(key.column)),
  );
}

/** Adds the keys that are no columns as columns behind the others, so that they can be spoken of. */
export function withKeyColumns(
  relation: Relation,
  keys: readonly Key[],
): { relation: Relation; keys: Key[] } {
  if (keys.every((key) => key.column !== null)) return { relation, keys: [...keys] };
  const expressions = columnNames(relation.types.length);
  const types = [...relation.types];
  const placed = keys.map((key): Key => {
    if (key.column !== null) return key;
    const at = expressions.length;
    expressions.push(key.sql);
    types.push(key.type);
    return { sql: `c${at}`, column: at, type: key.type };
  });
  const sql = selectSql(expressions, `FROM (${relation.sql}) AS s`);
  return { relation: { ...relation, sql, types }, keys: placed };
}

/** What of a relation an exchange must carry, and how the rest comes back: as nulls that nobody reads. */
export interface Cut {
  relation: Relation;
  keys: readonly Key[];
  restore(read: Relation): Relation;
}

/** Leaves the columns out of an exchange that nobody needs behind it. */
export function cutColumns(relation: Relation, keys: readonly Key[], needed: Needed): Cut {
  const width = relation.types.length;
  const whole: Cut = { relation, keys, restore: (read) => read };
  if (needed === null || keys.some((key) => key.column === null)) return whole;
  const carried = new Set([...needed, ...keys.map((key) => key.column!)]);
  // A null of a struct without names has no SQL.
  const kept = relation.types.flatMap((type, at) => (carried.has(at) || type.includes('("" ') ? [at] : []));
  if (kept.length === 0) kept.push(0);
  if (kept.length === width) return whole;
  const placed = keys.map((key): Key => {
    const at = kept.indexOf(key.column!);
    return { ...key, sql: `c${at}`, column: at };
  });
  return {
    relation: chooseColumns(relation, kept),
    keys: placed,
    restore: (read) => {
      const columns = relation.types.map((type, at) => {
        const place = kept.indexOf(at);
        return place < 0 ? `CAST(NULL AS ${type})` : `c${place}`;
      });
      return {
        ...read,
        sql: selectSql(columns, from(read)),
        types: relation.types,
        hash: moveHash(read.hash, (at) => [kept[at]!]),
      };
    },
  };
}
