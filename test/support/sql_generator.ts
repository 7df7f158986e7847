/**
 * Random tables and random SELECTs over them, from a seed. What a query leaves open (which of several equal rows comes
 * first, sums that depend on their order) is avoided here or, at its end, told by the comparison.
 */
import type { Random } from "./random.js";

/** What a column holds; arithmetic and comparison go by it. */
export type Kind =
  | "int"
  | "huge"
  | "double"
  | "decimal"
  | "text"
  | "bool"
  | "date"
  | "timestamp"
  | "instant"
  | "time"
  | "interval"
  | "list"
  | "struct"
  | "map"
  | "uuid"
  | "blob";

export interface GeneratedColumn {
  name: string;
  kind: Kind;
}

export interface GeneratedTable {
  name: string;
  columns: readonly GeneratedColumn[];
  rows: number;
  /** SELECTs whose rows are those of the table, one a file. */
  files: readonly string[];
}

const TEXTS = [
  "''",
  "'a'",
  "'A'",
  "'ä'",
  "'ñandú'",
  "'日本語 テキスト'",
  "'🙂 x'",
  "'it''s'",
  "'longer than twelve bytes, é'",
  "' '",
  "'%_'",
  "'10'",
  "'zz\\n'",
];

/** SQL of a value of each kind and type from a small integer `k`. */
const VALUES: Record<Kind, readonly (readonly [type: string, value: (k: string) => string])[]> = {
  int: [
    ["INTEGER", (k) => `${k} - 2`],
    ["BIGINT", (k) => `(${k} - 1)::BIGINT * 1000000007`],
    ["SMALLINT", (k) => k],
    ["UTINYINT", (k) => k],
    ["UBIGINT", (k) => `${k}::BIGINT + 4000000000`],
  ],
  huge: [
    ["HUGEINT", (k) => `(${k} - 3)::HUGEINT * 1701411834604692317316873037`],
    ["HUGEINT", (k) => k],
  ],
  double: [
    ["DOUBLE", (k) => `${k} * 0.25 - 1`],
    ["FLOAT", (k) => `${k} * 0.5`],
    ["DOUBLE", (k) => `CASE WHEN ${k} = 3 THEN 'nan'::DOUBLE WHEN ${k} = 4 THEN 'inf'::DOUBLE ELSE ${k} END`],
  ],
  decimal: [
    ["DECIMAL(4,1)", (k) => `${k} / 10`],
    ["DECIMAL(9,2)", (k) => `(${k} - 2) * 1.37`],
    ["DECIMAL(18,4)", (k) => `${k} * 12345.6789`],
    ["DECIMAL(38,10)", (k) => `(${k} - 1)::DECIMAL(38,10) * 1234567890123.0123456789::DECIMAL(30,10)`],
  ],
  text: [
    ["VARCHAR", (k) => `[${TEXTS.join(", ")}][1 + ${k} % ${TEXTS.length}]`],
    ["VARCHAR", (k) => `'s' || ${k}`],
  ],
  bool: [["BOOLEAN", (k) => `${k} % 3 = 0`]],
  date: [
    ["DATE", (k) => `DATE '1999-12-28' + ${k}::INTEGER`],
    ["DATE", (k) => `DATE '1899-06-01' + (${k} * 400)::INTEGER`],
  ],
  timestamp: [["TIMESTAMP", (k) => `TIMESTAMP '2024-02-28 23:30:00.25' + to_minutes(${k} * 13)`]],
  instant: [["TIMESTAMPTZ", (k) => `TIMESTAMPTZ '2024-03-31 00:30:00+00' + to_minutes(${k} * 29)`]],
  time: [["TIME", (k) => `TIME '00:00:01' + to_minutes(${k} * 31)`]],
  interval: [["INTERVAL", (k) => `to_minutes(${k} * 7)`]],
  list: [
    [
      "INTEGER[]",
      (k) => `CASE ${k} % 4 WHEN 0 THEN [] WHEN 1 THEN [${k}, NULL] ELSE [${k}, ${k} % 3, 1] END`,
    ],
    ["VARCHAR[]", (k) => `CASE ${k} % 3 WHEN 0 THEN ['ü', NULL] ELSE ['x' || ${k}] END`],
  ],
  struct: [
    ["STRUCT(a INTEGER, b VARCHAR)", (k) => `{'a': nullif(${k} % 4, 2)::INTEGER, 'b': 'ß' || ${k} % 3}`],
    ["STRUCT(a INTEGER, b VARCHAR[])", (k) => `{'a': ${k}::INTEGER, 'b': ['y', NULL]}`],
  ],
  map: [["MAP(VARCHAR, INTEGER)", (k) => `MAP {'ä' || ${k} % 3: ${k}, 'x': NULL}`]],
  uuid: [["UUID", (k) => `md5('u' || ${k})::UUID`]],
  blob: [["BLOB", (k) => `encode('blob ' || ${k})`]],
};

const KINDS = Object.keys(VALUES) as Kind[];
/** What most columns are of. */
const COMMON: readonly Kind[] = ["int", "int", "text", "decimal", "date", "double"];
const SIZES = [0, 1, 3, 9, 17, 40, 40, 60, 60, 90];
const LARGE_SIZES = [300, 900, 2_500];

