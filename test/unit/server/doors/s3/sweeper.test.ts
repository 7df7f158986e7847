/** The sweeper over a real store, with a clock that the test moves. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { partKey, uploadKey } from "../../../../../server/doors/s3/hidden.js";
import { changeSettings, type LifecycleRule, readSettings } from "../../../../../server/doors/s3/settings.js";
import { LifecycleSweeper } from "../../../../../server/doors/s3/sweeper.js";
import { encodePart, encodeUpload, newUploadId } from "../../../../../server/doors/s3/uploads.js";
import { Engine, NO_CONDITION } from "../../../../../server/engine/engine.js";

const BUCKET = "bucket";
const DAY_MS = 24 * 3_600_000;
const LIMITS = {
  limitBytes: 0,
  dramLimitBytes: 0,
  expectedBytes: 0,
  bandwidthBytesPerSecond: 0,
  hint: "throughput",
} as const;

let engine: Engine;
let unixMs: number;
let sweeper: LifecycleSweeper;
let errors: object[];

beforeEach(() => {
  engine = new Engine({
    dramBytes: 64 * 2 ** 20,
    nvme: [],
    hugePages: "off",
    keep: false,
    memoryDirectory: null,
    hugeDirectory: null,
    ioThreads: 1,
    socketPath: null,
    dataHost: null,
    dataPort: 0,
    nodeId: "sweeper",
  });
  engine.createNamespace(BUCKET, new Uint8Array(16), LIMITS);
  unixMs = Date.now();
  errors = [];
  sweeper = new LifecycleSweeper({
    engine,
    namespaces: { names: () => ["ended-meanwhile", BUCKET] },
    clock: { unixMs: () => unixMs, monotonicMs: () => unixMs },
    log: { error: (fields) => errors.push(fields), debug() {} },
  });
});

afterEach(async () => {
  await sweeper.stop();
  engine.close();
  expect(errors).toEqual([]);
});

function put(key: string | Buffer, attributes: Buffer | null = null): void {
  const draft = engine.begin(BUCKET, key, 3);
  draft.write(Buffer.from("abc"));
  draft.seal(NO_CONDITION, null, attributes);
}

function keys(): string[] {
  return engine.list(BUCKET, "", "", 1000, false).objects.map(({ key }) => key.toString());
}

function rule(fields: Partial<LifecycleRule>): LifecycleRule {
  return {
    id: "rule",
    enabled: true,
    prefix: "",
    prefixIn: "filter",
    expiration: null,
    abortDays: null,
    ...fields,
  };
}

function begin(key: string): string {
  const id = newUploadId(unixMs);
  put(
    uploadKey(id),
    encodeUpload({ key, initiatedUnixMs: unixMs, headers: {}, metadata: {}, tags: {}, checksum: null }),
  );
  put(partKey(id, 1), encodePart({ etag: "0".repeat(32), checksum: null }));
  put(partKey(id, 10_000), encodePart({ etag: "0".repeat(32), checksum: null }));
  return id;
}

function uploadParts(id: string): number {
  return [uploadKey(id), partKey(id, 1), partKey(id, 10_000)].filter((key) => engine.head(BUCKET, key))
    .length;
}

describe("the sweeper", () => {
  it("removes what has expired by a rule that is on, under its prefix alone", async () => {
    for (let at = 0; at < 2_100; at++) put(`logs/${at}`);
    for (const key of ["kept/1", "logs", "tmp/1"]) put(key);
    await changeSettings(engine, BUCKET, {
      lifecycle: [
        rule({ id: "a", prefix: "logs/", expiration: { days: 2 } }),
        rule({ id: "b", prefix: "tmp/", expiration: { days: 1 }, enabled: false }),
      ],
    });
    unixMs += 2 * DAY_MS - 1000;
    expect(await sweeper.sweep()).toEqual({ objects: 0, uploads: 0 });
    unixMs += DAY_MS + 1000;
    expect(await sweeper.sweep()).toEqual({ objects: 2_100, uploads: 0 });
    expect(keys()).toEqual(["kept/1", "logs", "tmp/1"]);
  });

  it("removes on a date", async () => {
    put("a");
    await changeSettings(engine, BUCKET, { lifecycle: [rule({ expiration: { dateUnixMs: unixMs + 5 } })] });
    await sweeper.sweep();
    expect(keys()).toEqual(["a"]);
    unixMs += 5;
    await sweeper.sweep();
    expect(keys()).toEqual([]);
  });

  it("ends uploads after a week, or earlier by a rule", async () => {
    const week = begin("a/1");
    const early = begin("b/1");
    await changeSettings(engine, BUCKET, { lifecycle: [rule({ prefix: "b/", abortDays: 2 })] });
    unixMs += 3 * DAY_MS;
    expect(await sweeper.sweep()).toEqual({ objects: 0, uploads: 1 });
    expect([uploadParts(week), uploadParts(early)]).toEqual([3, 0]);
    unixMs += 4 * DAY_MS;
    expect(await sweeper.sweep()).toEqual({ objects: 0, uploads: 1 });
    expect(uploadParts(week)).toBe(0);
  });

  it("removes parts whose upload is no more, and no others", async () => {
    const living = [begin("a"), begin("b")];
    const strays = [begin("c"), begin("d")];
    for (const id of strays) engine.remove(BUCKET, uploadKey(id), NO_CONDITION);
    await sweeper.sweep();
    expect(living.map(uploadParts)).toEqual([3, 3]);
    expect(strays.map(uploadParts)).toEqual([0, 0]);
  });
});

describe("settings", () => {
  it("change one by one, also when they are changed at once, and end with their bucket", async () => {
    expect(await readSettings(engine, BUCKET)).toEqual({ tags: null, lifecycle: null });
    await Promise.all([
      changeSettings(engine, BUCKET, { tags: { a: "1" } }),
      changeSettings(engine, BUCKET, { lifecycle: [rule({ abortDays: 1 })] }),
    ]);
    expect(await readSettings(engine, BUCKET)).toEqual({
      tags: { a: "1" },
      lifecycle: [rule({ abortDays: 1 })],
    });
    await changeSettings(engine, BUCKET, { tags: null });
    expect(await readSettings(engine, BUCKET)).toEqual({ tags: null, lifecycle: [rule({ abortDays: 1 })] });
    expect(keys()).toEqual([]);
    engine.dropNamespace(BUCKET);
    engine.createNamespace(BUCKET, new Uint8Array(16), LIMITS);
    expect(await readSettings(engine, BUCKET)).toEqual({ tags: null, lifecycle: null });
  });
});
