/**
 * The parsers of the S3 door, fuzzed in a process of their own, which can be ended where one does not come to its end.
 * The input at hand lies in a file all the while.
 */
import { ftruncateSync, openSync, writeSync } from "node:fs";
import { answerCalls } from "../../support/client_process.js";
import { type FuzzResult, type FuzzTarget, fuzz } from "../../support/fuzz.js";
import { chunksTarget } from "./chunks.js";
import { type RecordedRequests, requestsTarget } from "./requests.js";
import { headersTarget, xmlTarget } from "./texts.js";

export interface Recorded extends RecordedRequests {
  /** Bodies in aws-chunked. */
  chunked: readonly Buffer[];
  /** Bodies in XML. */
  xml: readonly Buffer[];
}

const TARGETS = {
  "chunk decoding": ({ chunked }: Recorded) => chunksTarget(chunked),
  "request parsing": (recorded: Recorded) => requestsTarget(recorded),
  XML: ({ xml }: Recorded) => xmlTarget(xml),
  "ranges, dates, conditions and tags": () => headersTarget(),
} satisfies Record<string, (recorded: Recorded) => FuzzTarget>;

export type TargetName = keyof typeof TARGETS;

export type FuzzFunctions = {
  run(name: TargetName, recorded: Recorded, seed: number, seconds: number, file: string): Promise<FuzzResult>;
};

answerCalls({
  run: (name, recorded, seed, seconds, file) => {
    const descriptor = openSync(file, "w");
    return fuzz(TARGETS[name](recorded), seed, seconds, (input) => {
      ftruncateSync(descriptor, 0);
      writeSync(descriptor, input, 0, input.length, 0);
    });
  },
} satisfies FuzzFunctions);
