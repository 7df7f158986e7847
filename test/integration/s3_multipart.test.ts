/** Multipart uploads, tags, lifecycles and issued keys: Amazon's client against a real daemon. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  type CompleteMultipartUploadCommandInput,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  type CreateMultipartUploadCommandInput,
  DeleteBucketLifecycleCommand,
  DeleteBucketTaggingCommand,
  DeleteObjectTaggingCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketTaggingCommand,
  GetObjectAttributesCommand,
  GetObjectCommand,
  GetObjectTaggingCommand,
  HeadObjectCommand,
  type LifecycleRule,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandInput,
  ListObjectsV2Command,
  ListPartsCommand,
  PutBucketLifecycleConfigurationCommand,
  PutBucketTaggingCommand,
  PutObjectCommand,
  PutObjectTaggingCommand,
  type S3Client,
  UploadPartCommand,
  type UploadPartCommandInput,
  UploadPartCopyCommand,
} from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, connect, type MillraceError } from "../../client/index.js";
import { packageRoot } from "../../native/binding/addon.js";
import { millraceCommand } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";
import { rawRequest, type S3Daemon, startS3Daemon, xmlText } from "../support/s3.js";

const BUCKET = "uploads";
const MIB = 2 ** 20;
const PART_BYTES = 5 * MIB;

let door: S3Daemon;
let s3: S3Client;
let millrace: Client;

beforeAll(async () => {
  door = await startS3Daemon();
  s3 = door.client();
  millrace = await connect(door.daemon.endpoint);
  await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
});

afterAll(async () => {
  s3?.destroy();
  await millrace?.close();
  await door?.daemon.stop();
});

async function create(
  Key: string,
  more: Partial<CreateMultipartUploadCommandInput> = {},
  client = s3,
): Promise<string> {
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket: BUCKET, Key, ...more }));
  return UploadId as string;
}

async function put(
  Key: string,
  UploadId: string,
  PartNumber: number,
  Body: Uint8Array,
  more: Partial<UploadPartCommandInput> = {},
  client = s3,
): Promise<CompletedPart> {
  const input = { Bucket: BUCKET, Key, UploadId, PartNumber, Body, ...more };
  const { $metadata: _, ETag, ...sums } = await client.send(new UploadPartCommand(input));
  const { ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256 } = sums;
  return { PartNumber, ETag, ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256 };
}

function complete(
  Key: string,
  UploadId: string,
  Parts: CompletedPart[],
  more: Partial<CompleteMultipartUploadCommandInput> = {},
  client = s3,
) {
  return client.send(
    new CompleteMultipartUploadCommand({
      Bucket: BUCKET,
      Key,
      UploadId,
      MultipartUpload: { Parts },
      ...more,
    }),
  );
}

async function read(Key: string, client = s3): Promise<Buffer> {
  const { Body } = await client.send(new GetObjectCommand({ Bucket: BUCKET, Key }));
  return Buffer.from((await Body?.transformToByteArray()) as Uint8Array);
}

function etagOf(...parts: Uint8Array[]): string {
  const md5 = (bytes: Uint8Array) => createHash("md5").update(bytes).digest();
  return `"${md5(Buffer.concat(parts.map(md5))).toString("hex")}-${parts.length}"`;
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "OK",
    (thrown: Error) => thrown.name,
  );

/** The code of the failure that the promise ends with. */
const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "OK",
    (thrown: MillraceError) => thrown.code,
  );

async function stored(client = millrace): Promise<{ objects: number; sizeBytes: number }> {
  const { objects = 0, sizeBytes = 0 } =
    (await client.listNamespaces()).find(({ name }) => name === BUCKET) ?? {};
  return { objects, sizeBytes };
}

async function idsLeft(): Promise<string[]> {
  const { Uploads = [] } = await s3.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }));
  return Uploads.map(({ UploadId }) => UploadId as string);
}

