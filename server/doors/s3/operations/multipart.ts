/**
 * Multipart uploads: begun, filled part by part in any order, listed, and ended one way or the other. A part goes
 * straight into the store as a hidden object; completing joins them to the object without moving a byte.
 */
import { createHash } from "node:crypto";
import type { DigestName } from "../../../../native/binding/addon.js";
import { NO_CONDITION } from "../../../engine/engine.js";
import { type ChecksumName, encodeAttributes, type ObjectAttributes } from "../attributes.js";
import { openBody } from "../body.js";
import { header, type S3Call } from "../call.js";
import { CHECKSUM_NAMES, type ChecksumType, checksumName, checksumOfParts, typesOf } from "../checksums.js";
import { onlyOver, refusedWrite, writeCondition } from "../conditions.js";
import { DigestedSource } from "../digested.js";
import { S3Error } from "../errors.js";
import { partKey, UPLOADS_PREFIX, uploadKey } from "../hidden.js";
import { checkSealed, checksumElement, checksumXml, describedBy, sealedAttributes } from "../metadata.js";
import { readerBytes } from "../outgoing.js";
import { sendEmpty, sendXml } from "../respond.js";
import { bucketOf, lookUp, type Target, targetOf } from "../target.js";
import { receive, type Source, untilRoom } from "../upload.js";
import {
  allParts,
  decodeUpload,
  encodePart,
  encodeUpload,
  findUpload,
  listParts as listPartsOf,
  newUploadId,
  PART_NUMBER_MAX,
  type Part,
  type PartAttributes,
  removeUpload,
  type Upload,
  uploadIdOf,
} from "../uploads.js";
import { objectsOf } from "../walk.js";
import {
  childrenOf,
  element,
  escapeXml,
  expectElement,
  malformed,
  readXml,
  requiredText,
  S3_XMLNS,
  textOf,
  type XmlElement,
} from "../xml.js";
import { OWNER_XML } from "./buckets.js";
import { copySource, findSource } from "./copy.js";
import { readCount, readUrlEncoded, urlEncode } from "./listing.js";
import { openVersion } from "./objects.js";

/** Of every part but the last. */
const PART_BYTES_MIN = 5 * 2 ** 20;
const PAGE_MAX = 1000;
/** Ten thousand parts with a checksum each. */
const COMPLETE_BYTES_MAX = 4 * 2 ** 20;
const MD5 = /^[0-9a-f]{32}$/;

export async function createMultipartUpload(call: S3Call): Promise<void> {
  const { context, request } = call;
  const { bucket, key } = targetOf(call);
  const upload: Upload = {
    key,
    initiatedUnixMs: Date.now(),
    ...describedBy(request),
    checksum: askedChecksum(call),
  };
  const uploadId = newUploadId(upload.initiatedUnixMs);
  const attributes = checkSealed(call, encodeUpload(upload));
  await untilRoom(call, () => {
    context.engine
      .begin(bucket, uploadKey(uploadId), 0)
      .seal({ ...NO_CONDITION, ifAbsent: true }, null, attributes);
  });
  context.engine.count(bucket, "s3", 0, 0, 1);
  for (const [name, value] of Object.entries(checksumHeaders(upload))) call.response.setHeader(name, value);
  sendXml(
    call,
    200,
    `<InitiateMultipartUploadResult xmlns="${S3_XMLNS}">${element("Bucket", bucket)}${element("Key", key)}` +
      `${element("UploadId", uploadId)}</InitiateMultipartUploadResult>`,
  );
}

export async function uploadPart(call: S3Call): Promise<void> {
  const target = targetOf(call);
  const number = partNumberOf(call);
  const upload = requireUpload(call, target);
  const body = openBody(call, digestsOf(upload));
  const part = await storePart(
    call,
    target,
    number,
    upload,
    body,
    (name) => body.digest(name),
    () => body.checksum,
  );
  call.context.engine.count(target.bucket, "s3", part.info.sizeBytes, 0, 1);
  const sum = part.checksum === null ? {} : { [`x-amz-checksum-${part.checksum.name}`]: part.checksum.value };
  sendEmpty(call, 200, { ETag: `"${part.etag}"`, ...sum });
}

