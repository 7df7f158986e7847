/** XML bodies, and the values of headers that have a grammar of their own. */
import { isDeepStrictEqual } from "node:util";
import type { Random } from "../../../bench/random.js";
import { judge, matches, parseDate, rangeHolds } from "../../../server/doors/s3/conditions.js";
import { S3Error } from "../../../server/doors/s3/errors.js";
import { lifecycleXml, parseLifecycle } from "../../../server/doors/s3/lifecycle.js";
import { contentRange, parseRange } from "../../../server/doors/s3/ranges.js";
import { parseTagging, parseTagHeader, taggingXml } from "../../../server/doors/s3/tags.js";
import { parseXml, type XmlElement } from "../../../server/doors/s3/xml.js";
import { type FuzzTarget, outcomeOf } from "../../support/fuzz.js";

const DEPTH_MAX = 16;
const KEY_BYTES_MAX = 1_024;
const TAGS_MAX = 10;

/** `bodies`: as clients sent them. */
export function xmlTarget(bodies: readonly Buffer[]): FuzzTarget {
  return {
    corpus: [...bodies, ...XML.map((text) => Buffer.from(text))],
    words: [
      ...[
        "<a>",
        "</a>",
        "<a/>",
        "<!-- -->",
        "<![CDATA[",
        "]]>",
        "<?xml version='1.0'?>",
        "<!DOCTYPE a>",
        "&amp;",
      ],
      ...[
        "<!ENTITY a 'b'>",
        "&#0;",
        "&#x10ffff;",
        "&#xd800;",
        "&a;",
        "&lt",
        "xmlns:x='y'",
        " a='b'",
        "x:",
        "\ufeff",
      ],
      ...[
        "<Tag><Key>k</Key><Value>v</Value></Tag>",
        "<Days>1</Days>",
        "<Prefix>p</Prefix>",
        "<ETag>",
        "\u0000",
      ],
    ].map((text) => Buffer.from(text).toString("latin1")),
    attempt: (input) =>
      orOutcome(() => {
        const root = parseXml(input);
        checkTree(root, 1);
        const again = parseXml(Buffer.from(written(root)));
        check(isDeepStrictEqual(again, root), "what was read reads otherwise when it is written again");
        return [tagging(root), lifecycle(root)].join("; ");
      }),
  };
}

function checkTree({ name, children }: XmlElement, depth: number): void {
  check(depth <= DEPTH_MAX, "nested too deep");
  check(!/[<>\t\n\r ]/.test(name), `an element called ${JSON.stringify(name)}`);
  for (const child of children) checkTree(child, depth + 1);
}

