/** Copies within the node: of one object to another key, bucket or description. */
import type { DigestName } from "../../../../native/binding/addon.js";
import type { Condition, ObjectInfo } from "../../../engine/engine.js";
import type { ChecksumName, ObjectAttributes } from "../attributes.js";
import { allowed, checkAdmitted } from "../auth/credentials.js";
import { header, type S3Call } from "../call.js";
import { checksumName } from "../checksums.js";
import { judge, preconditionFailed, readConditions, refusedWrite, writeCondition } from "../conditions.js";
import { DigestedSource } from "../digested.js";
import { S3Error } from "../errors.js";
import { checksumXml, type Described, describedBy, sealedAttributes } from "../metadata.js";
import { readerBytes } from "../outgoing.js";
import { sendXml } from "../respond.js";
import { type Found, find, liveBucket, lookUp, type Target, targetOf } from "../target.js";
import { receive, untilRoom } from "../upload.js";
import { element, S3_XMLNS } from "../xml.js";
import { openVersion } from "./objects.js";

export async function copyObject(call: S3Call): Promise<void> {
  const { request, context } = call;
  const target = targetOf(call);
  const { bucket, key } = target;
  const source = copySource(call);
  const described = describedBy(request);
  const replaces = directive(call, "x-amz-metadata-directive");
  const replacesTags = directive(call, "x-amz-tagging-directive");
  const algorithm = checksumAlgorithm(call);
  if (
    bucket === source.bucket &&
    key === source.key &&
    !replaces &&
    !replacesTags &&
    algorithm === null &&
    header(request, "x-amz-storage-class") === null
  ) {
    throw new S3Error(
      "InvalidRequest",
      "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
    );
  }
  const condition = writeCondition(call, bucket, key);
  const found = findSource(call, source);
  // Where nothing hangs on which version it is the store copies by itself, bytes and attributes of one version.
  const asItIs =
    !replaces && !replacesTags && !changesChecksum(found.attributes, algorithm) && !isConditional(call);
  const copied = asItIs
    ? await copyAsItIs(call, source, target, condition, found)
    : await copyVersion(call, source, target, condition, algorithm, ({ headers, metadata, tags }) => ({
        headers: replaces ? described.headers : headers,
        metadata: replaces ? described.metadata : metadata,
        tags: replacesTags ? described.tags : tags,
      }));
  context.engine.count(bucket, "s3", 0, 0, 1);
  sendXml(
    call,
    200,
    `<CopyObjectResult xmlns="${S3_XMLNS}">${element("LastModified", new Date(copied.info.sealedUnixMs).toISOString())}` +
      `${element("ETag", `"${copied.attributes.etag}"`)}${checksumXml(copied.attributes.checksum)}</CopyObjectResult>`,
  );
}

/**
 * The object that `x-amz-copy-source` names, which the caller may read. InvalidArgument, AccessDenied, NoSuchBucket;
 * whether there is an object shows when it is looked for.
 */
export function copySource(call: S3Call): Target {
  // Some clients send UTF-8 as it is, which node has as characters of Latin-1.
  const value = Buffer.from(header(call.request, "x-amz-copy-source") ?? "", "latin1").toString();
  const [path, version, ...more] = value.split("?versionId=") as [string, ...string[]];
  if (more.length > 0 || (version !== undefined && version !== "null")) {
    throw badSource("there are no versions: versioning is never on");
  }
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    throw badSource("it must be percent-encoded UTF-8");
  }
  const [, bucket, key] = /^\/?([^/]+)\/(.+)$/s.exec(decoded) ?? [];
  if (bucket === undefined || key === undefined) throw badSource("it must be BUCKET/KEY");
  const keyBytesMax = call.context.limits.keyBytesMax as number;
  if (Buffer.byteLength(key) > keyBytesMax) {
    throw new S3Error("KeyTooLongError", `the key has more than ${keyBytesMax} bytes`);
  }
  allowed(call.authorization.grantee, bucket, key, false, Date.now());
  const namespace = liveBucket(call.context, bucket);
  checkAdmitted(call.authorization.grantee, namespace, Date.now());
  return { bucket, key, namespace };
}