export async function uploadPartCopy(call: S3Call): Promise<void> {
  const { context, request } = call;
  const target = targetOf(call);
  const number = partNumberOf(call);
  const source = copySource(call);
  const upload = requireUpload(call, target);
  const names = digestsOf(upload);
  for (;;) {
    const { info } = findSource(call, source);
    const { offset, length } = copyRange(header(request, "x-amz-copy-source-range"), info.sizeBytes);
    const reader = openVersion(call, source, info, offset, length);
    // Overwritten meanwhile: what holds has to hold of the version that is read.
    if (reader === null) continue;
    try {
      const bytes = new DigestedSource(readerBytes(reader, length), length, names);
      const digest = (name: DigestName) => bytes.digests[names.indexOf(name)] as Buffer;
      const part = await storePart(call, target, number, upload, bytes, digest, () => null);
      context.engine.count(target.bucket, "s3", 0, 0, 1);
      sendXml(
        call,
        200,
        `<CopyPartResult xmlns="${S3_XMLNS}">` +
          `${element("LastModified", new Date(part.info.sealedUnixMs).toISOString())}${element("ETag", `"${part.etag}"`)}` +
          `${part.checksum === null ? "" : element(checksumElement(part.checksum.name), part.checksum.value)}` +
          "</CopyPartResult>",
      );
      return;
    } finally {
      reader.close();
    }
  }
}

/** Unlike a range to get, it must lie within the source, and a part may be all of an empty one. */
function copyRange(value: string | null, sizeBytes: number): { offset: number; length: number } {
  if (value === null) return { offset: 0, length: sizeBytes };
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(value);
  const [first, last] = match === null ? [1, 0] : [Number(match[1]), Number(match[2])];
  const details = { ArgumentName: "x-amz-copy-source-range", ArgumentValue: value.slice(0, 100) };
  if (first > last) {
    throw new S3Error(
      "InvalidArgument",
      "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
      details,
    );
  }
  if (last >= sizeBytes) {
    throw new S3Error(
      "InvalidArgument",
      `Range specified is not valid for source object of size: ${sizeBytes}`,
      details,
    );
  }
  return { offset: first, length: last - first + 1 };
}

/**
 * Takes `source` as a part of the upload. `digest` and `sent` (the checksum that came with it) are asked when all of it
 * has passed.
 */
async function storePart(
  call: S3Call,
  { bucket, key }: Target,
  number: number,
  upload: Upload,
  source: Source,
  digest: (name: DigestName) => Buffer,
  sent: () => PartAttributes["checksum"],
): Promise<Part> {
  const { engine } = call.context;
  const uploadId = uploadIdAsked(call);
  const { draft } = await receive(call, bucket, partKey(uploadId, number), source);
  try {
    const given = sent();
    const name = upload.checksum?.name ?? null;
    if (given !== null && name !== null && given.name !== name) {
      throw new S3Error(
        "InvalidRequest",
        `the upload was created with ${name} checksums, so its parts cannot have ${given.name} ones`,
      );
    }
    const attributes: PartAttributes = {
      etag: digest("md5").toString("hex"),
      checksum: name === null ? given : { name, value: digest(name).toString("base64") },
    };
    const info = draft.seal(NO_CONDITION, null, encodePart(attributes));
    // It may have ended while the part came, and who ended it did not see this part.
    if (findUpload(engine, bucket, uploadId) === null) {
      engine.remove(bucket, partKey(uploadId, number), onlyOver(info));
      throw noSuchUpload(uploadId, key);
    }
    return { ...attributes, number, info };
  } finally {
    draft.abort();
  }
}

