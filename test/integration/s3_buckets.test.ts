/** Buckets and listings through the S3 door, by Amazon's client and byte by byte, against a real daemon. */
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetBucketAclCommand,
  GetBucketLocationCommand,
  GetBucketVersioningCommand,
  HeadBucketCommand,
  ListBucketsCommand,
  ListObjectsCommand,
  type ListObjectsCommandInput,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  ListObjectVersionsCommand,
  PutBucketAclCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { RawConnection, rawRequest, type S3Daemon, startS3Daemon, xmlText } from "../support/s3.js";

let door: S3Daemon;
let s3: S3Client;
let millrace: Client;

beforeAll(async () => {
  door = await startS3Daemon();
  s3 = door.client();
  millrace = await connect(door.daemon.endpoint);
});

afterAll(async () => {
  s3?.destroy();
  await millrace?.close();
  await door?.daemon.stop();
});

/** Fills a bucket through another door, which is faster, and says the same. */
async function fill(bucket: string, keys: readonly string[]): Promise<void> {
  const namespace: Namespace = await millrace.openNamespace(bucket);
  for (const key of keys) await namespace.put(key, Buffer.from(key));
  await namespace.close();
}

async function allV2(
  input: ListObjectsV2CommandInput,
): Promise<{ keys: string[]; prefixes: string[]; pages: number }> {
  const found = { keys: [] as string[], prefixes: [] as string[], pages: 0 };
  let token: string | undefined;
  do {
    const page = await s3.send(new ListObjectsV2Command({ ...input, ContinuationToken: token }));
    found.keys.push(...(page.Contents ?? []).map(({ Key }) => Key as string));
    found.prefixes.push(...(page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix as string));
    expect(page.KeyCount).toBe((page.Contents?.length ?? 0) + (page.CommonPrefixes?.length ?? 0));
    found.pages += 1;
    token = page.NextContinuationToken;
    expect(page.IsTruncated).toBe(token !== undefined);
  } while (token !== undefined);
  return found;
}

async function allV1(input: ListObjectsCommandInput): Promise<{ keys: string[]; prefixes: string[] }> {
  const found = { keys: [] as string[], prefixes: [] as string[] };
  let marker: string | undefined;
  for (;;) {
    const page = await s3.send(new ListObjectsCommand({ ...input, Marker: marker }));
    found.keys.push(...(page.Contents ?? []).map(({ Key }) => Key as string));
    found.prefixes.push(...(page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix as string));
    if (page.IsTruncated !== true) return found;
    marker = page.NextMarker ?? page.Contents?.at(-1)?.Key;
  }
}

const code = (error: unknown) => (error as { name: string }).name;

