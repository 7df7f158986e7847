/**
 * What was set for a bucket. It lies in the bucket itself, as JSON in a hidden object, and so lives and ends with it.
 */
import { buffer } from "node:stream/consumers";
import { MillraceError } from "../../../proto/errors.js";
import { type Engine, NO_CONDITION } from "../../engine/engine.js";
import { BUCKET_SETTINGS_KEY } from "./hidden.js";
import { readerBytes } from "./outgoing.js";

export interface BucketSettings {
  /** Null: none were ever put. */
  readonly tags: Readonly<Record<string, string>> | null;
  /** Null: none were ever put. */
  readonly lifecycle: readonly LifecycleRule[] | null;
}

/** A rule about the keys that start with `prefix`. */
export interface LifecycleRule {
  readonly id: string;
  readonly enabled: boolean;
  readonly prefix: string;
  /** Where the prefix stood, so that it is answered as it was put. */
  readonly prefixIn: "rule" | "filter" | "and";
  /** When objects go: days after they were written, or on a date. */
  readonly expiration: { readonly days: number } | { readonly dateUnixMs: number } | null;
  /** Days after which an upload that was not completed goes; null: it may stay for as long as any. */
  readonly abortDays: number | null;
}

const NOTHING: BucketSettings = { tags: null, lifecycle: null };
const TRIES_MAX = 10;

/** What of the engine reads settings. */
export type SettingsSource = Pick<Engine, "open">;

export async function readSettings(engine: SettingsSource, bucket: string): Promise<BucketSettings> {
  return (await find(engine, bucket)).settings;
}

/** Sets what `changes` names and leaves the rest as it is. */
export async function changeSettings(
  engine: Engine,
  bucket: string,
  changes: Partial<BucketSettings>,
): Promise<void> {
  for (let tried = 1; ; tried++) {
    const { settings, sequence } = await find(engine, bucket);
    const bytes = Buffer.from(JSON.stringify({ ...settings, ...changes }));
    const condition =
      sequence === 0 ? { ifAbsent: true, ifSequence: 0 } : { ...NO_CONDITION, ifSequence: sequence };
    const draft = engine.begin(bucket, BUCKET_SETTINGS_KEY, bytes.length);
    try {
      for (let taken = 0; taken < bytes.length; ) taken += draft.write(bytes.subarray(taken));
      draft.seal(condition, null, null);
      return;
    } catch (thrown) {
      draft.abort();
      // Somebody else changed something at the same moment.
      if (MillraceError.from(thrown).code !== "CONDITION_FAILED" || tried === TRIES_MAX) throw thrown;
    }
  }
}

/** `sequence` 0: nothing was set yet. */
async function find(
  engine: SettingsSource,
  bucket: string,
): Promise<{ settings: BucketSettings; sequence: number }> {
  const reader = engine.open(bucket, BUCKET_SETTINGS_KEY, 0, 0);
  if (reader === null) return { settings: NOTHING, sequence: 0 };
  try {
    const { sizeBytes, sequence } = reader.info;
    const bytes = await buffer(readerBytes(reader, sizeBytes));
    return { settings: JSON.parse(bytes.toString()) as BucketSettings, sequence };
  } finally {
    reader.close();
  }
}
