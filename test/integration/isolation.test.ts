/**
 * A namespace is a boundary: what the kernel says of real client processes, their mappings and their descriptors.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Client, connect } from "../../client/index.js";
import { requireAddon } from "../../native/binding/addon.js";
import { type ClientProcess, startClientProcess } from "../support/client_process.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { contract, RawGrpc } from "../support/raw_grpc.js";
import { mappedFiles, openFiles, sharedInodes } from "../support/shared_files.js";
import type { IsolationClient } from "./isolation_client.js";

const MIB = 1 << 20;
const LARGE_BYTES = 70 * MIB;
const SMALL_SIZES = [1, 60, 100, 4096, 100_000];

let daemon: Daemon;
let client: Client;
const started: ClientProcess<IsolationClient>[] = [];
beforeAll(async () => {
  daemon = await startDaemon({ dram: "2GiB" });
  client = await connect(daemon.endpoint);
});
afterAll(async () => {
  await Promise.all(started.map((one) => one.kill()));
  await client.close();
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});

async function clientProcess(): Promise<ClientProcess<IsolationClient>> {
  const one = await startClientProcess<IsolationClient>(new URL("./isolation_client.ts", import.meta.url));
  started.push(one);
  return one;
}

/** Puts, reads and deletes small and large objects, of which some views stay. */
async function use(one: ClientProcess<IsolationClient>, name: string): Promise<void> {
  for (const sizeBytes of [...SMALL_SIZES, LARGE_BYTES]) {
    await one.call("put", name, `kept/${sizeBytes}`, sizeBytes);
    await one.call("put", name, `deleted/${sizeBytes}`, sizeBytes);
    expect(await one.call("read", name, `kept/${sizeBytes}`)).toBeNull();
    expect(await one.call("read", name, `deleted/${sizeBytes}`)).toBeNull();
    expect(await one.call("delete", name, `deleted/${sizeBytes}`)).toBe(true);
  }
  expect(new Set(await one.call("checkViews"))).toEqual(new Set([null]));
}

function both<T>(a: Set<T>, b: Set<T>): T[] {
  return [...a].filter((value) => b.has(value));
}

/** The views' memory goes a turn of the event loop after the handle was closed. */
function nothingInCommon(pid: number, otherPid: number): Promise<void> {
  return vi.waitFor(() => expect(both(sharedInodes(pid), sharedInodes(otherPid))).toEqual([]), {
    timeout: 10_000,
    interval: 20,
  });
}

