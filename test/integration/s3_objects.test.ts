/** Objects through the S3 door of a real daemon: Amazon's client, requests byte by byte, and the SDK beside them. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CopyObjectCommand,
  type CopyObjectCommandInput,
  CreateBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectAttributesCommand,
  GetObjectCommand,
  type GetObjectCommandInput,
  HeadObjectCommand,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
} from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { requireAddon } from "../../native/binding/addon.js";
import { damageFiles } from "../support/damage.js";
import { Pattern } from "../support/pattern.js";
import {
  RawConnection,
  type RawRequest,
  rawRequest,
  type S3Daemon,
  signedHeaders,
  startS3Daemon,
  xmlText,
} from "../support/s3.js";

const KIB = 1 << 10;
const MIB = 1 << 20;
const BUCKET = "objects";
const OTHER = "other-objects";

let door: S3Daemon;
let s3: S3Client;
let client: Client;
let namespace: Namespace;

beforeAll(async () => {
  door = await startS3Daemon({ dram: "1GiB" });
  s3 = door.client();
  for (const bucket of [BUCKET, OTHER]) await s3.send(new CreateBucketCommand({ Bucket: bucket }));
  client = await connect(door.daemon.endpoint, { transport: "shm" });
  namespace = await client.openNamespace(BUCKET, { keepAlive: false });
});
afterAll(async () => {
  await namespace?.close();
  await client?.close();
  s3?.destroy();
  expect(await door?.daemon.stop()).toEqual({ code: 0, signal: null });
});

const md5 = (bytes: Uint8Array) => createHash("md5").update(bytes).digest("hex");
const put = (key: string, body: Uint8Array | string, more: Partial<PutObjectCommandInput> = {}) =>
  s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: body, ...more }));
const head = (key: string, more: Partial<GetObjectCommandInput> = {}) =>
  s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: key, ...more }));
const remove = (key: string, ifMatch?: string) =>
  s3.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: key, IfMatch: ifMatch }));
const raw = (request: RawRequest) => rawRequest(door, request);

async function get(key: string, more: Partial<GetObjectCommandInput> = {}) {
  const answer = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: key, ...more }));
  const bytes = Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
  return { ...answer, bytes };
}

async function text(key: string): Promise<string> {
  return (await get(key)).bytes.toString();
}

/** "Code status" of the failure, or "OK". */
function outcome(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "OK",
    (thrown: { name: string; $metadata?: { httpStatusCode?: number } }) =>
      `${thrown.name} ${thrown.$metadata?.httpStatusCode}`,
  );
}

