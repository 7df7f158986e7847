/**
 * Conditions of requests. Those of reads are judged by the version at hand. Those of writes become conditions of the
 * store, which decides between writers that race.
 */
import { MillraceError } from "../../../proto/errors.js";
import { type Condition, NO_CONDITION, type ObjectInfo } from "../../engine/engine.js";
import { header, type S3Call, type S3Request } from "./call.js";
import { S3Error } from "./errors.js";
import { lookUp, noSuchKey } from "./target.js";

/** The headers as they were sent, or null. */
export interface ReadConditions {
  readonly ifMatch: string | null;
  readonly ifNoneMatch: string | null;
  readonly ifModifiedSince: string | null;
  readonly ifUnmodifiedSince: string | null;
}

export type Verdict = "holds" | "notModified" | "failed";

/** `prefix` is "x-amz-copy-source-" for what must hold of a copy's source. */
export function readConditions(request: S3Request, prefix: "" | "x-amz-copy-source-" = ""): ReadConditions {
  return {
    ifMatch: header(request, `${prefix}if-match`),
    ifNoneMatch: header(request, `${prefix}if-none-match`),
    ifModifiedSince: header(request, `${prefix}if-modified-since`),
    ifUnmodifiedSince: header(request, `${prefix}if-unmodified-since`),
  };
}

/** In the order of RFC 9110: an ETag outweighs a date. Dates that are none are as good as not sent. */
export function judge(conditions: ReadConditions, etag: string, sealedUnixMs: number): Verdict {
  const { ifMatch, ifNoneMatch, ifModifiedSince, ifUnmodifiedSince } = conditions;
  // Dates of HTTP have no fractions of a second.
  const modifiedMs = Math.floor(sealedUnixMs / 1000) * 1000;
  if (ifMatch !== null) {
    if (!matches(ifMatch, etag, "strong")) return "failed";
  } else if (ifUnmodifiedSince !== null) {
    const sinceMs = parseDate(ifUnmodifiedSince);
    if (sinceMs !== null && modifiedMs > sinceMs) return "failed";
  }
  if (ifNoneMatch !== null) {
    if (matches(ifNoneMatch, etag, "weak")) return "notModified";
  } else if (ifModifiedSince !== null) {
    const sinceMs = parseDate(ifModifiedSince);
    if (sinceMs !== null && modifiedMs <= sinceMs) return "notModified";
  }
  return "holds";
}

/** Whether a range may be answered by `If-Range`: else the whole object is. */
export function rangeHolds(ifRange: string | null, etag: string, sealedUnixMs: number): boolean {
  if (ifRange === null) return true;
  const sinceMs = parseDate(ifRange);
  if (sinceMs !== null) return Math.floor(sealedUnixMs / 1000) * 1000 === sinceMs;
  return matches(ifRange, etag, "strong");
}

/**
 * What the store has to hold a write of `key` to, by `If-Match` and `If-None-Match`. PreconditionFailed where they do
 * not hold already; NoSuchKey for `If-Match` where there is nothing that could match.
 */
export function writeCondition(call: S3Call, bucket: string, key: string): Condition {
  const ifMatch = header(call.request, "if-match");
  const ifNoneMatch = header(call.request, "if-none-match");
  if (ifMatch === null && ifNoneMatch === null) return NO_CONDITION;
  if (ifMatch !== null && ifNoneMatch !== null) {
    throw new S3Error("InvalidArgument", "If-Match and If-None-Match exclude each other; send one of them");
  }
  const found = lookUp(call.context.engine, bucket, key);
  if (found === null) {
    if (ifMatch !== null) throw noSuchKey(key);
    return { ...NO_CONDITION, ifAbsent: true };
  }
  const { etag } = found.attributes;
  if (ifMatch !== null) {
    if (!matches(ifMatch, etag, "strong")) throw preconditionFailed("If-Match");
  } else if (matches(ifNoneMatch as string, etag, "weak")) {
    throw preconditionFailed("If-None-Match");
  }
  return onlyOver(found.info);
}

/**
 * What a write that the store refused has failed of. Where the condition holds again by now, somebody else wrote at the
 * same moment (ConditionalRequestConflict), and trying again may help.
 */
export function refusedWrite(call: S3Call, bucket: string, key: string, thrown: unknown): unknown {
  if (MillraceError.from(thrown).code !== "CONDITION_FAILED") return thrown;
  try {
    writeCondition(call, bucket, key);
  } catch (why) {
    return why;
  }
  return new S3Error(
    "ConditionalRequestConflict",
    "the object was written by another request meanwhile; try again",
  );
}

export function onlyOver(info: ObjectInfo): Condition {
  return { ...NO_CONDITION, ifSequence: info.sequence };
}

export function preconditionFailed(condition: string): S3Error {
  return new S3Error("PreconditionFailed", "at least one of the preconditions does not hold", {
    Condition: condition,
  });
}

/** Whether one of a list of ETags is `etag`. Clients send them with quotes and without. */
export function matches(list: string, etag: string, comparison: "strong" | "weak"): boolean {
  return list.split(",").some((item) => {
    const text = item.trim();
    if (text === "*") return true;
    const weak = text.startsWith("W/");
    if (weak && comparison === "strong") return false;
    return text.slice(weak ? 2 : 0).replace(/^"(.*)"$/, "$1") === etag;
  });
}

const HTTP_DATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d\d:\d\d:\d\d/;
const ISO_DATE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/;

/** Unix ms, or null where the text is no date. */
export function parseDate(text: string): number | null {
  let parsed = Number.NaN;
  if (ISO_DATE.test(text)) parsed = Date.parse(text);
  // The oldest of the three forms names no zone, and means GMT as well.
  else if (HTTP_DATE.test(text)) parsed = Date.parse(/GMT|UTC|[+-]\d{4}$/.test(text) ? text : `${text} GMT`);
  return Number.isNaN(parsed) ? null : parsed;
}