describe("two clients of two namespaces", () => {
  let first: ClientProcess<IsolationClient>;
  let second: ClientProcess<IsolationClient>;
  beforeAll(async () => {
    first = await clientProcess();
    second = await clientProcess();
    expect(await first.call("create", daemon.endpoint, "iso-first")).toBe("shm");
    expect(await second.call("create", daemon.endpoint, "iso-second")).toBe("shm");
    await Promise.all([use(first, "iso-first"), use(second, "iso-second")]);
  });

  it("have no segment, index or ring in common", () => {
    const ofDaemon = sharedInodes(daemon.pid);
    const ofFirst = sharedInodes(first.pid);
    const ofSecond = sharedInodes(second.pid);
    // What is looked at is what the store hands out, else the test would see nothing and pass.
    expect(both(ofFirst, ofDaemon).length).toBeGreaterThanOrEqual(3);
    expect(both(ofSecond, ofDaemon).length).toBeGreaterThanOrEqual(3);
    const storeBytes = mappedFiles(first.pid)
      .filter(({ inode }) => ofDaemon.has(inode))
      .reduce((sum, { bytes }) => sum + bytes, 0);
    expect(storeBytes).toBeGreaterThanOrEqual(LARGE_BYTES);
    expect(both(ofFirst, ofSecond)).toEqual([]);
  });

  it("also not with a client of both, which loses each when it closes it", async () => {
    const third = await clientProcess();
    await third.call("open", daemon.endpoint, "iso-first");
    expect(await third.call("read", "iso-first", `kept/${LARGE_BYTES}`)).toBeNull();
    expect(both(sharedInodes(third.pid), sharedInodes(second.pid))).toEqual([]);
    await third.call("open", daemon.endpoint, "iso-second");
    expect(await third.call("read", "iso-second", `kept/${LARGE_BYTES}`)).toBeNull();
    expect(both(sharedInodes(third.pid), sharedInodes(second.pid))).not.toEqual([]);
    await third.call("close", "iso-second");
    await nothingInCommon(third.pid, second.pid);
    expect(both(sharedInodes(third.pid), sharedInodes(first.pid))).not.toEqual([]);
    expect(await third.call("viewLengths")).toEqual([LARGE_BYTES, 0]);
    expect((await third.call("checkViews"))[0]).toBeNull();
    await third.call("close", "iso-first");
    await nothingInCommon(third.pid, daemon.pid);
  });

  it("that only read can not come to write", async () => {
    const reader = await clientProcess();
    await reader.call("open", daemon.endpoint, "iso-first");
    for (const sizeBytes of [...SMALL_SIZES, LARGE_BYTES]) {
      expect(await reader.call("read", "iso-first", `kept/${sizeBytes}`)).toBeNull();
    }
    const ofWriter = sharedInodes(first.pid);
    const inCommon = mappedFiles(reader.pid).filter(({ inode }) => ofWriter.has(inode));
    expect(inCommon.length).toBeGreaterThanOrEqual(2); // the index and a segment
    expect(inCommon.filter(({ writable }) => writable)).toEqual([]);
    expect(inCommon.filter(({ mayBecomeWritable }) => mayBecomeWritable)).toEqual([]);
    expect(openFiles(reader.pid).filter(({ inode, writable }) => writable && ofWriter.has(inode))).toEqual(
      [],
    );
    // Who writes may not change the index either.
    const indexes = mappedFiles(first.pid).filter(({ name }) => name.includes("index"));
    expect(indexes).not.toEqual([]);
    expect(indexes.filter(({ mayBecomeWritable }) => mayBecomeWritable)).toEqual([]);
  });

  it("have files that nobody can shrink or grow, and an index that nobody else can write", () => {
    const files = openFiles(daemon.pid);
    const segments = files.filter(({ name }) => name.includes("segment"));
    const indexes = files.filter(({ name }) => name.includes("index"));
    expect(segments.length).toBeGreaterThanOrEqual(2);
    expect(indexes.length).toBeGreaterThanOrEqual(2);
    for (const { path, bytes, name } of files.filter(({ name }) => name.startsWith("/memfd:millrace"))) {
      // As one who somehow got a descriptor that can write: permissions do not stop root.
      const fd = openSync(path, "r+");
      try {
        expect(() => ftruncateSync(fd, 0), name).toThrow(/EPERM/);
        expect(() => ftruncateSync(fd, bytes + 4096), name).toThrow(/EPERM/);
        if (name.includes("index")) expect(() => writeSync(fd, "x", 0), name).toThrow(/EPERM/);
      } finally {
        closeSync(fd);
      }
    }
    expect(openFiles(daemon.pid).map(({ bytes }) => bytes)).toEqual(files.map(({ bytes }) => bytes));
  });

  it("keep nothing after they have closed", async () => {
    await first.call("close", "iso-first");
    await nothingInCommon(first.pid, daemon.pid);
    expect(mappedFiles(first.pid).filter(({ name }) => name.includes("millrace"))).toEqual([]);
    expect(new Set(await first.call("viewLengths"))).toEqual(new Set([0]));
    // The other is as it was.
    expect(new Set(await second.call("checkViews"))).toEqual(new Set([null]));
    expect(await second.call("read", "iso-second", `kept/${LARGE_BYTES}`)).toBeNull();
  });
});

