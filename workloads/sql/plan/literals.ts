/** SQL of the constants in DuckDB's plans: no digit of them is lost. */

import { unsupported } from "./errors.js";
import {
  asArray,
  asIndex,
  asInteger,
  asObject,
  asString,
  isObject,
  type Json,
  type JsonObject,
} from "./json.js";
import {
  castSql,
  childType,
  enumValues,
  fields,
  info,
  quoteName,
  quoteText,
  sqlType,
  typeId,
} from "./types.js";

const WORD = 1n << 64n;

/** A value of 128 bits: a plain integer, or its two words. */
function wide(value: Json | undefined): bigint {
  if (!isObject(value)) return asInteger(value);
  return asInteger(value.upper) * WORD + asInteger(value.lower);
}

function decimalText(unscaled: bigint, scale: number): string {
  const sign = unscaled < 0n ? "-" : "";
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, "0");
  return scale === 0 ? sign + digits : `${sign}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

/** A constant of a DECIMAL in as few digits as it has; null for others. */
export function narrowDecimal(constant: JsonObject): string | null {
  const type = asObject(constant.type);
  if (typeId(type) !== "DECIMAL" || constant.is_null === true) return null;
  const scale = asIndex(info(type).scale);
  const unscaled = wide(constant.value);
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().length;
  return `CAST('${decimalText(unscaled, scale)}' AS DECIMAL(${Math.max(digits, scale, 1)}, ${scale}))`;
}

function uuidText(value: bigint): string {
  const hex = (BigInt.asUintN(128, value) ^ (1n << 127n)).toString(16).padStart(32, "0");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function floating(value: Json | undefined): string {
  if (typeof value === "number") return Object.is(value, -0) ? "-0.0" : String(value);
  return asString(value);
}

/** A constant: `{type, is_null, value}`. */
export function literal(constant: JsonObject): string {
  const type = asObject(constant.type);
  if (constant.is_null === true) return castSql("NULL", type);
  const value = constant.value;
  const id = typeId(type);
  const items = (): string[] => asArray(asObject(value).children).map((item) => literal(asObject(item)));
  switch (id) {
    case "BOOLEAN":
      return String(value === true || value === 1);
    case "VARCHAR":
    case "STRING_LITERAL":
      return sqlType(type) === "JSON"
        ? castSql(quoteText(asString(value)), type)
        : quoteText(asString(value));
    case "TINYINT":
    case "SMALLINT":
    case "INTEGER":
    case "INTEGER_LITERAL":
    case "BIGINT":
    case "UTINYINT":
    case "USMALLINT":
    case "UINTEGER":
    case "UBIGINT":
      return `CAST(${asInteger(value)} AS ${sqlType(type)})`;
    case "HUGEINT":
    case "UHUGEINT":
      return `CAST('${wide(value)}' AS ${id})`;
    case "DECIMAL":
      return `CAST('${decimalText(wide(value), asIndex(info(type).scale))}' AS ${sqlType(type)})`;
    case "FLOAT":
    case "DOUBLE":
      return `CAST('${floating(value)}' AS ${id})`;
    case "DATE":
      return `(DATE '1970-01-01' + CAST(${asInteger(value)} AS INTEGER))`;
    case "TIME":
      return `CAST(TIME '00:00:00' + to_microseconds(${asInteger(value)}) AS TIME)`;
    case "TIMESTAMP":
      return `make_timestamp(CAST(${asInteger(value)} AS BIGINT))`;
    case "TIMESTAMP WITH TIME ZONE":
      return `make_timestamptz(CAST(${asInteger(value)} AS BIGINT))`;
    case "TIMESTAMP_NS":
      return `make_timestamp_ns(CAST(${asInteger(value)} AS BIGINT))`;
    case "TIMESTAMP_MS":
      return `CAST(make_timestamp(CAST(${asInteger(value) * 1000n} AS BIGINT)) AS TIMESTAMP_MS)`;
    case "TIMESTAMP_S":
      return `CAST(make_timestamp(CAST(${asInteger(value) * 1_000_000n} AS BIGINT)) AS TIMESTAMP_S)`;
    case "INTERVAL": {
      const parts = asObject(value);
      const months = asInteger(parts.months);
      const days = asInteger(parts.days);
      return `(to_months(${months}) + to_days(${days}) + to_microseconds(${asInteger(parts.micros)}))`;
    }
    case "UUID":
      return `CAST('${uuidText(wide(value))}' AS UUID)`;
    case "BLOB":
      return `CAST(${quoteText(asString(value))} AS BLOB)`;
    case "ENUM": {
      const name = enumValues(type)[asIndex(value)];
      if (name === undefined) throw unsupported("a constant of type ENUM", "its value is none of the type's");
      return castSql(quoteText(name), type);
    }
    case "LIST":
      return castSql(`[${items().join(", ")}]`, type);
    case "ARRAY":
      return castSql(`array_value(${items().join(", ")})`, type);
    case "STRUCT": {
      const names = fields(type).map((field) => field.name);
      if (names.some((name) => name === "")) return `row(${items().join(", ")})`;
      return castSql(
        `struct_pack(${items().map((item, at) => `${quoteName(names[at] ?? "")} := ${item}`)})`,
        type,
      );
    }
    case "MAP": {
      const entries = asArray(asObject(value).children).map((entry) =>
        asArray(asObject(asObject(entry).value).children).map((item) => literal(asObject(item))),
      );
      const [key, item] = fields(childType(type));
      const side = (at: number, of: JsonObject | undefined): string =>
        `CAST([${entries.map((entry) => entry[at]).join(", ")}] AS ${sqlType(of)}[])`;
      return `map(${side(0, key?.type)}, ${side(1, item?.type)})`;
    }
    case "UNION": {
      const members = fields(type);
      const values = asArray(asObject(value).children).map(asObject);
      const tag = members[asIndex(values[0]?.value)];
      const member = values[1 + asIndex(values[0]?.value)] ?? values[1];
      if (tag === undefined || member === undefined) throw unsupported("a constant of type UNION");
      return castSql(`union_value(${quoteName(tag.name)} := ${literal(member)})`, type);
    }
    default:
      throw unsupported(`a constant of type ${id}`);
  }
}
