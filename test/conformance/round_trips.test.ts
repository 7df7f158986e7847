/** Every client puts, gets, lists and reads parts of objects, and the SDK sees the same bytes. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, HeadObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, connect } from "../../client/index.js";
import { Pattern } from "../support/pattern.js";
import { CLIENTS, type ConformanceClient, PART_BYTES } from "./clients.js";
import { type Door, hasProgram, s3Client, startDoor } from "./door.js";

const MIB = 1 << 20;
const LARGE_BYTES = 64 * MIB;
const LISTED = 2_500;
const ODD_KEYS = [
  "with space/and  two",
  "plus+equals=and&question?hash#",
  "percent%41%zz",
  "ünïcödé/日本語/😀",
  "e\u0301 is not \u00e9",
  "quote'\"<>[]{}|^`",
  "semi;colon:comma,at@dollar$star*bang!tilde~(parens)",
  "a//b",
  "/leading",
  `long/${"x".repeat(200)}/${"y".repeat(200)}/${"z".repeat(200)}`,
];
const pattern = new Pattern("conformance");

let door: Door;
let sdk: Client | null = null;
beforeAll(async () => {
  door = await startDoor();
  if (door.daemon !== null) sdk = await connect(door.daemon.endpoint);
});
afterAll(async () => {
  await sdk?.close();
  await door?.stop();
});

// A bucket of 2,500 keys that all clients list.
const listedBucket = `listed-${randomBytes(4).toString("hex")}`;
const listedKeys = Array.from(
  { length: LISTED },
  (_, i) => `deep/er ${i % 10}/${String(i).padStart(5, "0")}`,
);
listedKeys.sort();
beforeAll(async () => {
  const client = s3Client(door);
  await client.send(new CreateBucketCommand({ Bucket: listedBucket }));
  const left = [...listedKeys];
  const puts = async () => {
    for (let key = left.pop(); key !== undefined; key = left.pop()) {
      await client.send(new PutObjectCommand({ Bucket: listedBucket, Key: key, Body: "x" }));
    }
  };
  await Promise.all(Array.from({ length: 16 }, puts));
  client.destroy();
});

for (const kind of CLIENTS) {
  describe.skipIf(kind.program !== null && !hasProgram(kind.program))(kind.name, () => {
    const bucket = `trip-${randomBytes(6).toString("hex")}`;
    let folder: string;
    let client: ConformanceClient;
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "millrace-conformance-"));
      client = await kind.start(door, folder);
      await client.makeBucket(bucket);
    });
    afterAll(async () => {
      await client?.stop();
      rmSync(folder, { recursive: true, force: true });
    });

    it.each([0, 1, 5 * MIB + 1])("an object of %i bytes", async (sizeBytes) => {
      const bytes = pattern.bytes(0, sizeBytes);
      await client.put(bucket, `size/${sizeBytes}`, bytes);
      const got = await client.get(bucket, `size/${sizeBytes}`);
      expect(got.length).toBe(sizeBytes);
      expect(pattern.differs(got, 0)).toBeNull();
    });

    it("64 MiB in parts, and again over the first", async () => {
      for (const offset of [0, 4096]) {
        await client.putInParts(bucket, "large", pattern.bytes(offset, LARGE_BYTES));
        const got = await client.get(bucket, "large");
        expect(got.length).toBe(LARGE_BYTES);
        expect(pattern.differs(got, offset)).toBeNull();
      }
      const aws = s3Client(door);
      const head = await aws.send(new HeadObjectCommand({ Bucket: bucket, Key: "large" }));
      aws.destroy();
      expect(head.ETag).toMatch(/^"[0-9a-f]{32}-\d+"$/);
    });

    it.each(ODD_KEYS.filter((key) => !(key in kind.unsaid)))("the key %j", async (key) => {
      const bytes = Buffer.from(`bytes of ${key}`);
      await client.put(bucket, key, bytes);
      expect((await client.get(bucket, key)).toString()).toBe(bytes.toString());
    });

    it("a listing of these keys", async () => {
      const keys = ODD_KEYS.filter((key) => !(key in kind.unsaid));
      const listed = new Set(await client.list(bucket, ""));
      expect(keys.filter((key) => !listed.has(key))).toEqual([]);
    });

    it("a listing of 2,500 keys", async () => {
      const keys = await client.list(listedBucket, "deep/");
      expect(keys.sort()).toEqual(listedKeys);
    });

    it("ranges", async () => {
      if (client.getRange === null) return;
      const sizeBytes = 2 * PART_BYTES + 3;
      await client.putInParts(bucket, "ranges", pattern.bytes(0, sizeBytes));
      const ranges = [
        [0, 1],
        [sizeBytes - 1, 1],
        [PART_BYTES - 10, 20],
        [12_345, 3 * MIB],
        [0, sizeBytes],
      ] as const;
      for (const [offset, length] of ranges) {
        const got = await client.getRange(bucket, "ranges", offset, length);
        expect(got.length).toBe(length);
        expect(pattern.differs(got, offset)).toBeNull();
      }
    });

    it("the SDK reads what was put, and what the SDK puts is got", async () => {
      if (sdk === null) return;
      const namespace = await sdk.openNamespace(bucket);
      const bytes = pattern.bytes(777, 3 * MIB);
      await client.put(bucket, "from/s3", bytes);
      expect(sha256(await namespace.get("from/s3"))).toBe(sha256(bytes));
      await namespace.put("from/sdk", bytes);
      expect(sha256(await client.get(bucket, "from/sdk"))).toBe(sha256(bytes));
    });
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