describe("memory that had another namespace", () => {
  it("comes clean, and never while somebody still looks at it", async () => {
    const [before, after] = [await clientProcess(), await clientProcess()];
    await before.call("create", daemon.endpoint, "iso-before");
    await before.call("put", "iso-before", "secret", LARGE_BYTES);
    for (let i = 0; i < 8; i++) await before.call("put", "iso-before", `secret/${i}`, 8 * MIB);
    expect(await before.call("read", "iso-before", "secret")).toBeNull();
    await client.deleteNamespace("iso-before");
    await after.call("create", daemon.endpoint, "iso-after");
    for (const sizeBytes of [LARGE_BYTES, 8 * MIB, 100_000]) {
      expect(await after.call("unclean", "iso-after", sizeBytes)).toBe(0);
    }
    for (let i = 0; i < 16; i++) await after.call("put", "iso-after", `new/${i}`, 10 * MIB);
    expect(both(sharedInodes(before.pid), sharedInodes(after.pid))).toEqual([]);
    expect(await before.call("checkViews")).toEqual([null]);
    await before.call("close", "iso-before");
    for (let i = 0; i < 16; i++) {
      expect(await after.call("unclean", "iso-after", 10 * MIB)).toBe(0);
      await after.call("put", "iso-after", `newer/${i}`, 10 * MIB);
    }
    await after.call("close", "iso-after");
    await client.deleteNamespace("iso-after");
  });
});

describe("a token", () => {
  const attempt = async (token: Uint8Array, door: "shm" | "tcp", namespace = "iso-token") => {
    const [host, port] = daemon.dataAddress.split(":") as [string, string];
    const socketPath = door === "shm" ? daemon.socketPath : null;
    return requireAddon().openSession({
      socketPath,
      host,
      port: Number(port),
      namespace,
      token,
      timeoutMs: 5_000,
    });
  };

  it.each(["shm", "tcp"] as const)("that is not the namespace's opens no session over %s", async (door) => {
    const grpc = new RawGrpc(daemon.endpoint);
    await using owner = await client.createNamespace("iso-token");
    await using _other = await client.createNamespace("iso-other");
    await owner.put("key", "value");
    const { token } = await grpc.call(contract.namespaces.OpenNamespace, { name: "iso-token" });
    const { token: othersToken } = await grpc.call(contract.namespaces.OpenNamespace, { name: "iso-other" });
    const wrong = Buffer.from(token);
    wrong[15] = (wrong[15] as number) ^ 1;
    const inodes = sharedInodes(process.pid);
    for (const bad of [wrong, othersToken, new Uint8Array(16)]) {
      await expect(attempt(bad, door)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    }
    for (const malformed of [new Uint8Array(0), token.subarray(0, 15), Buffer.concat([token, token])]) {
      await expect(attempt(malformed, door)).rejects.toHaveProperty("code");
    }
    expect(sharedInodes(process.pid)).toEqual(inodes);
    const session = (await attempt(token, door)) as { close(): void };
    session.close();
    await client.deleteNamespace("iso-token");
    await client.deleteNamespace("iso-other");
    grpc.close();
  });

  it("of an earlier namespace of the same name opens nothing", async () => {
    const grpc = new RawGrpc(daemon.endpoint);
    const open = () => grpc.call(contract.namespaces.OpenNamespace, { name: "iso-token" });
    await (await client.createNamespace("iso-token")).close();
    const { token: stale } = await open();
    await client.deleteNamespace("iso-token");
    await (await client.createNamespace("iso-token")).close();
    for (const door of ["shm", "tcp"] as const) {
      await expect(attempt(stale, door)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    }
    await client.deleteNamespace("iso-token");
    grpc.close();
  });
});

it("gives all of its memory back when its clients are gone", async () => {
  await Promise.all(started.map((one) => one.kill()));
  for (const { name } of await client.listNamespaces()) await client.deleteNamespace(name);
  await vi.waitFor(
    async () => {
      const stats = await client.nodeStats();
      expect(stats).toMatchObject({ sessions: 0, heldBytes: 0, dramUsedBytes: 0, segments: 0, objects: 0 });
    },
    { timeout: 15_000, interval: 50 },
  );
});
