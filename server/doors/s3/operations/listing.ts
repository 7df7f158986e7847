/** The three listings of a bucket's objects, over one walk. */
import type { Engine } from "../../../engine/engine.js";
import { decodeAttributes } from "../attributes.js";
import type { S3Call, S3Request } from "../call.js";
import { S3Error } from "../errors.js";
import { sendXml } from "../respond.js";
import { element, escapeXml, S3_XMLNS } from "../xml.js";
import { OWNER_XML } from "./buckets.js";

const PAGE_MAX = 1000;
// With a delimiter most of a page may lie behind one common prefix, so pages start small.
const DELIMITED_PAGE_MIN = 16;
// No UTF-8 has it, so a prefix with this behind it comes after all keys with that prefix and before all others.
const AFTER_ALL = Buffer.from([0xff]);

/** What every listing is asked for in the same way. */
interface Query {
  readonly prefix: string;
  /** "": none. */
  readonly delimiter: string;
  readonly maxKeys: number;
  readonly urlEncoded: boolean;
}

type Listed = ReturnType<Engine["list"]>["objects"][number];

interface Walk {
  readonly objects: readonly Listed[];
  readonly commonPrefixes: readonly string[];
  /** Where the next page goes on; null: this was the last. */
  readonly next: {
    readonly startAfter: Buffer /** The last object or common prefix. */;
    readonly last: string;
  } | null;
}

export async function listObjects(call: S3Call): Promise<void> {
  const { request } = call;
  const asked = readQuery(call);
  const marker = request.query.get("marker") ?? "";
  const found = walk(call, asked, afterMarker(call, asked, marker));
  const encode = encoder(asked);
  // As in S3 only where there is a delimiter; without one the last key serves.
  const nextMarker = found.next !== null && asked.delimiter !== "" ? encode(found.next.last) : "";
  send(
    call,
    "ListBucketResult",
    `${head(call, asked)}<Marker>${encode(marker)}</Marker>${nextMarker && `<NextMarker>${nextMarker}</NextMarker>`}` +
      `<IsTruncated>${found.next !== null}</IsTruncated>`,
    found.objects.map((object) => contents(object, encode, OWNER)),
    found,
    encode,
  );
}

export async function listObjectsV2(call: S3Call): Promise<void> {
  const { query } = call.request;
  if (query.get("list-type") !== "2") throw new S3Error("InvalidArgument", "list-type can only be 2");
  const asked = readQuery(call);
  const token = query.get("continuation-token");
  const startAfter = query.get("start-after");
  // Of an empty token there is nothing to go on from.
  const from = token ? readToken(call, token) : afterMarker(call, asked, startAfter ?? "");
  const found = walk(call, asked, from);
  const encode = encoder(asked);
  const count = found.objects.length + found.commonPrefixes.length;
  const owner = query.get("fetch-owner") === "true" ? OWNER : "";
  send(
    call,
    "ListBucketResult",
    `${head(call, asked)}<KeyCount>${count}</KeyCount><IsTruncated>${found.next !== null}</IsTruncated>` +
      element("ContinuationToken", token ?? null) +
      (found.next === null
        ? ""
        : element("NextContinuationToken", found.next.startAfter.toString("base64url"))) +
      (startAfter === undefined ? "" : `<StartAfter>${encode(startAfter)}</StartAfter>`),
    found.objects.map((object) => contents(object, encode, owner)),
    found,
    encode,
  );
}