export async function listParts(call: S3Call): Promise<void> {
  const { request, context } = call;
  const target = targetOf(call);
  const uploadId = uploadIdAsked(call);
  const upload = requireUpload(call, target);
  const marker = readCount(request, "part-number-marker") ?? 0;
  const max = Math.min(readCount(request, "max-parts") ?? PAGE_MAX, PAGE_MAX);
  const encode = readUrlEncoded(request) ? urlEncode : escapeXml;
  const none = { parts: [], truncated: false };
  // A number beyond the last one has nothing behind it, and no five digits.
  const { parts, truncated } =
    max === 0 || marker >= PART_NUMBER_MAX
      ? none
      : listPartsOf(context.engine, target.bucket, uploadId, marker, max);
  context.engine.count(target.bucket, "s3", 0, 0, 1);
  const sum = upload.checksum;
  sendXml(
    call,
    200,
    `<ListPartsResult xmlns="${S3_XMLNS}">${element("Bucket", target.bucket)}<Key>${encode(target.key)}</Key>` +
      `${element("UploadId", uploadId)}${element("PartNumberMarker", marker)}` +
      `${element("NextPartNumberMarker", truncated ? (parts.at(-1)?.number ?? null) : null)}` +
      `${element("MaxParts", max)}${element("IsTruncated", truncated)}` +
      `${element("ChecksumAlgorithm", sum?.name.toUpperCase() ?? null)}${element("ChecksumType", sum?.type ?? null)}` +
      parts.map(partXml).join("") +
      `<Initiator>${OWNER_XML}</Initiator><Owner>${OWNER_XML}</Owner><StorageClass>STANDARD</StorageClass>` +
      "</ListPartsResult>",
  );
}

function partXml({ number, etag, checksum, info }: Part): string {
  return (
    `<Part>${element("PartNumber", number)}${element("LastModified", new Date(info.sealedUnixMs).toISOString())}` +
    `${element("ETag", `"${etag}"`)}${element("Size", info.sizeBytes)}` +
    `${checksum === null ? "" : element(checksumElement(checksum.name), checksum.value)}</Part>`
  );
}

/** Uploads of one bucket are few, so that they are all read and put in order at each call. */
export async function listMultipartUploads(call: S3Call): Promise<void> {
  const { request, context } = call;
  const { query } = request;
  const bucket = bucketOf(call);
  const prefix = query.get("prefix") ?? "";
  const delimiter = query.get("delimiter") ?? "";
  const keyMarker = query.get("key-marker") ?? "";
  // Without a key the other marker means nothing, as in S3.
  const idMarker = keyMarker === "" ? "" : (query.get("upload-id-marker") ?? "");
  const max = Math.min(readCount(request, "max-uploads") ?? PAGE_MAX, PAGE_MAX);
  const encode = readUrlEncoded(request) ? urlEncode : escapeXml;

  const found = (await uploadsOf(call, bucket)).filter(({ upload }) => upload.key.startsWith(prefix));
  found.sort((a, b) => a.bytes.compare(b.bytes) || (a.id < b.id ? -1 : 1));
  const marker = Buffer.from(keyMarker);
  const items: string[] = [];
  const commonPrefixes: string[] = [];
  let last: { key: string; id: string } | null = null;
  let truncated = false;
  for (const { upload, id, bytes } of found) {
    const order = keyMarker === "" ? 1 : bytes.compare(marker);
    if (order < 0 || (order === 0 && (idMarker === "" || id <= idMarker))) continue;
    const at = delimiter === "" ? -1 : upload.key.indexOf(delimiter, prefix.length);
    const common = at < 0 ? null : upload.key.slice(0, at + delimiter.length);
    // What a listing before gave out as one prefix, or this one.
    if (common !== null && (common === keyMarker || common === commonPrefixes.at(-1))) continue;
    if (items.length + commonPrefixes.length === max) {
      truncated = max > 0;
      break;
    }
    if (common === null) items.push(uploadXml(upload, id, encode));
    else commonPrefixes.push(common);
    last = common === null ? { key: upload.key, id } : { key: common, id: "" };
  }
  context.engine.count(bucket, "s3", 0, 0, 1);
  const next =
    truncated && last !== null
      ? `<NextKeyMarker>${encode(last.key)}</NextKeyMarker>${element("NextUploadIdMarker", last.id)}`
      : "";
  sendXml(
    call,
    200,
    `<ListMultipartUploadsResult xmlns="${S3_XMLNS}">${element("Bucket", bucket)}` +
      `<KeyMarker>${encode(keyMarker)}</KeyMarker>${element("UploadIdMarker", idMarker)}${next}` +
      `<Prefix>${encode(prefix)}</Prefix>${delimiter === "" ? "" : `<Delimiter>${encode(delimiter)}</Delimiter>`}` +
      `${element("MaxUploads", max)}${encode === urlEncode ? element("EncodingType", "url") : ""}` +
      `${element("IsTruncated", truncated)}${items.join("")}` +
      commonPrefixes
        .map((name) => `<CommonPrefixes><Prefix>${encode(name)}</Prefix></CommonPrefixes>`)
        .join("") +
      "</ListMultipartUploadsResult>",
  );
}