describe("a multipart upload", () => {
  it("of 64 MiB in parts of 8 MiB, out of order, is one object through every door", async () => {
    const pattern = new Pattern("multipart");
    const bytes = pattern.bytes(0, 64 * MIB);
    const pieces = Array.from({ length: 8 }, (_, at) => bytes.subarray(at * 8 * MIB, (at + 1) * 8 * MIB));
    const before = await stored();
    const id = await create("big", {
      ContentType: "application/x-noise",
      CacheControl: "no-cache",
      Metadata: { color: "blue" },
      Tagging: "a=1&b=2",
    });
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    const parts: CompletedPart[] = [];
    for (const at of [5, 0, 7, 3, 1, 6, 2, 4]) {
      parts[at] = await put("big", id, at + 1, pieces[at] as Buffer);
      expect(await codeOf(s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "big" })))).toBe("NotFound");
    }
    // What is under way is nobody's key.
    const listed = await s3.send(new ListObjectsV2Command({ Bucket: BUCKET }));
    expect(listed.KeyCount).toBe(0);

    const done = await complete("big", id, parts);
    expect(done).toMatchObject({ Bucket: BUCKET, Key: "big", ETag: etagOf(...pieces) });
    const got = await read("big");
    expect(got.length).toBe(bytes.length);
    expect(pattern.differs(got, 0)).toBeNull();
    const namespace = await millrace.openNamespace(BUCKET);
    expect(pattern.differs(await namespace.get("big"), 0)).toBeNull();
    const view = namespace.view("big");
    if (view !== null) expect(pattern.differs(view, 0)).toBeNull();
    await namespace.close();
    expect(await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "big" }))).toMatchObject({
      ContentLength: bytes.length,
      ETag: etagOf(...pieces),
      ContentType: "application/x-noise",
      CacheControl: "no-cache",
      Metadata: { color: "blue" },
    });
    const one = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: "big", PartNumber: 3 }));
    expect(one.PartsCount).toBe(8);
    expect(pattern.differs((await one.Body?.transformToByteArray()) as Uint8Array, 16 * MIB)).toBeNull();
    const { ObjectParts } = await s3.send(
      new GetObjectAttributesCommand({ Bucket: BUCKET, Key: "big", ObjectAttributes: ["ObjectParts"] }),
    );
    expect(ObjectParts?.TotalPartsCount).toBe(8);
    expect(await idsLeft()).toEqual([]);
    expect(await stored()).toEqual({
      objects: before.objects + 1,
      sizeBytes: before.sizeBytes + bytes.length,
    });
  });

  it("takes the last of several parts with a number, and drops parts that are not listed", async () => {
    const before = await stored();
    const id = await create("over");
    const first = Buffer.alloc(PART_BYTES, 1);
    await put("over", id, 1, Buffer.alloc(PART_BYTES, 9));
    const part1 = await put("over", id, 1, first);
    await put("over", id, 2, Buffer.alloc(PART_BYTES, 2));
    const part9 = await put("over", id, 9, Buffer.from("end"));
    const { ETag } = await complete("over", id, [part1, part9]);
    expect(ETag).toBe(etagOf(first, Buffer.from("end")));
    expect((await read("over")).equals(Buffer.concat([first, Buffer.from("end")]))).toBe(true);
    expect(await stored()).toEqual({
      objects: before.objects + 1,
      sizeBytes: before.sizeBytes + PART_BYTES + 3,
    });
  });

  it("may be of one part, of no bytes, and of a key with odd characters", async () => {
    const key = "odd/ä雪 &<'\"+%20\u0001~";
    const id = await create(key);
    const part = await put(key, id, 10_000, Buffer.alloc(0));
    const { Uploads } = await s3.send(
      new ListMultipartUploadsCommand({ Bucket: BUCKET, EncodingType: "url" }),
    );
    expect(Uploads?.map(({ Key }) => Key)).toEqual([
      encodeURIComponent(key).replaceAll("%2F", "/").replaceAll("'", "%27"),
    ]);
    expect((await complete(key, id, [part])).ETag).toBe(etagOf(Buffer.alloc(0)));
    expect((await read(key)).length).toBe(0);
  });

  it("that is aborted frees its bytes", async () => {
    const before = await stored();
    const id = await create("gone");
    await put("gone", id, 1, Buffer.alloc(PART_BYTES));
    await put("gone", id, 2, Buffer.alloc(PART_BYTES));
    expect((await stored()).sizeBytes).toBe(before.sizeBytes + 2 * PART_BYTES);
    await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "gone", UploadId: id }));
    expect(await stored()).toEqual(before);
    const again = new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "gone", UploadId: id });
    expect(await codeOf(s3.send(again))).toBe("NoSuchUpload");
    expect(await codeOf(put("gone", id, 3, Buffer.alloc(1)))).toBe("NoSuchUpload");
    expect(await codeOf(s3.send(new ListPartsCommand({ Bucket: BUCKET, Key: "gone", UploadId: id })))).toBe(
      "NoSuchUpload",
    );
  });

  it("leaves nothing behind where parts race the abort", async () => {
    const before = await stored();
    for (let round = 0; round < 10; round++) {
      const id = await create("race");
      const parts = Array.from({ length: 8 }, (_, at) =>
        codeOf(put("race", id, at + 1, Buffer.alloc(64 * 1024))),
      );
      await Promise.race(parts);
      await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "race", UploadId: id }));
      for (const code of await Promise.all(parts)) expect(["OK", "NoSuchUpload"]).toContain(code);
    }
    expect(await stored()).toEqual(before);
  });

  it("can be completed again, as by a client that lost the answer", async () => {
    const id = await create("twice");
    const part = await put("twice", id, 1, Buffer.from("once"));
    const first = await complete("twice", id, [part]);
    const second = await complete("twice", id, [part]);
    expect(second.ETag).toBe(first.ETag);
    expect(await codeOf(complete("twice", id, [{ ...part, ETag: `"${"0".repeat(32)}"` }]))).toBe(
      "NoSuchUpload",
    );
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: "twice", Body: "another" }));
    expect(await codeOf(complete("twice", id, [part]))).toBe("NoSuchUpload");
    expect((await read("twice")).toString()).toBe("another");
  });

  it("is refused where its parts are not as they are listed, and can be completed still", async () => {
    const id = await create("strict");
    const small = await put("strict", id, 1, Buffer.alloc(PART_BYTES - 1));
    const last = await put("strict", id, 2, Buffer.from("end"));
    expect(await codeOf(complete("strict", id, [small, last]))).toBe("EntityTooSmall");
    expect(await codeOf(complete("strict", id, [last, small]))).toBe("InvalidPartOrder");
    expect(await codeOf(complete("strict", id, [last, last]))).toBe("InvalidPartOrder");
    expect(await codeOf(complete("strict", id, [{ PartNumber: 1, ETag: last.ETag }]))).toBe("InvalidPart");
    expect(await codeOf(complete("strict", id, [{ PartNumber: 3, ETag: last.ETag }]))).toBe("InvalidPart");
    expect(await codeOf(complete("strict", id, []))).toBe("MalformedXML");
    expect(await codeOf(complete("strict", id, [last], { MpuObjectSize: 4 }))).toBe("InvalidRequest");
    expect(await codeOf(complete("other", id, [last]))).toBe("NoSuchUpload");
    expect(await codeOf(complete("strict", "0".repeat(32), [last]))).toBe("NoSuchUpload");
    expect(await codeOf(complete("strict", "../nothing", [last]))).toBe("NoSuchUpload");
    expect(await codeOf(s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "strict" })))).toBe("NotFound");
    // ETags may come without their quotes.
    await complete("strict", id, [{ PartNumber: 2, ETag: (last.ETag as string).replaceAll('"', "") }], {
      MpuObjectSize: 3,
    });
    expect((await read("strict")).toString()).toBe("end");
  });

  it("names what is too small", async () => {
    const id = await create("small");
    const parts = [await put("small", id, 1, Buffer.from("a")), await put("small", id, 2, Buffer.from("b"))];
    const list = parts.map(
      ({ PartNumber, ETag }) => `<Part><PartNumber>${PartNumber}</PartNumber><ETag>${ETag}</ETag></Part>`,
    );
    const answer = await rawRequest(door, {
      method: "POST",
      target: `/${BUCKET}/small?uploadId=${id}`,
      body: Buffer.from(`<CompleteMultipartUpload>${list.join("")}</CompleteMultipartUpload>`),
    });
    expect(answer.status).toBe(400);
    expect(xmlText(answer, "Code")).toBe("EntityTooSmall");
    expect(xmlText(answer, "ProposedSize")).toBe("1");
    expect(xmlText(answer, "MinSizeAllowed")).toBe(String(PART_BYTES));
    expect(xmlText(answer, "PartNumber")).toBe("1");
    await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "small", UploadId: id }));
  });

  it.each(["0", "10001", "-1", "x", "1e3", ""])("has no part %j", async (number) => {
    const id = await create("numbers");
    const answer = await rawRequest(door, {
      method: "PUT",
      target: `/${BUCKET}/numbers?partNumber=${number}&uploadId=${id}`,
      body: Buffer.from("x"),
    });
    expect(answer.status).toBe(400);
    expect(xmlText(answer, "Code")).toBe("InvalidArgument");
    await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "numbers", UploadId: id }));
  });

  it("keeps to conditions, one winner under races", async () => {
    const uploads = await Promise.all(
      Array.from({ length: 6 }, async (_, at) => {
        const id = await create("once");
        return { id, part: await put("once", id, 1, Buffer.from(`writer ${at}`)) };
      }),
    );
    const codes = await Promise.all(
      uploads.map(({ id, part }) => codeOf(complete("once", id, [part], { IfNoneMatch: "*" }))),
    );
    expect(codes.sort()).toEqual(["OK", ...new Array(5).fill("PreconditionFailed")]);
    const { ETag } = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "once" }));
    const id = await create("once");
    const part = await put("once", id, 1, Buffer.from("next"));
    expect(await codeOf(complete("once", id, [part], { IfMatch: '"nothing"' }))).toBe("PreconditionFailed");
    await complete("once", id, [part], { IfMatch: ETag });
    expect((await read("once")).toString()).toBe("next");
    for (const upload of uploads) {
      await codeOf(
        s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "once", UploadId: upload.id })),
      );
    }
  });
});