describe("buckets", () => {
  it("are made, found, listed and removed", async () => {
    expect(await s3.send(new CreateBucketCommand({ Bucket: "one" }))).toMatchObject({ Location: "/one" });
    await s3.send(
      new CreateBucketCommand({
        Bucket: "another.bucket",
        CreateBucketConfiguration: { LocationConstraint: "eu-central-1" },
      }),
    );
    await s3.send(new HeadBucketCommand({ Bucket: "one" }));
    const { Buckets, Owner } = await s3.send(new ListBucketsCommand({}));
    expect(Buckets?.map(({ Name }) => Name)).toEqual(["another.bucket", "one"]);
    expect(Buckets?.[0]?.CreationDate).toBeInstanceOf(Date);
    expect(Owner?.ID).toBe("millrace");
    const first = await s3.send(new ListBucketsCommand({ MaxBuckets: 1 }));
    expect(first.Buckets?.map(({ Name }) => Name)).toEqual(["another.bucket"]);
    const rest = await s3.send(new ListBucketsCommand({ ContinuationToken: first.ContinuationToken }));
    expect(rest.Buckets?.map(({ Name }) => Name)).toEqual(["one"]);
    expect((await s3.send(new ListBucketsCommand({ Prefix: "on" }))).Buckets).toHaveLength(1);

    expect(
      (await s3.send(new GetBucketLocationCommand({ Bucket: "one" }))).LocationConstraint,
    ).toBeUndefined();
    expect((await s3.send(new GetBucketVersioningCommand({ Bucket: "one" }))).Status).toBeUndefined();
    expect((await s3.send(new GetBucketAclCommand({ Bucket: "one" }))).Grants).toMatchObject([
      { Grantee: { ID: "millrace" }, Permission: "FULL_CONTROL" },
    ]);
    await s3.send(new PutBucketAclCommand({ Bucket: "one", ACL: "private" }));

    await s3.send(new DeleteBucketCommand({ Bucket: "one" }));
    await s3.send(new DeleteBucketCommand({ Bucket: "another.bucket" }));
    expect((await s3.send(new ListBucketsCommand({}))).Buckets ?? []).toEqual([]);
  });

  it("are namespaces with the longest lease", async () => {
    await s3.send(new CreateBucketCommand({ Bucket: "leased" }));
    const namespace = (await millrace.listNamespaces()).find(({ name }) => name === "leased");
    expect(namespace?.leaseRemainingMs).toBeGreaterThan(6.9 * 24 * 3_600_000);
    await s3.send(new DeleteBucketCommand({ Bucket: "leased" }));
    const made = await millrace.createNamespace("made-elsewhere");
    await made.put("key", Buffer.from("value"));
    expect((await allV2({ Bucket: "made-elsewhere" })).keys).toEqual(["key"]);
    await made.close();
    await millrace.deleteNamespace("made-elsewhere");
  });

  it("refuse what cannot be", async () => {
    await s3.send(new CreateBucketCommand({ Bucket: "taken" }));
    const outcome = (sent: Promise<unknown>) => sent.then(() => "done", code);
    expect(await outcome(s3.send(new CreateBucketCommand({ Bucket: "taken" })))).toBe(
      "BucketAlreadyOwnedByYou",
    );
    expect(await outcome(s3.send(new CreateBucketCommand({ Bucket: "Not_A_Bucket" })))).toBe(
      "InvalidBucketName",
    );
    expect(await outcome(s3.send(new CreateBucketCommand({ Bucket: "public", ACL: "public-read" })))).toBe(
      "NotImplemented",
    );
    expect(await outcome(s3.send(new DeleteBucketCommand({ Bucket: "missing" })))).toBe("NoSuchBucket");
    expect(await outcome(s3.send(new HeadBucketCommand({ Bucket: "missing" })))).toBe("NotFound");
    expect(await outcome(s3.send(new ListObjectsV2Command({ Bucket: "missing" })))).toBe("NoSuchBucket");
    const put = new PutObjectCommand({ Bucket: "missing", Key: "k", Body: "v" });
    expect(await outcome(s3.send(put))).toBe("NoSuchBucket");
    expect(
      await outcome(
        s3.send(
          new PutBucketVersioningCommand({ Bucket: "taken", VersioningConfiguration: { Status: "Enabled" } }),
        ),
      ),
    ).toBe("NotImplemented");
    await s3.send(new PutObjectCommand({ Bucket: "taken", Key: "k", Body: "v" }));
    expect(await outcome(s3.send(new DeleteBucketCommand({ Bucket: "taken" })))).toBe("BucketNotEmpty");
    await s3.send(new DeleteObjectCommand({ Bucket: "taken", Key: "k" }));
    expect(await outcome(s3.send(new DeleteBucketCommand({ Bucket: "taken" })))).toBe("done");
  });
});

