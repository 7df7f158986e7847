/** Objects through the gRPC door of a real daemon, as any gRPC client would reach them. */
import { createHash, randomBytes } from "node:crypto";
import { connect as connectSocket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { requireAddon } from "../../native/binding/addon.js";
import type { MillraceError } from "../../proto/errors.js";
import type { ObjectInfoMessage, WatchEvent } from "../../proto/messages.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { contract, createRequest, IF_ABSENT, putHeader, RawGrpc } from "../support/raw_grpc.js";

const NS = "objects-job";
const { objects, namespaces } = contract;

let daemon: Daemon;
let grpc: RawGrpc;

beforeAll(async () => {
  daemon = await startDaemon({ dram: "1GiB" });
  grpc = new RawGrpc(daemon.endpoint);
  await grpc.call(namespaces.CreateNamespace, createRequest(NS));
});

afterAll(async () => {
  grpc?.close();
  await daemon?.stop();
});

function head(key: string, namespace = NS): Promise<ObjectInfoMessage> {
  return grpc.call(objects.Head, { namespace, key: Buffer.from(key) });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "OK",
    (thrown: MillraceError) => thrown.code,
  );
}

function chunks(bytes: Uint8Array, chunkBytes = 1 << 20): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
    parts.push(bytes.subarray(offset, offset + chunkBytes));
  }
  return parts;
}

