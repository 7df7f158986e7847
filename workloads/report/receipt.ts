/** A namespace's receipt, as rows of the details. */
import type { Receipt } from "../../client/index.js";
import { formatBytes, formatCount } from "./format.js";
import type { ReportFact } from "./model.js";

export function receiptFacts(receipt: Receipt | null): ReportFact[] {
  if (receipt === null) return [];
  return [
    { label: "receipt: most bytes held", value: formatBytes(receipt.peakBytes) },
    { label: "receipt: dram", value: `${formatBytes(Math.round(receipt.dramByteSeconds))} seconds` },
    { label: "receipt: copies avoided", value: formatBytes(receipt.copiesAvoidedBytes) },
    ...receipt.traffic.map(({ by, bytesIn, bytesOut, operations }) => ({
      label: `receipt: ${by}`,
      value: `${formatBytes(bytesIn)} in, ${formatBytes(bytesOut)} out, ${formatCount(operations)} operations`,
    })),
  ];
}