interface FoundUpload {
  readonly upload: Upload;
  readonly id: string;
  /** The key, for its order. */
  readonly bytes: Buffer;
}

async function uploadsOf({ context }: S3Call, bucket: string): Promise<FoundUpload[]> {
  const found: FoundUpload[] = [];
  for await (const { key, attributes } of objectsOf(context.engine, bucket, UPLOADS_PREFIX)) {
    const upload = decodeUpload(attributes);
    found.push({ upload, id: uploadIdOf(key), bytes: Buffer.from(upload.key) });
  }
  return found;
}

function uploadXml(
  { key, initiatedUnixMs, checksum }: Upload,
  id: string,
  encode: (name: string) => string,
): string {
  return (
    `<Upload><Key>${encode(key)}</Key>${element("UploadId", id)}<Initiator>${OWNER_XML}</Initiator>` +
    `<Owner>${OWNER_XML}</Owner><StorageClass>STANDARD</StorageClass>` +
    `${element("Initiated", new Date(initiatedUnixMs).toISOString())}` +
    `${element("ChecksumAlgorithm", checksum?.name.toUpperCase() ?? null)}` +
    `${element("ChecksumType", checksum?.type ?? null)}</Upload>`
  );
}

export async function abortMultipartUpload(call: S3Call): Promise<void> {
  const target = targetOf(call);
  requireUpload(call, target);
  removeUpload(call.context.engine, target.bucket, uploadIdAsked(call));
  call.context.engine.count(target.bucket, "s3", 0, 0, 1);
  sendEmpty(call, 204);
}

/** A part as the request to complete names it. */
interface NamedPart {
  readonly number: number;
  readonly etag: string;
  readonly checksums: ReadonlyMap<ChecksumName, string>;
}

interface Completed {
  readonly etag: string;
  readonly checksum: {
    readonly name: ChecksumName;
    readonly value: string;
    readonly type: ChecksumType;
  } | null;
}

export async function completeMultipartUpload(call: S3Call): Promise<void> {
  const target = targetOf(call);
  const named = readParts(await readXml(call, COMPLETE_BYTES_MAX));
  const { etag, checksum } = await untilRoom(call, () => complete(call, target, named));
  const { bucket, key } = target;
  call.context.engine.count(bucket, "s3", 0, 0, 1);
  const { host = "" } = call.request.message.headers;
  sendXml(
    call,
    200,
    `<CompleteMultipartUploadResult xmlns="${S3_XMLNS}">` +
      `${element("Location", `http://${host}${call.request.rawPath}`)}${element("Bucket", bucket)}` +
      `${element("Key", key)}${element("ETag", `"${etag}"`)}` +
      `${checksumXml(checksum)}</CompleteMultipartUploadResult>`,
  );
}

/** All at once, without a wait in between: so no part is overwritten after it was looked at. */
function complete(call: S3Call, target: Target, named: readonly NamedPart[]): Completed {
  const { engine, limits } = call.context;
  const { bucket, key } = target;
  const uploadId = uploadIdAsked(call);
  const etag = etagOfParts(named);
  const upload = findUpload(engine, bucket, uploadId);
  if (upload === null || upload.key !== key) {
    // The answer to the first try may have been lost.
    const before = upload === null ? completedBefore(call, target, etag) : null;
    if (before === null) throw noSuchUpload(uploadId, key);
    return before;
  }
  for (const [at, { number }] of named.entries()) {
    if (at > 0 && number <= (named[at - 1] as NamedPart).number) {
      throw new S3Error("InvalidPartOrder", "the parts must be listed by ascending numbers", {
        UploadId: uploadId,
      });
    }
  }
  const present = new Map(allParts(engine, bucket, uploadId).map((part) => [part.number, part]));
  const parts: Part[] = [];
  for (const asked of named) {
    const part = present.get(asked.number);
    if (part === undefined || part.etag !== asked.etag || !checksumsHold(part, asked)) {
      // Where the node was killed between the join and the upload's end.
      const before = present.size === 0 ? completedBefore(call, target, etag) : null;
      if (before === null) throw invalidPart(uploadId, asked);
      removeUpload(engine, bucket, uploadId);
      return before;
    }
    parts.push(part);
  }
  checkSizes(parts, limits.objectBytesMax as number);
  const checksum = checksumOf(upload, parts);
  checkAnnounced(call, upload, parts, checksum);
  const attributes = sealed(call, {
    etag,
    headers: upload.headers,
    metadata: upload.metadata,
    tags: upload.tags,
    checksum,
    parts: parts.map(({ info }) => info.sizeBytes),
  });
  const condition = writeCondition(call, bucket, key);
  const keys = parts.map(({ number }) => partKey(uploadId, number));
  try {
    engine.join(bucket, key, keys, condition, attributes);
  } catch (thrown) {
    throw refusedWrite(call, bucket, key, thrown);
  }
  // What was uploaded and not listed, and last the upload itself.
  removeUpload(engine, bucket, uploadId);
  return { etag, checksum };
}

