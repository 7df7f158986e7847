/** Operations on single objects, and the one that deletes many. */
import { MillraceError } from "../../../../proto/errors.js";
import { NO_CONDITION, type ObjectInfo } from "../../../engine/engine.js";
import type { ObjectAttributes } from "../attributes.js";
import { allowed } from "../auth/credentials.js";
import { openBody } from "../body.js";
import { header, type S3Call, type S3Request } from "../call.js";
import {
  judge,
  matches,
  onlyOver,
  parseDate,
  preconditionFailed,
  rangeHolds,
  readConditions,
  refusedWrite,
  writeCondition,
} from "../conditions.js";
import { S3Error } from "../errors.js";
import {
  checksumHeaders,
  checksumXml,
  describedBy,
  objectHeaders,
  overriddenHeaders,
  sealedAttributes,
  validators,
} from "../metadata.js";
import { sendObject } from "../outgoing.js";
import { contentRange, parseRange } from "../ranges.js";
import { sendEmpty, sendXml } from "../respond.js";
import { bucketOf, find, lookUp, type Target, targetOf } from "../target.js";
import { checkAnnounced, receive } from "../upload.js";
import { PART_NUMBER_MAX } from "../uploads.js";
import {
  childrenOf,
  element,
  expectElement,
  malformed,
  readXml,
  requiredText,
  S3_XMLNS,
  textOf,
  type XmlElement,
} from "../xml.js";

/** Of one multi-delete, as S3 has it. */
const DELETED_KEYS_MAX = 1000;
const DELETE_BYTES_MAX = 2 * 1024 * 1024;
const PARTS_PAGE_MAX = 1000;

export async function putObject(call: S3Call): Promise<void> {
  const { bucket, key } = targetOf(call);
  const described = describedBy(call.request);
  checkAnnounced(call, bucket);
  const condition = writeCondition(call, bucket, key);
  const body = openBody(call, ["md5"]);
  const { draft, sizeBytes } = await receive(call, bucket, key, body);
  const etag = body.digest("md5").toString("hex");
  const checksum = body.checksum === null ? null : ({ ...body.checksum, type: "FULL_OBJECT" } as const);
  // The store has one of its own, which it then holds against the sender's.
  const crc32c = checksum?.name === "crc32c" ? Buffer.from(checksum.value, "base64").readUInt32BE() : null;
  try {
    draft.seal(condition, crc32c, sealedAttributes(call, { ...described, etag, checksum, parts: [] }));
  } catch (thrown) {
    draft.abort();
    throw refusedWrite(call, bucket, key, thrown);
  }
  call.context.engine.count(bucket, "s3", sizeBytes, 0, 1);
  sendEmpty(call, 200, { ETag: `"${etag}"`, ...checksumHeaders(checksum) });
}

export async function getObject(call: S3Call): Promise<void> {
  const target = targetOf(call);
  const { engine } = call.context;
  const overridden = overriddenHeaders(call);
  for (;;) {
    const { info, attributes } = find(call, target);
    const { status, offset, lengthBytes, headers } = select(call.request, info, attributes);
    const answer = { ...headers, ...overridden, "Content-Length": String(lengthBytes) };
    if (lengthBytes === 0) {
      engine.count(target.bucket, "s3", 0, 0, 1);
      sendEmpty(call, status, answer);
      return;
    }
    const length = lengthBytes === info.sizeBytes ? 0 : lengthBytes;
    const reader = openVersion(call, target, info, offset, length);
    if (reader === null) continue;
    await sendObject(call, target, reader, lengthBytes, status, answer);
    return;
  }
}

export async function headObject(call: S3Call): Promise<void> {
  const target = targetOf(call);
  const overridden = overriddenHeaders(call);
  const { info, attributes } = find(call, target);
  const { status, lengthBytes, headers } = select(call.request, info, attributes);
  call.context.engine.count(target.bucket, "s3", 0, 0, 1);
  sendEmpty(call, status, { ...headers, ...overridden, "Content-Length": String(lengthBytes) });
}

export async function deleteObject(call: S3Call): Promise<void> {
  const { bucket, key } = targetOf(call);
  const { request } = call;
  remove(call, bucket, key, {
    etag: header(request, "if-match"),
    sizeBytes: header(request, "x-amz-if-match-size"),
    lastModified: header(request, "x-amz-if-match-last-modified-time"),
  });
  call.context.engine.count(bucket, "s3", 0, 0, 1);
  sendEmpty(call, 204);
}

export async function deleteObjects(call: S3Call): Promise<void> {
  const { request, context } = call;
  const bucket = bucketOf(call);
  if (!hasChecksum(request)) {
    throw new S3Error(
      "InvalidRequest",
      "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
    );
  }
  const root = expectElement(await readXml(call, DELETE_BYTES_MAX), "Delete");
  const quiet = textOf(root, "Quiet")?.trim().toLowerCase() === "true";
  const objects = childrenOf(root, "Object");
  if (objects.length === 0 || objects.length > DELETED_KEYS_MAX) {
    throw malformed(`<Delete> names 1 to ${DELETED_KEYS_MAX} objects`);
  }
  const keys = objects.map((object) => requiredText(object, "Key"));
  const results = objects.map((object, at) => deleteNamed(call, bucket, keys[at] as string, object, quiet));
  context.engine.count(bucket, "s3", 0, 0, keys.length);
  sendXml(call, 200, `<DeleteResult xmlns="${S3_XMLNS}">${results.join("")}</DeleteResult>`);
}

