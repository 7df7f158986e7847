/** The lifecycle of a bucket's objects: put, told, taken back. `LifecycleSweeper` is who keeps to it. */
import type { S3Call } from "../call.js";
import { S3Error } from "../errors.js";
import { lifecycleXml, parseLifecycle } from "../lifecycle.js";
import { sendEmpty, sendXml } from "../respond.js";
import { changeSettings, readSettings } from "../settings.js";
import { bucketOf } from "../target.js";
import { readXml } from "../xml.js";

/** A thousand rules with long prefixes. */
const LIFECYCLE_BYTES_MAX = 2 * 1024 ** 2;

export async function getBucketLifecycle(call: S3Call): Promise<void> {
  const bucket = bucketOf(call);
  const { lifecycle } = await readSettings(call.context.engine, bucket);
  count(call, bucket);
  if (lifecycle === null) {
    throw new S3Error("NoSuchLifecycleConfiguration", "the bucket has no lifecycle", { BucketName: bucket });
  }
  sendXml(call, 200, lifecycleXml(lifecycle));
}

export async function putBucketLifecycle(call: S3Call): Promise<void> {
  const bucket = bucketOf(call);
  const { engine, limits } = call.context;
  const lifecycle = parseLifecycle(await readXml(call, LIFECYCLE_BYTES_MAX), limits.keyBytesMax as number);
  await changeSettings(engine, bucket, { lifecycle });
  count(call, bucket);
  sendEmpty(call, 200);
}

export async function deleteBucketLifecycle(call: S3Call): Promise<void> {
  const bucket = bucketOf(call);
  await changeSettings(call.context.engine, bucket, { lifecycle: null });
  count(call, bucket);
  sendEmpty(call, 204);
}

function count(call: S3Call, bucket: string): void {
  call.context.engine.count(bucket, "s3", 0, 0, 1);
}
