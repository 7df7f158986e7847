import { describe, expect, it } from "vitest";
import {
  dueUnixMs,
  hasExpired,
  lifecycleXml,
  parseLifecycle,
} from "../../../../../server/doors/s3/lifecycle.js";
import { parseXml } from "../../../../../server/doors/s3/xml.js";

const parse = (...rules: string[]) =>
  parseLifecycle(
    parseXml(Buffer.from(`<LifecycleConfiguration>${rules.join("")}</LifecycleConfiguration>`)),
    1024,
  );
const rule = (fields: string, id = "a", status = "Enabled") =>
  `<Rule><ID>${id}</ID>${fields}<Status>${status}</Status></Rule>`;
const DAYS = "<Expiration><Days>3</Days></Expiration>";
const FILTER = "<Filter><Prefix>logs/</Prefix></Filter>";

describe("lifecycle rules", () => {
  it("are read, and written as they were put", () => {
    const rules = parse(
      rule(`<Prefix>a&amp;b/</Prefix>${DAYS}`, "old"),
      rule(`${FILTER}<Expiration><Date>2027-01-02T00:00:00.000Z</Date></Expiration>`, "new", "Disabled"),
      rule(
        "<Filter><And><Prefix>é</Prefix></And></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>2" +
          "</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
        "both",
      ),
      `<Rule><Filter/><Status>Enabled</Status>${DAYS}</Rule>`,
    );
    expect(rules).toMatchObject([
      {
        id: "old",
        enabled: true,
        prefix: "a&b/",
        prefixIn: "rule",
        expiration: { days: 3 },
        abortDays: null,
      },
      { id: "new", enabled: false, prefix: "logs/", expiration: { dateUnixMs: Date.UTC(2027, 0, 2) } },
      { id: "both", prefix: "é", prefixIn: "and", expiration: null, abortDays: 2 },
      { id: expect.stringMatching(/./), prefix: "", prefixIn: "filter" },
    ]);
    expect(parseLifecycle(parseXml(Buffer.from(lifecycleXml(rules))), 1024)).toEqual(rules);
  });

  it.each([
    ["no rules", [], "MalformedXML"],
    ["neither filter nor prefix", [rule(DAYS)], "MalformedXML"],
    ["both", [rule(`<Prefix/>${FILTER}${DAYS}`)], "MalformedXML"],
    ["a status that is none", [rule(FILTER + DAYS, "a", "enabled")], "MalformedXML"],
    ["nothing to do", [rule(FILTER)], "InvalidRequest"],
    ["two of an ID", [rule(FILTER + DAYS), rule(FILTER + DAYS)], "InvalidArgument"],
    ["a long ID", [rule(FILTER + DAYS, "i".repeat(256))], "InvalidArgument"],
    ["a long prefix", [rule(`<Prefix>${"é".repeat(513)}</Prefix>${DAYS}`)], "InvalidArgument"],
    ["no days", [rule(`${FILTER}<Expiration><Days>0</Days></Expiration>`)], "InvalidArgument"],
    [
      "days that are no number",
      [rule(`${FILTER}<Expiration><Days>1.5</Days></Expiration>`)],
      "InvalidArgument",
    ],
    [
      "a date that is none",
      [rule(`${FILTER}<Expiration><Date>20200101</Date></Expiration>`)],
      "InvalidArgument",
    ],
    [
      "a time of the day",
      [rule(`${FILTER}<Expiration><Date>2027-01-02T03:00:00Z</Date></Expiration>`)],
      "InvalidArgument",
    ],
    ["tags", [rule(`<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>${DAYS}`)], "NotImplemented"],
    ["sizes", [rule(`<Filter><ObjectSizeLessThan>5</ObjectSizeLessThan></Filter>${DAYS}`)], "NotImplemented"],
    ["other classes", [rule(`${FILTER}<Transition><Days>1</Days></Transition>${DAYS}`)], "NotImplemented"],
    [
      "delete markers",
      [rule(`${FILTER}<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>`)],
      "NotImplemented",
    ],
  ])("refuse %s", (_, rules, code) => {
    expect(() => parse(...rules)).toThrow(expect.objectContaining({ code }));
  });

  it("expire at the midnight after so many days, or on their date", () => {
    const noon = Date.UTC(2027, 4, 10, 12);
    expect(dueUnixMs(noon, 3)).toBe(Date.UTC(2027, 4, 14));
    expect(dueUnixMs(Date.UTC(2027, 4, 10), 3)).toBe(Date.UTC(2027, 4, 13));
    const [days] = parse(rule(FILTER + DAYS));
    const [date] = parse(rule(`${FILTER}<Expiration><Date>2027-05-14T00:00:00Z</Date></Expiration>`));
    for (const one of [days, date]) {
      if (one === undefined) throw new Error("no rule");
      expect(hasExpired(one, noon, Date.UTC(2027, 4, 14) - 1)).toBe(false);
      expect(hasExpired(one, noon, Date.UTC(2027, 4, 14))).toBe(true);
    }
  });
});
