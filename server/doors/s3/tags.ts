/** Tags: names with values, on objects and on buckets. */
import { S3Error } from "./errors.js";
import {
  childOf,
  childrenOf,
  escapeXml,
  expectElement,
  malformed,
  requiredText,
  S3_XMLNS,
  type XmlElement,
} from "./xml.js";

export type Tags = Readonly<Record<string, string>>;

export const OBJECT_TAGS_MAX = 10;
export const BUCKET_TAGS_MAX = 50;
/** In UTF-16 units, as S3 counts. */
const KEY_LENGTH_MAX = 128;
const VALUE_LENGTH_MAX = 256;

/** Of `<Tagging>`. MalformedXML, InvalidTag. */
export function parseTagging(root: XmlElement, tagsMax: number): Tags {
  const set = childOf(expectElement(root, "Tagging"), "TagSet");
  if (set === null) throw malformed("<Tagging> lacks <TagSet>");
  return checkTags(
    childrenOf(set, "Tag").map((tag) => [requiredText(tag, "Key"), requiredText(tag, "Value")]),
    tagsMax,
  );
}

/** Of the header `x-amz-tagging`: a query string. InvalidArgument, InvalidTag. */
export function parseTagHeader(value: string | null): Tags {
  if (value === null || value === "") return {};
  const pairs = value.split("&").map((pair): [string, string] => {
    const at = pair.indexOf("=");
    return at < 0 ? [decode(pair), ""] : [decode(pair.slice(0, at)), decode(pair.slice(at + 1))];
  });
  return checkTags(pairs, OBJECT_TAGS_MAX);
}

export function taggingXml(tags: Tags): string {
  const sorted = Object.entries(tags).sort(([a], [b]) => (a < b ? -1 : 1));
  const items = sorted.map(
    ([key, value]) => `<Tag><Key>${escapeXml(key)}</Key><Value>${escapeXml(value)}</Value></Tag>`,
  );
  return `<Tagging xmlns="${S3_XMLNS}"><TagSet>${items.join("")}</TagSet></Tagging>`;
}

function checkTags(pairs: readonly [string, string][], tagsMax: number): Tags {
  if (pairs.length > tagsMax)
    throw invalidTag(`at most ${tagsMax} tags are possible here, not ${pairs.length}`);
  const tags = new Map<string, string>();
  for (const [key, value] of pairs) {
    if (key.length === 0 || key.length > KEY_LENGTH_MAX) {
      throw invalidTag(`a tag's key has 1 to ${KEY_LENGTH_MAX} characters`, key);
    }
    if (value.length > VALUE_LENGTH_MAX) {
      throw invalidTag(`a tag's value has at most ${VALUE_LENGTH_MAX} characters`, key);
    }
    if (key.startsWith("aws:")) throw invalidTag("keys that start with aws: are reserved", key);
    if (tags.has(key)) throw invalidTag("no two tags may have the same key", key);
    tags.set(key, value);
  }
  return Object.fromEntries(tags);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new S3Error("InvalidArgument", "x-amz-tagging must be a percent-encoded query string", {
      ArgumentName: "x-amz-tagging",
      ArgumentValue: text.slice(0, 100),
    });
  }
}

function invalidTag(message: string, key?: string): S3Error {
  return new S3Error(
    "InvalidTag",
    message,
    key === undefined ? {} : { TagKey: key.slice(0, KEY_LENGTH_MAX) },
  );
}
