/** SQL text of the types in DuckDB's plans. */

import { unsupported } from "./errors.js";
import { asIndex, asObject, asObjects, asString, isObject, type Json, type JsonObject } from "./json.js";

/** Types with a name of two words or more, as SQL has them. */
const NAMES: Record<string, string> = {
  "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
  "TIME WITH TIME ZONE": "TIMETZ",
  '"NULL"': "INTEGER",
  NULL: "INTEGER",
  STRING_LITERAL: "VARCHAR",
  INTEGER_LITERAL: "INTEGER",
};

export interface Field {
  name: string;
  type: JsonObject;
}

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Stands around the number of a read in SQL that has no names for reads yet. A character that no text has. */
export const MARK = "\uE000";

/** A text as SQL. NUL cannot stand in it, and the mark must not. */
export function quoteText(text: string): string {
  const quoted = (part: string): string => `'${part.replaceAll("'", "''")}'`;
  const marked = (part: string): string =>
    part
      .split(MARK)
      .map(quoted)
      .join(` || chr(${MARK.charCodeAt(0)}) || `);
  const sql = text.split("\0").map(marked).join(" || chr(0) || ");
  return text.includes("\0") || text.includes(MARK) ? `(${sql})` : sql;
}

export function typeId(type: JsonObject): string {
  return asString(type.id);
}

export function info(type: JsonObject): JsonObject {
  if (!isObject(type.type_info)) throw unsupported(`the type ${typeId(type)}`, "the plan lacks its details");
  return type.type_info;
}

/** Members of a STRUCT; of a UNION without its tag. */
export function fields(type: JsonObject): Field[] {
  const all = asObjects(info(type).child_types).map((child) => ({
    name: asString(child.first),
    type: asObject(child.second),
  }));
  return typeId(type) === "UNION" ? all.slice(1) : all;
}

export function childType(type: JsonObject): JsonObject {
  return asObject(info(type).child_type);
}

/** Whether the type is, or holds, a struct without names: SQL has no text for it. */
export function isNameless(type: JsonObject): boolean {
  switch (typeId(type)) {
    case "LIST":
    case "ARRAY":
    case "MAP":
      return isNameless(childType(type));
    case "STRUCT":
      return fields(type).some((field) => field.name === "" || isNameless(field.type));
    case "UNION":
      return fields(type).some((field) => isNameless(field.type));
    default:
      return false;
  }
}

/** The SQL of a type, as in a cast. Types of equal text are equal. */
export function sqlType(value: Json | undefined): string {
  const type = asObject(value);
  const id = typeId(type);
  switch (id) {
    case "DECIMAL":
      return `DECIMAL(${asIndex(info(type).width)}, ${asIndex(info(type).scale)})`;
    case "LIST":
      return `${sqlType(info(type).child_type)}[]`;
    case "ARRAY":
      return `${sqlType(info(type).child_type)}[${asIndex(info(type).size)}]`;
    case "STRUCT":
    case "UNION":
      return `${id}(${fields(type)
        .map((field) => `${quoteName(field.name)} ${sqlType(field.type)}`)
        .join(", ")})`;
    case "MAP": {
      const [key, item] = fields(childType(type));
      if (key === undefined || item === undefined)
        throw unsupported("the type MAP", "it lacks a key or a value");
      return `MAP(${sqlType(key.type)}, ${sqlType(item.type)})`;
    }
    case "ENUM":
      return `ENUM(${enumValues(type).map(quoteText).join(", ")})`;
    case "VARCHAR":
      // Collations are functions in a bound plan already; of the aliases only this one has casts of its own.
      return isObject(type.type_info) && type.type_info.alias === "JSON" ? "JSON" : "VARCHAR";
    default:
      return NAMES[id] ?? id;
  }
}

export function enumValues(type: JsonObject): string[] {
  const values = info(type).values;
  if (!Array.isArray(values)) throw unsupported("the type ENUM", "the plan lacks its values");
  return values.map(asString);
}

/** A cast, except to what SQL has no text for. */
export function castSql(sql: string, type: JsonObject): string {
  return isNameless(type) ? sql : `CAST(${sql} AS ${sqlType(type)})`;
}

const FIXED_BYTES: Record<string, number> = {
  BOOLEAN: 1,
  TINYINT: 1,
  UTINYINT: 1,
  SMALLINT: 2,
  USMALLINT: 2,
  INTEGER: 4,
  UINTEGER: 4,
  DATE: 4,
  FLOAT: 4,
  HUGEINT: 16,
  UHUGEINT: 16,
  INTERVAL: 16,
  UUID: 16,
  VARCHAR: 20,
  BLOB: 32,
};

/** Bytes that a value takes, about. */
export function typeBytes(sql: string): number {
  if (/[[(]/.test(sql) && !sql.startsWith("DECIMAL")) return 40;
  return FIXED_BYTES[sql] ?? 8;
}