export async function getObjectAttributes(call: S3Call): Promise<void> {
  const target = targetOf(call);
  const asked = new Set(
    (header(call.request, "x-amz-object-attributes") ?? "").split(",").map((name) => name.trim()),
  );
  for (const name of asked) {
    if (!Object.hasOwn(ATTRIBUTES, name)) {
      throw new S3Error("InvalidArgument", "x-amz-object-attributes must name attributes of an object", {
        ArgumentName: "x-amz-object-attributes",
        ArgumentValue: name.slice(0, 100),
      });
    }
  }
  const { info, attributes } = find(call, target);
  // In the order of S3's schema, which some clients hold answers to.
  const xml = Object.entries(ATTRIBUTES).map(([name, write]) =>
    asked.has(name) ? write(attributes, info, call.request) : "",
  );
  call.context.engine.count(target.bucket, "s3", 0, 0, 1);
  call.response.setHeader("Last-Modified", new Date(info.sealedUnixMs).toUTCString());
  sendXml(
    call,
    200,
    `<GetObjectAttributesResponse xmlns="${S3_XMLNS}">${xml.join("")}</GetObjectAttributesResponse>`,
  );
}

/** Opens that version, for `length` bytes (0: to the end). Null where it was overwritten since: find it anew. */
export function openVersion(
  { context }: S3Call,
  { bucket, key }: Target,
  { sequence, sizeBytes }: ObjectInfo,
  offset: number,
  length: number,
) {
  try {
    const reader = context.engine.open(bucket, key, offset, length);
    if (reader === null || reader.info.sequence === sequence) return reader;
    reader.close();
  } catch (thrown) {
    // Of a shorter one that has come in its place.
    if (MillraceError.from(thrown).code !== "OUT_OF_RANGE" || offset + length > sizeBytes) throw thrown;
  }
  return null;
}

/** What of an object is answered, and how. */
interface Selection {
  readonly status: 200 | 206;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly headers: Record<string, string>;
}

/** By the conditions, the range and the part number of a get or head. NotModified, PreconditionFailed, InvalidRange. */
function select(request: S3Request, info: ObjectInfo, attributes: ObjectAttributes): Selection {
  const { etag, parts } = attributes;
  const conditions = readConditions(request);
  const verdict = judge(conditions, etag, info.sealedUnixMs);
  if (verdict === "failed") {
    throw preconditionFailed(conditions.ifMatch === null ? "If-Unmodified-Since" : "If-Match");
  }
  if (verdict === "notModified") {
    throw new S3Error(
      "NotModified",
      "the object is the one that the client has",
      {},
      validators(info, attributes),
    );
  }

  const headers = objectHeaders(info, attributes);
  const range = header(request, "range");
  const partNumber = request.query.get("partNumber");
  let piece: { offset: number; length: number } | null = null;
  if (partNumber !== undefined) {
    if (range !== null) {
      throw new S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter");
    }
    piece = partAt(partNumber, parts.length > 0 ? parts : [info.sizeBytes]);
    if (parts.length > 0) headers["x-amz-mp-parts-count"] = String(parts.length);
  } else if (range !== null && rangeHolds(header(request, "if-range"), etag, info.sealedUnixMs)) {
    piece = parseRange(range, info.sizeBytes);
  }
  // No header can tell of a piece without bytes; only an empty object has one.
  if (piece !== null && piece.length > 0) {
    headers["Content-Range"] = contentRange(piece, info.sizeBytes);
    return { status: 206, offset: piece.offset, lengthBytes: piece.length, headers };
  }
  // A checksum is of the whole: beside a piece clients would hold it against that.
  if (header(request, "x-amz-checksum-mode")?.toUpperCase() === "ENABLED") {
    Object.assign(headers, checksumHeaders(attributes.checksum));
  }
  return { status: 200, offset: 0, lengthBytes: piece?.length ?? info.sizeBytes, headers };
}

function partAt(partNumber: string, parts: readonly number[]): { offset: number; length: number } {
  const number = /^\d{1,5}$/.test(partNumber) ? Number(partNumber) : 0;
  if (number < 1 || number > PART_NUMBER_MAX) {
    throw new S3Error("InvalidArgument", `partNumber must be from 1 to ${PART_NUMBER_MAX}`, {
      ArgumentName: "partNumber",
      ArgumentValue: partNumber.slice(0, 100),
    });
  }
  const length = parts[number - 1];
  if (length === undefined) {
    throw new S3Error("InvalidPart", `the object has ${parts.length} parts`, { PartNumber: partNumber });
  }
  let offset = 0;
  for (let at = 0; at < number - 1; at++) offset += parts[at] as number;
  return { offset, length };
}