/** Sizes of parts are left out where they are of so many kinds that the store does not keep them. */
function sealed(call: S3Call, attributes: ObjectAttributes): Buffer {
  const bytes = encodeAttributes(attributes);
  const fits = bytes.length <= (call.context.limits.attributesBytesMax as number);
  return fits ? bytes : sealedAttributes(call, { ...attributes, parts: [] });
}

/** What an earlier try of the same request made, or null. */
function completedBefore({ context }: S3Call, { bucket, key }: Target, etag: string): Completed | null {
  const found = lookUp(context.engine, bucket, key);
  return found?.attributes.etag === etag ? found.attributes : null;
}

function readParts(root: XmlElement): NamedPart[] {
  const elements = childrenOf(expectElement(root, "CompleteMultipartUpload"), "Part");
  if (elements.length === 0) throw malformed("it names no part");
  if (elements.length > PART_NUMBER_MAX) throw malformed(`it names more than ${PART_NUMBER_MAX} parts`);
  return elements.map((part) => {
    const number = requiredText(part, "PartNumber").trim();
    const checksums = new Map<ChecksumName, string>();
    for (const name of CHECKSUM_NAMES) {
      const value = textOf(part, checksumElement(name));
      if (value !== null) checksums.set(name, value.trim());
    }
    return {
      number: parsePartNumber(number),
      etag: requiredText(part, "ETag")
        .trim()
        .replace(/^"(.*)"$/, "$1")
        .toLowerCase(),
      checksums,
    };
  });
}

/** The MD5 of the parts' MD5s and their count. What is no MD5 is no part's, and found out so later. */
function etagOfParts(parts: readonly NamedPart[]): string {
  const hash = createHash("md5");
  for (const { etag } of parts) hash.update(MD5.test(etag) ? Buffer.from(etag, "hex") : etag);
  return `${hash.digest("hex")}-${parts.length}`;
}

function checksumsHold({ checksum }: Part, { checksums }: NamedPart): boolean {
  for (const [name, value] of checksums) {
    if (checksum?.name !== name || checksum.value !== value) return false;
  }
  return true;
}

function checkSizes(parts: readonly Part[], objectBytesMax: number): void {
  for (const { info, number, etag } of parts.slice(0, -1)) {
    if (info.sizeBytes >= PART_BYTES_MIN) continue;
    throw new S3Error("EntityTooSmall", `all parts but the last need at least ${PART_BYTES_MIN} bytes`, {
      ProposedSize: String(info.sizeBytes),
      MinSizeAllowed: String(PART_BYTES_MIN),
      PartNumber: String(number),
      ETag: etag,
    });
  }
  const sizeBytes = sizeOf(parts);
  if (sizeBytes > objectBytesMax) {
    throw new S3Error("EntityTooLarge", `an object has at most ${objectBytesMax} bytes`, {
      ProposedSize: String(sizeBytes),
      MaxSizeAllowed: String(objectBytesMax),
    });
  }
}

