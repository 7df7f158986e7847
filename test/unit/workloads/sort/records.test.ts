import fc from "fast-check";
import { expect, it } from "vitest";
import {
  addChecksums,
  EMPTY_SUMMARY,
  joinSummaries,
  type StretchSummary,
  toStretchSummary,
  totalOf,
} from "../../../../workloads/sort/records.js";

/** The summary of stretches of one-byte keys, as the kernel would give it. */
function summarise(keys: number[]): StretchSummary {
  if (keys.length === 0) return EMPTY_SUMMARY;
  const hex = (key: number): string => key.toString(16).padStart(2, "0");
  let unordered = 0;
  let duplicates = 0;
  for (let i = 1; i < keys.length; i += 1) {
    if ((keys[i] as number) < (keys[i - 1] as number)) unordered += 1;
    if (keys[i] === keys[i - 1]) duplicates += 1;
  }
  return {
    records: keys.length,
    checksum: keys.reduce((sum, key) => sum + BigInt(key) * 0x1_0000_0001n, 0n).toString(16),
    unordered,
    duplicates,
    firstKey: hex(keys[0] as number),
    lastKey: hex(keys.at(-1) as number),
  };
}

it("joining summaries gives the summary of what is joined", () => {
  fc.assert(
    fc.property(fc.array(fc.array(fc.integer({ min: 0, max: 255 }))), (stretches) => {
      expect(stretches.map(summarise).reduce(joinSummaries, EMPTY_SUMMARY)).toEqual(
        summarise(stretches.flat()),
      );
    }),
  );
});

it("totals do not depend on the order of stretches", () => {
  const parts = [summarise([3, 1]), EMPTY_SUMMARY, summarise([200])];
  expect(totalOf(parts)).toEqual(totalOf([...parts].reverse()));
  expect(totalOf(parts).records).toBe(3);
});

it("checksums wrap at 128 bits and have no leading zeros", () => {
  expect(addChecksums("f".repeat(32), "1")).toBe("0");
  expect(
    toStretchSummary({
      count: 1,
      checksum: Buffer.from("00000000000000000004c4e32cca7d31".padEnd(32, "5"), "hex"),
      unordered: 0,
      duplicates: 0,
      firstKey: Buffer.from("ab"),
      lastKey: Buffer.from("ab"),
    }),
  ).toMatchObject({ checksum: "4c4e32cca7d31", firstKey: "6162" });
});
