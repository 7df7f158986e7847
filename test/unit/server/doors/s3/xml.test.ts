import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { S3Error } from "../../../../../server/doors/s3/errors.js";
import {
  childOf,
  childrenOf,
  escapeXml,
  element as leaf,
  parseXml,
  requiredText,
  textOf,
  type XmlElement,
} from "../../../../../server/doors/s3/xml.js";

const parse = (text: string) => parseXml(Buffer.from(text));

describe("reading XML", () => {
  it("takes elements, text, CDATA and the entities of XML", () => {
    const root = parse(
      '\ufeff<?xml version="1.0" encoding="UTF-8"?>\n<!-- a list -->\n<s3:Delete xmlns:s3="http://s3/">\n' +
        "<Object><Key>a&lt;b&amp;&#65;&#x1F600;</Key></Object><Object><Key><![CDATA[<&>]]></Key></Object><Quiet/>" +
        "</s3:Delete>\n",
    );
    expect(root.name).toBe("Delete");
    expect(childrenOf(root, "Object").map((object) => requiredText(object, "Key"))).toEqual([
      "a<b&A😀",
      "<&>",
    ]);
    expect(textOf(root, "Quiet")).toBe("");
    expect(textOf(root, "Nothing")).toBeNull();
  });

  it.each([
    ["", /XML/],
    ["   ", /XML/],
    ["text", /XML/],
    ["<a>", /Unclosed/i],
    ["<a></b>", /XML/],
    ["<a/><b/>", /XML/],
    ["<a>&nbsp;</a>", /entity/i],
    ["<a b='1>", /XML/],
    ['<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', /XML/],
    ["<!DOCTYPE a><a/>", /document type/],
    ["<!ELEMENT a><a/>", /XML/],
    [`${"<a>".repeat(17)}${"</a>".repeat(17)}`, /deeper than 16/],
    [`<a>${"<b/>".repeat(60_000)}</a>`, /more than 60000 elements/],
    [`<a>${"x".repeat(20_000)}</a>`, /too long/],
    [`<a>${"x".repeat(200_000)}</a>`, /too long/],
  ])("refuses %.40j", (text, message) => {
    expect(() => parse(text)).toThrow(S3Error);
    expect(() => parse(text)).toThrow(message);
    expect(() => parseXml(Buffer.from([0x3c, 0x61, 0x3e, 0xff]))).toThrow(/UTF-8/);
  });

  it("refuses what is there twice or not at all", () => {
    const root = parse("<a><b>1</b><b>2</b></a>");
    expect(() => childOf(root, "b")).toThrow(/several <b>/);
    expect(() => requiredText(root, "c")).toThrow(/lacks <c>/);
  });

  it("never fails otherwise than with MalformedXML", () => {
    const soup = fc.array(
      fc.constantFrom(
        "<",
        ">",
        "/",
        "a",
        "&",
        ";",
        "#",
        "x",
        "!",
        "[",
        "]",
        "CDATA[",
        "--",
        "?",
        '"',
        "=",
        " ",
        "\0",
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(soup, (pieces) => {
        try {
          parse(pieces.join(""));
        } catch (thrown) {
          expect(thrown).toMatchObject({ name: "S3Error", code: "MalformedXML" });
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("writing XML", () => {
  it("escapes what XML reads otherwise, and replaces what it cannot hold", () => {
    expect(escapeXml(`<a & "b" 'c'>\r\n\t`)).toBe("&lt;a &amp; &quot;b&quot; &#39;c&#39;&gt;&#13;\n\t");
    expect(escapeXml("a\u0000b\u001fc\uffffd\ud800e")).toBe("a\ufffdb\ufffdc\ufffdd\ufffde");
    expect(escapeXml("grüße 😀")).toBe("grüße 😀");
    expect(leaf("Key", null)).toBe("");
    expect(leaf("Size", 0)).toBe("<Size>0</Size>");
  });

  it("is read back as it was written", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: what XML cannot hold
        fc.pre(!/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text));
        const root: XmlElement = parse(`<a>${leaf("b", text)}</a>`);
        expect(textOf(root, "b")).toBe(text);
      }),
    );
  });
});
