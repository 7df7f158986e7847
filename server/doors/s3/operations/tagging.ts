/**
 * Tags of objects and of buckets. An object's tags are sealed with it, so to change them is to write it again: its bytes
 * are copied within the store, which costs as much as a copy of the object, and Last-Modified becomes the time of that.
 */
import { MillraceError } from "../../../../proto/errors.js";
import type { S3Call } from "../call.js";
import { onlyOver } from "../conditions.js";
import { S3Error } from "../errors.js";
import { sealedAttributes } from "../metadata.js";
import { sendEmpty, sendXml } from "../respond.js";
import { changeSettings, readSettings } from "../settings.js";
import { BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, parseTagging, type Tags, taggingXml } from "../tags.js";
import { bucketOf, find, targetOf } from "../target.js";
import { untilRoom } from "../upload.js";
import { readXml } from "../xml.js";

/** Fifty tags of 384 characters, each of which may be escaped. */
const TAGGING_BYTES_MAX = 256 * 1024;
/** How often an object may be overwritten while its tags are put. */
const TRIES_MAX = 10;

export async function getObjectTagging(call: S3Call): Promise<void> {
  const { tags } = find(call, targetOf(call)).attributes;
  count(call);
  sendXml(call, 200, taggingXml(tags));
}

export async function putObjectTagging(call: S3Call): Promise<void> {
  find(call, targetOf(call));
  await changeTags(call, parseTagging(await readXml(call, TAGGING_BYTES_MAX), OBJECT_TAGS_MAX));
  sendEmpty(call, 200);
}

export async function deleteObjectTagging(call: S3Call): Promise<void> {
  await changeTags(call, {});
  sendEmpty(call, 204);
}

export async function getBucketTagging(call: S3Call): Promise<void> {
  const bucket = bucketOf(call);
  const { tags } = await readSettings(call.context.engine, bucket);
  count(call);
  if (tags === null) {
    throw new S3Error("NoSuchTagSet", "the bucket has no tags", { BucketName: bucket });
  }
  sendXml(call, 200, taggingXml(tags));
}

export async function putBucketTagging(call: S3Call): Promise<void> {
  const bucket = bucketOf(call);
  const tags = parseTagging(await readXml(call, TAGGING_BYTES_MAX), BUCKET_TAGS_MAX);
  await changeSettings(call.context.engine, bucket, { tags });
  count(call);
  sendEmpty(call, 204);
}

export async function deleteBucketTagging(call: S3Call): Promise<void> {
  await changeSettings(call.context.engine, bucketOf(call), { tags: null });
  count(call);
  sendEmpty(call, 204);
}

async function changeTags(call: S3Call, tags: Tags): Promise<void> {
  const { engine } = call.context;
  const target = targetOf(call);
  const { bucket, key } = target;
  for (let tried = 1; ; tried++) {
    const { attributes, info } = find(call, target);
    const changed = sealedAttributes(call, { ...attributes, tags: { ...tags } });
    try {
      await untilRoom(call, () => engine.copy(bucket, key, bucket, key, onlyOver(info), changed));
      count(call);
      return;
    } catch (thrown) {
      // It was overwritten meanwhile: the tags are for what is there now.
      if (MillraceError.from(thrown).code !== "CONDITION_FAILED") throw thrown;
      if (tried === TRIES_MAX) {
        throw new S3Error("ConditionalRequestConflict", "the object is overwritten all the time; try again");
      }
    }
  }
}

function count(call: S3Call): void {
  call.context.engine.count(bucketOf(call), "s3", 0, 0, 1);
}