describe("checksums of uploads", () => {
  const first = Buffer.alloc(PART_BYTES, 7);
  const second = Buffer.from("the rest of it");

  it.each([
    ["CRC32", "COMPOSITE"],
    ["CRC32", "FULL_OBJECT"],
    ["CRC32C", "COMPOSITE"],
    ["CRC32C", "FULL_OBJECT"],
    ["CRC64NVME", "FULL_OBJECT"],
    ["SHA1", "COMPOSITE"],
    ["SHA256", "COMPOSITE"],
  ] as const)("%s of type %s", async (ChecksumAlgorithm, ChecksumType) => {
    const key = `sum/${ChecksumAlgorithm}/${ChecksumType}`;
    const field = `Checksum${ChecksumAlgorithm}` as const;
    const id = await create(key, { ChecksumAlgorithm, ChecksumType });
    const parts = [
      await put(key, id, 1, first, { ChecksumAlgorithm }),
      await put(key, id, 2, second, { ChecksumAlgorithm }),
    ];
    for (const part of parts) expect(part[field]).toMatch(/=/);
    const listed = await s3.send(new ListPartsCommand({ Bucket: BUCKET, Key: key, UploadId: id }));
    expect(listed).toMatchObject({ ChecksumAlgorithm, ChecksumType });
    expect(listed.Parts?.map((part) => part[field])).toEqual(parts.map((part) => part[field]));
    const wrong = { ...(parts[1] as CompletedPart), [field]: (parts[0] as CompletedPart)[field] };
    expect(await codeOf(complete(key, id, [parts[0] as CompletedPart, wrong]))).toBe("InvalidPart");
    const done = await complete(key, id, parts);
    const head = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: key, ChecksumMode: "ENABLED" }));
    expect(head).toMatchObject({ [field]: done[field], ChecksumType });
    if (ChecksumType === "COMPOSITE") {
      expect(done[field]).toMatch(/^[^-]+-2$/);
      if (ChecksumAlgorithm.startsWith("SHA")) {
        const hash = createHash(ChecksumAlgorithm.toLowerCase());
        for (const part of parts) hash.update(Buffer.from(part[field] as string, "base64"));
        expect(done[field]).toBe(`${hash.digest("base64")}-2`);
      }
    } else {
      // As the same bytes have it that came at once.
      const whole = `${key}/whole`;
      const Body = Buffer.concat([first, second]);
      await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: whole, Body, ChecksumAlgorithm }));
      const plain = await s3.send(
        new HeadObjectCommand({ Bucket: BUCKET, Key: whole, ChecksumMode: "ENABLED" }),
      );
      expect(done[field]).toBe(plain[field]);
    }
  });

  it("are refused where they do not fit", async () => {
    expect(await codeOf(create("sum", { ChecksumAlgorithm: "SHA256", ChecksumType: "FULL_OBJECT" }))).toBe(
      "InvalidRequest",
    );
    const id = await create("sum", { ChecksumAlgorithm: "SHA256" });
    expect(await codeOf(put("sum", id, 1, second, { ChecksumAlgorithm: "SHA1" }))).toBe("InvalidRequest");
    expect(await codeOf(put("sum", id, 1, second, { ChecksumSHA256: `${"A".repeat(43)}=` }))).toBe(
      "BadDigest",
    );
    const md5 = createHash("md5").update(first).digest("base64");
    expect(await codeOf(put("sum", id, 1, second, { ContentMD5: md5 }))).toBe("BadDigest");
    const { Parts = [] } = await s3.send(new ListPartsCommand({ Bucket: BUCKET, Key: "sum", UploadId: id }));
    expect(Parts).toEqual([]);
    await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "sum", UploadId: id }));
  });
});

