/** The one form in which both sides of a signature write a request (AWS Signature Version 4, as S3 wants it). */

/** By byte: as it stands in a canonical path or query. */
const ENCODED = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte);
  return /[A-Za-z0-9\-._~]/.test(character)
    ? character
    : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
});
const SLASH = 0x2f;
const PLUS = 0x2b;
const PERCENT = 0x25;

/** The path, each byte encoded in the one way: neither normalised nor encoded twice. */
export function canonicalPath(rawPath: string): string {
  if (/^[A-Za-z0-9\-._~/]+$/.test(rawPath)) return rawPath;
  return encode(rawPath, false) || "/";
}

/** Names and values of a query, encoded canonically, in the order in which they came. */
export function queryPairs(rawQuery: string): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  for (const pair of rawQuery.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = equals < 0 ? pair : pair.slice(0, equals);
    pairs.push([encode(name, true), equals < 0 ? "" : encode(pair.slice(equals + 1), true)]);
  }
  return pairs;
}

/** All pairs but those of `except`, sorted by name, then by value. */
export function canonicalQuery(pairs: readonly [string, string][], except: string): string {
  const sorted = pairs.filter(([name]) => name !== except);
  sorted.sort(([nameA, a], [nameB, b]) => compare(nameA, nameB) || compare(a, b));
  return sorted.map(([name, value]) => `${name}=${value}`).join("&");
}

/** Values of one header: trimmed, runs of blanks as one. No other whitespace: it could be part of a character. */
export function canonicalValue(values: readonly string[]): string {
  return values.map((value) => value.replace(/[ \t]+/g, " ").replace(/^ | $/g, "")).join(",");
}

/** `raw` holds one byte a character; what is encoded in it counts as decoded. */
function encode(raw: string, query: boolean): string {
  let text = "";
  for (let at = 0; at < raw.length; at++) {
    let byte = raw.charCodeAt(at) & 0xff;
    if (byte === PERCENT && /^[0-9A-Fa-f]{2}$/.test(raw.slice(at + 1, at + 3))) {
      byte = Number.parseInt(raw.slice(at + 1, at + 3), 16);
      at += 2;
    } else if (byte === PLUS && query) {
      byte = 0x20;
    }
    text += byte === SLASH && !query ? "/" : ENCODED[byte];
  }
  return text;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