/** Without versioning every object has one version, called null; who empties a bucket with this listing can. */
export async function listObjectVersions(call: S3Call): Promise<void> {
  const { query } = call.request;
  const asked = readQuery(call);
  const marker = query.get("key-marker") ?? "";
  const found = walk(call, asked, afterMarker(call, asked, marker));
  const encode = encoder(asked);
  const next =
    found.next === null
      ? ""
      : `<NextKeyMarker>${encode(found.next.last)}</NextKeyMarker><NextVersionIdMarker>null</NextVersionIdMarker>`;
  send(
    call,
    "ListVersionsResult",
    `${head(call, asked)}<KeyMarker>${encode(marker)}</KeyMarker>` +
      `${element("VersionIdMarker", query.get("version-id-marker") ?? "")}${next}` +
      `<IsTruncated>${found.next !== null}</IsTruncated>`,
    found.objects.map(
      (object) =>
        `<Version>${described(object, encode)}<VersionId>null</VersionId><IsLatest>true</IsLatest>${OWNER}</Version>`,
    ),
    found,
    encode,
  );
}

/**
 * Objects and common prefixes from `startAfter` on, in the order of their bytes. What lies behind a common prefix is
 * jumped over, not walked.
 */
function walk({ context, request }: S3Call, asked: Query, startAfter: Buffer): Walk {
  const { engine } = context;
  const bucket = request.bucket as string;
  const prefix = Buffer.from(asked.prefix);
  const delimiter = Buffer.from(asked.delimiter);
  const delimited = delimiter.length > 0;
  const objects: Listed[] = [];
  const commonPrefixes: string[] = [];
  let from = startAfter;
  let last = "";
  let pageMax = delimited ? DELIMITED_PAGE_MIN : asked.maxKeys + 1;
  let more = asked.maxKeys > 0;
  try {
    while (more) {
      const page = engine.list(bucket, prefix, from, Math.min(pageMax, PAGE_MAX), true);
      more = page.truncated;
      let jumped = false;
      for (const object of page.objects) {
        const { key } = object;
        // What is left of a common prefix in this page.
        if (jumped && from.compare(key) > 0) continue;
        if (objects.length + commonPrefixes.length === asked.maxKeys) {
          return { objects, commonPrefixes, next: { startAfter: from, last } };
        }
        const at = delimited ? key.indexOf(delimiter, prefix.length) : -1;
        jumped = at >= 0;
        if (jumped) {
          const common = key.subarray(0, at + delimiter.length);
          last = common.toString();
          commonPrefixes.push(last);
          from = behind(common, context.limits.keyBytesMax as number);
        } else {
          objects.push(object);
          last = key.toString();
          from = key;
        }
      }
      pageMax = jumped ? DELIMITED_PAGE_MIN : pageMax * 2;
    }
    return { objects, commonPrefixes, next: null };
  } finally {
    engine.count(bucket, "s3", 0, 0, 1);
  }
}

/** What to start after so that all keys with this prefix are left out. */
function behind(prefix: Buffer, keyBytesMax: number): Buffer {
  // Only one key is as long as the longest and starts with it.
  return prefix.length === keyBytesMax ? prefix : Buffer.concat([prefix, AFTER_ALL]);
}

/** A marker that is a common prefix stands for all behind it, as the listing before gave it out. */
function afterMarker({ context }: S3Call, { prefix, delimiter }: Query, marker: string): Buffer {
  const keyBytesMax = context.limits.keyBytesMax as number;
  const bytes = Buffer.from(marker);
  if (bytes.length > keyBytesMax) throw tooLong("marker", keyBytesMax);
  if (delimiter === "" || !marker.startsWith(prefix)) return bytes;
  const at = marker.indexOf(delimiter, prefix.length);
  return at >= 0 && at + delimiter.length === marker.length ? behind(bytes, keyBytesMax) : bytes;
}

function readToken({ context }: S3Call, token: string): Buffer {
  const bytes = Buffer.from(token, "base64url");
  const canonical = bytes.toString("base64url") === token;
  if (!canonical || bytes.length === 0 || bytes.length > (context.limits.keyBytesMax as number)) {
    throw new S3Error("InvalidArgument", "the continuation token is none that this server gave out", {
      ArgumentName: "continuation-token",
    });
  }
  return bytes;
}