export function generateTables(random: Random): GeneratedTable[] {
  const count = 3 + random.below(3);
  return Array.from({ length: count }, (_, i) => {
    const rows = i === 0 ? random.pick(LARGE_SIZES) : random.pick(SIZES);
    const columns: { name: string; kind: Kind; sql: string }[] = [
      { name: "id", kind: "int", sql: "i::BIGINT" },
      { name: "k", kind: "int", sql: columnSql(random, "INTEGER", (k) => k) },
    ];
    const more = 2 + random.below(5);
    for (let column = 0; column < more; column += 1) {
      const kind = random.below(2) === 0 ? random.pick(COMMON) : random.pick(KINDS);
      const [type, value] = random.pick(VALUES[kind]);
      columns.push({ name: `${kind[0]}${column}`, kind, sql: columnSql(random, type, value) });
    }
    const list = columns.map(({ name, sql }) => `${sql} AS ${name}`).join(", ");
    const bounds = [0, rows];
    for (let file = random.below(4); file > 0; file -= 1) bounds.push(random.below(rows + 1));
    bounds.sort((a, b) => a - b);
    // Files may hold nothing.
    const files = bounds
      .slice(1)
      .map((end, file) => `SELECT ${list} FROM range(${bounds[file]}, ${end}) r(i)`);
    return { name: `t${i}`, columns: columns.map(({ name, kind }) => ({ name, kind })), rows, files };
  });
}

/** With few values, of which one may be most, and with nulls. */
function columnSql(random: Random, type: string, value: (k: string) => string): string {
  const salt = random.below(1_000_000);
  const values = 1 + random.pick([0, 2, 5, 9, 9, 23]);
  const hash = `(hash(i * 1000003 + ${salt}) % 1000)`;
  const skew = random.pick([0, 0, 0, 600, 950]);
  const nulls = random.pick([0, 0, 0, 100, 100, 100, 100, 400, 400, 1000]);
  const number = `((hash(i + ${salt}) % ${values})::INTEGER)`;
  const k = skew === 0 ? number : `(CASE WHEN ${hash} < ${skew} THEN 1 ELSE ${number} END)`;
  const nullHash = `(hash(i * 17 + ${salt + 1}) % 1000)`;
  const typed = `(${value(k)})::${type}`;
  return nulls === 0 ? typed : `CASE WHEN ${nullHash} < ${nulls} THEN NULL ELSE ${typed} END`;
}

/** A column that an expression may use. */
interface Field {
  sql: string;
  kind: Kind;
}

/** What stands in FROM. */
interface Source {
  sql: string;
  fields: Field[];
  /** Expressions that together tell its rows apart, or null where nothing does. */
  unique: string[] | null;
}

/** A query, with the kinds of its columns, which are called a0, a1, … */
interface Query {
  sql: string;
  kinds: Kind[];
  /** As in Source, without a qualifier. */
  unique: string[] | null;
}

interface Named {
  name: string;
  columns: readonly GeneratedColumn[];
  unique: string[] | null;
  rows: number;
}

const DEPTH_MAX = 2;
/** Columns that tables are joined by. */
const KEY = /\.(k|id)$/;
const ORDERED_KINDS: readonly Kind[] = KINDS.filter(
  (kind) => kind !== "struct" && kind !== "list" && kind !== "map",
);

/** Generates SELECTs over some tables. */
export class SqlGenerator {
  readonly #random: Random;
  readonly #tables: readonly Named[];
  #ctes: Named[] = [];
  #names = 0;

  constructor(random: Random, tables: readonly GeneratedTable[]) {
    this.#random = random;
    this.#tables = tables.map(({ name, columns, rows }) => ({ name, columns, rows, unique: ["id"] }));
  }

