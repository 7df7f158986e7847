/**
 * Where sorted records go: one part a partition, `part-00000` and so on, each there whole or not at all, in a
 * directory or as objects.
 */
import { realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { MillraceError } from "../../client/errors.js";
import { parseS3Url } from "../stores/s3_url.js";
import type { SortInput, Source } from "./input.js";
import { OutputDirectory, writePartFile } from "./output_directory.js";
import type { ObjectsPlace } from "./output_objects.js";

/** Where the parts of a run go; plain data that travels to function workers. */
export type OutputPlace =
  /** Absolute path of a directory that is there. */
  { kind: "directory"; path: string } | ObjectsPlace;

/** An output in use by one run. `keep` or `remove` ends it, when nobody writes to it any more. */
export interface SortOutput {
  readonly place: OutputPlace;
  /** The run went well: sweeps what attempts that died have left. */
  keep(): Promise<void>;
  /** The run failed: removes its parts. */
  remove(): Promise<void>;
}

/**
 * Opens what `--output` names, a directory or s3://BUCKET/PREFIX. INVALID_ARGUMENT where it is neither, holds the
 * input, or holds anything and `force` is not set; with `force` earlier parts are removed and everything else is left
 * alone. NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE, SYSTEM where it is out of reach.
 */
export async function openOutput(word: string, force: boolean, input: SortInput): Promise<SortOutput> {
  const sources = input.kind === "stored" ? input.sources : [];
  if (word.startsWith("s3://")) {
    const { bucket, prefix } = parseS3Url(word);
    const place = { kind: "objects", url: word, bucket, prefix } as const;
    if (sources.some((source) => isUnder(source, bucket, prefix))) throw holdsInput(word);
    // The SDK is large: loaded only where it is asked for.
    return (await import("./output_objects.js")).OutputObjects.open(place, force);
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//.test(word)) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `no output of this kind: ${word}; name a directory, s3://BUCKET/PREFIX, or none`,
    );
  }
  const path = resolve(word);
  for (const source of sources) {
    if (await isInside(source, path)) throw holdsInput(word);
  }
  const directory = await OutputDirectory.open(path, force);
  return {
    place: { kind: "directory", path },
    keep: () => directory.keep(),
    remove: () => directory.remove(),
  };
}

/** Writes one part: it is there, whole, when the promise resolves. `attempt` tells attempts at it apart. */
export async function writePart(
  place: OutputPlace,
  partition: number,
  attempt: string,
  bytes: Uint8Array,
): Promise<void> {
  if (place.kind === "directory") return writePartFile(place.path, partition, attempt, bytes);
  return (await import("./output_objects.js")).writePartObject(place, partition, bytes);
}

function isUnder(source: Source, bucket: string, prefix: string): boolean {
  if (source.kind !== "object" || source.bucket !== bucket || !source.key.startsWith(prefix)) return false;
  return !source.key.slice(prefix.length).includes("/");
}

/** Whether a file lies in a directory, by whatever names. */
async function isInside(source: Source, directory: string): Promise<boolean> {
  if (source.kind !== "file") return false;
  const real = await realpath(directory).catch(() => null);
  return real !== null && dirname(await realpath(source.path)) === real;
}

function holdsInput(word: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", `the output ${word} holds the input: name another one`);
}