function readQuery({ context, request }: S3Call): Query {
  const keyBytesMax = context.limits.keyBytesMax as number;
  const { query } = request;
  const prefix = query.get("prefix") ?? "";
  const delimiter = query.get("delimiter") ?? "";
  if (Buffer.byteLength(prefix) > keyBytesMax) throw tooLong("prefix", keyBytesMax);
  if (Buffer.byteLength(delimiter) > keyBytesMax) throw tooLong("delimiter", keyBytesMax);
  return {
    prefix,
    delimiter,
    maxKeys: Math.min(readCount(request, "max-keys") ?? PAGE_MAX, PAGE_MAX),
    urlEncoded: readUrlEncoded(request),
  };
}

/** A whole number from the query, or null where it is left out. InvalidArgument where it is none. */
export function readCount({ query }: S3Request, name: string): number | null {
  const text = query.get(name);
  if (text === undefined || text === "") return null;
  const count = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(count <= 0x7fff_ffff)) {
    throw new S3Error("InvalidArgument", `${name} must be a whole number from 0 to 2147483647`, {
      ArgumentName: name,
      ArgumentValue: text.slice(0, 100),
    });
  }
  return count;
}

/** Whether names are to be percent-encoded in the answer. */
export function readUrlEncoded({ query }: S3Request): boolean {
  const type = query.get("encoding-type");
  if (type === undefined || type === "") return false;
  if (type !== "url") {
    throw new S3Error("InvalidArgument", "encoding-type can only be url", { ArgumentName: "encoding-type" });
  }
  return true;
}

/** As S3 percent-encodes names in listings: all but unreserved characters and slashes. */
export function urlEncode(name: string): string {
  return encodeURIComponent(name).replace(/%2F|[!'()*]/g, (character) =>
    character === "%2F" ? "/" : `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function tooLong(what: string, keyBytesMax: number): S3Error {
  return new S3Error("KeyTooLongError", `the ${what} has more than ${keyBytesMax} bytes`);
}

type Encode = (name: string) => string;

/** Makes names fit for XML. */
function encoder({ urlEncoded }: Query): Encode {
  return urlEncoded ? urlEncode : escapeXml;
}

const OWNER = `<Owner>${OWNER_XML}</Owner>`;

function described(object: Listed, encode: Encode): string {
  const { etag, checksum } = decodeAttributes(object.attributes, object);
  const sums =
    checksum === null
      ? ""
      : `<ChecksumAlgorithm>${checksum.name.toUpperCase()}</ChecksumAlgorithm>` +
        `<ChecksumType>${checksum.type}</ChecksumType>`;
  return (
    `<Key>${encode(object.key.toString())}</Key><LastModified>${new Date(object.sealedUnixMs).toISOString()}` +
    `</LastModified><ETag>&quot;${escapeXml(etag)}&quot;</ETag>${sums}<Size>${object.sizeBytes}</Size>` +
    "<StorageClass>STANDARD</StorageClass>"
  );
}

function contents(object: Listed, encode: Encode, owner: string): string {
  return `<Contents>${described(object, encode)}${owner}</Contents>`;
}

function head({ request }: S3Call, asked: Query): string {
  const encode = encoder(asked);
  return (
    `<Name>${escapeXml(request.bucket as string)}</Name><Prefix>${encode(asked.prefix)}</Prefix>` +
    (asked.delimiter === "" ? "" : `<Delimiter>${encode(asked.delimiter)}</Delimiter>`) +
    `<MaxKeys>${asked.maxKeys}</MaxKeys>${asked.urlEncoded ? "<EncodingType>url</EncodingType>" : ""}`
  );
}

function send(
  call: S3Call,
  root: string,
  fields: string,
  objects: readonly string[],
  { commonPrefixes }: Walk,
  encode: Encode,
): void {
  const prefixes = commonPrefixes.map(
    (prefix) => `<CommonPrefixes><Prefix>${encode(prefix)}</Prefix></CommonPrefixes>`,
  );
  sendXml(
    call,
    200,
    `<${root} xmlns="${S3_XMLNS}">${fields}${objects.join("")}${prefixes.join("")}</${root}>`,
  );
}