/** The source's version at hand, where `x-amz-copy-source-if-*` hold of it. NoSuchKey, PreconditionFailed. */
export function findSource(call: S3Call, source: Target): Found {
  const found = find(call, source);
  const conditions = readConditions(call.request, "x-amz-copy-source-");
  if (judge(conditions, found.attributes.etag, found.info.sealedUnixMs) !== "holds") {
    throw preconditionFailed("x-amz-copy-source-If-");
  }
  return found;
}

async function copyAsItIs(
  call: S3Call,
  source: Target,
  target: Target,
  condition: Condition,
  { attributes }: Found,
): Promise<Found> {
  const { engine } = call.context;
  const { bucket, key } = target;
  let info: ObjectInfo;
  try {
    info = await untilRoom(call, () => engine.copy(source.bucket, source.key, bucket, key, condition, null));
  } catch (thrown) {
    throw refusedWrite(call, bucket, key, thrown);
  }
  // The source may have been another version by then; the copy tells, unless it is another one already.
  const now = lookUp(engine, bucket, key);
  return { info, attributes: now?.info.sequence === info.sequence ? now.attributes : attributes };
}

/** Copies the version that was found, with a description and perhaps a checksum of its own. */
async function copyVersion(
  call: S3Call,
  source: Target,
  target: Target,
  condition: Condition,
  algorithm: ChecksumName | null,
  describe: (attributes: ObjectAttributes) => Described,
): Promise<Found> {
  const { bucket, key } = target;
  for (;;) {
    const { info: from, attributes } = findSource(call, source);
    const reader = openVersion(call, source, from, 0, 0);
    if (reader === null) continue;
    try {
      const names: DigestName[] =
        algorithm !== null && changesChecksum(attributes, algorithm) ? [algorithm] : [];
      const bytes = new DigestedSource(readerBytes(reader, from.sizeBytes), from.sizeBytes, names);
      const { draft } = await receive(call, bucket, key, bytes, Number.MAX_SAFE_INTEGER);
      const [digest] = bytes.digests;
      const changed: ObjectAttributes = { ...attributes, ...describe(attributes) };
      if (algorithm !== null && digest !== undefined) {
        changed.checksum = { name: algorithm, value: digest.toString("base64"), type: "FULL_OBJECT" };
      }
      try {
        const info = draft.seal(condition, from.crc32c, sealedAttributes(call, changed));
        return { info, attributes: changed };
      } catch (thrown) {
        draft.abort();
        throw refusedWrite(call, bucket, key, thrown);
      }
    } finally {
      reader.close();
    }
  }
}

function changesChecksum({ checksum }: ObjectAttributes, algorithm: ChecksumName | null): boolean {
  return algorithm !== null && (checksum?.name !== algorithm || checksum.type !== "FULL_OBJECT");
}

function isConditional(call: S3Call): boolean {
  return Object.values(readConditions(call.request, "x-amz-copy-source-")).some((value) => value !== null);
}

/** Whether what it is about is replaced, not copied. */
function directive(call: S3Call, name: string): boolean {
  const value = header(call.request, name);
  if (value !== null && value !== "COPY" && value !== "REPLACE") {
    throw new S3Error("InvalidArgument", `${name} must be COPY or REPLACE`, {
      ArgumentName: name,
      ArgumentValue: value.slice(0, 100),
    });
  }
  return value === "REPLACE";
}

function checksumAlgorithm(call: S3Call): ChecksumName | null {
  const value = header(call.request, "x-amz-checksum-algorithm");
  if (value === null) return null;
  const name = checksumName(value);
  if (name === null) {
    throw new S3Error("InvalidRequest", "x-amz-checksum-algorithm names no checksum that there is");
  }
  return name;
}

function badSource(reason: string): S3Error {
  return new S3Error("InvalidArgument", `x-amz-copy-source was not accepted: ${reason}`, {
    ArgumentName: "x-amz-copy-source",
  });
}
