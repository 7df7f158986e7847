/**
 * DuckDB's JSON without loss. JSON.parse reads every number as a double, and DuckDB writes integers of 64 bits, and
 * infinities and NaN bare; so what a double does not hold becomes a string of the same characters before.
 */

import { MillraceError } from "../../../client/errors.js";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

const TOKEN = /"(?:[^"\\]|\\.)*"|-?(?:\d[\d.eE+-]*|Infinity|NaN)/g;
/** What a double cannot be trusted with: 16 digits and more, and what is no JSON. */
const LONG = /^-?(?:\d{16,}|Infinity|NaN)$/;

/** Throws INVALID_ARGUMENT where the text is no JSON. */
export function parseJson(text: string): Json {
  const safe = text.replace(TOKEN, (token) => (token[0] !== '"' && LONG.test(token) ? `"${token}"` : token));
  try {
    return JSON.parse(safe) as Json;
  } catch (thrown) {
    throw new MillraceError("INVALID_ARGUMENT", `the plan is no JSON: ${String(thrown)}`, { cause: thrown });
  }
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrong(what: string, value: Json | undefined): MillraceError {
  const shown = JSON.stringify(value) ?? "nothing";
  return new MillraceError("INVALID_ARGUMENT", `the plan has ${shown.slice(0, 100)} where ${what} belongs`);
}

export function asObject(value: Json | undefined): JsonObject {
  if (!isObject(value)) throw wrong("an object", value);
  return value;
}

/** The array; nothing is an empty one. */
export function asArray(value: Json | undefined): readonly Json[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw wrong("an array", value);
  return value as readonly Json[];
}

export function asObjects(value: Json | undefined): readonly JsonObject[] {
  return asArray(value).map(asObject);
}

export function asString(value: Json | undefined): string {
  if (typeof value !== "string") throw wrong("a string", value);
  return value;
}

/** A whole number that a double holds: positions, counts. */
export function asIndex(value: Json | undefined): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw wrong("a position", value);
  return value;
}

/** Any integer. */
export function asInteger(value: Json | undefined): bigint {
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === "string" && /^-?\d+$/.test(value)) return BigInt(value);
  throw wrong("an integer", value);
}
