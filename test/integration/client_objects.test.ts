/** Objects through the SDK against a real node, the same suite over every transport. */
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type Client,
  connect,
  type Namespace,
  type ObjectEvent,
  type TransportKind,
} from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

const MIB = 1 << 20;
const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];

let daemon: Daemon;
beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});

let names = 0;
const freshName = () => `objects-${process.pid}-${names++}`;

const failsWith = (code: string, more: object = {}) => expect.objectContaining({ code, ...more });
const digest = (bytes: Uint8Array) => createHash("sha1").update(bytes).digest("hex");

describe.each(KINDS)("objects over %s", (kind) => {
  let client: Client;
  let namespace: Namespace;
  beforeEach(async () => {
    client = await connect(daemon.endpoint, { transport: kind });
    namespace = await client.createNamespace(freshName());
  });
  afterEach(async () => {
    await client.deleteNamespace(namespace.name).catch(() => {});
    await client.close();
  });

  it("says what carries the bytes", () => {
    expect(namespace.transport).toBe(kind);
  });

  it.each([0, 1, 1024, MIB - 1, MIB, 5 * MIB + 1])("puts and gets %i bytes", async (sizeBytes) => {
    const data = randomBytes(sizeBytes);
    const info = await namespace.put("object", data);
    expect(info.sizeBytes).toBe(sizeBytes);
    expect(info.sequence).toBeGreaterThan(0);
    const got = await namespace.getWithInfo("object");
    expect(got.bytes.length).toBe(sizeBytes);
    expect(Buffer.compare(got.bytes, data)).toBe(0);
    expect(got.info).toEqual(info);
    expect(await namespace.head("object")).toEqual(info);
  });

  it("stores strings as UTF-8", async () => {
    await namespace.put("text", "für 🦀");
    expect(Buffer.from(await namespace.get("text")).toString()).toBe("für 🦀");
  });

  it("takes any key of UTF-8 up to 1,024 bytes", async () => {
    const keys = [
      "a",
      "/",
      "//a/",
      "a b\tc\n",
      "\0",
      "ключ/🦀",
      ".",
      "..",
      "k".repeat(1024),
      "é".repeat(512),
    ];
    for (const key of keys) await namespace.put(key, `value of ${key}`);
    for (const key of keys) {
      expect(Buffer.from(await namespace.get(key)).toString()).toBe(`value of ${key}`);
      expect(Buffer.from(await namespace.get(Buffer.from(key))).toString()).toBe(`value of ${key}`);
    }
    const listed: string[] = [];
    for await (const { key } of namespace.list()) listed.push(key);
    expect(listed).toEqual([...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    await expect(namespace.put("k".repeat(1025), "")).rejects.toThrow(failsWith("KEY_TOO_LONG"));
    await expect(namespace.get("")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(namespace.put("a\ud800", "")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
  });

  it("reads ranges", async () => {
    const data = randomBytes(3 * MIB + 7);
    await namespace.put("object", data);
    const ranges = [
      [0, 1],
      [0, data.length],
      [1, 100],
      [MIB - 3, 6],
      [data.length - 1, 1],
      [17, 2 * MIB + 5],
    ] as const;
    for (const [offset, length] of ranges) {
      const bytes = await namespace.get("object", { offset, length });
      expect(Buffer.compare(bytes, data.subarray(offset, offset + length))).toBe(0);
    }
    expect(Buffer.compare(await namespace.get("object", { offset: 5 }), data.subarray(5))).toBe(0);
    expect(Buffer.compare(await namespace.get("object", { length: 5 }), data.subarray(0, 5))).toBe(0);
    for (const range of [
      { offset: 3, length: 0 },
      { offset: data.length },
      { offset: data.length, length: 0 },
    ]) {
      expect((await namespace.get("object", range)).length).toBe(0);
    }
    for (const range of [
      { offset: data.length + 1 },
      { offset: 1, length: data.length },
      { offset: data.length, length: 1 },
      { offset: data.length + 1, length: 0 },
    ]) {
      await expect(namespace.get("object", range)).rejects.toThrow(failsWith("OUT_OF_RANGE"));
    }
    await expect(namespace.get("object", { offset: -1 })).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
  });

  it("tells what is not there", async () => {
    await expect(namespace.get("nothing")).rejects.toThrow(failsWith("NOT_FOUND", { retryable: false }));
    expect(await namespace.tryGet("nothing")).toBeNull();
    expect(await namespace.tryGet("nothing", { offset: 0, length: 0 })).toBeNull();
    expect(await namespace.head("nothing")).toBeNull();
    expect(await namespace.exists("nothing")).toBe(false);
    expect(await namespace.delete("nothing")).toBe(false);
    await expect(namespace.copy("nothing", "other")).rejects.toThrow(failsWith("NOT_FOUND"));
  });

  it("keeps what was read as it was, through overwrite and delete", async () => {
    const before = randomBytes(100_000);
    await namespace.put("object", before);
    const held = await namespace.get("object");
    const first = await namespace.head("object");
    for (let i = 0; i < 20; i++) await namespace.put("object", randomBytes(100_000));
    expect((await namespace.head("object"))?.sequence).toBeGreaterThan(first?.sequence as number);
    expect(await namespace.delete("object")).toBe(true);
    expect(await namespace.exists("object")).toBe(false);
    for (let i = 0; i < 20; i++) await namespace.put(`other-${i}`, randomBytes(100_000));
    expect(Buffer.compare(held, before)).toBe(0);
  });

  it("copies", async () => {
    const data = randomBytes(MIB + 1);
    await namespace.put("from", data);
    const info = await namespace.copy("from", "to");
    expect(info.sizeBytes).toBe(data.length);
    await namespace.delete("from");
    expect(Buffer.compare(await namespace.get("to"), data)).toBe(0);
    await namespace.put("from", "again");
    await expect(namespace.copy("from", "to", { ifAbsent: true })).rejects.toThrow(
      failsWith("CONDITION_FAILED"),
    );
  });

  it("holds conditions", async () => {
    const first = await namespace.put("object", "1", { ifAbsent: true });
    await expect(namespace.put("object", "2", { ifAbsent: true })).rejects.toThrow(
      failsWith("CONDITION_FAILED"),
    );
    const second = await namespace.put("object", "2", { ifSequence: first.sequence });
    await expect(namespace.put("object", "3", { ifSequence: first.sequence })).rejects.toThrow(
      failsWith("CONDITION_FAILED"),
    );
    await expect(namespace.delete("object", { ifSequence: first.sequence })).rejects.toThrow(
      failsWith("CONDITION_FAILED"),
    );
    expect(Buffer.from(await namespace.get("object")).toString()).toBe("2");
    expect(await namespace.delete("object", { ifSequence: second.sequence })).toBe(true);
  });

  it("lets exactly one of many conditional puts win", async () => {
    const attempts = await Promise.allSettled(
      Array.from({ length: 24 }, (_, i) => namespace.put("object", `${i}`, { ifAbsent: true })),
    );
    const winners = attempts.flatMap((attempt, i) => (attempt.status === "fulfilled" ? [i] : []));
    expect(winners).toHaveLength(1);
    expect(Buffer.from(await namespace.get("object")).toString()).toBe(`${winners[0]}`);
    for (const attempt of attempts) {
      if (attempt.status === "rejected") expect(attempt.reason).toEqual(failsWith("CONDITION_FAILED"));
    }
  });

  it("lists 2,500 keys page by page, by prefix and from a key on", async () => {
    const keys = Array.from(
      { length: 2500 },
      (_, i) => `${i % 2 === 0 ? "even" : "odd"}/${String(i).padStart(5, "0")}`,
    );
    const batch = namespace.batch();
    for (const key of keys) batch.put(key, key);
    await batch.flush();
    const sorted = [...keys].sort();
    const all: string[] = [];
    for await (const object of namespace.list()) {
      expect(object.sizeBytes).toBe(object.key.length);
      all.push(object.key);
    }
    expect(all).toEqual(sorted);

    const odd: string[] = [];
    for await (const { key } of namespace.list({ prefix: "odd/", startAfter: "odd/01001" })) odd.push(key);
    expect(odd).toEqual(sorted.filter((key) => key.startsWith("odd/") && key > "odd/01001"));

    const page = await namespace.listPage({ prefix: "even/", limit: 10 });
    expect(page.objects.map(({ key }) => key)).toEqual(sorted.slice(0, 10));
    expect(page.truncated).toBe(true);
    const end = await namespace.listPage({ prefix: "even/", startAfter: "even/02494" });
    expect(end.objects.map(({ key }) => key)).toEqual(["even/02496", "even/02498"]);
    expect(end.truncated).toBe(false);
    expect(await namespace.listPage({ prefix: "none" })).toEqual({ objects: [], truncated: false });
    await expect(namespace.listPage({ limit: 1001 })).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
  });

  it("keeps the order of puts of one key, and their data, where they have to wait for room", async () => {
    const small = await client.createNamespace(freshName(), { limits: { sizeBytes: 8 * MIB } });
    const filled: string[] = [];
    await using hurried = await connect(daemon.endpoint, { transport: kind, timeoutMs: 100 });
    await using filler = await hurried.openNamespace(small.name);
    for (let i = 0; i < 100; i++) {
      const put = filler.put(`filler/${i}`, new Uint8Array(100_000));
      if (
        !(await put.then(
          () => true,
          () => false,
        ))
      )
        break;
      filled.push(`filler/${i}`);
    }
    const batch = small.batch();
    const scratch = new Uint8Array(30_000);
    for (let i = 0; i < 600; i++) {
      new DataView(scratch.fill(i).buffer).setUint32(0, i);
      batch.put(`object/${i % 3}`, scratch);
    }
    scratch.fill(0);
    const flushing = batch.flush();
    flushing.catch(() => {});
    await sleep(30);
    for (const key of filled) await filler.delete(key);
    await flushing;
    for (let i = 597; i < 600; i++) {
      const bytes = await small.get(`object/${i % 3}`);
      expect(Buffer.from(bytes).readUInt32BE(0)).toBe(i);
      expect(bytes.subarray(4).every((byte) => byte === (i & 255))).toBe(true);
    }
    await client.deleteNamespace(small.name);
  });

  it("keeps the order of large and small puts of one key", async () => {
    const batch = namespace.batch();
    batch.put("object", new Uint8Array(9 * MIB));
    batch.put("object", "small");
    batch.put("other", "small");
    batch.put("other", new Uint8Array(9 * MIB));
    await batch.flush();
    expect(Buffer.from(await namespace.get("object")).toString()).toBe("small");
    expect((await namespace.get("other")).length).toBe(9 * MIB);
  });

  it("batches, in order for one key, and lets the data be reused", async () => {
    const batch = namespace.batch();
    const scratch = Buffer.alloc(100);
    for (let i = 0; i < 1000; i++) {
      scratch.fill(i % 251);
      batch.put(`small/${i}`, scratch);
      batch.put("last", String(i));
    }
    const large = Buffer.alloc(2 * MIB, "a");
    batch.put("large/a", large);
    large.fill("b");
    batch.put("large/b", large);
    large.fill("c");
    await batch.flush();
    await batch.flush();
    for (let i = 0; i < 1000; i += 37) {
      expect(Buffer.compare(await namespace.get(`small/${i}`), Buffer.alloc(100, i % 251))).toBe(0);
    }
    expect(Buffer.from(await namespace.get("last")).toString()).toBe("999");
    expect(Buffer.compare(await namespace.get("large/a"), Buffer.alloc(2 * MIB, "a"))).toBe(0);
    expect(Buffer.compare(await namespace.get("large/b"), Buffer.alloc(2 * MIB, "b"))).toBe(0);
    expect(() => batch.put("", "x")).toThrow(failsWith("INVALID_ARGUMENT"));
  });

  it("writes piece by piece, in place or by copy", async () => {
    const data = randomBytes(3 * MIB + 11);
    const writer = await namespace.openWriter("object", { sizeBytes: data.length });
    (await writer.reserve(MIB)).set(data.subarray(0, MIB));
    await writer.write(data.subarray(MIB, 2 * MIB + 5));
    (await writer.reserve(data.length - 2 * MIB - 5)).set(data.subarray(2 * MIB + 5));
    expect(await namespace.exists("object")).toBe(false);
    const info = await writer.seal();
    expect(info.sizeBytes).toBe(data.length);
    expect(Buffer.compare(await namespace.get("object"), data)).toBe(0);

    const unsized = await namespace.openWriter("unsized");
    for (let at = 0; at < data.length; at += 700_001) await unsized.write(data.subarray(at, at + 700_001));
    expect(await unsized.seal()).toMatchObject({ sizeBytes: data.length, crc32c: info.crc32c });
    expect(Buffer.compare(await namespace.get("unsized"), data)).toBe(0);
    const range = await namespace.get("unsized", { offset: 700_000, length: MIB });
    expect(Buffer.compare(range, data.subarray(700_000, 700_000 + MIB))).toBe(0);

    const empty = await namespace.openWriter("empty");
    expect((await empty.seal()).sizeBytes).toBe(0);
    expect((await namespace.get("empty")).length).toBe(0);

    const givenUp = await namespace.openWriter("given-up");
    await givenUp.write(data);
    await givenUp.abort();
    expect(await namespace.exists("given-up")).toBe(false);
  });

  it("seals a writer under its conditions", async () => {
    await namespace.put("object", "here");
    const writer = await namespace.openWriter("object");
    await writer.write(randomBytes(2 * MIB));
    await expect(writer.seal({ ifAbsent: true })).rejects.toThrow(failsWith("CONDITION_FAILED"));
    expect(Buffer.from(await namespace.get("object")).toString()).toBe("here");
  });

  it("streams in and out", async () => {
    const data = randomBytes(5 * MIB + 1);
    const target = namespace.createWriteStream("object");
    await pipeline(Readable.from(pieces(data, 300_007)), target);
    expect(target.info).toMatchObject({ sizeBytes: data.length });
    expect(await streamDigest(namespace.createReadStream("object"))).toBe(digest(data));
    const range = { offset: 12_345, length: 3 * MIB };
    expect(await streamDigest(namespace.createReadStream("object", range))).toBe(
      digest(data.subarray(12_345, 12_345 + 3 * MIB)),
    );

    await pipeline(Readable.from([]), namespace.createWriteStream("empty"));
    expect(await streamDigest(namespace.createReadStream("empty"))).toBe(digest(Buffer.alloc(0)));

    await pipeline(
      namespace.createReadStream("object"),
      namespace.createWriteStream("copy", { sizeBytes: data.length }),
    );
    expect(Buffer.compare(await namespace.get("copy"), data)).toBe(0);
  });

  it("leaves nothing of a write stream that was destroyed or failed", async () => {
    const destroyed = namespace.createWriteStream("destroyed");
    await new Promise((resolve) => destroyed.write(randomBytes(2 * MIB), resolve));
    await new Promise((resolve) => destroyed.on("close", resolve).destroy());

    async function* failing() {
      yield randomBytes(MIB);
      throw new Error("the source broke");
    }
    await expect(pipeline(Readable.from(failing()), namespace.createWriteStream("failed"))).rejects.toThrow(
      "broke",
    );

    await namespace.put("taken", "x");
    await expect(
      pipeline(Readable.from([randomBytes(10)]), namespace.createWriteStream("taken", { ifAbsent: true })),
    ).rejects.toThrow(failsWith("CONDITION_FAILED"));

    await sleep(100);
    const left: string[] = [];
    for await (const { key } of namespace.list()) left.push(key);
    expect(left).toEqual(["taken"]);
  });

  it("fails a read stream of nothing, and lets one be left midway", async () => {
    await expect(streamDigest(namespace.createReadStream("nothing"))).rejects.toThrow(failsWith("NOT_FOUND"));
    const data = randomBytes(8 * MIB);
    await namespace.put("object", data);
    const range = { offset: data.length + 1 };
    await expect(streamDigest(namespace.createReadStream("object", range))).rejects.toThrow(
      failsWith("OUT_OF_RANGE"),
    );
    for await (const chunk of namespace.createReadStream("object")) {
      expect(Buffer.compare(chunk, data.subarray(0, chunk.length))).toBe(0);
      break;
    }
  });

  it("never mixes two versions in one read stream", async () => {
    const data = randomBytes(12 * MIB);
    await namespace.put("object", data);
    const chunks: Buffer[] = [];
    const reading = (async () => {
      for await (const chunk of namespace.createReadStream("object")) {
        if (chunks.length === 0) await namespace.put("object", randomBytes(12 * MIB));
        chunks.push(Buffer.from(chunk));
      }
    })();
    if (kind === "shm") await reading;
    else await expect(reading).rejects.toThrow(failsWith("ABORTED", { retryable: true }));
    const read = Buffer.concat(chunks);
    expect(Buffer.compare(read, data.subarray(0, read.length))).toBe(0);
  });

  it("watches a prefix", async () => {
    const watch = namespace.watch("seen/");
    await watch.ready;
    const one = await namespace.put("seen/1", "one");
    await namespace.put("unseen", "x");
    await namespace.put("seen/2", "two");
    await namespace.delete("seen/1");
    const events: ObjectEvent[] = [];
    for await (const event of watch) {
      events.push(event);
      if (events.length === 3) break;
    }
    expect(events.map(({ type, key }) => `${type} ${key}`)).toEqual([
      "sealed seen/1",
      "sealed seen/2",
      "deleted seen/1",
    ]);
    expect(events[0]?.info).toEqual(one);
  });

  it("ends a watch that is closed", async () => {
    const watch = namespace.watch();
    await watch.ready;
    setTimeout(() => watch.close(), 20);
    for await (const event of watch) expect.unreachable(JSON.stringify(event));
  });

  it("counts what went through", async () => {
    await namespace.put("object", randomBytes(1000));
    await namespace.get("object");
    expect(namespace.usage()).toMatchObject({ bytesIn: 1000, bytesOut: 1000 });
    const receipt = await namespace.receipt();
    const traffic = receipt.traffic.find(({ by }) => by === kind);
    expect(traffic).toMatchObject({ bytesIn: 1000, bytesOut: 1000 });
    expect(receipt).toMatchObject({ namespace: namespace.name, objects: 1, sizeBytes: 1000, ended: false });
    expect(receipt.copiesAvoidedBytes).toBe(kind === "shm" ? 1000 : 0);
  });

  it("works from many calls at once", async () => {
    const objects = Array.from({ length: 200 }, (_, i) => ({
      key: `object/${i}`,
      data: randomBytes(i * 97),
    }));
    await Promise.all(objects.map(({ key, data }) => namespace.put(key, data)));
    const read = await Promise.all(objects.map(({ key }) => namespace.get(key)));
    read.forEach((bytes, i) => {
      expect(Buffer.compare(bytes, objects[i]?.data as Buffer)).toBe(0);
    });
  });

  it("is closed once and for all", async () => {
    await namespace.put("object", "x");
    await namespace.close();
    await namespace.close();
    await expect(namespace.get("object")).rejects.toThrow(failsWith("CLOSED"));
    await expect(namespace.put("object", "y")).rejects.toThrow(failsWith("CLOSED"));
    expect(() => namespace.batch().put("object", "y")).toThrow(failsWith("CLOSED"));
  });

  it("says that a deleted namespace is gone", async () => {
    await namespace.put("object", "x");
    const receipt = await client.deleteNamespace(namespace.name);
    expect(receipt).toMatchObject({ ended: true, objects: 1 });
    await expect(namespace.get("object")).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(namespace.tryGet("object")).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(namespace.head("object")).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(namespace.put("object", "y")).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(namespace.listPage()).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(client.openNamespace(namespace.name)).rejects.toThrow(failsWith("NAMESPACE_GONE"));
  });
});

describe("views over shm", () => {
  let client: Client;
  let namespace: Namespace;
  beforeEach(async () => {
    client = await connect(daemon.endpoint);
    namespace = await client.createNamespace(freshName());
  });
  afterEach(() => client.close());

  it("are what a node on the same host gives by itself", () => {
    expect(namespace.transport).toBe("shm");
  });

  it("are the object in place, until the handle is closed", async () => {
    const data = randomBytes(200_000);
    await namespace.put("object", data);
    expect(namespace.view("nothing")).toBeNull();
    const view = namespace.view("object") as Uint8Array;
    const got = await namespace.get("object");
    const part = await namespace.get("object", { offset: 100, length: 50 });
    expect(Buffer.compare(view, data)).toBe(0);
    await namespace.delete("object");
    await client.deleteNamespace(namespace.name);
    expect(Buffer.compare(view, data)).toBe(0);
    expect(Buffer.compare(part, data.subarray(100, 150))).toBe(0);
    await namespace.close();
    expect([view.length, got.length, part.length]).toEqual([0, 0, 0]);
  });

  it("come one a stretch for objects written piece by piece", async () => {
    const data = randomBytes(4 * MIB);
    await pipeline(Readable.from(pieces(data, 500_000)), namespace.createWriteStream("object"));
    const extents = namespace.viewExtents("object") as Uint8Array[];
    expect(Buffer.compare(Buffer.concat(extents), data)).toBe(0);
    expect(namespace.viewExtents("nothing")).toBeNull();
  });

  it("count as copies avoided on the receipt of the end", async () => {
    await namespace.put("object", randomBytes(10_000));
    for (let i = 0; i < 10; i++) namespace.view("object");
    const receipt = await client.deleteNamespace(namespace.name);
    expect(receipt.copiesAvoidedBytes).toBe(100_000);
  });

  it.each(["tcp", "grpc"] as const)("are not to be had over %s", async (kind) => {
    await using remote = await connect(daemon.endpoint, { transport: kind });
    const handle = await remote.openNamespace(namespace.name);
    expect(() => handle.view("object")).toThrow(failsWith("UNSUPPORTED"));
    expect(() => handle.viewExtents("object")).toThrow(failsWith("UNSUPPORTED"));
  });
});

describe("one namespace through every transport", () => {
  it("reads byte for byte what any other has put", async () => {
    await using control = await connect(daemon.endpoint);
    const name = freshName();
    await using _owner = await control.createNamespace(name);
    const clients = await Promise.all(KINDS.map((transport) => connect(daemon.endpoint, { transport })));
    const handles = await Promise.all(clients.map((client) => client.openNamespace(name)));
    for (const writer of handles) {
      for (const sizeBytes of [0, 1, 63, 1024, 100_003, 5 * MIB + 1]) {
        const data = randomBytes(sizeBytes);
        const key = `${writer.transport}/${sizeBytes}`;
        const info = await writer.put(key, data);
        for (const reader of handles) {
          const got = await reader.getWithInfo(key);
          expect(Buffer.compare(got.bytes, data), `${key} over ${reader.transport}`).toBe(0);
          expect(got.info).toEqual(info);
        }
      }
    }
    await Promise.all(clients.map((client) => client.close()));
    await control.deleteNamespace(name);
  });
});

function* pieces(data: Uint8Array, pieceBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < data.length; at += pieceBytes) yield data.subarray(at, at + pieceBytes);
}

async function streamDigest(stream: Readable): Promise<string> {
  const hash = createHash("sha1");
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest("hex");
}
