import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  BUCKET_TAGS_MAX,
  OBJECT_TAGS_MAX,
  parseTagging,
  parseTagHeader,
  taggingXml,
} from "../../../../../server/doors/s3/tags.js";
import { parseXml } from "../../../../../server/doors/s3/xml.js";

const parse = (xml: string) => parseTagging(parseXml(Buffer.from(xml)), OBJECT_TAGS_MAX);
const tag = (key: string, value: string) => `<Tag><Key>${key}</Key><Value>${value}</Value></Tag>`;
const tagging = (...tags: string[]) => `<Tagging><TagSet>${tags.join("")}</TagSet></Tagging>`;

describe("tags", () => {
  it("are read as they were written, whatever they are called", () => {
    // What XML cannot hold is not asked for.
    const unit = fc.constantFrom("a", "Z", "&", "<", '"', "'", " ", "é", "雪", "😀", "__proto__", "\r");
    const text = (max: number) =>
      fc.array(unit, { minLength: 1, maxLength: 8 }).map((units) => units.join("").slice(0, max));
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(text(128), text(256)), { selector: ([key]) => key, maxLength: 10 }),
        (pairs) => {
          expect(Object.entries(parse(taggingXml(Object.fromEntries(pairs)))).sort()).toEqual(
            [...pairs].sort(),
          );
          const header = pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
          expect(Object.entries(parseTagHeader(header)).sort()).toEqual([...pairs].sort());
        },
      ),
    );
  });

  it.each([
    ["a second of a key", tagging(tag("a", "1"), tag("a", "2")), "InvalidTag"],
    ["more than ten", tagging(...Array.from({ length: 11 }, (_, at) => tag(`k${at}`, ""))), "InvalidTag"],
    ["no key", tagging(tag("", "1")), "InvalidTag"],
    ["a long key", tagging(tag("k".repeat(129), "1")), "InvalidTag"],
    ["a long value", tagging(tag("k", "v".repeat(257))), "InvalidTag"],
    ["a reserved key", tagging(tag("aws:k", "1")), "InvalidTag"],
    ["no set", "<Tagging></Tagging>", "MalformedXML"],
    ["no value", "<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", "MalformedXML"],
    ["another element", "<Tags/>", "MalformedXML"],
  ])("refuses %s", (_, xml, code) => {
    expect(() => parse(xml)).toThrow(expect.objectContaining({ code }));
  });

  it("lets buckets have more of them", () => {
    const many = tagging(...Array.from({ length: 50 }, (_, at) => tag(`k${at}`, "")));
    expect(Object.keys(parseTagging(parseXml(Buffer.from(many)), BUCKET_TAGS_MAX))).toHaveLength(50);
  });

  it("reads headers as query strings", () => {
    expect(parseTagHeader(null)).toEqual({});
    expect(parseTagHeader("a=1+2&b&c=%3D%26")).toEqual({ a: "1 2", b: "", c: "=&" });
    expect(() => parseTagHeader("a=%zz")).toThrow(expect.objectContaining({ code: "InvalidArgument" }));
    expect(() => parseTagHeader("a=1&a=2")).toThrow(expect.objectContaining({ code: "InvalidTag" }));
  });
});