describe("parts that are copied", () => {
  const source = new Pattern("source").bytes(0, 2 * PART_BYTES);
  const copy = (UploadId: string, PartNumber: number, more: object = {}) =>
    s3.send(
      new UploadPartCopyCommand({
        Bucket: BUCKET,
        Key: "copied",
        UploadId,
        PartNumber,
        CopySource: `${BUCKET}/a%20source`,
        ...more,
      }),
    );

  it("are ranges or all of an object, under conditions", async () => {
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: "a source", Body: source }));
    const { ETag } = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "a source" }));
    const id = await create("copied", { ChecksumAlgorithm: "CRC32C" });
    const range = `bytes=1000-${1000 + PART_BYTES - 1}`;
    const copied = [
      await copy(id, 1, { CopySourceRange: range, CopySourceIfMatch: ETag }),
      await copy(id, 2),
      await copy(id, 3, { CopySourceRange: "bytes=0-0" }),
    ];
    expect(await codeOf(copy(id, 4, { CopySourceIfNoneMatch: ETag }))).toBe("PreconditionFailed");
    expect(await codeOf(copy(id, 4, { CopySource: `${BUCKET}/none` }))).toBe("NoSuchKey");
    for (const bad of [
      "bytes=0-",
      "bytes=-5",
      "bytes=5-4",
      "0-4",
      "bytes=0-4,6-7",
      `bytes=0-${source.length}`,
    ]) {
      expect(await codeOf(copy(id, 4, { CopySourceRange: bad })), bad).toBe("InvalidArgument");
    }
    const pieces = [source.subarray(1000, 1000 + PART_BYTES), source, source.subarray(0, 1)];
    for (const [at, piece] of pieces.entries()) {
      const md5 = createHash("md5").update(piece).digest("hex");
      expect(copied[at]?.CopyPartResult?.ETag).toBe(`"${md5}"`);
    }
    const parts = copied.map(({ CopyPartResult }, at) => ({
      PartNumber: at + 1,
      ETag: CopyPartResult?.ETag,
      ChecksumCRC32C: CopyPartResult?.ChecksumCRC32C,
    }));
    expect((await complete("copied", id, parts)).ETag).toBe(etagOf(...pieces));
    expect((await read("copied")).equals(Buffer.concat(pieces))).toBe(true);
  });
});

