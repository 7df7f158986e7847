/** What a request says about an object beside its bytes, and how an answer says it again. */
import type { ObjectInfo } from "../../engine/engine.js";
import { type ChecksumName, encodeAttributes, type ObjectAttributes } from "./attributes.js";
import { header, type S3Call, type S3Request } from "./call.js";
import { S3Error } from "./errors.js";
import { parseTagHeader } from "./tags.js";
import { element } from "./xml.js";

/** Of all names and values together, as S3 has it. */
const METADATA_BYTES_MAX = 2048;
const METADATA_PREFIX = "x-amz-meta-";
const DEFAULT_CONTENT_TYPE = "binary/octet-stream";

/** Headers that are kept, as they are written in answers; and parameters by which a signed get may replace them. */
const CONTENT_HEADERS = [
  { name: "Content-Type", key: "content-type", override: "response-content-type" },
  { name: "Cache-Control", key: "cache-control", override: "response-cache-control" },
  { name: "Content-Disposition", key: "content-disposition", override: "response-content-disposition" },
  { name: "Content-Encoding", key: "content-encoding", override: "response-content-encoding" },
  { name: "Content-Language", key: "content-language", override: "response-content-language" },
  { name: "Expires", key: "expires", override: "response-expires" },
] as const;

/** There is one kind of storage. The second name is S3's for the same with fewer copies, of which there is one here. */
const STORAGE_CLASSES = new Set(["STANDARD", "REDUCED_REDUNDANCY"]);

export type Described = Pick<ObjectAttributes, "headers" | "metadata" | "tags">;

/** MetadataTooLarge, InvalidTag, NotImplemented (a storage class). */
export function describedBy(request: S3Request): Described {
  const storageClass = header(request, "x-amz-storage-class");
  if (storageClass !== null && !STORAGE_CLASSES.has(storageClass)) {
    throw new S3Error("NotImplemented", "this server has no storage class but STANDARD");
  }
  return {
    headers: contentHeaders(request),
    metadata: userMetadata(request),
    tags: parseTagHeader(header(request, "x-amz-tagging")),
  };
}

function contentHeaders(request: S3Request): Record<string, string> {
  const kept: [string, string][] = [];
  for (const { key } of CONTENT_HEADERS) {
    let value = header(request, key) ?? "";
    // Said of the request's body, not of the object.
    if (key === "content-encoding" && /aws-chunked/i.test(value)) {
      const codings = value.split(",").map((coding) => coding.trim());
      value = codings.filter((coding) => coding.toLowerCase() !== "aws-chunked").join(", ");
    }
    if (value !== "") kept.push([key, value]);
  }
  return Object.fromEntries(kept);
}

/** Values are bytes, of which node makes characters of Latin-1 and back: they are returned as they came. */
function userMetadata(request: S3Request): Record<string, string> {
  const kept: [string, string][] = [];
  let bytes = 0;
  for (const name in request.message.headers) {
    if (!name.startsWith(METADATA_PREFIX)) continue;
    const value = header(request, name) as string;
    kept.push([name.slice(METADATA_PREFIX.length), value]);
    bytes += name.length - METADATA_PREFIX.length + value.length;
  }
  if (bytes > METADATA_BYTES_MAX) {
    throw new S3Error("MetadataTooLarge", "your metadata headers exceed the maximum allowed metadata size", {
      Size: String(bytes),
      MaxSizeAllowed: String(METADATA_BYTES_MAX),
    });
  }
  // Unlike an assignment this makes a property of any name.
  return Object.fromEntries(kept);
}

/** As they are sealed. MetadataTooLarge where the headers are more than the store keeps with an object. */
export function sealedAttributes(call: S3Call, attributes: ObjectAttributes): Buffer {
  return checkSealed(call, encodeAttributes(attributes));
}

/** What is to be sealed with an object, or MetadataTooLarge. */
export function checkSealed(call: S3Call, bytes: Buffer): Buffer {
  const bytesMax = call.context.limits.attributesBytesMax as number;
  if (bytes.length > bytesMax) {
    throw new S3Error("MetadataTooLarge", "headers, metadata and tags of the object are too long together", {
      Size: String(bytes.length),
      MaxSizeAllowed: String(bytesMax),
    });
  }
  return bytes;
}

/** Headers of an answer that tell of an object, without its length. */
export function objectHeaders(info: ObjectInfo, attributes: ObjectAttributes): Record<string, string> {
  const { headers, metadata, tags } = attributes;
  const answer = { ...validators(info, attributes), "Accept-Ranges": "bytes" } as Record<string, string>;
  for (const { name, key } of CONTENT_HEADERS) {
    const value = headers[key];
    if (value !== undefined) answer[name] = value;
  }
  answer["Content-Type"] ??= DEFAULT_CONTENT_TYPE;
  for (const name in metadata) answer[METADATA_PREFIX + name] = metadata[name] as string;
  const tagCount = Object.keys(tags).length;
  if (tagCount > 0) answer["x-amz-tagging-count"] = String(tagCount);
  return answer;
}

/** What caches hold an object by: also in a 304. */
export function validators(info: ObjectInfo, { etag }: ObjectAttributes): Record<string, string> {
  return { ETag: `"${etag}"`, "Last-Modified": new Date(info.sealedUnixMs).toUTCString() };
}

export function checksumHeaders(checksum: ObjectAttributes["checksum"]): Record<string, string> {
  if (checksum === null) return {};
  return { [`x-amz-checksum-${checksum.name}`]: checksum.value, "x-amz-checksum-type": checksum.type };
}

/** Name of the element that has a checksum of this name. */
export function checksumElement(name: ChecksumName): string {
  return `Checksum${name.toUpperCase()}`;
}

/** The elements that tell of an object's: its value and its type. */
export function checksumXml(checksum: ObjectAttributes["checksum"]): string {
  if (checksum === null) return "";
  return element(checksumElement(checksum.name), checksum.value) + element("ChecksumType", checksum.type);
}

/** Headers that the query of a signed request puts in the place of the object's own. */
export function overriddenHeaders(call: S3Call): Record<string, string> {
  const { query } = call.request;
  const overridden: Record<string, string> = {};
  for (const { name, override } of CONTENT_HEADERS) {
    const value = query.get(override);
    if (value === undefined) continue;
    if (call.authorization.grantee === call.context.credentials.anonymous) {
      throw new S3Error("InvalidRequest", "response headers can be chosen in signed requests only");
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) {
      throw new S3Error("InvalidArgument", `${override} has characters that no header can have`);
    }
    // A header is bytes, one for each character here.
    overridden[name] = Buffer.from(value).toString("latin1");
  }
  return overridden;
}
