/**
 * The working memory of a function worker: one buffer for the records at hand, the input of a map call or the
 * output of a reduce call. Kept between calls, because the first touch of fresh pages costs as much as the work
 * done in them.
 */
import { MillraceError } from "../../client/errors.js";
import { formatBytes } from "../report/format.js";

let memory: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/** `sizeBytes` of it, contents undefined; what was taken before is overwritten. RESOURCE_EXHAUSTED where too large. */
export function takeRecordBuffer(sizeBytes: number): Uint8Array<ArrayBuffer> {
  if (memory.length < sizeBytes) {
    // Let go of first: both at once may not fit.
    memory = new Uint8Array(0);
    try {
      memory = new Uint8Array(new ArrayBuffer(sizeBytes));
    } catch (error) {
      throw new MillraceError(
        "RESOURCE_EXHAUSTED",
        `no memory for ${formatBytes(sizeBytes)} of records at once: use more partitions (--partitions)`,
        { retryable: false, cause: error },
      );
    }
  }
  return memory.subarray(0, sizeBytes);
}