describe("listings of uploads", () => {
  it("have parts in pages", async () => {
    const id = await create("paged");
    for (const number of [1, 2, 3, 7, 10_000]) await put("paged", id, number, Buffer.from(`${number}`));
    const numbers: number[][] = [];
    for (let PartNumberMarker: string | undefined, more = true; more; ) {
      const page = await s3.send(
        new ListPartsCommand({ Bucket: BUCKET, Key: "paged", UploadId: id, MaxParts: 2, PartNumberMarker }),
      );
      numbers.push((page.Parts ?? []).map(({ PartNumber }) => PartNumber as number));
      for (const { Size, ETag } of page.Parts ?? []) expect([Size, ETag]).not.toContain(undefined);
      more = page.IsTruncated as boolean;
      PartNumberMarker = page.NextPartNumberMarker;
      expect(PartNumberMarker === undefined).toBe(!more);
    }
    expect(numbers).toEqual([[1, 2], [3, 7], [10_000]]);
    await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: "paged", UploadId: id }));
  });

  it("have uploads by key and then by time, with prefixes, delimiters and pages", async () => {
    const ids = new Map<string, string[]>();
    for (const key of ["b/2", "a", "b/1", "a", "c/x/1", "c/y", "é"]) {
      ids.set(key, [...(ids.get(key) ?? []), await create(key)]);
    }
    const all = async (more: Partial<ListMultipartUploadsCommandInput>) => {
      const found: string[] = [];
      for (let page = {} as { next?: object }; page.next !== null; ) {
        const answer = await s3.send(
          new ListMultipartUploadsCommand({ Bucket: BUCKET, ...more, ...page.next }),
        );
        found.push(...(answer.Uploads ?? []).map(({ Key, UploadId }) => `${Key} ${UploadId}`));
        found.push(...(answer.CommonPrefixes ?? []).map(({ Prefix }) => Prefix as string));
        const next = { KeyMarker: answer.NextKeyMarker, UploadIdMarker: answer.NextUploadIdMarker };
        page = { next: (answer.IsTruncated ? next : null) as object };
      }
      return found;
    };
    const named = (...keys: string[]) =>
      keys.flatMap((key) => (ids.get(key) ?? []).map((id) => `${key} ${id}`));
    const sorted = named("a", "b/1", "b/2", "c/x/1", "c/y", "é");
    for (const MaxUploads of [1000, 1, 3]) {
      expect(await all({ MaxUploads })).toEqual(sorted);
      expect(await all({ MaxUploads, Prefix: "b/" })).toEqual(named("b/1", "b/2"));
      expect((await all({ MaxUploads, Delimiter: "/" })).sort()).toEqual(
        [...named("a"), "b/", "c/", ...named("é")].sort(),
      );
      expect((await all({ MaxUploads, Delimiter: "/", Prefix: "c/" })).sort()).toEqual(
        ["c/x/", ...named("c/y")].sort(),
      );
    }
    for (const [key, some] of ids) {
      for (const UploadId of some) {
        await s3.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key: key, UploadId }));
      }
    }
    expect(await idsLeft()).toEqual([]);
  });
});