function checksumOf({ checksum }: Upload, parts: readonly Part[]): Completed["checksum"] {
  if (checksum === null) return null;
  const { name, type } = checksum;
  const value = checksumOfParts(
    name,
    type,
    // Every part of an upload with a checksum has one of that name.
    parts.map((part) => ({ value: part.checksum?.value as string, sizeBytes: part.info.sizeBytes })),
  );
  return { name, value, type };
}

/** What the request says that the object will be. */
function checkAnnounced(
  { request }: S3Call,
  upload: Upload,
  parts: readonly Part[],
  checksum: Completed["checksum"],
): void {
  const size = header(request, "x-amz-mp-object-size");
  if (size !== null && size !== String(sizeOf(parts))) {
    throw new S3Error(
      "InvalidRequest",
      `x-amz-mp-object-size is ${size.slice(0, 20)}, but the parts have ${sizeOf(parts)}`,
    );
  }
  const type = header(request, "x-amz-checksum-type");
  if (type !== null && type !== upload.checksum?.type) {
    throw new S3Error("InvalidRequest", "the upload was not created with this x-amz-checksum-type");
  }
  for (const name of CHECKSUM_NAMES) {
    const value = header(request, `x-amz-checksum-${name}`);
    if (value === null) continue;
    if (checksum?.name !== name) {
      throw new S3Error("InvalidRequest", `the upload was not created with ${name} checksums`);
    }
    // The count behind a composite one is not always sent.
    if (value !== checksum.value && value !== checksum.value.replace(/-\d+$/, "")) {
      throw new S3Error("BadDigest", `the ${name} of the parts is not what the request says`);
    }
  }
}

function sizeOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { info }) => sum + info.sizeBytes, 0);
}

function askedChecksum({ request }: S3Call): Upload["checksum"] {
  const algorithm = header(request, "x-amz-checksum-algorithm");
  const type = header(request, "x-amz-checksum-type");
  if (algorithm === null) {
    if (type === null) return null;
    throw new S3Error("InvalidRequest", "x-amz-checksum-type comes only with x-amz-checksum-algorithm");
  }
  const name = checksumName(algorithm);
  if (name === null) {
    throw new S3Error(
      "InvalidRequest",
      "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
    );
  }
  const types = typesOf(name);
  const chosen = types.find((candidate) => candidate === (type ?? types[0]));
  if (chosen === undefined) {
    throw new S3Error(
      "InvalidRequest",
      `${name} checksums cannot be of the type ${String(type).slice(0, 20)}`,
    );
  }
  return { name, type: chosen };
}

function checksumHeaders({ checksum }: Upload): Record<string, string> {
  if (checksum === null) return {};
  return { "x-amz-checksum-algorithm": checksum.name.toUpperCase(), "x-amz-checksum-type": checksum.type };
}

function digestsOf({ checksum }: Upload): DigestName[] {
  return checksum === null ? ["md5"] : ["md5", checksum.name];
}

function partNumberOf({ request }: S3Call): number {
  return parsePartNumber(request.query.get("partNumber") ?? "");
}

function parsePartNumber(text: string): number {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > PART_NUMBER_MAX) {
    throw new S3Error(
      "InvalidArgument",
      `Part number must be an integer between 1 and ${PART_NUMBER_MAX}, inclusive`,
      {
        ArgumentName: "partNumber",
        ArgumentValue: text.slice(0, 100),
      },
    );
  }
  return number;
}

function uploadIdAsked({ request }: S3Call): string {
  return request.query.get("uploadId") ?? "";
}

function requireUpload(call: S3Call, { bucket, key }: Target): Upload {
  const uploadId = uploadIdAsked(call);
  const upload = findUpload(call.context.engine, bucket, uploadId);
  if (upload === null || upload.key !== key) throw noSuchUpload(uploadId, key);
  return upload;
}

function noSuchUpload(uploadId: string, key: string): S3Error {
  return new S3Error(
    "NoSuchUpload",
    "there is no such upload of this key: the id may be wrong, or the upload was completed or aborted",
    { UploadId: uploadId.slice(0, 100), Key: key },
  );
}

function invalidPart(uploadId: string, { number, etag }: NamedPart): S3Error {
  return new S3Error(
    "InvalidPart",
    "a part that was listed was not uploaded, or is not the one with this ETag and checksum",
    { UploadId: uploadId, PartNumber: String(number), ETag: etag.slice(0, 100) },
  );
}