  /** One query, with ORDER BY and LIMIT at its end or without. */
  query(): string {
    this.#ctes = [];
    this.#names = 0;
    const ctes: string[] = [];
    const count = this.#one(3) ? 1 + this.#below(2) : 0;
    for (let i = 0; i < count; i += 1) {
      const made = this.#body(1);
      const name = `w${i}`;
      const how = this.#random.pick(["", "", " MATERIALIZED", " NOT MATERIALIZED"]);
      ctes.push(`${name} AS${how} (${made.sql})`);
      const columns = made.kinds.map((kind, column) => ({ name: `a${column}`, kind }));
      this.#ctes.push({ name, columns, unique: made.unique, rows: 50 });
    }
    if (this.#one(40)) {
      const from = `SELECT id, k FROM ${this.#random.pick(this.#tables).name}`;
      ctes.unshift(
        `r0 AS (SELECT id AS a0, k AS a1, 0 AS a2 FROM (${from}) UNION ALL SELECT a0, a1 + 1, a2 + 1 FROM r0 WHERE a2 < 3 AND a1 < 4)`,
      );
      this.#ctes.push({
        name: "r0",
        columns: ["a0", "a1", "a2"].map((name) => ({ name, kind: "int" })),
        unique: null,
        rows: 50,
      });
    }
    const body = this.#body(0);
    const recursive = ctes[0]?.startsWith("r0 ") ? "RECURSIVE " : "";
    const head = ctes.length === 0 ? "" : `WITH ${recursive}${ctes.join(", ")} `;
    return `${head}${body.sql}${this.#ending(body)}`;
  }

  #ending({ kinds }: Query): string {
    if (!this.#one(2)) return "";
    const names = kinds.map((_, i) => `a${i}`);
    const keys = this.#some(names).map((name) => {
      const direction = this.#random.pick(["", " ASC", " DESC"]);
      return `${name}${direction}${this.#random.pick(["", "", " NULLS FIRST", " NULLS LAST"])}`;
    });
    if (this.#one(8))
      return this.#random.pick([
        " LIMIT 4",
        " LIMIT 7 OFFSET 3",
        " ORDER BY ALL LIMIT 40%",
        " ORDER BY a0 IS NULL, a0",
      ]);
    const order = this.#one(6) ? " ORDER BY ALL" : ` ORDER BY ${keys.join(", ")}`;
    if (this.#one(2)) return order;
    const limit = this.#random.pick([" LIMIT 0", " LIMIT 1", " LIMIT 3", " LIMIT 10", " LIMIT 50"]);
    return order + this.#random.pick([limit, limit, `${limit} OFFSET 2`, " OFFSET 5"]);
  }

  #below(end: number): number {
    return this.#random.below(end);
  }

  /** True once in `times`. */
  #one(times: number): boolean {
    return this.#random.below(times) === 0;
  }

  #some<T>(from: readonly T[], max = 3): T[] {
    const found = from.filter(() => this.#one(2)).slice(0, max);
    return found.length === 0 ? [this.#random.pick(from)] : found;
  }

  #name(): string {
    this.#names += 1;
    return `x${this.#names}`;
  }

  #body(depth: number, kinds: readonly Kind[] | null = null): Query {
    const choice = this.#below(12);
    if (choice < 2 && depth < DEPTH_MAX) return this.#setOperation(depth, kinds);
    if (choice < 6) return this.#aggregate(depth, kinds);
    if (choice < 8) return this.#windowed(depth, kinds);
    if (choice === 8) return this.#distinct(depth, kinds);
    return this.#plain(depth, kinds);
  }

  #kinds(kinds: readonly Kind[] | null, fields: readonly Field[]): Kind[] {
    if (kinds !== null) return [...kinds];
    const count = 1 + this.#below(4);
    return Array.from({ length: count }, () =>
      fields.length > 0 && !this.#one(4) ? this.#random.pick(fields).kind : this.#random.pick(KINDS),
    );
  }

  #plain(depth: number, wanted: readonly Kind[] | null): Query {
    const from = this.#from(depth);
    const kinds = this.#kinds(wanted, from.fields);
    const list = kinds.map((kind, i) => `${this.#expression(kind, from.fields, depth)} AS a${i}`);
    const distinct = this.#one(6) ? "DISTINCT " : "";
    let unique: string[] | null = distinct === "" ? null : kinds.map((_, i) => `a${i}`);
    if (wanted === null && distinct === "" && from.unique !== null && this.#one(2)) {
      // Rows that can be told apart can be ranked and cut further up.
      unique = from.unique.map((sql, i) => {
        list.push(`${sql} AS a${kinds.length + i}`);
        return `a${kinds.length + i}`;
      });
      kinds.push(...from.unique.map((sql) => from.fields.find((field) => field.sql === sql)?.kind ?? "int"));
    }
    const where = this.#where(from.fields, depth);
    let sql = `SELECT ${distinct}${list.join(", ")} FROM ${from.sql}${where}`;
    if (depth > 0 && unique !== null && unique.length > 0 && this.#one(4)) {
      sql += ` ORDER BY ${unique.join(", ")} LIMIT ${1 + this.#below(20)}`;
    }
    return { sql, kinds, unique };
  }

  #distinct(depth: number, wanted: readonly Kind[] | null): Query {
    const from = this.#from(depth);
    if (from.unique === null) return this.#plain(depth, wanted);
    const kinds = this.#kinds(wanted, from.fields);
    const list = kinds.map((kind, i) => `${this.#expression(kind, from.fields, depth)} AS a${i}`);
    const on = this.#expression(this.#random.pick(ORDERED_KINDS), from.fields, depth);
    const where = this.#where(from.fields, depth);
    // Which row of a group remains is told by the order.
    const sql = `SELECT DISTINCT ON (${on}) ${list.join(", ")} FROM ${from.sql}${where} ORDER BY ${[on, ...from.unique].join(", ")}`;
    return { sql: depth === 0 ? `SELECT * FROM (${sql})` : sql, kinds, unique: null };
  }

  #where(fields: readonly Field[], depth: number): string {
    return this.#one(3) ? ` WHERE ${this.#condition(fields, depth)}` : "";
  }

  #setOperation(depth: number, wanted: readonly Kind[] | null): Query {
    const left = this.#body(depth + 1, wanted);
    const right = this.#body(depth + 1, left.kinds);
    const all = this.#random.pick([
      "UNION ALL",
      "UNION",
      "INTERSECT",
      "INTERSECT ALL",
      "EXCEPT",
      "EXCEPT ALL",
    ]);
    const operation = this.#one(10) ? "UNION ALL BY NAME" : all;
    const sql = `SELECT * FROM ((${left.sql}) ${operation} (${right.sql}))`;
    const unique = operation.includes("ALL") ? null : left.kinds.map((_, i) => `a${i}`);
    return { sql, kinds: left.kinds, unique };
  }

  #aggregate(depth: number, wanted: readonly Kind[] | null): Query {
    const from = this.#from(depth);
    const { fields } = from;
    const kinds = this.#kinds(wanted, fields);
    const groups: string[] = [];
    const list = kinds.map((kind, i) => {
      if (groups.length < 3 && !this.#one(3)) {
        const sql = this.#one(3) ? this.#expression(kind, fields, depth) : this.#field(kind, fields);
        // A number there would be the number of a column, and a subquery may not stand there twice.
        if (!/^-?\d+$|^'|SELECT/.test(sql)) {
          groups.push(sql);
          return `${sql} AS a${i}`;
        }
      }
      return `${this.#aggregateOf(kind, fields, depth)} AS a${i}`;
    });
    const where = this.#where(fields, depth);
    let group = "";
    const distinct = [...new Set(groups)];
    let unique: string[] | null = groups.length === kinds.length ? kinds.map((_, i) => `a${i}`) : null;
    if (distinct.length > 0) {
      const how = this.#below(10);
      group = ` GROUP BY ${distinct.join(", ")}`;
      if (how === 0) group = ` GROUP BY ROLLUP (${distinct.join(", ")})`;
      if (how === 1) group = ` GROUP BY CUBE (${distinct.join(", ")})`;
      if (how === 2) {
        group = ` GROUP BY GROUPING SETS ((${distinct.join(", ")}), (${distinct[0]}), ())`;
      }
      if (how === 3) group = " GROUP BY ALL";
      if (how === 4) group = ` GROUP BY ROLLUP (${distinct[0]}), CUBE (${distinct.join(", ")})`;
      if (how < 3 || how === 4) {
        unique = null;
        if (wanted === null) {
          list.push(`grouping(${distinct[0]}) AS a${kinds.length}`);
          kinds.push("int");
        }
      }
    }
    const having = this.#one(4)
      ? ` HAVING ${this.#random.pick(["count(*) > 1", this.#having(fields, depth)])}`
      : "";
    return { sql: `SELECT ${list.join(", ")} FROM ${from.sql}${where}${group}${having}`, kinds, unique };
  }

  #having(fields: readonly Field[], depth: number): string {
    const kind = this.#random.pick<Kind>(["int", "decimal", "text", "date"]);
    return `${this.#aggregateOf(kind, fields, depth)} ${this.#random.pick(["<", ">=", "IS DISTINCT FROM"])} ${this.#literal(kind)}`;
  }

  /** An aggregate whose value is of a kind. */
  #aggregateOf(kind: Kind, fields: readonly Field[], depth: number): string {
    const of = (argument: Kind) => this.#expression(argument, fields, depth + 1);
    const anything = () => this.#random.pick(fields)?.sql ?? "1";
    const filter = this.#one(5) ? ` FILTER (WHERE ${this.#condition(fields, depth + 1)})` : "";
    const distinct = this.#one(3) ? "DISTINCT " : "";
    const choices: string[] = [];
    if (ORDERED_KINDS.includes(kind)) choices.push(`min(${of(kind)})`, `max(${of(kind)})`);
    const value = of(kind);
    if (ORDERED_KINDS.includes(kind))
      choices.push(`first(${value} ORDER BY ${value})`, `arg_max(${value}, ${value})`);
    if (kind === "int") {
      choices.push(
        "count(*)",
        `count(${distinct}${anything()})`,
        `count(${distinct}${anything()})`,
        `bit_and(${of("int")}::BIGINT)`,
        `count_if(${this.#condition(fields, depth + 1)})`,
        `approx_count_distinct(${anything()})`,
      );
    }
    if (kind === "huge") choices.push(`sum(${distinct}${of("int")})`, `sum(${distinct}${of("int")})`);
    if (kind === "decimal") choices.push(`sum(${distinct}${of("decimal")})`);
    if (kind === "double") {
      choices.push(
        `avg(${distinct}${of(this.#random.pick<Kind>(["int", "decimal"]))})`,
        // Of columns alone: their sums are exact.
        `sum(${this.#field("double", fields)})`,
        `median(${of("int")})`,
        `quantile_cont(${of("decimal")}, 0.25)`,
        `stddev_samp((${of("int")})::INTEGER % 100)`,
      );
    }
    if (kind === "bool") choices.push(`bool_and(${of("bool")})`, `bool_or(${of("bool")})`);
    if (kind === "text") {
      const text = of("text");
      choices.push(`string_agg(${text}, '|' ORDER BY ${text})`);
      if (distinct !== "") choices.push(`string_agg(DISTINCT ${text}, '|' ORDER BY ${text})`);
    }
    if (kind === "list") {
      const number = `(${of("int")})::INTEGER`;
      choices.push(`list(${number} ORDER BY ${number})`, `list_sort(list(DISTINCT ${number}))`);
      // The filter belongs into the innermost call.
      return this.#random.pick(choices);
    }
    if (kind === "struct") return `{'a': count(*)::INTEGER, 'b': max(${of("text")})}`;
    if (kind === "interval") choices.push(`sum(${of("interval")})`);
    return `${this.#random.pick(choices)}${filter}`;
  }

  #windowed(depth: number, wanted: readonly Kind[] | null): Query {
    const from = this.#from(depth);
    const kinds = this.#kinds(wanted, from.fields);
    let windows = 0;
    const list = kinds.map((kind, i) => {
      const isWindow =
        (kind === "int" || kind === "double" || kind === "huge" || this.#one(4)) && windows < 2;
      if (!isWindow) return `${this.#expression(kind, from.fields, depth)} AS a${i}`;
      windows += 1;
      return `${this.#window(kind, from, depth)} AS a${i}`;
    });
    if (windows === 0 && wanted === null) {
      list.push(`${this.#window("int", from, depth)} AS a${kinds.length}`);
      kinds.push("int");
    }
    const where = this.#where(from.fields, depth);
    const qualify = this.#one(4)
      ? ` QUALIFY ${this.#window("int", from, depth)} <= ${1 + this.#below(5)}`
      : "";
    return { sql: `SELECT ${list.join(", ")} FROM ${from.sql}${where}${qualify}`, kinds, unique: null };
  }

  #window(kind: Kind, { fields, unique }: Source, depth: number): string {
    const of = (argument: Kind) => this.#expression(argument, fields, depth + 1);
    const partition = this.#one(4)
      ? ""
      : `PARTITION BY ${this.#some(fields, 2)
          .map(({ sql }) => sql)
          .join(", ")} `;
    const direction = () => this.#random.pick(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
    const loose = this.#some(
      fields.filter((field) => ORDERED_KINDS.includes(field.kind)),
      2,
    ).map((field) => `${field?.sql ?? "1"}${direction()}`);
    const isTotal = unique !== null && unique.length > 0;
    const total = isTotal && this.#one(2) ? [...loose, ...unique] : null;
    const order = `ORDER BY ${(total ?? loose).join(", ")}`;
    const frames = [
      "",
      "",
      "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
      "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
    ];
    const frame = total === null ? "" : ` ${this.#random.pick(frames)}`;
    const over = (how: string) => `OVER (${partition}${how})`;
    const choices: string[] = [];
    if (kind === "int") {
      choices.push(`rank() ${over(order)}`, `dense_rank() ${over(order)}`, `count(*) ${over(order)}`);
      choices.push(`count(${this.#random.pick(fields)?.sql ?? "1"}) ${over("")}`);
      if (total !== null) choices.push(`row_number() ${over(order)}`, `ntile(3) ${over(order)}`);
    }
    if (kind === "double") {
      choices.push(
        `percent_rank() ${over(order)}`,
        `cume_dist() ${over(order)}`,
        `avg(${of("int")}) ${over(order)}`,
      );
    }
    if (kind === "huge") {
      choices.push(`sum(${of("int")}) ${over(order + frame)}`, `sum(${of("int")}) ${over("")}`);
      if (this.#one(3)) choices.push(`sum(DISTINCT ${of("int")}) ${over("")}`);
    }
    if (total !== null) {
      const value = of(kind);
      choices.push(
        `lag(${value}) ${over(order)}`,
        `lead(${value}, 2) ${over(order)}`,
        `first_value(${value}) ${over(order + frame)}`,
        `last_value(${value}${this.#one(3) ? " IGNORE NULLS" : ""}) ${over(order + frame)}`,
      );
    } else if (ORDERED_KINDS.includes(kind)) {
      choices.push(`max(${of(kind)}) ${over(order)}`, `min(${of(kind)}) ${over("")}`);
    }
    if (choices.length === 0) return this.#expression(kind, fields, depth);
    return this.#random.pick(choices);
  }

  #from(depth: number): Source {
    let source = this.#source(depth);
    const joins = this.#random.pick([0, 0, 1, 1, 1, 2, 2, 3]);
    for (let i = 0; i < joins && i + depth < 4; i += 1) source = this.#join(source, depth);
    return source;
  }

  #join(left: Source, depth: number): Source {
    if (this.#one(10)) return this.#lateral(left, depth);
    if (this.#one(14)) return this.#unnested(left);
    if (this.#one(14)) return this.#asOf(left);
    const right = this.#source(depth);
    const kind = this.#random.pick([
      "JOIN",
      "JOIN",
      "LEFT JOIN",
      "LEFT JOIN",
      "RIGHT JOIN",
      "FULL JOIN",
      "SEMI JOIN",
      "ANTI JOIN",
      "CROSS JOIN",
    ]);
    if (kind === "CROSS JOIN") return { ...both(left, right), sql: `${left.sql} CROSS JOIN ${right.sql}` };
    const condition = this.#joinCondition(left.fields, right.fields, depth);
    const sql = `${left.sql} ${kind} ${right.sql} ON ${condition}`;
    if (kind === "SEMI JOIN" || kind === "ANTI JOIN") return { ...left, sql };
    // With rows that have no partner, null stands for their missing side: still told apart.
    return { ...both(left, right), sql };
  }

  #joinCondition(left: readonly Field[], right: readonly Field[], depth: number): string {
    const pairs = left.flatMap((a) => right.flatMap((b) => (a.kind === b.kind ? [{ a, b }] : [])));
    if (pairs.length === 0) return "TRUE";
    // These have values in common.
    const keys = pairs.filter(({ a, b }) => KEY.test(a.sql) && KEY.test(b.sql));
    const equal = () => {
      const { a, b } = this.#random.pick(keys.length > 0 && !this.#one(3) ? keys : pairs);
      return `${a.sql} ${this.#one(8) ? "IS NOT DISTINCT FROM" : "="} ${b.sql}`;
    };
    const ordered = pairs.filter(({ a }) => ORDERED_KINDS.includes(a.kind));
    const unequal = () => {
      if (ordered.length === 0) return "TRUE";
      const { a, b } = this.#random.pick(ordered);
      return `${a.sql} ${this.#random.pick(["<", "<=", "<>", ">"])} ${b.sql}`;
    };
    const choice = this.#below(10);
    if (choice < 5) return equal();
    if (choice < 7) return `${equal()} AND ${equal()}`;
    if (choice < 8) return `${equal()} AND ${unequal()}`;
    if (choice < 9) return `${equal()} AND ${this.#condition(this.#one(2) ? left : right, depth + 1)}`;
    return unequal();
  }

  #lateral(left: Source, depth: number): Source {
    const table = this.#random.pick(this.#tables);
    const inner = this.#name();
    const outer = this.#name();
    const fields = table.columns.map(({ name, kind }) => ({ sql: `${inner}.${name}`, kind }));
    const condition = this.#joinCondition(left.fields, fields, depth);
    const from = `${table.name} ${inner} WHERE ${condition}`;
    const field = this.#random.pick(fields) as Field;
    const join = this.#random.pick([", LATERAL", " LEFT JOIN LATERAL", " JOIN LATERAL"]);
    const on = join.includes("JOIN") ? " ON TRUE" : "";
    if (this.#one(2)) {
      const select = `SELECT count(*) AS a0, max(${inner}.k) AS a1 FROM ${from}`;
      const made: Field[] = ["a0", "a1"].map((name) => ({ sql: `${outer}.${name}`, kind: "int" }));
      return {
        sql: `${left.sql}${join} (${select}) ${outer}${on}`,
        fields: [...left.fields, ...made],
        unique: left.unique,
      };
    }
    const select = `SELECT ${field.sql} AS a0, ${inner}.id AS a1 FROM ${from} ORDER BY ${inner}.id LIMIT ${1 + this.#below(3)}`;
    return {
      sql: `${left.sql}${join} (${select}) ${outer}${on}`,
      fields: [...left.fields, { sql: `${outer}.a0`, kind: field.kind }, { sql: `${outer}.a1`, kind: "int" }],
      unique: left.unique === null ? null : [...left.unique, `${outer}.a1`],
    };
  }

  #unnested(left: Source): Source {
    const lists = left.fields.filter(({ kind }) => kind === "list");
    const name = this.#name();
    const list = lists.length > 0 ? this.#random.pick(lists).sql : `range(${this.#below(4)})`;
    const item: Field = { sql: `${name}.u::VARCHAR`, kind: "text" };
    if (this.#one(2)) {
      const ordinal: Field = { sql: `${name}.o`, kind: "int" };
      return {
        sql: `${left.sql}, unnest(${list}) WITH ORDINALITY ${name}(u, o)`,
        fields: [...left.fields, item, ordinal],
        unique: left.unique === null ? null : [...left.unique, ordinal.sql],
      };
    }
    return {
      sql: `${left.sql}, unnest(${list}) ${name}(u)`,
      fields: [...left.fields, item],
      unique: null,
    };
  }

  /** The nearest row before, of those with the same key: one at most, as ids are told apart. */
  #asOf(left: Source): Source {
    const table = this.#random.pick(this.#tables);
    const name = this.#name();
    const fields: Field[] = table.columns.map((column) => ({
      sql: `${name}.${column.name}`,
      kind: column.kind,
    }));
    const numbers = left.fields.filter(({ kind }) => kind === "int");
    if (numbers.length === 0) return left;
    const kind = this.#random.pick(["ASOF JOIN", "ASOF LEFT JOIN"]);
    const equal = this.#one(2) ? `${this.#random.pick(numbers).sql} = ${name}.k AND ` : "";
    // Alone over Parquet files, DuckDB 1.5.5 finds partners for rows whose value here is null.
    const value = `coalesce(${this.#random.pick(numbers).sql}, 1)`;
    return {
      sql: `${left.sql} ${kind} ${table.name} ${name} ON ${equal}${value} ${this.#random.pick([">=", "<", ">"])} ${name}.id`,
      fields: [...left.fields, ...fields],
      unique: left.unique,
    };
  }

  #source(depth: number): Source {
    const name = this.#name();
    const choice = this.#below(12);
    if (choice < 2 && depth < DEPTH_MAX) {
      const { sql, kinds, unique } = this.#body(depth + 1);
      return {
        sql: `(${sql}) ${name}`,
        fields: kinds.map((kind, i) => ({ sql: `${name}.a${i}`, kind })),
        unique: unique?.map((column) => `${name}.${column}`) ?? null,
      };
    }
    if (choice === 2) {
      const rows = [
        "(1, 'a', NULL)",
        "(2, 'ä', DATE '2000-01-01')",
        "(NULL, NULL, NULL)",
        "(1, 'b', DATE '1999-12-29')",
      ];
      const kinds: Kind[] = ["int", "text", "date"];
      const used = rows.slice(0, 1 + this.#below(rows.length));
      return {
        sql: `(VALUES ${used.join(", ")}) ${name}(v0, v1, v2)`,
        fields: kinds.map((kind, i) => ({
          sql: kind === "date" ? `CAST(${name}.v${i} AS DATE)` : `${name}.v${i}`,
          kind,
        })),
        unique: [`${name}.v0`, `${name}.v1`],
      };
    }
    if (choice === 3 && this.#one(2)) {
      return {
        sql: `range(${this.#below(6)}) ${name}(r)`,
        fields: [{ sql: `${name}.r`, kind: "int" }],
        unique: [`${name}.r`],
      };
    }
    const from = this.#ctes.length > 0 && this.#one(2) ? this.#ctes : this.#tables;
    const table = this.#random.pick(from);
    return {
      sql: `${table.name} ${name}`,
      fields: table.columns.map(({ name: column, kind }) => ({ sql: `${name}.${column}`, kind })),
      unique: table.unique?.map((column) => `${name}.${column}`) ?? null,
    };
  }

  #field(kind: Kind, fields: readonly Field[]): string {
    const fitting = fields.filter((field) => field.kind === kind);
    return fitting.length === 0 ? this.#literal(kind) : this.#random.pick(fitting).sql;
  }

  #literal(kind: Kind): string {
    if (this.#one(12)) return `NULL::${VALUES[kind][0]?.[0]}`;
    const [type, value] = this.#random.pick(VALUES[kind]);
    return `(${value(String(this.#below(6)))})::${type}`;
  }

  #expression(kind: Kind, fields: readonly Field[], depth: number): string {
    if (depth > 3 || this.#one(2)) return this.#field(kind, fields);
    const of = (argument: Kind) => this.#expression(argument, fields, depth + 1);
    const general = () =>
      this.#random.pick([
        () => `coalesce(${of(kind)}, ${of(kind)})`,
        () => `CASE WHEN ${this.#condition(fields, depth + 1)} THEN ${of(kind)} ELSE ${of(kind)} END`,
        () => `nullif(${of(kind)}, ${this.#literal(kind)})`,
        () => this.#scalarSubquery(kind, fields, depth),
        () => this.#literal(kind),
      ])();
    const special: Partial<Record<Kind, readonly (() => string)[]>> = {
      int: [
        () => `(${of("int")})::HUGEINT % 7`,
        () => `((${of("int")}) // 3)::BIGINT`,
        () => `length(${of("text")})`,
        () => `len(${of("list")})`,
        () => `extract(day FROM ${of("date")})`,
        () => `date_diff('day', ${of("date")}, ${of("date")})`,
        () => `(${of("struct")}).a`,
        () => `(${of("int")} % 1000 + ${of("int")} % 1000)::INTEGER`,
        () => `hour(${of("timestamp")})`,
        () => `CASE ${of("text")} WHEN 'a' THEN 1 WHEN ${of("text")} THEN 2 END`,
        () => `list_sum(list_transform([1, 2, 3], lambda y: y + ((${of("int")}) % 10)::INTEGER))::BIGINT`,
        () => `(${of("bool")})::INTEGER`,
        () => `greatest(${of("int")}, ${of("int")})`,
        () => `try_cast(${of("text")} AS INTEGER)`,
        () => `sign(${of("decimal")})`,
      ],
      huge: [() => `(${of("int")})::HUGEINT * 1000000007`],
      double: [
        () => `sqrt(abs((${of("int")}) % 50))`,
        () => `(${of("int")}) * 0.5`,
        () => `(${of("int")} % 100) / 3`,
      ],
      decimal: [() => `((${of("int")}) % 1000)::DECIMAL(18,4)`, () => `round(${of("decimal")}, 1)`],
      text: [
        () => `upper(${of("text")})`,
        () => `${of("text")} || ${of("text")}`,
        () => `substr(${of("text")}, 2, 3)`,
        () => `(${of("int")})::VARCHAR`,
        () => `(${of("struct")}).b::VARCHAR`,
        () => `concat_ws('-', ${of("text")}, ${of("date")})`,
        () => `strftime(${of("date")}, '%Y-%m')`,
      ],
      bool: [() => this.#condition(fields, depth + 1)],
      date: [
        () => `(date_trunc('month', ${of("date")}))::DATE`,
        () => `${of("date")} + ((${of("int")}) % 100)::INTEGER`,
      ],
      timestamp: [() => `${of("date")}::TIMESTAMP`, () => `date_trunc('hour', ${of("timestamp")})`],
      instant: [() => `${of("instant")} + ${of("interval")}`],
      interval: [() => `${of("timestamp")} - ${of("timestamp")}`],
      list: [
        () => `list_filter(list_value(1, ((${of("int")}) % 10)::INTEGER, 3), lambda y: y > 1)`,
        () => `string_split(${of("text")}, 'a')`,
        () => `range(((${of("int")}) % 5)::BIGINT)`,
        () => `list_value((${of("int")} % 1000)::INTEGER, 2)`,
        () => `list_sort(${of("list")})`,
      ],
      struct: [
        () => `{'a': (${of("int")} % 1000)::INTEGER, 'b': ${of("text")}}`,
        () => `{'a': (${of("int")} % 10)::INTEGER, 'b': list_value(${of("text")}, 'ö')}`,
      ],
      map: [() => `MAP {${this.#literal("text")}: ((${of("int")}) % 100)::INTEGER}`],
      uuid: [() => `md5(${of("text")})::UUID`],
      time: [() => `${of("time")} + ${of("interval")}`, () => `${of("timestamp")}::TIME`],
    };
    const choices = special[kind];
    // Lists of other elements, structs of other fields, do not go together.
    if (kind === "list" || kind === "struct")
      return choices === undefined ? general() : this.#random.pick(choices)();
    return choices === undefined || this.#one(3) ? general() : this.#random.pick(choices)();
  }

  /** A row at most, correlated or not. */
  #scalarSubquery(kind: Kind, fields: readonly Field[], depth: number): string {
    const table = this.#random.pick(this.#tables);
    const name = this.#name();
    const inner: Field[] = table.columns.map((column) => ({
      sql: `${name}.${column.name}`,
      kind: column.kind,
    }));
    const condition =
      fields.length > 0 && this.#one(2)
        ? this.#joinCondition(fields, inner, depth + 2)
        : this.#condition(inner, depth + 2);
    const where = this.#one(4) ? "" : ` WHERE ${condition}`;
    if (this.#one(3)) {
      return `(SELECT ${this.#field(kind, inner)} FROM ${table.name} ${name}${where} ORDER BY ${name}.id LIMIT 1)`;
    }
    return `(SELECT ${this.#aggregateOf(kind, inner, depth + 2)} FROM ${table.name} ${name}${where})`;
  }

  #condition(fields: readonly Field[], depth: number): string {
    const kind = this.#random.pick(ORDERED_KINDS);
    const of = (argument: Kind) => this.#expression(argument, fields, depth + 1);
    const used = fields.length > 0 && !this.#one(3) ? this.#random.pick(fields) : { sql: of(kind), kind };
    const compare = () => {
      if (!ORDERED_KINDS.includes(used.kind)) return `${used.sql} IS NOT NULL`;
      const operator = this.#random.pick(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
      return `${used.sql} ${operator} ${this.#expression(used.kind, fields, depth + 2)}`;
    };
    const choices: (() => string)[] = [
      compare,
      compare,
      () => `${used.sql} IS ${this.#random.pick(["", "NOT "])}NULL`,
      () => `${of("text")} LIKE ${this.#random.pick(["'%a%'", "'_'", "'s%'", "'%ä'"])}`,
      () => `${of("int")} BETWEEN 0 AND ${of("int")}`,
      () => `${of("int")} ${this.#random.pick(["IN", "NOT IN"])} (1, 2, ${this.#one(4) ? "NULL" : "5"})`,
    ];
    if (depth < 3) {
      choices.push(
        () => `(${this.#condition(fields, depth + 1)} OR ${this.#condition(fields, depth + 1)})`,
        () => `(${this.#condition(fields, depth + 1)} AND ${this.#condition(fields, depth + 1)})`,
        () => `NOT (${this.#condition(fields, depth + 1)})`,
      );
    }
    if (depth < 2)
      choices.push(
        () => this.#subqueryCondition(fields, depth),
        () => this.#subqueryCondition(fields, depth),
      );
    return this.#random.pick(choices)();
  }

  #subqueryCondition(fields: readonly Field[], depth: number): string {
    const table = this.#random.pick([...this.#tables, ...this.#ctes]);
    const name = this.#name();
    const inner: Field[] = table.columns.map((column) => ({
      sql: `${name}.${column.name}`,
      kind: column.kind,
    }));
    const correlated = fields.length > 0 && this.#one(2);
    const condition = correlated
      ? this.#joinCondition(fields, inner, depth + 2)
      : this.#condition(inner, depth + 2);
    const where = this.#one(4) ? "" : ` WHERE ${condition}`;
    const from = `FROM ${table.name} ${name}${where}`;
    const shared = inner.filter((field) => fields.some((other) => other.kind === field.kind));
    if (shared.length === 0 || this.#one(3))
      return `${this.#random.pick(["", "NOT "])}EXISTS (SELECT 1 ${from})`;
    const field = this.#random.pick(shared);
    const outer = this.#field(field.kind, fields);
    if (shared.length > 1 && this.#one(5)) {
      const other = this.#random.pick(shared);
      const how = this.#random.pick(["IN", "NOT IN"]);
      return `(${outer}, ${this.#field(other.kind, fields)}) ${how} (SELECT ${field.sql}, ${other.sql} ${from})`;
    }
    if (this.#one(6))
      return `(${outer} IN (SELECT ${field.sql} ${from})) IS ${this.#random.pick(["TRUE", "NULL", "NOT TRUE"])}`;
    if (this.#one(6) && ORDERED_KINDS.includes(field.kind)) {
      const quantified = this.#random.pick(["< ALL", ">= ALL", "= ANY", "<> ALL", "> ANY"]);
      return `${outer} ${quantified} (SELECT ${field.sql} ${from})`;
    }
    return `${outer} ${this.#random.pick(["IN", "NOT IN"])} (SELECT ${field.sql} ${from})`;
  }
}

function both(left: Source, right: Source): Omit<Source, "sql"> {
  return {
    fields: [...left.fields, ...right.fields],
    unique: left.unique === null || right.unique === null ? null : [...left.unique, ...right.unique],
  };
}