describe("listings", () => {
  // Bytes of UTF-8 order U+FFxx before what lies beyond the first plane; UTF-16 does not.
  const ODD = [
    " leading",
    "a b+c%20&=?#",
    "a//b",
    "a/",
    "a/../b",
    "quotes \"' <xml>&amp;",
    "trailing/",
    "tab\tnewline\nreturn\r",
    "ｆｕｌｌ",
    "😀",
    "grüße",
    "\u0001control",
    "~tilde!*'()",
  ].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const tree = ["a", "b/1", "b/2", "b/c/1", "b/c/2", "b0", "d/1", "e"];

  beforeAll(async () => {
    for (const Bucket of ["many", "odd", "tree"]) await s3.send(new CreateBucketCommand({ Bucket }));
    await fill(
      "many",
      Array.from({ length: 2_500 }, (_, i) => `dir${i % 5}/key-${String(i).padStart(5, "0")}`),
    );
    await fill("odd", ODD);
    await fill("tree", tree);
  }, 120_000);

  it("give 2,500 keys in their order, in pages", async () => {
    const { keys, pages } = await allV2({ Bucket: "many" });
    expect(keys).toHaveLength(2_500);
    expect(keys).toEqual([...keys].sort());
    expect(pages).toBe(3);
    expect((await allV1({ Bucket: "many" })).keys).toEqual(keys);
    expect((await allV2({ Bucket: "many", MaxKeys: 500 })).pages).toBe(5);
    expect((await allV2({ Bucket: "many", MaxKeys: 617, Prefix: "dir3/" })).keys).toEqual(
      keys.filter((key) => key.startsWith("dir3/")),
    );
    const page = await s3.send(new ListObjectsV2Command({ Bucket: "many", MaxKeys: 5_000 }));
    expect(page).toMatchObject({ MaxKeys: 1_000, KeyCount: 1_000, Name: "many", Prefix: "" });
    expect(page.Contents?.[0]).toMatchObject({
      Key: "dir0/key-00000",
      Size: 14,
      StorageClass: "STANDARD",
      ETag: expect.stringMatching(/^"[0-9a-f]{32}-1"$/),
    });
    expect(page.Contents?.[0]?.Owner).toBeUndefined();
    const owned = await s3.send(new ListObjectsV2Command({ Bucket: "many", MaxKeys: 1, FetchOwner: true }));
    expect(owned.Contents?.[0]?.Owner?.ID).toBe("millrace");
    expect(await s3.send(new ListObjectsV2Command({ Bucket: "many", MaxKeys: 0 }))).toMatchObject({
      KeyCount: 0,
      IsTruncated: false,
    });
  });

  it("roll keys up into common prefixes", async () => {
    const five = ["dir0/", "dir1/", "dir2/", "dir3/", "dir4/"];
    for (const MaxKeys of [1, 2, 4, 5, 1_000]) {
      expect(await allV2({ Bucket: "many", Delimiter: "/", MaxKeys })).toMatchObject({
        keys: [],
        prefixes: five,
      });
      expect(await allV1({ Bucket: "many", Delimiter: "/", MaxKeys })).toEqual({ keys: [], prefixes: five });
    }
    for (const MaxKeys of [1, 2, 3, 4, 5, 6]) {
      const asked = { Bucket: "tree", Delimiter: "/", MaxKeys };
      const expected = { keys: ["a", "b0", "e"], prefixes: ["b/", "d/"] };
      expect(await allV1(asked)).toEqual(expected);
      expect(await allV2(asked)).toMatchObject(expected);
      expect(await allV2({ ...asked, Prefix: "b/" })).toMatchObject({
        keys: ["b/1", "b/2"],
        prefixes: ["b/c/"],
      });
      expect(await allV2({ ...asked, Delimiter: "/c/", Prefix: "" })).toMatchObject({
        keys: tree.filter((key) => !key.startsWith("b/c/")),
        prefixes: ["b/c/"],
      });
    }
    expect(await allV2({ Bucket: "tree", Prefix: "b", Delimiter: "/" })).toMatchObject({
      keys: ["b0"],
      prefixes: ["b/"],
    });
    expect(await allV2({ Bucket: "tree", Prefix: "b", Delimiter: "none" })).toMatchObject({ prefixes: [] });
    const first = await s3.send(new ListObjectsCommand({ Bucket: "tree", Delimiter: "/", MaxKeys: 2 }));
    expect(first).toMatchObject({ NextMarker: "b/", IsTruncated: true, Delimiter: "/" });
    const plain = await s3.send(new ListObjectsCommand({ Bucket: "tree", MaxKeys: 2 }));
    expect(plain.NextMarker).toBeUndefined();
  });

  it("start after any key, there or not", async () => {
    expect((await allV2({ Bucket: "tree", StartAfter: "b/2" })).keys).toEqual(tree.slice(3));
    expect((await allV2({ Bucket: "tree", StartAfter: "b/15" })).keys).toEqual(tree.slice(2));
    expect((await allV2({ Bucket: "tree", StartAfter: "zzz" })).keys).toEqual([]);
    expect((await allV2({ Bucket: "tree", StartAfter: "a", Prefix: "b/" })).keys).toEqual(tree.slice(1, 5));
    const versions = await s3.send(new ListObjectVersionsCommand({ Bucket: "tree", MaxKeys: 3 }));
    expect(versions).toMatchObject({ IsTruncated: true, NextKeyMarker: "b/2" });
    expect(versions.Versions?.map(({ Key, VersionId }) => [Key, VersionId])).toEqual(
      tree.slice(0, 3).map((key) => [key, "null"]),
    );
  });

  it("carry odd keys, in the order of their bytes", async () => {
    const visible = ODD.filter((key) => key !== "\u0001control");
    const { keys } = await allV2({ Bucket: "odd", EncodingType: "url" });
    expect(keys.map(decodeURIComponent)).toEqual(ODD);
    expect(keys).toContain("a%20b%2Bc%2520%26%3D%3F%23");
    expect(keys).toContain("a/../b");
    const plain = await allV2({ Bucket: "odd" });
    expect(plain.keys).toEqual(ODD.map((key) => key.replace("\u0001", "\ufffd")));
    for (const key of visible) {
      expect((await allV2({ Bucket: "odd", Prefix: key })).keys).toContain(key);
    }
    for (const MaxKeys of [1, 3])
      expect((await allV1({ Bucket: "odd", MaxKeys, Prefix: "a" })).keys).toHaveLength(4);
  });

  it.each([
    ["max-keys=-1", "InvalidArgument"],
    ["max-keys=many", "InvalidArgument"],
    ["encoding-type=html", "InvalidArgument"],
    ["list-type=3", "InvalidArgument"],
    ["list-type=2&continuation-token=%21", "InvalidArgument"],
    ["policy", "NotImplemented"],
    ["cors", "NotImplemented"],
    ["delete", "NotImplemented"],
    ["versionId=1", "InvalidArgument"],
  ])("refuse ?%s", async (query, expected) => {
    const response = await rawRequest(door, { method: "GET", target: `/tree?${query}` });
    expect(xmlText(response, "Code")).toBe(expected);
    expect(xmlText(response, "Resource")).toBe("/tree");
    expect(xmlText(response, "RequestId")).toBe(response.headers["x-amz-request-id"]);
  });

  it.each(["prefix", "marker", "delimiter"])("refuse a %s longer than any key", async (name) => {
    const target = `/tree?${name}=${"p".repeat(1_025)}`;
    expect(xmlText(await rawRequest(door, { method: "GET", target }), "Code")).toBe("KeyTooLongError");
  });

  it("are emptied with multi-delete", async () => {
    const { keys } = await allV2({ Bucket: "many" });
    for (let at = 0; at < keys.length; at += 1_000) {
      const Objects = keys.slice(at, at + 1_000).map((Key) => ({ Key }));
      const { Errors } = await s3.send(
        new DeleteObjectsCommand({ Bucket: "many", Delete: { Objects, Quiet: true } }),
      );
      expect(Errors ?? []).toEqual([]);
    }
    await s3.send(new DeleteBucketCommand({ Bucket: "many" }));
  });
});

