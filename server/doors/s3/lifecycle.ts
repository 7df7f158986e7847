/** Lifecycle rules as S3 writes them down, and when they say that something goes. */
import { randomUUID } from "node:crypto";
import { parseDate } from "./conditions.js";
import { S3Error } from "./errors.js";
import type { LifecycleRule } from "./settings.js";
import {
  childOf,
  childrenOf,
  element,
  expectElement,
  malformed,
  requiredText,
  S3_XMLNS,
  textOf,
  type XmlElement,
} from "./xml.js";

const RULES_MAX = 1000;
const ID_LENGTH_MAX = 255;
const DAYS_MAX = 2 ** 31 - 1;
const DAY_MS = 24 * 3_600_000;

/** What S3 has and this door has not: taken for nothing it would keep what should go, or delete what should stay. */
const UNSUPPORTED_ACTIONS = [
  "Transition",
  "NoncurrentVersionExpiration",
  "NoncurrentVersionTransition",
] as const;
const UNSUPPORTED_FILTERS = ["Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"] as const;

/** Of `<LifecycleConfiguration>`. MalformedXML, InvalidArgument, InvalidRequest, NotImplemented. */
export function parseLifecycle(root: XmlElement, keyBytesMax: number): LifecycleRule[] {
  const found = childrenOf(expectElement(root, "LifecycleConfiguration"), "Rule");
  if (found.length === 0 || found.length > RULES_MAX)
    throw malformed(`a lifecycle has 1 to ${RULES_MAX} rules`);
  const rules = found.map((rule) => parseRule(rule, keyBytesMax));
  if (new Set(rules.map(({ id }) => id)).size < rules.length) {
    throw new S3Error("InvalidArgument", "no two rules may have the same ID");
  }
  return rules;
}

export function lifecycleXml(rules: readonly LifecycleRule[]): string {
  return `<LifecycleConfiguration xmlns="${S3_XMLNS}">${rules.map(ruleXml).join("")}</LifecycleConfiguration>`;
}

/** Whether an object that was written at `sealedUnixMs` has expired by a rule that holds for its key. */
export function hasExpired({ expiration }: LifecycleRule, sealedUnixMs: number, nowUnixMs: number): boolean {
  if (expiration === null) return false;
  if ("dateUnixMs" in expiration) return expiration.dateUnixMs <= nowUnixMs;
  return dueUnixMs(sealedUnixMs, expiration.days) <= nowUnixMs;
}

/** So many days later, and then the next midnight UTC, as S3 counts. */
export function dueUnixMs(fromUnixMs: number, days: number): number {
  return Math.ceil((fromUnixMs + days * DAY_MS) / DAY_MS) * DAY_MS;
}

function parseRule(rule: XmlElement, keyBytesMax: number): LifecycleRule {
  for (const name of UNSUPPORTED_ACTIONS) {
    if (childrenOf(rule, name).length > 0) throw unsupported(name);
  }
  const id = textOf(rule, "ID") || randomUUID();
  if (id.length > ID_LENGTH_MAX) {
    throw new S3Error("InvalidArgument", `a rule's ID has at most ${ID_LENGTH_MAX} characters`);
  }
  const status = requiredText(rule, "Status");
  if (status !== "Enabled" && status !== "Disabled") throw malformed("<Status> is Enabled or Disabled");
  const { prefix, prefixIn } = parseFilter(rule);
  if (Buffer.byteLength(prefix) > keyBytesMax) {
    throw new S3Error("InvalidArgument", `a rule's prefix has at most ${keyBytesMax} bytes`);
  }
  const expiration = parseExpiration(childOf(rule, "Expiration"));
  const abort = childOf(rule, "AbortIncompleteMultipartUpload");
  const abortDays = abort === null ? null : parseDays(abort, "DaysAfterInitiation");
  if (expiration === null && abortDays === null) {
    throw new S3Error("InvalidRequest", "at least one action needs to be specified in a rule");
  }
  return { id, enabled: status === "Enabled", prefix, prefixIn, expiration, abortDays };
}

function parseFilter(rule: XmlElement): Pick<LifecycleRule, "prefix" | "prefixIn"> {
  const bare = textOf(rule, "Prefix");
  const filter = childOf(rule, "Filter");
  if ((bare === null) === (filter === null)) throw malformed("a rule has either <Filter> or <Prefix>");
  if (filter === null) return { prefix: bare as string, prefixIn: "rule" };
  const and = childOf(filter, "And");
  const from = and ?? filter;
  for (const name of UNSUPPORTED_FILTERS) {
    if (childrenOf(from, name).length > 0) throw unsupported(`a filter by ${name}`);
  }
  if (and !== null && filter.children.length > 1) throw malformed("<And> stands alone in its filter");
  return { prefix: textOf(from, "Prefix") ?? "", prefixIn: and === null ? "filter" : "and" };
}

function parseExpiration(expiration: XmlElement | null): LifecycleRule["expiration"] {
  if (expiration === null) return null;
  if (childrenOf(expiration, "ExpiredObjectDeleteMarker").length > 0) {
    throw unsupported("ExpiredObjectDeleteMarker");
  }
  const date = textOf(expiration, "Date");
  if (date === null) return { days: parseDays(expiration, "Days") };
  if (childOf(expiration, "Days") !== null) throw malformed("<Expiration> has either <Days> or <Date>");
  const dateUnixMs = parseDate(/^\d{4}-\d\d-\d\d$/.test(date) ? `${date}T00:00:00Z` : date);
  if (dateUnixMs === null || dateUnixMs % DAY_MS !== 0) {
    throw new S3Error("InvalidArgument", "'Date' must be at midnight GMT, in ISO 8601 format");
  }
  return { dateUnixMs };
}

function parseDays(parent: XmlElement, name: string): number {
  const text = requiredText(parent, name);
  const days = /^\d{1,10}$/.test(text) ? Number(text) : 0;
  if (days < 1 || days > DAYS_MAX) {
    throw new S3Error("InvalidArgument", `'${name}' must be a positive whole number of days`);
  }
  return days;
}

function ruleXml({ id, enabled, prefix, prefixIn, expiration, abortDays }: LifecycleRule): string {
  const bare = element("Prefix", prefix);
  const filter = {
    rule: bare,
    filter: `<Filter>${bare}</Filter>`,
    and: `<Filter><And>${bare}</And></Filter>`,
  };
  const when =
    expiration === null
      ? ""
      : "days" in expiration
        ? element("Days", expiration.days)
        : element("Date", new Date(expiration.dateUnixMs).toISOString());
  return (
    `<Rule>${element("ID", id)}${filter[prefixIn]}${element("Status", enabled ? "Enabled" : "Disabled")}` +
    (when === "" ? "" : `<Expiration>${when}</Expiration>`) +
    (abortDays === null
      ? ""
      : `<AbortIncompleteMultipartUpload>${element("DaysAfterInitiation", abortDays)}</AbortIncompleteMultipartUpload>`) +
    "</Rule>"
  );
}

function unsupported(what: string): S3Error {
  return new S3Error("NotImplemented", `${what} is not supported in lifecycle rules`);
}