/** Each name with a prefix, which reading takes away again. */
function written({ name, text, children }: XmlElement): string {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<x:${name}>${escaped}${children.map(written).join("")}</x:${name}>`;
}

/** Whether all text in `value` can be written in XML; what cannot is written as U+FFFD. */
function hasXmlText(value: unknown): boolean {
  return !/\\u00[01]|[\ufffe\uffff]|\\b|\\f|\\ud/.test(JSON.stringify(value));
}

function tagging(root: XmlElement): string {
  return orOutcome(() => {
    const tags = parseTagging(root, TAGS_MAX);
    check(Object.keys(tags).length <= TAGS_MAX, "too many tags");
    const again = parseTagging(parseXml(Buffer.from(taggingXml(tags))), TAGS_MAX);
    check(
      isDeepStrictEqual(again, tags) || !hasXmlText(tags),
      "tags that read otherwise when they are written again",
    );
    return "tags";
  });
}

function lifecycle(root: XmlElement): string {
  return orOutcome(() => {
    const rules = parseLifecycle(root, KEY_BYTES_MAX);
    const again = parseLifecycle(parseXml(Buffer.from(lifecycleXml(rules))), KEY_BYTES_MAX);
    check(
      isDeepStrictEqual(again, rules) || !hasXmlText(rules),
      "rules that read otherwise when they are written again",
    );
    return "rules";
  });
}

export function headersTarget(): FuzzTarget {
  return {
    corpus: HEADERS.map((text) => Buffer.from(text)),
    words: [
      ...[
        "bytes=",
        "bytes",
        "=",
        "-",
        ",",
        "0-0",
        "-0",
        " ",
        "9".repeat(400),
        '"',
        "W/",
        "*",
        "&",
        "%20",
        "%zz",
        "+",
      ],
      ...["GMT", "UTC", "+0000", "Mon, ", "T00:00:00Z", "2026", "-271822", "275760", "e", ".5"],
    ],
    attempt: (input, random) => {
      const text = input.toString("latin1");
      return [
        orOutcome(() => range(text, random)),
        orOutcome(() => date(text)),
        orOutcome(() => conditions(text)),
        orOutcome(() =>
          Object.keys(parseTagHeader(text)).length > TAGS_MAX ? fail("too many tags") : "tags",
        ),
      ].join("; ");
    },
  };
}

function range(text: string, random: Random): string {
  const sizeBytes = random.pick([0, 1, 10, 1_000, 2 ** 40]);
  const found = parseRange(text, sizeBytes);
  if (found === null) return "no range";
  const { offset, length } = found;
  check(Number.isSafeInteger(offset) && Number.isSafeInteger(length), `a range from ${offset} of ${length}`);
  check(offset >= 0 && length > 0 && offset + length <= sizeBytes, `a range outside: ${offset}, ${length}`);
  check(/^bytes \d+-\d+\/\d+$/.test(contentRange(found, sizeBytes)), "no Content-Range");
  return "range";
}

function date(text: string): string {
  const unixMs = parseDate(text);
  check(unixMs === null || Number.isFinite(unixMs), "a date that is no number");
  return unixMs === null ? "no date" : "date";
}

function conditions(text: string): string {
  const none = { ifMatch: null, ifNoneMatch: null, ifModifiedSince: null, ifUnmodifiedSince: null };
  const strong = matches(text, "etag", "strong");
  check(!strong || matches(text, "etag", "weak"), "a strong match that is no weak one");
  const verdict = judge({ ...none, ifMatch: text }, "etag", 0);
  check((verdict === "holds") === strong, "If-Match that does not hold to its match");
  // Whatever the header says, an ETag that it does not name does not match.
  if (!text.includes("etag") && !text.includes("*")) check(!strong, "a match of what is not there");
  rangeHolds(text, "etag", 0);
  return `${verdict} ${judge({ ...none, ifModifiedSince: text }, "etag", 0)}`;
}

/** What came of `work`, an `S3Error` of its own making among it. */
function orOutcome(work: () => string): string {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof S3Error) return outcomeOf(thrown);
    throw thrown;
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) fail(what);
}

function fail(what: string): never {
  throw new Error(what);
}

const XML = [
  "<a><b>c</b>&lt;&#65;<![CDATA[<x>]]></a>",
  '<?xml version="1.0"?><x:Tagging xmlns:x="y"><TagSet><Tag><Key>k</Key><Value/></Tag></TagSet></x:Tagging>',
  "<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><Prefix>p/</Prefix></Filter>" +
    "<Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>",
  "<LifecycleConfiguration><Rule><Status>Disabled</Status><Prefix/><Expiration><Date>2026-01-01T00:00:00Z</Date>" +
    "</Expiration></Rule></LifecycleConfiguration>",
  `${"<a>".repeat(15)}${"</a>".repeat(15)}`,
];

const HEADERS = [
  ...[
    "bytes=0-9",
    "bytes=5-",
    "bytes=-5",
    "bytes = 1 - 2",
    "bytes=0-1,3-4",
    "bytes=99999999999999999999-",
    "bytes=9-1",
  ],
  ...['"etag"', 'W/"etag"', "etag", "*", '"a", W/"etag" , *', 'W/"', '""'],
  ...["Thu, 01 Jan 2026 00:00:00 GMT", "Thursday, 01-Jan-26 00:00:00 GMT", "Thu Jan  1 00:00:00 2026"],
  ...["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123Z", "a=b&c=d", "k=%C3%BC&l=+&m"],
];