describe("the door", () => {
  it("names buckets by path and by host", async () => {
    await s3.send(new CreateBucketCommand({ Bucket: "hosted" }));
    await fill("hosted", ["k"]);
    const response = await rawRequest(door, {
      method: "GET",
      target: "/?list-type=2",
      headers: { host: `hosted.localhost:${door.port}` },
    });
    expect(response.status).toBe(200);
    expect(xmlText(response, "Key")).toBe("k");
  });

  it("keeps a connection after an answer, good or bad", async () => {
    const connection = await RawConnection.open(door);
    for (const [method, target, status] of [
      ["GET", "/", 200],
      ["GET", "/missing-bucket", 404],
      ["HEAD", "/missing-bucket", 404],
      ["PATCH", "/", 405],
      ["GET", "/%ff", 400],
      ["PUT", "/missing-bucket/key", 404],
      ["GET", "/", 200],
    ] as const) {
      connection.send({ method, target, ...(method === "PUT" ? { body: Buffer.from("body") } : {}) });
      const response = await connection.response({ bodiless: method === "HEAD" });
      expect(response.status).toBe(status);
      expect(response.headers).toMatchObject({
        server: "Millrace",
        date: expect.any(String),
        "x-amz-request-id": expect.stringMatching(/^[0-9A-F]{16}$/),
        "x-amz-id-2": expect.any(String),
      });
    }
    connection.close();
  });

  it("answers a refused put before its body, and says that the connection ends", async () => {
    const awaiting = await RawConnection.open(door);
    const request = { method: "PUT", target: "/missing-bucket/key", body: Buffer.alloc(1 << 20) };
    awaiting.send({ ...request, headers: { expect: "100-continue" } }, { body: false });
    const refused = await awaiting.response();
    expect({ status: refused.status, connection: refused.headers.connection }).toEqual({
      status: 404,
      connection: "close",
    });
    await awaiting.closed();
    const sending = await RawConnection.open(door);
    sending.send(request);
    const drained = await sending.response();
    expect({ status: drained.status, code: xmlText(drained, "Code") }).toEqual({
      status: 404,
      code: "NoSuchBucket",
    });
    await sending.closed();
  });

  it.each([
    ["garbage", "GARBAGE\r\n\r\n", 400, "BadRequest"],
    ["a negative length", "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400, "BadRequest"],
    [
      "long headers",
      `GET / HTTP/1.1\r\nhost: x\r\nbig: ${"x".repeat(70_000)}\r\n\r\n`,
      431,
      "RequestHeaderSectionTooLarge",
    ],
    ["a long URL", `GET /${"x".repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, 400, "InvalidURI"],
    ["no signature", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", 403, "AccessDenied"],
    ["no host", "GET / HTTP/1.1\r\n\r\n", 403, "AccessDenied"],
  ])("answers %s with XML", async (_, bytes, status, expected) => {
    const connection = await RawConnection.open(door);
    connection.write(bytes);
    const response = await connection.response();
    expect({ status: response.status, code: xmlText(response, "Code") }).toEqual({ status, code: expected });
    connection.close();
  });

  it("refuses wrong keys", async () => {
    const asked = async (keys: { accessKey: string; secretKey: string } | null) => {
      const response = await rawRequest(door, { method: "GET", target: "/", keys });
      return [response.status, xmlText(response, "Code")];
    };
    expect(await asked({ accessKey: "test-key", secretKey: "wrong" })).toEqual([
      403,
      "SignatureDoesNotMatch",
    ]);
    expect(await asked({ accessKey: "wrong", secretKey: "test-secret" })).toEqual([
      403,
      "InvalidAccessKeyId",
    ]);
    expect(await asked(null)).toEqual([403, "AccessDenied"]);
  });

  it("takes anybody on this machine where it has no keys", async () => {
    const open = await startS3Daemon({ keys: false, args: ["--log-level", "debug"] });
    try {
      const target = { method: "GET", target: "/" };
      expect((await rawRequest(open, { ...target, keys: null })).status).toBe(200);
      const local = { accessKey: "millrace", secretKey: "millrace-local-only" };
      expect((await rawRequest(open, { ...target, keys: local })).status).toBe(200);
      expect((await rawRequest(open, target)).status).toBe(403);
      expect(open.daemon.log()).toMatch(/"operation":"ListBuckets","status":200/);
    } finally {
      expect(await open.daemon.stop()).toEqual({ code: 0, signal: null });
    }
  });

  it("is told of by the node, and not its secret by the log", async () => {
    expect((await millrace.describeNode()).s3Address).toBe(door.daemon.s3Address);
    expect(door.daemon.log()).toMatch(/test-key/);
    expect(door.daemon.log()).not.toMatch(/test-secret/);
  });

  it("ends while clients hold connections", async () => {
    const other = await startS3Daemon();
    const connection = await RawConnection.open(other);
    connection.send({ method: "GET", target: "/" });
    expect((await connection.response()).status).toBe(200);
    expect(await other.daemon.stop()).toEqual({ code: 0, signal: null });
    await connection.closed();
  });
});
