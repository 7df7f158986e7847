import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  judge,
  matches,
  parseDate,
  type ReadConditions,
  rangeHolds,
} from "../../../../../server/doors/s3/conditions.js";

const ETAG = "9bb58f26192e4ba00f01e2e7b136bbd8";
const NONE: ReadConditions = {
  ifMatch: null,
  ifNoneMatch: null,
  ifModifiedSince: null,
  ifUnmodifiedSince: null,
};
/** In the middle of a second, as seals are. */
const SEALED_MS = Date.parse("2024-02-29T12:00:00Z") + 345;
const BEFORE = "Thu, 29 Feb 2024 11:59:59 GMT";
const SAME = "Thu, 29 Feb 2024 12:00:00 GMT";
const AFTER = "Thu, 29 Feb 2024 12:00:01 GMT";

describe("conditions of a read", () => {
  it.each<[Partial<ReadConditions>, string]>([
    [{}, "holds"],
    [{ ifMatch: `"${ETAG}"` }, "holds"],
    [{ ifMatch: ETAG }, "holds"],
    [{ ifMatch: `"other", "${ETAG}"` }, "holds"],
    [{ ifMatch: "*" }, "holds"],
    [{ ifMatch: '"other"' }, "failed"],
    [{ ifMatch: `W/"${ETAG}"` }, "failed"],
    [{ ifNoneMatch: `"${ETAG}"` }, "notModified"],
    [{ ifNoneMatch: `W/"${ETAG}"` }, "notModified"],
    [{ ifNoneMatch: "*" }, "notModified"],
    [{ ifNoneMatch: '"other"' }, "holds"],
    [{ ifModifiedSince: BEFORE }, "holds"],
    [{ ifModifiedSince: SAME }, "notModified"],
    [{ ifModifiedSince: AFTER }, "notModified"],
    [{ ifUnmodifiedSince: BEFORE }, "failed"],
    [{ ifUnmodifiedSince: SAME }, "holds"],
    [{ ifUnmodifiedSince: AFTER }, "holds"],
    [{ ifModifiedSince: "yesterday" }, "holds"],
    [{ ifUnmodifiedSince: "0" }, "holds"],
    // An ETag outweighs the date of its kind.
    [{ ifMatch: ETAG, ifUnmodifiedSince: BEFORE }, "holds"],
    [{ ifNoneMatch: "other", ifModifiedSince: AFTER }, "holds"],
    [{ ifMatch: ETAG, ifNoneMatch: ETAG }, "notModified"],
    [{ ifMatch: "other", ifNoneMatch: ETAG }, "failed"],
    [{ ifUnmodifiedSince: BEFORE, ifNoneMatch: ETAG }, "failed"],
  ])("%j: %s", (conditions, verdict) => {
    expect(judge({ ...NONE, ...conditions }, ETAG, SEALED_MS)).toBe(verdict);
  });

  it("of every combination follow the order of RFC 9110", () => {
    const etags = fc.constantFrom(null, `"${ETAG}"`, '"other"', "*");
    const dates = fc.constantFrom(null, BEFORE, SAME, AFTER, "no date");
    fc.assert(
      fc.property(etags, etags, dates, dates, (ifMatch, ifNoneMatch, ifModifiedSince, ifUnmodifiedSince) => {
        const matchesIt = (list: string) => list === "*" || list.includes(ETAG);
        const wasModifiedSince = (date: string) => date === BEFORE;
        let expected = "holds";
        const dateFails =
          ifMatch === null && ifUnmodifiedSince !== null && wasModifiedSince(ifUnmodifiedSince);
        if (ifMatch !== null ? !matchesIt(ifMatch) : dateFails) expected = "failed";
        else if (ifNoneMatch !== null) expected = matchesIt(ifNoneMatch) ? "notModified" : "holds";
        else if (
          ifModifiedSince !== null &&
          ifModifiedSince !== "no date" &&
          !wasModifiedSince(ifModifiedSince)
        ) {
          expected = "notModified";
        }
        const conditions = { ifMatch, ifNoneMatch, ifModifiedSince, ifUnmodifiedSince };
        expect(judge(conditions, ETAG, SEALED_MS)).toBe(expected);
      }),
    );
  });
});

describe("If-Range", () => {
  it.each([
    [null, true],
    [`"${ETAG}"`, true],
    ['"other"', false],
    [`W/"${ETAG}"`, false],
    [SAME, true],
    [BEFORE, false],
    [AFTER, false],
  ])("%s: %s", (value, holds) => {
    expect(rangeHolds(value, ETAG, SEALED_MS)).toBe(holds);
  });
});

describe("a list of ETags", () => {
  it("has the one that is in it, however it is quoted and spaced", () => {
    const etag = fc.stringMatching(/^[0-9a-f]{1,8}(-\d{1,3})?$/);
    const quoted = fc.tuple(etag, fc.boolean(), fc.constantFrom("", " ", "\t"));
    fc.assert(
      fc.property(fc.array(quoted, { minLength: 1 }), etag, (items, wanted) => {
        const list = items
          .map(([tag, quotes, space]) => `${space}${quotes ? `"${tag}"` : tag}${space}`)
          .join(",");
        expect(matches(list, wanted, "strong")).toBe(items.some(([tag]) => tag === wanted));
      }),
    );
  });
});

describe("a date", () => {
  it.each([
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Sun, 06 Nov 1994 08:49:37 +0000",
    "1994-11-06T08:49:37Z",
    "1994-11-06T08:49:37.000Z",
  ])("%s is understood", (text) => {
    expect(parseDate(text)).toBe(Date.UTC(1994, 10, 6, 8, 49, 37));
  });

  it.each(["", "0", "1994", "tomorrow", "Sun, 99 Nov 1994 08:49:37 GMT", "1994-11-06"])(
    "%j is none",
    (text) => {
      expect(parseDate(text)).toBeNull();
    },
  );

  it("never fails", () => {
    fc.assert(fc.property(fc.string(), (text) => void parseDate(text)));
  });
});
