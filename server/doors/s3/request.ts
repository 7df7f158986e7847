/** Takes a request's line and host apart: which bucket, which key, what is asked of it. */
import { randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { S3Request } from "./call.js";
import { S3Error } from "./errors.js";

export interface RequestRules {
  /** Lower-case names under which each bucket has a host of its own: BUCKET.DOMAIN. */
  readonly domains: readonly string[];
  readonly keyBytesMax: number;
}

/** Of a request line; a key of 1,024 bytes takes 3,072 when all of it is encoded, the rest is for the query. */
export const URL_CHARACTERS_MAX = 16_384;
const QUERY_PARAMETERS_MAX = 100;

const ID_BYTES = 8;
/** Random bytes for so many ids are drawn at once: each drawing is a call that costs more than all else about an id. */
const IDS_DRAWN = 512;
let drawn = Buffer.alloc(0);
let drawnAt = 0;

export function newRequestId(): string {
  if (drawnAt === drawn.length) {
    drawn = randomBytes(ID_BYTES * IDS_DRAWN);
    drawnAt = 0;
  }
  drawnAt += ID_BYTES;
  return drawn.toString("hex", drawnAt - ID_BYTES, drawnAt).toUpperCase();
}

/** Throws InvalidURI, InvalidArgument or KeyTooLongError. */
export function parseRequest(message: IncomingMessage, id: string, rules: RequestRules): S3Request {
  // A proxy's form of the line names the host again; the Host header decides.
  const url = (message.url as string).replace(/^https?:\/\/[^/?]*/i, "");
  if (url.length > URL_CHARACTERS_MAX) throw invalidUri("it is too long");
  const mark = url.indexOf("?");
  const rawPath = mark < 0 ? url : url.slice(0, mark);
  const rawQuery = mark < 0 ? "" : url.slice(mark + 1);
  if (!rawPath.startsWith("/")) throw invalidUri("its path does not start with a slash");

  let bucket = hostBucket(message.headers.host, rules.domains);
  let rawKey = rawPath.slice(1);
  if (bucket === null) {
    const slash = rawKey.indexOf("/");
    const name = decode(slash < 0 ? rawKey : rawKey.slice(0, slash));
    rawKey = slash < 0 ? "" : rawKey.slice(slash + 1);
    bucket = name === "" && rawKey === "" ? null : name;
  }
  if (bucket === "") throw new S3Error("InvalidBucketName", "the path names no bucket before the key");
  const key = rawKey === "" ? null : decode(rawKey);
  if (key !== null && Buffer.byteLength(key) > rules.keyBytesMax) {
    throw new S3Error("KeyTooLongError", `the key has more than ${rules.keyBytesMax} bytes`, {
      Size: String(Buffer.byteLength(key)),
      MaxSizeAllowed: String(rules.keyBytesMax),
    });
  }
  const method = message.method as string;
  return { id, method, rawPath, rawQuery, query: parseQuery(rawQuery), bucket, key, message };
}

/** "bucket" of the host "bucket.domain:port", or null where buckets are named by the path. */
function hostBucket(host: string | undefined, domains: readonly string[]): string | null {
  if (host === undefined) return null;
  const name = host.replace(/:\d+$/, "").toLowerCase();
  for (const domain of domains) {
    if (name.length > domain.length + 1 && name.endsWith(`.${domain}`)) {
      return name.slice(0, -domain.length - 1);
    }
  }
  return null;
}

/** "+" is a space there, as S3 has it and as the signature counts it. */
function parseQuery(rawQuery: string): Map<string, string> {
  const query = new Map<string, string>();
  for (const parameter of rawQuery.replaceAll("+", "%20").split("&")) {
    if (parameter === "") continue;
    const equals = parameter.indexOf("=");
    const name = decode(equals < 0 ? parameter : parameter.slice(0, equals));
    // Two of a name could be read as the one by whoever signed and as the other by this door.
    if (query.has(name)) throw new S3Error("InvalidArgument", "a parameter of the query is given twice");
    if (query.size === QUERY_PARAMETERS_MAX) {
      throw new S3Error("InvalidArgument", `the query has more than ${QUERY_PARAMETERS_MAX} parameters`);
    }
    query.set(name, equals < 0 ? "" : decode(parameter.slice(equals + 1)));
  }
  return query;
}

/** Percent-decoding to UTF-8; "+" stands for itself. */
function decode(raw: string): string {
  // Bytes beyond ASCII have no meaning in a URI, and node hands them on as Latin-1.
  if (/[^\x21-\x7e]/.test(raw)) throw invalidUri("it has characters that are to be percent-encoded");
  if (!raw.includes("%")) return raw;
  try {
    return decodeURIComponent(raw);
  } catch {
    throw invalidUri("what is percent-encoded is not UTF-8");
  }
}

function invalidUri(reason: string): S3Error {
  return new S3Error("InvalidURI", `the URI was not accepted: ${reason}`);
}
