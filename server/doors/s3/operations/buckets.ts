/** Operations on buckets themselves, and the one access control list that there is: the owner's. */
import { MillraceError } from "../../../../proto/errors.js";
import { LEASE_MAX_MS } from "../../../namespaces/namespaces.js";
import { header, type S3Call } from "../call.js";
import { S3Error } from "../errors.js";
import { sendEmpty, sendXml } from "../respond.js";
import { bucketOf } from "../target.js";
import { element, expectElement, parseXml, readBytes, S3_XMLNS, textOf } from "../xml.js";

/** There is one owner of everything: who runs the node. */
export const OWNER_ID = "millrace";
export const OWNER_XML = `<ID>${OWNER_ID}</ID><DisplayName>${OWNER_ID}</DisplayName>`;

const BUCKETS_PAGE_MAX = 10_000;
const CONFIGURATION_BYTES_MAX = 16_384;
const REGION = "us-east-1";
const NO_KEY = new Uint8Array(0);
const NO_LIMITS = { sizeBytes: 0, dramBytes: 0, bandwidthBytesPerSecond: 0 };

export async function listBuckets(call: S3Call): Promise<void> {
  const { namespaces } = call.context;
  const { query } = call.request;
  const prefix = query.get("prefix") ?? "";
  const token = query.get("continuation-token") ?? "";
  const max = query.get("max-buckets") ?? String(BUCKETS_PAGE_MAX);
  if (!/^\d{1,5}$/.test(max) || Number(max) < 1 || Number(max) > BUCKETS_PAGE_MAX) {
    throw new S3Error("InvalidArgument", `max-buckets must be from 1 to ${BUCKETS_PAGE_MAX}`);
  }
  // Names of buckets have no characters beyond ASCII, so that this order is that of their bytes.
  const names = namespaces
    .names()
    .filter((name) => name.startsWith(prefix) && name > token)
    .filter((name) => !call.authorization.grantee.unproven || !namespaces.require(name).guarded)
    .sort();
  const page = names.slice(0, Number(max));
  const buckets = page.map((name) => {
    const created = new Date(namespaces.require(name).createdUnixMs).toISOString();
    return `<Bucket>${element("Name", name)}${element("CreationDate", created)}</Bucket>`;
  });
  const more = page.length < names.length ? (page.at(-1) as string) : null;
  sendXml(
    call,
    200,
    `<ListAllMyBucketsResult xmlns="${S3_XMLNS}"><Owner>${OWNER_XML}</Owner><Buckets>${buckets.join("")}</Buckets>` +
      `${element("Prefix", query.get("prefix") ?? null)}${element("ContinuationToken", more)}` +
      "</ListAllMyBucketsResult>",
  );
}

export async function createBucket(call: S3Call): Promise<void> {
  const { namespaces, engine } = call.context;
  const name = bucketOf(call);
  if (header(call.request, "x-amz-bucket-object-lock-enabled")?.toLowerCase() === "true") {
    throw new S3Error("NotImplemented", "buckets with object lock are not supported");
  }
  const body = await readBytes(call, CONFIGURATION_BYTES_MAX);
  // Any region will do; it is asked for so that a request with something else in its body does not pass.
  if (body.length > 0)
    textOf(expectElement(parseXml(body), "CreateBucketConfiguration"), "LocationConstraint");
  try {
    namespaces.create(name, {
      leaseMs: LEASE_MAX_MS,
      limits: NO_LIMITS,
      hint: "HINT_UNSPECIFIED",
      expectedBytes: 0,
      atEnd: "",
    });
  } catch (thrown) {
    const { code, message } = MillraceError.from(thrown);
    if (code === "INVALID_ARGUMENT") throw new S3Error("InvalidBucketName", message, { BucketName: name });
    if (code === "ALREADY_EXISTS") {
      throw new S3Error("BucketAlreadyOwnedByYou", "the bucket exists already, and is yours", {
        BucketName: name,
      });
    }
    throw thrown;
  }
  engine.count(name, "s3", 0, 0, 1);
  sendEmpty(call, 200, { Location: `/${name}` });
}

export async function headBucket(call: S3Call): Promise<void> {
  sendEmpty(call, 200, { "x-amz-bucket-region": REGION });
}

export async function deleteBucket(call: S3Call): Promise<void> {
  const { namespaces, engine } = call.context;
  const name = bucketOf(call);
  // Hidden objects are not listed: uploads that nobody completed go with their bucket.
  if (engine.list(name, NO_KEY, NO_KEY, 1, false).objects.length > 0) {
    throw new S3Error("BucketNotEmpty", "the bucket has objects; delete them first", { BucketName: name });
  }
  namespaces.delete(name);
  sendEmpty(call, 204);
}

/** Every region is this one, which has no name in this answer. */
export async function getBucketLocation(call: S3Call): Promise<void> {
  sendXml(call, 200, `<LocationConstraint xmlns="${S3_XMLNS}"/>`);
}

/** Without a status: versioning was never switched on. */
export async function getBucketVersioning(call: S3Call): Promise<void> {
  sendXml(call, 200, `<VersioningConfiguration xmlns="${S3_XMLNS}"/>`);
}

export async function getAcl(call: S3Call): Promise<void> {
  requireObject(call);
  sendXml(
    call,
    200,
    `<AccessControlPolicy xmlns="${S3_XMLNS}"><Owner>${OWNER_XML}</Owner><AccessControlList><Grant>` +
      `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">${OWNER_XML}</Grantee>` +
      "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>",
  );
}

/** "private" is what everything is. The router has refused headers that ask for more. */
export async function putAcl(call: S3Call): Promise<void> {
  requireObject(call);
  if (header(call.request, "x-amz-acl") === null) {
    throw new S3Error(
      "NotImplemented",
      "access control lists other than the canned private are not supported",
    );
  }
  sendEmpty(call, 200);
}

function requireObject({ context, request }: S3Call): void {
  if (request.key === null || request.bucket === null) return;
  if (context.engine.head(request.bucket, Buffer.from(request.key)) === null) {
    throw new S3Error("NoSuchKey", "there is no such object", { Key: request.key });
  }
}