describe("tags", () => {
  it("of an object are put, told and removed, and all else stays", async () => {
    const Key = "tagged";
    const body = Buffer.alloc(300_000, 5);
    await s3.send(
      new PutObjectCommand({ Bucket: BUCKET, Key, Body: body, Metadata: { a: "b" }, Tagging: "x=1&y=2" }),
    );
    const before = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key }));
    const tags = async () => (await s3.send(new GetObjectTaggingCommand({ Bucket: BUCKET, Key }))).TagSet;
    expect(await tags()).toEqual([
      { Key: "x", Value: "1" },
      { Key: "y", Value: "2" },
    ]);
    const TagSet = [{ Key: "größe", Value: "<&>" }];
    await s3.send(new PutObjectTaggingCommand({ Bucket: BUCKET, Key, Tagging: { TagSet } }));
    expect(await tags()).toEqual(TagSet);
    await s3.send(new DeleteObjectTaggingCommand({ Bucket: BUCKET, Key }));
    expect(await tags()).toEqual([]);
    const after = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key }));
    expect(after).toMatchObject({ ETag: before.ETag, Metadata: { a: "b" }, ContentLength: body.length });
    expect((await read(Key)).equals(body)).toBe(true);
    const many = Array.from({ length: 11 }, (_, at) => ({ Key: `k${at}`, Value: "" }));
    const tooMany = new PutObjectTaggingCommand({ Bucket: BUCKET, Key, Tagging: { TagSet: many } });
    expect(await codeOf(s3.send(tooMany))).toBe("InvalidTag");
    expect(await codeOf(s3.send(new GetObjectTaggingCommand({ Bucket: BUCKET, Key: "none" })))).toBe(
      "NoSuchKey",
    );
  });

  it("survive puts of the object that race them", async () => {
    const Key = "raced";
    const bodies = Array.from({ length: 20 }, (_, at) => Buffer.alloc(50_000, at));
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body: bodies[0] as Buffer }));
    const codes = await Promise.all(
      bodies.flatMap((Body, at) => [
        codeOf(s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body }))),
        codeOf(
          s3.send(
            new PutObjectTaggingCommand({
              Bucket: BUCKET,
              Key,
              Tagging: { TagSet: [{ Key: "n", Value: String(at) }] },
            }),
          ),
        ),
      ]),
    );
    for (const code of codes) expect(["OK", "ConditionalRequestConflict"]).toContain(code);
    const got = await read(Key);
    const { ETag } = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key }));
    expect(bodies.some((body) => body.equals(got))).toBe(true);
    expect(ETag).toBe(`"${createHash("md5").update(got).digest("hex")}"`);
  });

  it("of a bucket are put, told and removed", async () => {
    const get = () => s3.send(new GetBucketTaggingCommand({ Bucket: BUCKET }));
    expect(await codeOf(get())).toBe("NoSuchTagSet");
    const TagSet = [{ Key: "team", Value: "a" }];
    await s3.send(new PutBucketTaggingCommand({ Bucket: BUCKET, Tagging: { TagSet } }));
    expect((await get()).TagSet).toEqual(TagSet);
    await s3.send(new DeleteBucketTaggingCommand({ Bucket: BUCKET }));
    expect(await codeOf(get())).toBe("NoSuchTagSet");
  });
});