/** Waits for a condition that other processes bring about; fails the test when it does not come. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return;
    await sleep(20);
  }
  throw new Error("what was waited for did not happen");
}

describe("put and get", () => {
  it.each([[0], [1], [100], [(1 << 20) - 1], [1 << 20], [(1 << 20) + 1], [5 << 20], [70 << 20]])(
    "carry %i bytes",
    async (size) => {
      const bytes = randomBytes(size);
      const key = `size/${size}`;
      const put = await grpc.put(NS, key, chunks(bytes), { sizeBytes: size, sizeKnown: true });
      expect(put).toMatchObject({ sizeBytes: size, crc32c: requireAddon().kernels.crc32c(0, bytes) });
      expect(Buffer.from(put.key).toString()).toBe(key);
      const got = await grpc.get(NS, key);
      expect(got.info).toEqual(put);
      expect(got.largest).toBeLessThanOrEqual(1 << 20);
      expect(createHash("sha256").update(got.bytes).digest("hex")).toBe(
        createHash("sha256").update(bytes).digest("hex"),
      );
    },
  );

  it("carry an object whose size nobody knew, in odd pieces", async () => {
    const bytes = randomBytes(3_333_333);
    await grpc.put(NS, "unknown-size", chunks(bytes, 77_777));
    expect((await grpc.get(NS, "unknown-size")).bytes.equals(bytes)).toBe(true);
  });

  it("take data in the header's message, and a trailer at the end", async () => {
    const bytes = randomBytes(1000);
    const crc32c = requireAddon().kernels.crc32c(0, bytes);
    const { call, result } = grpc.openPut();
    call.write({ header: putHeader(NS, "one-message"), data: bytes.subarray(0, 400), trailer: null });
    call.write({
      header: null,
      data: bytes.subarray(400),
      trailer: { condition: IF_ABSENT, crc32c, hasCrc32c: true },
    });
    call.end();
    expect(await result).toMatchObject({ sizeBytes: 1000, crc32c });
    expect((await grpc.get(NS, "one-message")).bytes.equals(bytes)).toBe(true);
  });

  it("give ranges", async () => {
    const bytes = randomBytes(3 << 20);
    await grpc.put(NS, "ranges", chunks(bytes));
    for (const [offset, length] of [
      [0, 1],
      [1, 0],
      [(1 << 20) - 1, 2],
      [12_345, 2_000_000],
      [3 << 20, 0],
    ] as const) {
      const { bytes: got } = await grpc.get(NS, "ranges", { offset, length });
      expect(got.equals(bytes.subarray(offset, length === 0 ? undefined : offset + length))).toBe(true);
    }
    expect(await codeOf(grpc.get(NS, "ranges", { offset: (3 << 20) + 1 }))).toBe("OUT_OF_RANGE");
    expect(await codeOf(grpc.get(NS, "ranges", { offset: 1, length: 3 << 20 }))).toBe("OUT_OF_RANGE");
  });

  it("tell versions apart", async () => {
    const first = await grpc.put(NS, "versions", [Buffer.from("one")]);
    const second = await grpc.put(NS, "versions", [Buffer.from("two")]);
    expect(second.sequence).toBeGreaterThan(first.sequence);
    expect(await codeOf(grpc.get(NS, "versions", { ifSequence: first.sequence }))).toBe("CONDITION_FAILED");
    expect((await grpc.get(NS, "versions", { ifSequence: second.sequence })).bytes.toString()).toBe("two");
  });
});

describe("what a put refuses", () => {
  it.each([
    ["more bytes than announced", { sizeBytes: 4, sizeKnown: true }, "INVALID_ARGUMENT"],
    ["fewer bytes than announced", { sizeBytes: 6, sizeKnown: true }, "INVALID_ARGUMENT"],
    ["a wrong checksum", { crc32c: 1, hasCrc32c: true }, "CHECKSUM_MISMATCH"],
    ["an empty key", { key: Buffer.alloc(0) }, "INVALID_ARGUMENT"],
    ["a key that is too long", { key: Buffer.alloc(1025, "k") }, "KEY_TOO_LONG"],
    ["a key that is not UTF-8", { key: Buffer.from([0xff]) }, "INVALID_ARGUMENT"],
    ["a namespace that is not there", { namespace: "nowhere" }, "NOT_FOUND"],
    ["an object beyond the limit", { sizeBytes: 6 * 1024 ** 4, sizeKnown: true }, "OBJECT_TOO_LARGE"],
    [
      "conditions that exclude each other",
      { condition: { ifAbsent: true, ifSequence: 1 } },
      "INVALID_ARGUMENT",
    ],
  ])("%s", async (_, header, code) => {
    expect(await codeOf(grpc.put(NS, "refused", [Buffer.from("12345")], header))).toBe(code);
    expect(await codeOf(head("refused"))).toBe("NOT_FOUND");
  });

  it("a stream without a header, and a second header", async () => {
    const without = grpc.openPut();
    without.call.write({ header: null, data: Buffer.from("x"), trailer: null });
    without.call.end();
    expect(await codeOf(without.result)).toBe("INVALID_ARGUMENT");
    const empty = grpc.openPut();
    empty.call.end();
    expect(await codeOf(empty.result)).toBe("INVALID_ARGUMENT");
    const twice = grpc.openPut();
    for (const key of ["first", "second"]) {
      twice.call.write({ header: putHeader(NS, key), data: Buffer.from("x"), trailer: null });
    }
    twice.call.end();
    expect(await codeOf(twice.result)).toBe("INVALID_ARGUMENT");
    expect(await codeOf(head("first"))).toBe("NOT_FOUND");
  });

  it("a stream that was to end with a trailer, and did not", async () => {
    const bytes = [Buffer.from("12345")];
    expect(await codeOf(grpc.put(NS, "no-trailer", bytes, { endsWithTrailer: true }))).toBe("ABORTED");
    expect(await codeOf(head("no-trailer"))).toBe("NOT_FOUND");
  });

  it("numbers from 2^53 on", async () => {
    const method = {
      ...objects.Get,
      requestSerialize: () =>
        // GetRequest{namespace, key "k", offset 2^63 - 1}, which the typed stub would not send.
        Buffer.concat([
          Buffer.from([0x0a, NS.length]),
          Buffer.from(NS),
          Buffer.from([0x12, 1, 0x6b, 0x18]),
          Buffer.from("ffffffffffffffff7f", "hex"),
        ]),
    };
    const call = grpc.stream(method, {} as never);
    const error = await new Promise<{ code: number; details: string }>((resolve) => {
      call.on("error", (thrown) => resolve(thrown as never));
      call.on("data", () => {});
    });
    expect(error.code).toBe(11);
    expect(error.details).toMatch(/GetRequest.offset/);
  });
});

describe("a put that is cut off", () => {
  it("by a cancel leaves nothing behind, whatever its size and moment", async () => {
    for (let round = 0; round < 60; round++) {
      const { call, result } = grpc.openPut();
      call.write({ header: putHeader(NS, "cancelled"), data: randomBytes(1000), trailer: null });
      for (let chunk = 0; chunk < round % 5; chunk++) {
        call.write({ header: null, data: randomBytes(200_000), trailer: null });
      }
      if (round % 3 === 0) await sleep(round % 7);
      call.cancel();
      expect(await codeOf(result)).toBe("ABORTED");
    }
    // A later call on the same connection is served after them.
    expect(await codeOf(head("cancelled"))).toBe("NOT_FOUND");
    await sleep(200);
    expect(await codeOf(head("cancelled"))).toBe("NOT_FOUND");
  });

  it("by a broken connection leaves nothing behind", async () => {
    for (let round = 0; round < 10; round++) {
      const proxy = await breakableProxy(daemon.grpcAddress);
      const other = new RawGrpc(proxy.address);
      const { call, result } = other.openPut();
      call.write({ header: putHeader(NS, "broken"), data: randomBytes(1000), trailer: null });
      call.write({ header: null, data: randomBytes(300_000), trailer: null });
      await sleep(30 + round * 3);
      proxy.cut();
      expect(await codeOf(result)).not.toBe("OK");
      other.close();
    }
    await sleep(200);
    expect(await codeOf(head("broken"))).toBe("NOT_FOUND");
  });

  it("gives its memory back", async () => {
    for (let round = 0; round < 20; round++) {
      const { call, result } = grpc.openPut();
      call.write({
        header: putHeader(NS, "big", { sizeBytes: 64 << 20, sizeKnown: true }),
        data: randomBytes(1 << 20),
        trailer: null,
      });
      await sleep(5);
      call.cancel();
      await codeOf(result);
    }
    // 20 x 64 MiB would not fit into 1 GiB, so a put of this size shows that they are gone.
    const bytes = randomBytes(1 << 20);
    await grpc.put(NS, "fits", new Array(200).fill(bytes), { sizeBytes: 200 << 20, sizeKnown: true });
    expect((await head("fits")).sizeBytes).toBe(200 << 20);
    await grpc.call(objects.Delete, { namespace: NS, key: Buffer.from("fits"), condition: null });
    const { dramUsedBytes, dramLimitBytes } = await grpc.call(contract.nodes.NodeStats, {});
    expect(dramUsedBytes).toBeLessThanOrEqual(dramLimitBytes);
  });
});

describe("conditional puts", () => {
  it("that race have one winner", async () => {
    for (let round = 0; round < 10; round++) {
      const key = `race/${round}`;
      const outcomes = await Promise.all(
        Array.from({ length: 8 }, (_, index) =>
          grpc.put(NS, key, [Buffer.from(`${index}`)], { condition: IF_ABSENT }).then(
            () => index,
            (error: MillraceError) => error.code,
          ),
        ),
      );
      const winners = outcomes.filter((outcome) => typeof outcome === "number");
      expect(winners).toHaveLength(1);
      expect(outcomes.filter((outcome) => outcome === "CONDITION_FAILED")).toHaveLength(7);
      expect((await grpc.get(NS, key)).bytes.toString()).toBe(String(winners[0]));
    }
  });

  it("and deletes hold to the sequence they name", async () => {
    const { sequence } = await grpc.put(NS, "held", [Buffer.from("1")]);
    const wrong = { ifAbsent: false, ifSequence: sequence + 1000 };
    const right = { ifAbsent: false, ifSequence: sequence };
    const key = Buffer.from("held");
    expect(await codeOf(grpc.put(NS, "held", [], { condition: wrong }))).toBe("CONDITION_FAILED");
    expect(await codeOf(grpc.call(objects.Delete, { namespace: NS, key, condition: wrong }))).toBe(
      "CONDITION_FAILED",
    );
    expect(await grpc.call(objects.Delete, { namespace: NS, key, condition: right })).toEqual({
      existed: true,
    });
    expect(await grpc.call(objects.Delete, { namespace: NS, key, condition: null })).toEqual({
      existed: false,
    });
  });
});

describe("list", () => {
  it("pages through keys in the order of their bytes", async () => {
    const namespace = "list-job";
    await grpc.call(namespaces.CreateNamespace, createRequest(namespace));
    const keys = Array.from({ length: 2_300 }, (_, index) => `k/${index}`).concat([
      "j",
      "l",
      "k",
      "k/é",
      "k/\u{1f600}",
    ]);
    for (let at = 0; at < keys.length; at += 100) {
      await Promise.all(keys.slice(at, at + 100).map((key) => grpc.put(namespace, key, [])));
    }
    const list = async (prefix: string, limit: number) => {
      const all: string[] = [];
      let startAfter: Uint8Array = Buffer.alloc(0);
      let pages = 0;
      for (;;) {
        const page = await grpc.call(objects.List, {
          namespace,
          prefix: Buffer.from(prefix),
          startAfter,
          limit,
        });
        pages += 1;
        all.push(...page.objects.map(({ key }) => Buffer.from(key).toString()));
        if (!page.truncated) return { all, pages };
        startAfter = (page.objects.at(-1) as ObjectInfoMessage).key;
      }
    };
    const inOrder = (wanted: string[]) =>
      wanted.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(await list("", 0)).toEqual({ all: inOrder([...keys]), pages: 3 });
    expect((await list("k/", 7)).all).toEqual(inOrder(keys.filter((key) => key.startsWith("k/"))));
    expect(await list("nothing", 0)).toEqual({ all: [], pages: 1 });
  });
});

describe("copy", () => {
  it("works within a namespace and across", async () => {
    const bytes = randomBytes(200_000);
    const source = await grpc.put(NS, "copy/from", [bytes]);
    const copy = (toKey: string, toNamespace: string, condition: typeof IF_ABSENT | null = null) =>
      grpc.call(objects.Copy, {
        namespace: NS,
        fromKey: Buffer.from("copy/from"),
        toKey: Buffer.from(toKey),
        condition,
        toNamespace,
      });
    expect(await copy("copy/to", "")).toMatchObject({ sizeBytes: 200_000, crc32c: source.crc32c });
    expect(await codeOf(copy("copy/to", "", IF_ABSENT))).toBe("CONDITION_FAILED");
    await grpc.call(namespaces.CreateNamespace, createRequest("copy-job"));
    await copy("copied", "copy-job");
    expect((await grpc.get("copy-job", "copied")).bytes.equals(bytes)).toBe(true);
    expect(await codeOf(copy("x", "nowhere"))).toBe("NOT_FOUND");
  });
});

describe("watch", () => {
  it("streams what is sealed and deleted under a prefix, and ends with the namespace", async () => {
    const namespace = "watch-job";
    await grpc.call(namespaces.CreateNamespace, createRequest(namespace));
    const call = grpc.stream(objects.Watch, { namespace, prefix: Buffer.from("w/") });
    const events: string[] = [];
    call.on("data", ({ type, object }: WatchEvent) => {
      events.push(`${type} ${Buffer.from((object as ObjectInfoMessage).key)}`);
    });
    const ended = new Promise<string>((resolve) => {
      call.on("error", (error) => resolve((error as { details?: string }).details ?? ""));
    });
    await new Promise((resolve) => call.once("metadata", resolve));
    await grpc.put(namespace, "w/1", []);
    await grpc.put(namespace, "other", []);
    await grpc.put(namespace, "w/2", []);
    await grpc.call(objects.Delete, { namespace, key: Buffer.from("w/1"), condition: null });
    await until(async () => events.length >= 3);
    expect(events).toEqual(["SEALED w/1", "SEALED w/2", "DELETED w/1"]);
    await grpc.call(namespaces.DeleteNamespace, { name: namespace });
    expect(await ended).toMatch(/has ended/);
  });
});

describe("a namespace's limits", () => {
  it("make a put wait for room and go on when there is some", async () => {
    const namespace = "full-job";
    const limits = { sizeBytes: 300 << 20, dramBytes: 0, bandwidthBytesPerSecond: 0 };
    await grpc.call(namespaces.CreateNamespace, { ...createRequest(namespace), limits });
    const filler = randomBytes(1 << 20);
    await grpc.put(namespace, "a", new Array(200).fill(filler));
    const bytes = randomBytes(130 << 20);
    const { call, result } = grpc.openPut(Date.now() + 60_000);
    call.write({ header: putHeader(namespace, "b"), data: Buffer.alloc(0), trailer: null });
    for (const data of chunks(bytes)) call.write({ header: null, data, trailer: null });
    call.end();
    await sleep(300);
    await grpc.call(objects.Delete, { namespace, key: Buffer.from("a"), condition: null });
    expect((await result).sizeBytes).toBe(130 << 20);
    expect((await grpc.get(namespace, "b")).bytes.equals(bytes)).toBe(true);
    await grpc.call(namespaces.DeleteNamespace, { name: namespace });
  });

  it("end it with RESOURCE_EXHAUSTED when none comes, and at once when none can", async () => {
    const namespace = "small-job";
    const limits = { sizeBytes: 200 << 20, dramBytes: 0, bandwidthBytesPerSecond: 0 };
    await grpc.call(namespaces.CreateNamespace, { ...createRequest(namespace), limits });
    const mib = randomBytes(1 << 20);
    await grpc.put(namespace, "a", new Array(100).fill(mib));
    const { call, result } = grpc.openPut(Date.now() + 5_000);
    call.write({ header: putHeader(namespace, "b"), data: Buffer.alloc(0), trailer: null });
    for (let index = 0; index < 150; index++) call.write({ header: null, data: mib, trailer: null });
    call.end();
    await expect(result).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED", retryable: true });
    await expect(
      grpc.put(namespace, "c", [], { sizeBytes: 201 << 20, sizeKnown: true }),
    ).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      retryable: false,
    });
    expect(await codeOf(head("b", namespace))).toBe("NOT_FOUND");
    await grpc.put(namespace, "d", [mib]);
  });
});

/** A TCP relay whose connections can be destroyed, as when a host or a network fails. */
async function breakableProxy(target: string): Promise<{ address: string; cut(): void }> {
  const { createServer } = await import("node:net");
  const [host, port] = target.split(":") as [string, string];
  const sockets: { destroy(): void }[] = [];
  const server = createServer((near) => {
    const far = connectSocket(Number(port), host);
    sockets.push(near, far);
    near.on("error", () => {});
    far.on("error", () => {});
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port: bound } = server.address() as { port: number };
  return {
    address: `127.0.0.1:${bound}`,
    cut: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
