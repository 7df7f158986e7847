/** Namespaces, shuffles, nodes, health, reflection and shutdown of a real daemon over raw gRPC. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import type { MethodDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { protoPath as healthProto } from "grpc-health-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MillraceError } from "../../proto/errors.js";
import type { WatchShuffleEvent } from "../../proto/messages.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { contract, createRequest, putHeader, RawGrpc } from "../support/raw_grpc.js";

const { namespaces, shuffles, nodes, objects } = contract;

let daemon: Daemon;
let grpc: RawGrpc;

beforeAll(async () => {
  daemon = await startDaemon();
  grpc = new RawGrpc(daemon.endpoint);
});

afterAll(async () => {
  grpc?.close();
  await daemon?.stop();
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "OK",
    (thrown: MillraceError) => thrown.code,
  );
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return;
    await sleep(20);
  }
  throw new Error("what was waited for did not happen");
}

describe("namespaces", () => {
  it("are created, opened, listed, and end with a receipt", async () => {
    const created = await grpc.call(namespaces.CreateNamespace, {
      ...createRequest("life-job"),
      leaseMs: 30_000,
    });
    expect(created).toMatchObject({ name: "life-job", leaseMs: 30_000, hint: "HINT_UNSPECIFIED" });
    expect(created.token).toHaveLength(16);
    expect(await grpc.call(namespaces.OpenNamespace, { name: "life-job" })).toMatchObject({
      token: created.token,
      createdUnixMs: created.createdUnixMs,
    });
    expect(await codeOf(grpc.call(namespaces.CreateNamespace, createRequest("life-job")))).toBe(
      "ALREADY_EXISTS",
    );
    await grpc.put("life-job", "a", [Buffer.from("12345")]);
    await grpc.get("life-job", "a");
    const { namespaces: listed } = await grpc.call(namespaces.ListNamespaces, {});
    expect(listed.find(({ name }) => name === "life-job")).toMatchObject({ objects: 1, sizeBytes: 5 });
    await grpc.call(namespaces.ReportUsage, {
      name: "life-job",
      traffic: [{ by: "shm", bytesIn: 0, bytesOut: 77, operations: 1 }],
      copiesAvoidedBytes: 77,
    });
    const { receipt } = await grpc.call(namespaces.DeleteNamespace, { name: "life-job" });
    expect(receipt).toMatchObject({ namespace: "life-job", objects: 1, copiesAvoidedBytes: 77, ended: true });
    const by = Object.fromEntries((receipt?.traffic ?? []).map((traffic) => [traffic.by, traffic]));
    expect(by.grpc).toMatchObject({ bytesIn: 5, bytesOut: 5, operations: 2 });
    expect(by.shm).toMatchObject({ bytesOut: 77 });
    expect(await grpc.call(namespaces.GetReceipt, { name: "life-job" })).toEqual(receipt);
    expect(await codeOf(grpc.put("life-job", "b", []))).toBe("NAMESPACE_GONE");
  });

  it("end when their lease lapses, and not while it is renewed", async () => {
    await grpc.call(namespaces.CreateNamespace, { ...createRequest("lapse-job"), leaseMs: 1_500 });
    await grpc.call(namespaces.CreateNamespace, { ...createRequest("renew-job"), leaseMs: 1_500 });
    const exists = async (name: string) =>
      (await codeOf(grpc.call(namespaces.OpenNamespace, { name }))) === "OK";
    await until(async () => {
      await grpc.call(namespaces.RenewLease, { name: "renew-job", leaseMs: 0 });
      return !(await exists("lapse-job"));
    });
    expect(await exists("renew-job")).toBe(true);
    expect(await codeOf(grpc.call(namespaces.RenewLease, { name: "lapse-job", leaseMs: 0 }))).toBe(
      "NAMESPACE_GONE",
    );
  });

  it("are refused with a code, a flag and what to do, under a plain gRPC status", async () => {
    const error = (await grpc
      .call(namespaces.CreateNamespace, createRequest("No"))
      .catch((thrown) => thrown)) as MillraceError;
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", retryable: false });
    expect(error.message).toMatch(/must have 3 to 63/);
    expect((error.cause as { code: number }).code).toBe(3);
  });
});

describe("shuffles", () => {
  const namespace = "shuffle-job";
  const shuffle = "stage-1";

  beforeAll(async () => {
    await grpc.call(namespaces.CreateNamespace, createRequest(namespace));
  });

  async function commit(map: number, attempt: number, lengths: number[]) {
    const key = `${shuffle}/${map}/${attempt}`;
    await grpc.put(
      namespace,
      key,
      lengths.map((length) => Buffer.alloc(length, map + 1)),
    );
    const offsets = [0];
    for (const length of lengths) offsets.push((offsets.at(-1) as number) + length);
    const request = { namespace, shuffle, map, attempt, key: Buffer.from(key), offsets, checksums: [] };
    return grpc.call(shuffles.CommitMapOutput, request);
  }

  it("go from create to delete: watch, commit, wait, locate, lose, rerun", async () => {
    const partitioner = Buffer.from("splitters");
    const request = { namespace, shuffle, maps: 3, partitions: 2, partitioner };
    expect(await grpc.call(shuffles.CreateShuffle, request)).toMatchObject({ maps: 3, committed: 0 });
    expect(await codeOf(grpc.call(shuffles.CreateShuffle, request))).toBe("ALREADY_EXISTS");

    const events: WatchShuffleEvent[] = [];
    const watch = grpc.stream(shuffles.WatchShuffle, { namespace, shuffle });
    watch.on("data", (event: WatchShuffleEvent) => events.push(event));
    const watchEnded = new Promise((resolve) => watch.on("error", resolve));
    await new Promise((resolve) => watch.once("metadata", resolve));

    const locate = (partition: number, wait: boolean) =>
      grpc.call(shuffles.LocatePartition, { namespace, shuffle, partition, wait, count: 0 });
    const waiting = [locate(0, true), locate(1, true)];
    expect(await commit(1, 0, [10, 20])).toEqual({ won: true, winningAttempt: 0 });
    expect(await locate(1, false)).toMatchObject({
      complete: false,
      extents: [{ map: 1, offset: 10, length: 20 }],
    });
    const racers = await Promise.all([commit(0, 0, [5, 6]), commit(0, 1, [5, 6]), commit(0, 2, [5, 6])]);
    expect(racers.filter(({ won }) => won)).toHaveLength(1);
    expect(new Set(racers.map(({ winningAttempt }) => winningAttempt)).size).toBe(1);
    await commit(2, 0, [0, 7]);
    const [first, second] = await Promise.all(waiting);
    expect(first?.extents.map(({ length }) => length)).toEqual([5, 10, 0]);
    expect(second?.extents.map(({ length }) => length)).toEqual([6, 20, 7]);
    for (const { key, offset, length, map } of second?.extents ?? []) {
      const { bytes } = await grpc.get(namespace, Buffer.from(key).toString(), { offset, length });
      expect(bytes.equals(Buffer.alloc(length, map + 1))).toBe(true);
    }
    // The losers' objects are gone: three maps, three objects.
    const listed = await grpc.call(objects.List, {
      namespace,
      prefix: Buffer.from(`${shuffle}/`),
      startAfter: Buffer.alloc(0),
      limit: 0,
    });
    expect(listed.objects).toHaveLength(3);

    const lost = await grpc.call(shuffles.ReportLost, { namespace, shuffle, maps: [2] });
    expect(lost.lostMaps).toEqual([2]);
    const error = (await locate(0, false).catch((thrown) => thrown)) as MillraceError;
    expect(error).toMatchObject({ code: "MAP_OUTPUT_LOST", maps: [2] });
    await commit(2, 1, [1, 1]);
    expect(await locate(0, true)).toMatchObject({ complete: true });
    expect(await grpc.call(shuffles.DescribeShuffle, { namespace, shuffle })).toMatchObject({
      committed: 3,
      partitionBytes: [16, 27],
      lostMaps: [],
      partitioner,
    });
    await until(async () => events.length >= 5);
    expect(
      events.map(
        ({ map, lost: gone, complete }) => `${map}${gone ? " lost" : ""}${complete ? " complete" : ""}`,
      ),
    ).toEqual(["1", "0", "2 complete", "2 lost", "2 complete"]);

    expect(await grpc.call(namespaces.GetReceipt, { name: namespace })).toMatchObject({
      slowestPartition: "stage-1/1",
      slowestPartitionBytes: 27,
    });
    await grpc.call(shuffles.DeleteShuffle, { namespace, shuffle });
    expect(String(await watchEnded)).toMatch(/was deleted/);
    const { namespaces: all } = await grpc.call(namespaces.ListNamespaces, {});
    expect(all.find(({ name }) => name === namespace)).toMatchObject({ objects: 0 });
  });

  it("take a commit of very many partitions", async () => {
    const partitions = 65_536;
    await grpc.call(shuffles.CreateShuffle, {
      namespace,
      shuffle: "wide",
      maps: 1,
      partitions,
      partitioner: Buffer.alloc(partitions * 10),
    });
    await grpc.put(namespace, "wide/0", [Buffer.alloc(partitions)]);
    const offsets = Array.from({ length: partitions + 1 }, (_, index) => index);
    const checksums = new Array(partitions).fill(0xffff_ffff);
    await grpc.call(shuffles.CommitMapOutput, {
      namespace,
      shuffle: "wide",
      map: 0,
      attempt: 0,
      key: Buffer.from("wide/0"),
      offsets,
      checksums,
    });
    const last = { namespace, shuffle: "wide", partition: partitions - 1, wait: false, count: 1 };
    expect((await grpc.call(shuffles.LocatePartition, last)).extents).toMatchObject([
      { offset: partitions - 1, length: 1, crc32c: 0xffff_ffff, hasCrc32c: true },
    ]);
  });
});

describe("the node", () => {
  it("describes itself", async () => {
    expect(await grpc.call(nodes.DescribeNode, {})).toMatchObject({
      socketPath: daemon.socketPath,
      grpcAddress: daemon.grpcAddress,
      dataAddress: daemon.dataAddress,
      s3Address: "",
      version: "0.1.0",
    });
    const stats = await grpc.call(nodes.NodeStats, {});
    expect(stats.dramLimitBytes).toBe(512 << 20);
    expect(stats.namespaces).toBeGreaterThan(0);
  });

  it("answers the standard health check", async () => {
    const health = loadSync(healthProto, { enums: String })["grpc.health.v1.Health"] as unknown as {
      Check: MethodDefinition<{ service: string }, { status: string }>;
    };
    for (const service of ["", "millrace.v1.Objects"]) {
      expect(await grpc.call(health.Check, { service })).toEqual({ status: "SERVING" });
    }
    expect(await codeOf(grpc.call(health.Check, { service: "no.such.Service" }))).toBe("NOT_FOUND");
  });

  it("answers reflection", async () => {
    const require = createRequire(import.meta.url);
    const folder = require
      .resolve("@grpc/reflection")
      .replace(/src\/index\.js$/, "proto/grpc/reflection/v1/reflection.proto");
    expect(existsSync(folder)).toBe(true);
    const { ServerReflectionInfo: method } = loadSync(folder)[
      "grpc.reflection.v1.ServerReflection"
    ] as unknown as {
      ServerReflectionInfo: MethodDefinition<
        object,
        { listServicesResponse: { service: { name: string }[] } }
      >;
    };
    const call = grpc.channel.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
    );
    call.write({ listServices: "*" });
    const reply = await new Promise<{ listServicesResponse: { service: { name: string }[] } }>(
      (resolve, reject) => {
        call.on("data", resolve);
        call.on("error", reject);
      },
    );
    call.end();
    expect(reply.listServicesResponse.service.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "millrace.v1.Namespaces",
        "millrace.v1.Objects",
        "millrace.v1.Shuffles",
        "millrace.v1.Nodes",
      ]),
    );
  });
});

describe("SIGTERM", () => {
  it("ends watches and waits, lets a put finish, and exits 0 without leaving a socket", async () => {
    const own = await startDaemon();
    const client = new RawGrpc(own.endpoint);
    await client.call(namespaces.CreateNamespace, createRequest("drain-job"));
    await client.call(shuffles.CreateShuffle, {
      namespace: "drain-job",
      shuffle: "s",
      maps: 1,
      partitions: 1,
      partitioner: Buffer.alloc(0),
    });
    const waiting = codeOf(
      client.call(shuffles.LocatePartition, {
        namespace: "drain-job",
        shuffle: "s",
        partition: 0,
        wait: true,
        count: 0,
      }),
    );
    const watch = client.stream(objects.Watch, { namespace: "drain-job", prefix: Buffer.alloc(0) });
    const watchEnded = new Promise<string>((resolve) => {
      watch.on("error", (error) => resolve(String((error as { details?: string }).details)));
    });
    await new Promise((resolve) => watch.once("metadata", resolve));
    const { call, result } = client.openPut();
    call.write({ header: putHeader("drain-job", "late"), data: Buffer.from("1"), trailer: null });
    await sleep(100);
    own.kill("SIGTERM");
    expect(await waiting).toBe("UNAVAILABLE");
    expect(await watchEnded).toMatch(/shutting down/);
    call.write({ header: null, data: Buffer.from("2"), trailer: null });
    call.end();
    expect((await result).sizeBytes).toBe(2);
    expect(await own.exited()).toEqual({ code: 0, signal: null });
    expect(existsSync(own.socketPath)).toBe(false);
    expect(own.log()).not.toMatch(/"level":50/);
    client.close();
  });

  it("twice ends the process at once", async () => {
    const own = await startDaemon();
    const client = new RawGrpc(own.endpoint);
    await client.call(namespaces.CreateNamespace, createRequest("stuck-job"));
    const { call } = client.openPut();
    call.on("error", () => {});
    call.write({ header: putHeader("stuck-job", "never"), data: Buffer.from("1"), trailer: null });
    await sleep(100);
    own.kill("SIGTERM");
    await until(async () => own.log().includes("draining"));
    own.kill("SIGTERM");
    expect((await own.exited()).code).toBe(143);
    client.close();
  });
});