/** What must hold of an object that is deleted, as it was sent; null: whatever. */
interface DeleteConditions {
  readonly etag: string | null;
  readonly sizeBytes: string | null;
  readonly lastModified: string | null;
}

/** Deletes the object where there is one. PreconditionFailed where there is one and it is not the one meant. */
function remove({ context }: S3Call, bucket: string, key: string, conditions: DeleteConditions): void {
  const { engine } = context;
  const { etag, sizeBytes, lastModified } = conditions;
  if (etag === null && sizeBytes === null && lastModified === null) {
    engine.remove(bucket, key, NO_CONDITION);
    return;
  }
  for (;;) {
    const found = lookUp(engine, bucket, key);
    if (found === null) return;
    const { info, attributes } = found;
    const modifiedMs = Math.floor(info.sealedUnixMs / 1000) * 1000;
    if (etag !== null && !matches(etag, attributes.etag, "strong")) {
      throw preconditionFailed("If-Match");
    }
    if (sizeBytes !== null && sizeBytes.trim() !== String(info.sizeBytes)) {
      throw preconditionFailed("x-amz-if-match-size");
    }
    if (lastModified !== null && parseDate(lastModified.trim()) !== modifiedMs) {
      throw preconditionFailed("x-amz-if-match-last-modified-time");
    }
    try {
      engine.remove(bucket, key, onlyOver(info));
      return;
    } catch (thrown) {
      // It was overwritten meanwhile: what is there now is judged anew.
      if (MillraceError.from(thrown).code !== "CONDITION_FAILED") throw thrown;
    }
  }
}

/** Deletes one of many; the element that tells how it went, which is nothing where all is well and nobody asks. */
function deleteNamed(call: S3Call, bucket: string, key: string, object: XmlElement, quiet: boolean): string {
  try {
    const { limits } = call.context;
    // Those of no key that there could be.
    if (key === "" || Buffer.byteLength(key) > (limits.keyBytesMax as number)) {
      throw new S3Error("KeyTooLongError", `a key has 1 to ${limits.keyBytesMax} bytes`);
    }
    allowed(call.authorization.grantee, bucket, key, true, Date.now());
    const versionId = textOf(object, "VersionId");
    if (versionId !== null && versionId !== "null" && versionId !== "") {
      throw new S3Error("InvalidArgument", "there are no versions: versioning is never on");
    }
    remove(call, bucket, key, {
      etag: textOf(object, "ETag"),
      sizeBytes: textOf(object, "Size"),
      lastModified: textOf(object, "LastModifiedTime"),
    });
    return quiet ? "" : `<Deleted>${element("Key", key)}</Deleted>`;
  } catch (thrown) {
    const { code, message } = S3Error.from(thrown);
    return `<Error>${element("Key", key)}${element("Code", code)}${element("Message", message)}</Error>`;
  }
}

function hasChecksum({ message }: S3Request): boolean {
  if (message.headers["content-md5"] !== undefined || message.headers["x-amz-trailer"] !== undefined)
    return true;
  return Object.keys(message.headers).some((name) => name.startsWith("x-amz-checksum-"));
}

type AttributeWriter = (attributes: ObjectAttributes, info: ObjectInfo, request: S3Request) => string;

const ATTRIBUTES: Readonly<Record<string, AttributeWriter>> = {
  ETag: ({ etag }) => element("ETag", etag),
  Checksum: ({ checksum }) => (checksum === null ? "" : `<Checksum>${checksumXml(checksum)}</Checksum>`),
  ObjectParts: ({ parts }, _info, request) => (parts.length === 0 ? "" : partsXml(parts, request)),
  StorageClass: () => element("StorageClass", "STANDARD"),
  ObjectSize: (_attributes, { sizeBytes }) => element("ObjectSize", sizeBytes),
};

function partsXml(parts: readonly number[], request: S3Request): string {
  const pageMax = Math.min(count(request, "x-amz-max-parts", PARTS_PAGE_MAX), PARTS_PAGE_MAX);
  const marker = count(request, "x-amz-part-number-marker", 0);
  const page = parts.slice(marker, marker + pageMax);
  const next = marker + page.length;
  const items = page.map(
    (size, at) => `<Part>${element("PartNumber", marker + at + 1)}${element("Size", size)}</Part>`,
  );
  return (
    `<ObjectParts>${element("PartsCount", parts.length)}${element("PartNumberMarker", marker)}` +
    `${element("NextPartNumberMarker", next)}${element("MaxParts", pageMax)}` +
    `${element("IsTruncated", next < parts.length)}${items.join("")}</ObjectParts>`
  );
}

/** A header's number, from 0 on. InvalidArgument. */
function count(request: S3Request, name: string, otherwise: number): number {
  const value = header(request, name);
  if (value === null) return otherwise;
  if (!/^\d{1,9}$/.test(value)) {
    throw new S3Error("InvalidArgument", `${name} must be a whole number`, {
      ArgumentName: name,
      ArgumentValue: value.slice(0, 100),
    });
  }
  return Number(value);
}