it("a lifecycle is told as it was put", async () => {
  const get = () => s3.send(new GetBucketLifecycleConfigurationCommand({ Bucket: BUCKET }));
  const putRules = (Rules: LifecycleRule[]) =>
    s3.send(
      new PutBucketLifecycleConfigurationCommand({
        Bucket: BUCKET,
        LifecycleConfiguration: { Rules },
      }),
    );
  expect(await codeOf(get())).toBe("NoSuchLifecycleConfiguration");
  const rules: LifecycleRule[] = [
    { ID: "logs", Filter: { Prefix: "logs/" }, Status: "Enabled", Expiration: { Days: 3 } },
    {
      ID: "uploads",
      Filter: { Prefix: "" },
      Status: "Disabled",
      Expiration: { Date: new Date("2030-01-01T00:00:00Z") },
      AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 },
    },
  ];
  await putRules(rules);
  expect((await get()).Rules).toEqual(rules);
  const moves: LifecycleRule = {
    ...(rules[0] as LifecycleRule),
    Transitions: [{ Days: 1, StorageClass: "GLACIER" }],
  };
  expect(await codeOf(putRules([moves]))).toBe("NotImplemented");
  expect((await get()).Rules).toEqual(rules);
  await s3.send(new DeleteBucketLifecycleCommand({ Bucket: BUCKET }));
  expect(await codeOf(get())).toBe("NoSuchLifecycleConfiguration");
});