/** Waits for what other processes bring about. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return;
    await sleep(20);
  }
  throw new Error("what was waited for did not happen");
}

describe("put, get and head", () => {
  it.each([0, 1, 1000, 64 * KIB, 64 * KIB + 1, 256 * KIB, 5 * MIB + 1, 70 * MIB])(
    "carry %i bytes",
    async (size) => {
      const bytes = new Pattern(`size-${size}`).bytes(0, size);
      const etag = `"${md5(bytes)}"`;
      expect((await put(`size/${size}`, bytes)).ETag).toBe(etag);
      const got = await get(`size/${size}`);
      expect(got).toMatchObject({
        ETag: etag,
        ContentLength: size,
        AcceptRanges: "bytes",
        ContentType: "application/octet-stream",
      });
      expect(got.bytes.equals(bytes)).toBe(true);
      const found = await head(`size/${size}`);
      expect(found).toMatchObject({ ETag: etag, ContentLength: size });
      expect(found.LastModified).toEqual(got.LastModified);
      expect(Math.abs(Date.now() - (found.LastModified as Date).getTime())).toBeLessThan(3_600_000);
    },
  );

  it.each([
    "plain",
    "with space and + plus",
    "ünïcode/日本語/🜁",
    "dots/../and/./slashes//",
    "/leading",
    "a%20b%2Fc?d=e&f#g",
    "quote\"'<&>;:@$,!*()[]{}|\\^`~",
    "line\nbreak\r\ttab",
    "x".repeat(1024),
  ])("take the key %j", async (key) => {
    await put(key, key);
    expect(await text(key)).toBe(key);
    expect((await head(key)).ContentLength).toBe(Buffer.byteLength(key));
    expect(Buffer.from(await namespace.get(key)).toString()).toBe(key);
    await remove(key);
    expect(await outcome(get(key))).toBe("NoSuchKey 404");
  });

  it("refuse a key that is too long", async () => {
    expect(await outcome(put("x".repeat(1025), ""))).toBe("KeyTooLongError 400");
  });

  it("tell what there is not", async () => {
    expect(await outcome(get("nothing"))).toBe("NoSuchKey 404");
    expect(await outcome(head("nothing"))).toBe("NotFound 404");
    expect(await outcome(s3.send(new GetObjectCommand({ Bucket: "no-bucket", Key: "k" })))).toBe(
      "NoSuchBucket 404",
    );
    const body = Buffer.from("x");
    expect(await outcome(s3.send(new PutObjectCommand({ Bucket: "no-bucket", Key: "k", Body: body })))).toBe(
      "NoSuchBucket 404",
    );
  });

  it("keep headers, metadata and tags", async () => {
    const described = {
      ContentType: "text/x-test; charset=utf-8",
      CacheControl: "no-cache",
      ContentDisposition: 'attachment; filename="a.txt"',
      ContentEncoding: "gzip",
      ContentLanguage: "de",
      Metadata: { one: "1", "two-words": "with space", empty: "" },
    };
    await put("described", "x", {
      ...described,
      Expires: new Date("2030-01-01T00:00:00Z"),
      Tagging: "a=1&b=c%20d",
    });
    for (const found of [await get("described"), await head("described")]) {
      expect(found).toMatchObject({ ...described, ExpiresString: "Tue, 01 Jan 2030 00:00:00 GMT" });
    }
    expect(await get("described")).toMatchObject({ TagCount: 2 });
  });

  it("return metadata byte for byte", async () => {
    // UTF-8 as some clients send it bare, and a byte that is no UTF-8.
    const value = `${Buffer.from("räd").toString("latin1")} \xff`;
    const connection = await RawConnection.open(door);
    const { headers } = signedHeaders(`${door.host}:${door.port}`, {
      method: "PUT",
      target: `/${BUCKET}/bytes`,
    });
    const lines = Object.entries(headers).map(([name, text]) => `${name}: ${text}\r\n`);
    connection.write(
      Buffer.from(
        `PUT /${BUCKET}/bytes HTTP/1.1\r\n${lines.join("")}content-length: 0\r\ncache-control: ${value}\r\n\r\n`,
        "latin1",
      ),
    );
    expect((await connection.response()).status).toBe(200);
    connection.close();
    expect((await raw({ method: "GET", target: `/${BUCKET}/bytes` })).headers["cache-control"]).toBe(value);
    const encoded = "=?UTF-8?B?csOkZA==?=";
    await raw({ method: "PUT", target: `/${BUCKET}/encoded`, headers: { "x-amz-meta-name": encoded } });
    const answer = await raw({ method: "HEAD", target: `/${BUCKET}/encoded` });
    expect(answer.headers["x-amz-meta-name"]).toBe(encoded);
    expect(answer.headers["content-type"]).toBe("binary/octet-stream");
  });

  it("bound what is said of an object", async () => {
    expect(await outcome(put("much", "", { Metadata: { a: "v".repeat(2048) } }))).toBe(
      "MetadataTooLarge 400",
    );
    const tags = Array.from({ length: 11 }, (_, at) => `k${at}=v`).join("&");
    expect(await outcome(put("much", "", { Tagging: tags }))).toMatch(/^(InvalidTag|BadRequest) 400$/);
    expect(await outcome(head("much"))).toBe("NotFound 404");
  });

  it.each<Partial<PutObjectCommandInput>>([
    { ACL: "public-read" },
    { GrantRead: "id=someone" },
    { ServerSideEncryption: "AES256" },
    { ObjectLockMode: "GOVERNANCE", ObjectLockRetainUntilDate: new Date() },
    { WebsiteRedirectLocation: "/elsewhere" },
    { StorageClass: "GLACIER" },
  ])("do not pretend to do %j", async (more) => {
    expect(await outcome(put("refused", "x", more))).toBe("NotImplemented 501");
    expect(await outcome(head("refused"))).toBe("NotFound 404");
  });

  it("let a signed query choose headers of the answer", async () => {
    await put("chosen", "x", { ContentType: "text/plain" });
    const found = await get("chosen", {
      ResponseContentType: "text/css",
      ResponseContentDisposition: "inline",
    });
    expect(found).toMatchObject({ ContentType: "text/css", ContentDisposition: "inline" });
  });
});

describe("checksums", () => {
  const bytes = Buffer.from("checked bytes");
  it.each(["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] as const)(
    "%s is kept and returned when asked for",
    async (name) => {
      const field = `Checksum${name}` as const;
      // Amazon's client computes this one only with a package of its own.
      const more =
        name === "CRC64NVME" ? { ChecksumCRC64NVME: await crc64nvme(bytes) } : { ChecksumAlgorithm: name };
      const answer = await put(`sum/${name}`, bytes, more);
      expect(answer[field]).toBeTruthy();
      expect(answer.ChecksumType).toBe("FULL_OBJECT");
      expect(await head(`sum/${name}`, { ChecksumMode: "ENABLED" })).toMatchObject({
        [field]: answer[field],
      });
      const part = await get(`sum/${name}`, { ChecksumMode: "ENABLED", Range: "bytes=0-3" });
      expect(part[field]).toBeUndefined();
      const plain = await raw({ method: "HEAD", target: `/${BUCKET}/sum/${name}` });
      expect(Object.keys(plain.headers).filter((header) => header.startsWith("x-amz-checksum"))).toEqual([]);
    },
  );

  it("that do not match leave what was there", async () => {
    await put("sum/wrong", "before");
    const wrong = { ChecksumSHA256: createHash("sha256").update("other").digest("base64") };
    expect(await outcome(put("sum/wrong", "after", wrong))).toBe("BadDigest 400");
    const contentMd5 = createHash("md5").update("other").digest("base64");
    expect(await outcome(put("sum/wrong", "after", { ContentMD5: contentMd5 }))).toBe("BadDigest 400");
    expect(await text("sum/wrong")).toBe("before");
  });
});

async function crc64nvme(bytes: Uint8Array): Promise<string> {
  const digests = new (requireAddon().Digests)(["crc64nvme"]);
  digests.update(bytes);
  const [value] = await digests.finish();
  return (value as Buffer).toString("base64");
}

describe("ranges", () => {
  const pattern = new Pattern("ranged");
  const SIZE = 3 * MIB + 17;
  beforeAll(async () => {
    await put("ranged", pattern.bytes(0, SIZE));
  });

  it.each([
    ["bytes=0-0", 0, 1],
    ["bytes=100-299", 100, 200],
    ["bytes=1048570-2097160", 1048570, 1048591],
    [`bytes=${SIZE - 1}-`, SIZE - 1, 1],
    ["bytes=-5", SIZE - 5, 5],
    ["bytes=5-99999999", 5, SIZE - 5],
    ["bytes=-99999999", 0, SIZE],
  ])("%s", async (range, offset, length) => {
    const got = await get("ranged", { Range: range });
    expect(got.$metadata.httpStatusCode).toBe(206);
    expect(got.ContentRange).toBe(`bytes ${offset}-${offset + length - 1}/${SIZE}`);
    expect(got.bytes.length).toBe(length);
    expect(pattern.differs(got.bytes, offset)).toBeNull();
    const found = await head("ranged", { Range: range });
    expect(found).toMatchObject({ ContentLength: length, ContentRange: got.ContentRange });
    expect(found.$metadata.httpStatusCode).toBe(206);
  });

  it.each(["bytes=0-1,5-6", "bytes=7-3", "lines=1-2"])("%s is the whole object", async (range) => {
    const got = await get("ranged", { Range: range });
    expect(got.$metadata.httpStatusCode).toBe(200);
    expect(got.bytes.length).toBe(SIZE);
    expect(got.ContentRange).toBeUndefined();
  });

  it("beyond the end are refused, with the size", async () => {
    const answer = await raw({
      method: "GET",
      target: `/${BUCKET}/ranged`,
      headers: { range: `bytes=${SIZE}-` },
    });
    expect(answer.status).toBe(416);
    expect(answer.headers["content-range"]).toBe(`bytes */${SIZE}`);
    expect(xmlText(answer, "Code")).toBe("InvalidRange");
    expect(xmlText(answer, "ActualObjectSize")).toBe(String(SIZE));
    await put("empty", "");
    expect(await outcome(get("empty", { Range: "bytes=0-" }))).toBe("InvalidRange 416");
  });

  it("hold under If-Range only while the object is the same", async () => {
    const { ETag } = await head("ranged");
    const ask = (etag: string) =>
      raw({ method: "GET", target: `/${BUCKET}/ranged`, headers: { range: "bytes=0-9", "if-range": etag } });
    expect((await ask(ETag as string)).status).toBe(206);
    expect((await ask('"other"')).status).toBe(200);
  });

  it("are not parts", async () => {
    expect(await outcome(get("ranged", { Range: "bytes=0-1", PartNumber: 1 }))).toBe("InvalidRequest 400");
    const got = await get("ranged", { PartNumber: 1 });
    expect(got.bytes.length).toBe(SIZE);
    expect(got.PartsCount).toBeUndefined();
    expect(await outcome(get("ranged", { PartNumber: 2 }))).toBe("InvalidPart 400");
    expect(await outcome(get("ranged", { PartNumber: 0 }))).toBe("InvalidArgument 400");
  });
});

describe("conditional reads", () => {
  it("follow ETags and dates", async () => {
    const { ETag } = await put("conditional", "x");
    const { LastModified } = await head("conditional");
    const before = new Date((LastModified as Date).getTime() - 1000);
    expect(await outcome(get("conditional", { IfMatch: ETag }))).toBe("OK");
    expect(await outcome(get("conditional", { IfMatch: '"other"' }))).toBe("PreconditionFailed 412");
    expect(await outcome(get("conditional", { IfNoneMatch: '"other"' }))).toBe("OK");
    expect(await outcome(get("conditional", { IfNoneMatch: ETag }))).toMatch(/ 304$/);
    expect(await outcome(get("conditional", { IfModifiedSince: before }))).toBe("OK");
    expect(await outcome(get("conditional", { IfModifiedSince: LastModified }))).toMatch(/ 304$/);
    expect(await outcome(get("conditional", { IfUnmodifiedSince: before }))).toBe("PreconditionFailed 412");
    expect(await outcome(get("conditional", { IfUnmodifiedSince: LastModified }))).toBe("OK");
    expect(await outcome(head("conditional", { IfMatch: '"other"' }))).toMatch(/ 412$/);
  });

  it("answer 304 with what a cache holds the object by, and go on with the connection", async () => {
    const { ETag } = await put("cached", "x");
    const connection = await RawConnection.open(door);
    for (const method of ["GET", "HEAD", "GET"]) {
      connection.send({ method, target: `/${BUCKET}/cached`, headers: { "if-none-match": ETag as string } });
      const answer = await connection.response({ bodiless: true });
      expect(answer.status).toBe(304);
      expect(answer.headers.etag).toBe(ETag);
      expect(answer.headers["last-modified"]).toMatch(/ GMT$/);
    }
    connection.close();
  });
});

describe("conditional writes", () => {
  it("of If-None-Match: * are for a key that is not there", async () => {
    expect(await outcome(put("fresh", "1", { IfNoneMatch: "*" }))).toBe("OK");
    expect(await outcome(put("fresh", "2", { IfNoneMatch: "*" }))).toBe("PreconditionFailed 412");
    expect(await text("fresh")).toBe("1");
    await remove("fresh");
    expect(await outcome(put("fresh", "3", { IfNoneMatch: "*" }))).toBe("OK");
  });

  it("of If-Match are for the version that is known", async () => {
    expect(await outcome(put("known", "x", { IfMatch: '"any"' }))).toBe("NoSuchKey 404");
    const { ETag } = await put("known", "1");
    expect(await outcome(put("known", "2", { IfMatch: ETag }))).toBe("OK");
    expect(await outcome(put("known", "3", { IfMatch: ETag }))).toBe("PreconditionFailed 412");
    expect(await text("known")).toBe("2");
  });

  it("have one winner of twenty, where none was there", async () => {
    for (let round = 0; round < 5; round++) {
      const bodies = Array.from({ length: 20 }, (_, at) => `${round}/${at}/`.padEnd(100 * KIB, String(at)));
      const outcomes = await Promise.all(
        bodies.map((body) => outcome(put(`race/${round}`, body, { IfNoneMatch: "*" }))),
      );
      const winners = bodies.filter((_, at) => outcomes[at] === "OK");
      expect(winners).toHaveLength(1);
      expect(await text(`race/${round}`)).toBe(winners[0]);
      for (const lost of outcomes) expect(lost).toMatch(/^(OK|PreconditionFailed 412)$/);
    }
  });

  it("have one winner of twenty that saw the same version", async () => {
    const { ETag } = await put("race/seen", "before");
    const bodies = Array.from({ length: 20 }, (_, at) => `${at}/`.padEnd(100 * KIB, String(at)));
    const outcomes = await Promise.all(
      bodies.map((body) => outcome(put("race/seen", body, { IfMatch: ETag }))),
    );
    const winners = bodies.filter((_, at) => outcomes[at] === "OK");
    expect(winners).toHaveLength(1);
    expect(await text("race/seen")).toBe(winners[0]);
  });

  it("refuse what contradicts itself", async () => {
    expect(await outcome(put("both", "x", { IfMatch: '"a"', IfNoneMatch: "*" }))).toBe("InvalidArgument 400");
  });
});

describe("a put that breaks off", () => {
  it("leaves nothing, or what was there", async () => {
    await put("broken/over", "before");
    for (const key of ["broken/new", "broken/over"]) {
      const connection = await RawConnection.open(door);
      const body = randomBytes(MIB);
      connection.send(
        {
          method: "PUT",
          target: `/${BUCKET}/${key}`,
          headers: { "content-length": String(2 * MIB) },
          payloadHash: "UNSIGNED-PAYLOAD",
          body,
        },
        { body: true },
      );
      await sleep(100);
      connection.close();
    }
    await sleep(200);
    expect(await outcome(head("broken/new"))).toBe("NotFound 404");
    expect(await text("broken/over")).toBe("before");
  });

  it("is refused before its body where it says that it is too large", async () => {
    const answer = await raw({
      method: "PUT",
      target: `/${BUCKET}/huge`,
      headers: { "content-length": String(5 * 2 ** 30 + 1), expect: "100-continue" },
      payloadHash: "UNSIGNED-PAYLOAD",
    });
    expect(answer.status).toBe(400);
    expect(xmlText(answer, "Code")).toBe("EntityTooLarge");
  });
});

describe("a read", () => {
  const SIZE = 48 * MIB;

  it("is of one version, whatever happens to the key meanwhile", async () => {
    const pattern = new Pattern("pinned");
    await put("pinned", pattern.bytes(0, SIZE));
    const answer = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: "pinned" }));
    await put("pinned", new Pattern("after").bytes(0, SIZE));
    await remove("pinned");
    const bytes = Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
    expect(bytes.length).toBe(SIZE);
    expect(pattern.differs(bytes, 0)).toBeNull();
    expect(await outcome(head("pinned"))).toBe("NotFound 404");
  });

  it("of a client that leaves ends, and of one that is slow takes no memory but its window", async () => {
    await put("left", new Pattern("left").bytes(0, SIZE));
    const slow = await Promise.all(Array.from({ length: 8 }, () => RawConnection.open(door)));
    for (const connection of slow) {
      connection.socket.pause();
      connection.send({ method: "GET", target: `/${BUCKET}/left` });
    }
    await sleep(200);
    expect(await text("known")).toBe("2");
    for (const connection of slow) connection.close();
    const got = await get("left");
    expect(new Pattern("left").differs(got.bytes, 0)).toBeNull();
  });

  it("keeps the connection for the next", async () => {
    await put("small", "small");
    const connection = await RawConnection.open(door);
    for (let i = 0; i < 20; i++) {
      const key = i % 2 === 0 ? "small" : "ranged";
      connection.send({ method: "GET", target: `/${BUCKET}/${key}` });
      const answer = await connection.response();
      expect(answer.status).toBe(200);
      if (key === "small") expect(answer.body.toString()).toBe("small");
      else expect(new Pattern("ranged").differs(answer.body, 0)).toBeNull();
    }
    connection.close();
  });
});

describe("delete", () => {
  it("of what is not there succeeds", async () => {
    expect((await remove("never-was")).$metadata.httpStatusCode).toBe(204);
  });

  it("may be for a version", async () => {
    const { ETag } = await put("doomed", "x");
    expect(await outcome(remove("doomed", '"other"'))).toBe("PreconditionFailed 412");
    expect(await outcome(remove("doomed", ETag))).toBe("OK");
    expect(await outcome(remove("doomed", ETag))).toBe("OK");
    expect(await outcome(head("doomed"))).toBe("NotFound 404");
  });

  it("of many tells how each went", async () => {
    const keys = ["many/a", "many/ü & <b>", "many/c"];
    for (const key of keys) await put(key, "x");
    const answer = await s3.send(
      new DeleteObjectsCommand({
        Bucket: BUCKET,
        Delete: {
          Objects: [
            ...keys.map((Key) => ({ Key })),
            { Key: "many/never-was" },
            { Key: "known", ETag: '"other"' },
            { Key: "x".repeat(1025) },
            { Key: "known", VersionId: "1" },
          ],
        },
      }),
    );
    expect(answer.Deleted?.map(({ Key }) => Key)).toEqual([...keys, "many/never-was"]);
    expect(answer.Errors?.map(({ Code }) => Code)).toEqual([
      "PreconditionFailed",
      "KeyTooLongError",
      "InvalidArgument",
    ]);
    for (const key of keys) expect(await outcome(head(key))).toBe("NotFound 404");
    expect(await text("known")).toBe("2");
  });

  it("of many may be quiet", async () => {
    for (let at = 0; at < 10; at++) await put(`quiet/${at}`, "x");
    const Objects = Array.from({ length: 1000 }, (_, at) => ({ Key: `quiet/${at}` }));
    const answer = await s3.send(
      new DeleteObjectsCommand({ Bucket: BUCKET, Delete: { Objects, Quiet: true } }),
    );
    expect(answer.Deleted).toBeUndefined();
    expect(answer.Errors).toBeUndefined();
    expect(await outcome(head("quiet/9"))).toBe("NotFound 404");
  });

  it("of many is refused where it makes no sense", async () => {
    const send = (xml: string, headers: Record<string, string> = {}) => {
      const body = Buffer.from(xml);
      const contentMd5 = createHash("md5").update(body).digest("base64");
      return raw({
        method: "POST",
        target: `/${BUCKET}?delete`,
        headers: { "content-md5": contentMd5, ...headers },
        body,
      });
    };
    const one = "<Object><Key>k</Key></Object>";
    expect((await send(`<Delete>${one}</Delete>`)).status).toBe(200);
    for (const xml of [
      "",
      "<Delete/>",
      "<Delete><Object/></Delete>",
      "<Remove/>",
      "<Delete>",
      `<Delete>${one.repeat(1001)}</Delete>`,
    ]) {
      const answer = await send(xml);
      expect(`${answer.status} ${xmlText(answer, "Code")}`, xml.slice(0, 100)).toBe("400 MalformedXML");
    }
    const unchecked = await raw({
      method: "POST",
      target: `/${BUCKET}?delete`,
      body: Buffer.from(`<Delete>${one}</Delete>`),
    });
    expect(`${unchecked.status} ${xmlText(unchecked, "Code")}`).toBe("400 InvalidRequest");
  });
});

describe("attributes", () => {
  it("are those that were asked for", async () => {
    const answer = await put("attributes", "12345", { ChecksumAlgorithm: "SHA256" });
    const ask = (...names: ("ETag" | "Checksum" | "ObjectParts" | "StorageClass" | "ObjectSize")[]) =>
      s3.send(new GetObjectAttributesCommand({ Bucket: BUCKET, Key: "attributes", ObjectAttributes: names }));
    const all = await ask("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize");
    expect(all).toMatchObject({
      ETag: md5(Buffer.from("12345")),
      Checksum: { ChecksumSHA256: answer.ChecksumSHA256, ChecksumType: "FULL_OBJECT" },
      StorageClass: "STANDARD",
      ObjectSize: 5,
    });
    expect(all.LastModified).toEqual((await head("attributes")).LastModified);
    expect(all.ObjectParts).toBeUndefined();
    const some = await ask("ObjectSize");
    expect(some.ObjectSize).toBe(5);
    expect(some.ETag).toBeUndefined();
    const unknown = await raw({
      method: "GET",
      target: `/${BUCKET}/attributes?attributes`,
      headers: { "x-amz-object-attributes": "Colour" },
    });
    expect(xmlText(unknown, "Code")).toBe("InvalidArgument");
  });
});

describe("copy", () => {
  const SIZE = 5 * MIB + 1;
  const pattern = new Pattern("copied");
  const SOURCE = "copy/sourcé +&";
  let etag: string;
  const copy = (key: string, more: Partial<CopyObjectCommandInput> = {}) =>
    s3.send(
      new CopyObjectCommand({
        Bucket: BUCKET,
        Key: key,
        CopySource: `${BUCKET}/${encodeURIComponent(SOURCE)}`,
        ...more,
      }),
    );
  beforeAll(async () => {
    const answer = await put(SOURCE, pattern.bytes(0, SIZE), {
      ContentType: "text/copied",
      Metadata: { colour: "red" },
      Tagging: "kind=source",
      ChecksumAlgorithm: "CRC32",
    });
    etag = answer.ETag as string;
  });

  it("is the source again, within a bucket and between two", async () => {
    const answer = await copy("copy/same");
    expect(answer.CopyObjectResult).toMatchObject({ ETag: etag });
    const got = await get("copy/same", { ChecksumMode: "ENABLED" });
    expect(got).toMatchObject({
      ETag: etag,
      ContentType: "text/copied",
      Metadata: { colour: "red" },
      TagCount: 1,
    });
    expect(got.ChecksumCRC32).toBeTruthy();
    expect(got.bytes.length).toBe(SIZE);
    expect(pattern.differs(got.bytes, 0)).toBeNull();

    await copy("copy/there", {
      Bucket: OTHER,
      CopySource: `/${BUCKET}/${encodeURIComponent(SOURCE)}?versionId=null`,
    });
    const there = await s3.send(new GetObjectCommand({ Bucket: OTHER, Key: "copy/there" }));
    const bytes = Buffer.from((await there.Body?.transformToByteArray()) ?? []);
    expect(pattern.differs(bytes, 0)).toBeNull();
    expect(there.ETag).toBe(etag);
  });

  it("may be described anew", async () => {
    const answer = await copy("copy/new", {
      MetadataDirective: "REPLACE",
      ContentType: "text/new",
      Metadata: { shape: "round" },
    });
    expect(answer.CopyObjectResult?.ETag).toBe(etag);
    const got = await get("copy/new");
    expect(got).toMatchObject({
      ETag: etag,
      ContentType: "text/new",
      Metadata: { shape: "round" },
      TagCount: 1,
    });
    expect(pattern.differs(got.bytes, 0)).toBeNull();
    await copy("copy/untagged", { TaggingDirective: "REPLACE", Tagging: "" });
    expect(await get("copy/untagged")).toMatchObject({
      ContentType: "text/copied",
      Metadata: { colour: "red" },
    });
    expect((await get("copy/untagged")).TagCount).toBeUndefined();
  });

  it("onto itself changes what is said of it, or nothing and is refused", async () => {
    await put("copy/self", "self", { Metadata: { a: "1" } });
    const CopySource = `${BUCKET}/copy/self`;
    expect(await outcome(copy("copy/self", { CopySource }))).toBe("InvalidRequest 400");
    await copy("copy/self", { CopySource, MetadataDirective: "REPLACE", Metadata: { a: "2" } });
    expect(await get("copy/self")).toMatchObject({ Metadata: { a: "2" } });
    expect(await text("copy/self")).toBe("self");
  });

  it("gets the checksum that is asked for", async () => {
    const bytes = pattern.bytes(0, SIZE);
    const answer = await copy("copy/summed", { ChecksumAlgorithm: "SHA256" });
    const sum = createHash("sha256").update(bytes).digest("base64");
    expect(answer.CopyObjectResult?.ChecksumSHA256).toBe(sum);
    const found = await head("copy/summed", { ChecksumMode: "ENABLED" });
    expect(found.ChecksumSHA256).toBe(sum);
    expect(found.ChecksumCRC32).toBeUndefined();
  });

  it("holds to conditions of the source and of its own key", async () => {
    expect(await outcome(copy("copy/if", { CopySourceIfMatch: etag }))).toBe("OK");
    expect(await outcome(copy("copy/if", { CopySourceIfMatch: '"other"' }))).toBe("PreconditionFailed 412");
    expect(await outcome(copy("copy/if", { CopySourceIfNoneMatch: etag }))).toBe("PreconditionFailed 412");
    expect(await outcome(copy("copy/if", { CopySourceIfNoneMatch: '"other"' }))).toBe("OK");
    const past = new Date("2001-01-01");
    expect(await outcome(copy("copy/if", { CopySourceIfUnmodifiedSince: past }))).toBe(
      "PreconditionFailed 412",
    );
    expect(await outcome(copy("copy/if", { CopySourceIfModifiedSince: past }))).toBe("OK");
    expect(await outcome(copy("copy/if", { IfNoneMatch: "*" }))).toBe("PreconditionFailed 412");
    expect(await outcome(copy("copy/if", { IfMatch: etag }))).toBe("OK");
  });

  it("tells what there is not and what makes no sense", async () => {
    expect(await outcome(copy("c", { CopySource: `${BUCKET}/nothing` }))).toBe("NoSuchKey 404");
    expect(await outcome(copy("c", { CopySource: "no-bucket/key" }))).toBe("NoSuchBucket 404");
    for (const CopySource of ["", "/", BUCKET, `${BUCKET}/`, "%ff/x", `${BUCKET}/x?versionId=7`]) {
      const answer = await raw({
        method: "PUT",
        target: `/${BUCKET}/c`,
        headers: { "x-amz-copy-source": CopySource },
      });
      expect(`${answer.status} ${xmlText(answer, "Code")}`, CopySource).toBe("400 InvalidArgument");
    }
    const answer = await raw({
      method: "PUT",
      target: `/${BUCKET}/c`,
      headers: { "x-amz-copy-source": `${BUCKET}/known`, "x-amz-metadata-directive": "MERGE" },
    });
    expect(xmlText(answer, "Code")).toBe("InvalidArgument");
    expect(await outcome(head("c"))).toBe("NotFound 404");
  });

  it("reads no further than the keys that a session has", async () => {
    const { accessKey, secretKey, sessionToken } = await client.issueCredentials(BUCKET, { prefix: "mine/" });
    const session = door.client({
      credentials: { accessKeyId: accessKey, secretAccessKey: secretKey, sessionToken },
    });
    const tell = (key: string, source: string) =>
      outcome(session.send(new CopyObjectCommand({ Bucket: BUCKET, Key: key, CopySource: source })));
    await put("mine/a", "mine");
    await put("theirs", "theirs");
    expect(await tell("mine/b", `${BUCKET}/mine/a`)).toBe("OK");
    expect(await tell("mine/c", `${BUCKET}/theirs`)).toBe("AccessDenied 403");
    expect(await tell("mine/c", `${OTHER}/copy/there`)).toBe("AccessDenied 403");
    const answer = await session.send(
      new DeleteObjectsCommand({
        Bucket: BUCKET,
        Delete: { Objects: [{ Key: "mine/a" }, { Key: "theirs" }] },
      }),
    );
    expect(answer.Deleted?.map(({ Key }) => Key)).toEqual(["mine/a"]);
    expect(answer.Errors).toMatchObject([{ Key: "theirs", Code: "AccessDenied" }]);
    expect(await text("theirs")).toBe("theirs");
    session.destroy();
  });
});

describe("the same object by two doors", () => {
  it.each([0, 1, 100, 5 * MIB + 1])("is one, put through S3 (%i bytes)", async (size) => {
    const bytes = new Pattern("by-s3").bytes(0, size);
    await put(`doors/s3-${size}`, bytes);
    expect(namespace.transport).toBe("shm");
    expect(Buffer.from(await namespace.get(`doors/s3-${size}`)).equals(bytes)).toBe(true);
  });

  it.each([0, 1, 100, 5 * MIB + 1])("is one, put through shared memory (%i bytes)", async (size) => {
    const bytes = new Pattern("by-shm").bytes(0, size);
    const key = `doors/shm-${size}`;
    await namespace.put(key, bytes);
    const got = await get(key);
    expect(got.bytes.equals(bytes)).toBe(true);
    expect(got.ContentType).toBe("binary/octet-stream");
    // No MD5 is known of it, so it has an ETag that nobody takes for one, and that changes with it.
    expect(got.ETag).toMatch(/^"[0-9a-f]{32}-1"$/);
    expect((await head(key)).ETag).toBe(got.ETag);
    expect(await outcome(get(key, { IfNoneMatch: got.ETag }))).toMatch(/ 304$/);
    expect(await outcome(put(key, "next", { IfMatch: got.ETag }))).toBe("OK");
    await namespace.put(key, bytes);
    expect((await head(key)).ETag).not.toBe(got.ETag);
    await s3.send(
      new CopyObjectCommand({ Bucket: BUCKET, Key: `${key}-copy`, CopySource: `${BUCKET}/${key}` }),
    );
    expect((await get(`${key}-copy`)).bytes.equals(bytes)).toBe(true);
  });
});

describe("a store without room", () => {
  it("makes a put wait until there is some", async () => {
    const small = await startS3Daemon({ dram: "128MiB" });
    const client = small.client();
    const send = (key: string) => {
      const body = new Pattern(key).bytes(0, 40 * MIB);
      return client.send(new PutObjectCommand({ Bucket: "full", Key: key, Body: body }));
    };
    try {
      await client.send(new CreateBucketCommand({ Bucket: "full" }));
      for (const key of ["first", "second", "third"]) await send(key);
      const fourth = send("fourth");
      const state = new Promise<string>((resolve) => {
        setTimeout(() => resolve("waiting"), 1000);
        fourth.then(
          () => resolve("done"),
          () => resolve("failed"),
        );
      });
      expect(await state).toBe("waiting");
      for (const Key of ["first", "second"])
        await client.send(new DeleteObjectCommand({ Bucket: "full", Key }));
      await fourth;
      const got = await client.send(new GetObjectCommand({ Bucket: "full", Key: "fourth" }));
      const bytes = await got.Body?.transformToByteArray();
      expect(new Pattern("fourth").differs(bytes as Uint8Array, 0)).toBeNull();
    } finally {
      client.destroy();
      await small.daemon.stop();
    }
  });
});

describe("objects in files", () => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-s3-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("are given out, whole and in ranges, and cut off where they are damaged", async () => {
    const tiered = await startS3Daemon({ dram: "64MiB", args: ["--nvme", `${folder}:1GiB`] });
    const client = tiered.client();
    const Bucket = "tiered";
    const send = (Key: string, sizeBytes: number) =>
      client.send(new PutObjectCommand({ Bucket, Key, Body: new Pattern(Key).bytes(0, sizeBytes) }));
    const read = async (Key: string, Range?: string) => {
      const answer = await client.send(new GetObjectCommand({ Bucket, Key, Range }));
      return Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
    };
    try {
      await client.send(new CreateBucketCommand({ Bucket }));
      for (const key of ["good", "bad"]) await send(key, 8 * MIB);
      // Memory has room for less than half of these.
      for (let at = 0; at < 40; at++) await send(`filler-${at}`, 4 * MIB);
      expect(damageFiles(folder, new Pattern("bad").bytes(6 * MIB, 4 * KIB))).toBe(1);
      await expect(read("bad")).rejects.toThrow();
      await until(async () => tiered.daemon.log().includes("could not be read to its end"));

      const good = new Pattern("good");
      expect(good.differs(await read("good"), 0)).toBeNull();
      expect(good.differs(await read("good", "bytes=5000000-6999999"), 5_000_000)).toBeNull();
      expect(good.differs(await read("good", "bytes=100-200"), 100)).toBeNull();
    } finally {
      client.destroy();
      await tiered.daemon.stop();
    }
  });
});