describe("issued keys", () => {
  const clientOf = (keys: { accessKey: string; secretKey: string; sessionToken: string }) =>
    door.client({
      credentials: {
        accessKeyId: keys.accessKey,
        secretAccessKey: keys.secretKey,
        sessionToken: keys.sessionToken,
      },
    });

  it("are good for their prefix alone", async () => {
    const issued = await millrace.issueCredentials(BUCKET, { prefix: "mine/", ttlMs: 60_000 });
    expect(issued.expiresUnixMs).toBeGreaterThan(Date.now());
    const client = clientOf(issued);
    await client.send(new PutObjectCommand({ Bucket: BUCKET, Key: "mine/a", Body: "x" }));
    expect((await read("mine/a", client)).toString()).toBe("x");
    const id = await create("mine/b", {}, client);
    await complete("mine/b", id, [await put("mine/b", id, 1, Buffer.from("y"), {}, client)], {}, client);
    expect(await codeOf(create("other/b", {}, client))).toBe("AccessDenied");
    expect(await codeOf(read("strict", client))).toBe("AccessDenied");
    const other = new ListObjectsV2Command({ Bucket: BUCKET, Prefix: "other/" });
    expect(await codeOf(client.send(other))).toBe("AccessDenied");
    client.destroy();
  });

  it("may be for reading only", async () => {
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: "shared", Body: "z" }));
    const client = clientOf(await millrace.issueCredentials(BUCKET, { readOnly: true }));
    expect((await read("shared", client)).toString()).toBe("z");
    expect(await codeOf(create("shared", {}, client))).toBe("AccessDenied");
    client.destroy();
  });

  it("are refused for what is not there or too long", async () => {
    expect(await refusal(millrace.issueCredentials("nothing-there"))).toBe("NOT_FOUND");
    const eightDays = { ttlMs: 8 * 24 * 3_600_000 };
    expect(await refusal(millrace.issueCredentials(BUCKET, eightDays))).toBe("INVALID_ARGUMENT");
    const prefix = "p".repeat(1025);
    expect(await refusal(millrace.issueCredentials(BUCKET, { prefix }))).toBe("KEY_TOO_LONG");
  });

  it("come from the shell as well", async () => {
    const [program, ...leading] = millraceCommand();
    const args = ["namespace", "credentials", BUCKET, "--prefix", "shell/", "--read-only", "--ttl", "1m"];
    const endpoint = ["--endpoint", door.daemon.endpoint];
    const run = (...more: string[]) =>
      spawnSync(program, [...leading, ...args, ...endpoint, ...more], {
        cwd: packageRoot(),
        encoding: "utf8",
      });
    expect(run().stdout).toMatch(
      /^AWS_ACCESS_KEY_ID=\S+\nAWS_SECRET_ACCESS_KEY=\S+\nAWS_SESSION_TOKEN=\S+\n$/,
    );
    const client = clientOf(JSON.parse(run("--json").stdout));
    await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: "shell/a", Body: "w" }));
    expect((await read("shell/a", client)).toString()).toBe("w");
    expect(await codeOf(create("shell/a", {}, client))).toBe("AccessDenied");
    client.destroy();
  });

  it("are not to be had where the door has no keys of its own", async () => {
    const open = await startS3Daemon({ keys: false, dram: "64MiB" });
    const client = await connect(open.daemon.endpoint);
    await (await client.createNamespace(BUCKET)).close();
    expect(await refusal(client.issueCredentials(BUCKET))).toBe("UNSUPPORTED");
    await client.close();
    await open.daemon.stop();
  });
});

it("an upload goes on after the node was killed midway", async () => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-s3-"));
  const state = join(folder, "state");
  let node = await startS3Daemon({ args: ["--state", state] });
  let client = node.client();
  try {
    await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
    const pieces = [new Pattern("kept").bytes(0, PART_BYTES), Buffer.from("after the kill")] as const;
    const id = await create("kept", { Metadata: { a: "b" } }, client);
    const first = await put("kept", id, 1, pieces[0], {}, client);
    // One that is under way when the node dies.
    const cut = codeOf(put("kept", id, 3, Buffer.alloc(8 * MIB), {}, client));
    node.daemon.kill("SIGKILL");
    await node.daemon.exited();
    await cut;
    client.destroy();

    node = await startS3Daemon({ args: ["--state", state] });
    client = node.client();
    const { Parts = [] } = await client.send(
      new ListPartsCommand({ Bucket: BUCKET, Key: "kept", UploadId: id }),
    );
    expect(Parts[0]).toMatchObject({ PartNumber: 1, ETag: first.ETag, Size: PART_BYTES });
    const second = await put("kept", id, 2, pieces[1], {}, client);
    const done = await complete("kept", id, [first, second], {}, client);
    expect(done.ETag).toBe(etagOf(...pieces));
    expect((await read("kept", client)).equals(Buffer.concat(pieces))).toBe(true);

    node.daemon.kill("SIGKILL");
    await node.daemon.exited();
    client.destroy();
    node = await startS3Daemon({ args: ["--state", state] });
    client = node.client();
    const head = await client.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "kept" }));
    expect(head).toMatchObject({ ETag: done.ETag, Metadata: { a: "b" } });
    expect((await read("kept", client)).equals(Buffer.concat(pieces))).toBe(true);
    const kept = await connect(node.daemon.endpoint);
    expect(await stored(kept)).toEqual({ objects: 1, sizeBytes: PART_BYTES + pieces[1].length });
    await kept.close();
  } finally {
    client.destroy();
    await node.daemon.stop();
    const identity = join(state, "node.json");
    if (existsSync(identity)) {
      const { memoryDirectory } = JSON.parse(readFileSync(identity, "utf8")) as { memoryDirectory: string };
      rmSync(memoryDirectory, { recursive: true, force: true });
    }
    rmSync(folder, { recursive: true, force: true });
  }
});
