/** `serve --state`: what outlives the daemon, however it ends. Real daemons, killed, over raw gRPC. */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import type { MillraceError } from "../../proto/errors.js";
import type { VerifiedNamespace } from "../../server/cli/verify.js";
import { type Daemon, millraceCommand, startDaemon } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";
import { contract, createRequest, RawGrpc } from "../support/raw_grpc.js";

const { namespaces, shuffles, nodes, objects } = contract;
const NS = "kept-job";

let folder: string;
let state: string;
let daemon: Daemon;
let grpc: RawGrpc;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-state-"));
  state = join(folder, "state");
});

afterEach(async () => {
  grpc?.close();
  await daemon?.stop();
  if (existsSync(join(state, "node.json")))
    rmSync(identity().memoryDirectory, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

function identity(): { nodeId: string; memoryDirectory: string } {
  return JSON.parse(readFileSync(join(state, "node.json"), "utf8"));
}

async function start(...args: string[]): Promise<void> {
  daemon = await startDaemon({ dram: "256MiB", args: ["--state", state, ...args] });
  grpc = new RawGrpc(daemon.endpoint);
}

async function end(signal: NodeJS.Signals): Promise<void> {
  grpc.close();
  daemon.kill(signal);
  await daemon.exited();
}

async function restart(signal: NodeJS.Signals, ...args: string[]): Promise<void> {
  await end(signal);
  await start(...args);
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "OK",
    (thrown: MillraceError) => thrown.code,
  );
}

const pattern = (key: string) => new Pattern(key);

async function put(key: string, sizeBytes: number): Promise<void> {
  const chunks: Buffer[] = [];
  for (let offset = 0; offset < sizeBytes; offset += 1 << 20) {
    chunks.push(pattern(key).bytes(offset, Math.min(1 << 20, sizeBytes - offset)));
  }
  await grpc.put(NS, key, chunks, { sizeBytes, sizeKnown: true });
}

async function expectWhole(key: string, sizeBytes: number): Promise<void> {
  const { bytes } = await grpc.get(NS, key);
  expect(bytes.length).toBe(sizeBytes);
  expect(pattern(key).differs(bytes, 0)).toBeNull();
}

/** Commits map `map` of shuffle "s" with two partitions of `bytes` bytes. */
async function commit(map: number, attempt: number, bytes: number) {
  const key = `s/${map}/${attempt}`;
  await put(key, 2 * bytes);
  return grpc.call(shuffles.CommitMapOutput, {
    namespace: NS,
    shuffle: "s",
    map,
    attempt,
    key: Buffer.from(key),
    offsets: [0, bytes, 2 * bytes],
    checksums: [map, attempt],
  });
}

const locate = (partition: number) =>
  grpc.call(shuffles.LocatePartition, { namespace: NS, shuffle: "s", partition, wait: false, count: 1 });

function millrace(...args: string[]): { code: number | null; json: unknown; stdout: string; stderr: string } {
  const [program, ...leading] = millraceCommand();
  const { status, stdout, stderr } = spawnSync(program, [...leading, ...args], {
    cwd: packageRoot(),
    encoding: "utf8",
  });
  return { code: status, json: args.includes("--json") ? JSON.parse(stdout) : null, stdout, stderr };
}

/** Flips a byte of `needle`, wherever a file below the folder holds it. Returns how many files did. */
function damage(below: string, needle: Buffer): number {
  let damaged = 0;
  for (const name of readdirSync(below, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".seg")) continue;
    const content = readFileSync(join(below, name));
    const at = content.indexOf(needle);
    if (at < 0) continue;
    const byte = content.subarray(at, at + 1);
    byte[0] = (byte[0] as number) ^ 0xff;
    const fd = openSync(join(below, name), "r+");
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
    damaged += 1;
  }
  return damaged;
}

describe.each([["SIGKILL"], ["SIGTERM"]] as const)("after %s", (signal) => {
  it("objects, namespaces and the node are the ones they were", async () => {
    await start();
    const created = await grpc.call(namespaces.CreateNamespace, {
      ...createRequest(NS),
      limits: { sizeBytes: 200 << 20, dramBytes: 0, bandwidthBytesPerSecond: 0 },
      hint: "HINT_CAPACITY",
    });
    const { nodeId } = await grpc.call(nodes.DescribeNode, {});
    const sizes = { empty: 0, small: 100, block: 4096, large: 20 << 20 };
    for (const [key, sizeBytes] of Object.entries(sizes)) await put(key, sizeBytes);
    await put("gone", 1000);
    await grpc.call(objects.Delete, { namespace: NS, key: Buffer.from("gone"), condition: null });
    for (let round = 0; round < 2; round++) {
      await restart(signal);
      expect((await grpc.call(nodes.DescribeNode, {})).nodeId).toBe(nodeId);
      const { leaseRemainingMs: _, ...same } = await grpc.call(namespaces.OpenNamespace, { name: NS });
      expect(same).toEqual({ ...created, leaseRemainingMs: undefined });
      for (const [key, sizeBytes] of Object.entries(sizes)) await expectWhole(key, sizeBytes);
      expect(await codeOf(grpc.get(NS, "gone"))).toBe("NOT_FOUND");
      // It goes on: what is put now is kept by the next life too.
      await put(`round-${round}`, 300_000);
    }
    await expectWhole("round-0", 300_000);
    const { receipt } = await grpc.call(namespaces.DeleteNamespace, { name: NS });
    expect(receipt).toMatchObject({ objects: 6 });
    await restart(signal);
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: NS }))).toBe("NOT_FOUND");
    expect((await grpc.call(nodes.NodeStats, {})).objects).toBe(0);
  });

  it("shuffles go on: winners stay winners, losses stay losses", async () => {
    await start();
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    const create = { namespace: NS, shuffle: "s", maps: 3, partitions: 2, partitioner: Buffer.from([7, 8]) };
    await grpc.call(shuffles.CreateShuffle, create);
    expect(await commit(0, 0, 1000)).toEqual({ won: true, winningAttempt: 0 });
    expect(await commit(1, 5, 2000)).toEqual({ won: true, winningAttempt: 5 });
    await grpc.call(shuffles.CreateShuffle, { ...create, shuffle: "gone" });
    await grpc.call(shuffles.DeleteShuffle, { namespace: NS, shuffle: "gone" });
    const before = await locate(1);
    await restart(signal);
    expect(await grpc.call(shuffles.DescribeShuffle, { namespace: NS, shuffle: "s" })).toMatchObject({
      ...create,
      committed: 2,
      partitionBytes: [3000, 3000],
      lostMaps: [],
    });
    expect(await locate(1)).toEqual(before);
    expect(await codeOf(grpc.call(shuffles.DescribeShuffle, { namespace: NS, shuffle: "gone" }))).toBe(
      "NOT_FOUND",
    );
    expect(await commit(0, 1, 1000)).toEqual({ won: false, winningAttempt: 0 });
    expect(await codeOf(grpc.get(NS, "s/0/1"))).toBe("NOT_FOUND");
    await grpc.call(shuffles.ReportLost, { namespace: NS, shuffle: "s", maps: [1] });
    await restart(signal);
    expect(await codeOf(locate(0))).toBe("MAP_OUTPUT_LOST");
    expect(await commit(1, 6, 10)).toEqual({ won: true, winningAttempt: 6 });
    expect(await commit(2, 0, 20)).toEqual({ won: true, winningAttempt: 0 });
    await restart(signal);
    const located = await locate(0);
    expect(located.complete).toBe(true);
    expect(located.extents.map(({ length, crc32c }) => [length, crc32c])).toEqual([
      [1000, 0],
      [10, 1],
      [20, 2],
    ]);
    await grpc.call(shuffles.DeleteShuffle, { namespace: NS, shuffle: "s" });
    expect((await grpc.call(namespaces.ListNamespaces, {})).namespaces[0]?.objects).toBe(0);
  });

  it("receipts go on adding up", async () => {
    await start();
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    await put("a", 5000);
    await grpc.call(namespaces.ReportUsage, {
      name: NS,
      traffic: [{ by: "shm", bytesIn: 0, bytesOut: 77, operations: 1 }],
      copiesAvoidedBytes: 77,
    });
    await restart(signal);
    await put("b", 5000);
    const receipt = await grpc.call(namespaces.GetReceipt, { name: NS });
    expect(receipt).toMatchObject({ objects: 2, sizeBytes: 10_000, copiesAvoidedBytes: 77 });
    const by = Object.fromEntries(receipt.traffic.map((traffic) => [traffic.by, traffic]));
    expect(by.grpc).toMatchObject({ bytesIn: 10_000, operations: 2 });
    expect(by.shm).toMatchObject({ bytesOut: 77 });
  });
});

describe("leases", () => {
  it("go on with what was left, stand still while no daemon runs, and lapse", async () => {
    await start();
    await grpc.call(namespaces.CreateNamespace, { ...createRequest(NS), leaseMs: 20_000 });
    await grpc.call(namespaces.CreateNamespace, { ...createRequest("short-job"), leaseMs: 1_000 });
    const { leaseRemainingMs } = await grpc.call(namespaces.OpenNamespace, { name: NS });
    await end("SIGKILL");
    await sleep(3_000);
    await start();
    const now = await grpc.call(namespaces.OpenNamespace, { name: NS });
    expect(now.leaseMs).toBe(20_000);
    // What the daemon lived is at most what is missing; the three seconds are not.
    expect(now.leaseRemainingMs).toBeLessThanOrEqual(leaseRemainingMs + 1_000);
    expect(now.leaseRemainingMs).toBeGreaterThan(12_000);
    const short = await grpc.call(namespaces.OpenNamespace, { name: "short-job" });
    expect(short.leaseRemainingMs).toBeGreaterThan(1_000);
    while ((await codeOf(grpc.call(namespaces.OpenNamespace, { name: "short-job" }))) === "OK")
      await sleep(100);
    expect(await grpc.call(namespaces.RenewLease, { name: NS, leaseMs: 0 })).toEqual({
      leaseRemainingMs: 20_000,
    });
    await restart("SIGKILL");
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: "short-job" }))).toBe("NOT_FOUND");
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: NS }))).toBe("OK");
  });
});

describe("a state directory", () => {
  it("takes one daemon at a time", async () => {
    await start();
    await expect(startDaemon({ args: ["--state", state] })).rejects.toThrow(
      /another daemon runs on the state/,
    );
    await restart("SIGKILL");
    expect(await codeOf(grpc.call(nodes.NodeStats, {}))).toBe("OK");
  });

  it("leaves out a namespace whose journal does not hold, and keeps its files", async () => {
    await start();
    for (const name of [NS, "other-job"]) await grpc.call(namespaces.CreateNamespace, createRequest(name));
    await put("a", 100_000);
    await end("SIGKILL");
    const journal = join(state, "namespaces", `${NS}.jsonl`);
    appendFileSync(journal, '{"t":"rubbish"}\n');
    const { memoryDirectory } = identity();
    const files = () =>
      readdirSync(memoryDirectory, { recursive: true }).filter((name) => /seg|index/.test(`${name}`));
    const before = files().length;
    await start();
    expect(daemon.log()).toMatch(/kept-job\.jsonl\.bad","line":2,"reason":".*rubbish/);
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: NS }))).toBe("NOT_FOUND");
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: "other-job" }))).toBe("OK");
    expect(files().length).toBeGreaterThanOrEqual(before);
    // Repaired by hand it is back, with its bytes.
    await end("SIGKILL");
    rmSync(journal, { force: true });
    const bad = readFileSync(`${journal}.bad`, "utf8");
    appendFileSync(journal, bad.replace('{"t":"rubbish"}\n', ""));
    rmSync(`${journal}.bad`);
    await start();
    await expectWhole("a", 100_000);
  });

  it("ignores a line that was being written when the daemon died", async () => {
    await start();
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    await put("a", 1000);
    await end("SIGKILL");
    appendFileSync(join(state, "namespaces", `${NS}.jsonl`), '{"t":"renewed","lapsesAt');
    await start();
    await expectWhole("a", 1000);
  });

  it("starts empty where the memory is gone, as after a reboot", async () => {
    await start();
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    await put("a", 1000);
    await end("SIGKILL");
    rmSync(identity().memoryDirectory, { recursive: true });
    await start();
    expect(daemon.log()).toMatch(/the node starts empty/);
    expect(await codeOf(grpc.call(namespaces.OpenNamespace, { name: NS }))).toBe("NOT_FOUND");
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    await put("a", 2000);
    await restart("SIGKILL");
    await expectWhole("a", 2000);
  });

  it("removes what no journal speaks of", async () => {
    await start();
    for (const name of [NS, "other-job"]) await grpc.call(namespaces.CreateNamespace, createRequest(name));
    await put("a", 100_000);
    await end("SIGKILL");
    // As if the daemon had died between the record of a deletion and the deletion.
    rmSync(join(state, "namespaces", `${NS}.jsonl`));
    await start();
    const { namespaces: listed } = await grpc.call(namespaces.ListNamespaces, {});
    expect(listed.map(({ name }) => name)).toEqual(["other-job"]);
    const folders = readdirSync(identity().memoryDirectory).filter((name) => /^[0-9a-f]{32}$/.test(name));
    expect(folders).toHaveLength(1);
  });

  it("begins a namespace afresh whose record is all that is left, with its token", async () => {
    await start();
    const { token } = await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    await end("SIGKILL");
    rmSync(join(identity().memoryDirectory, Buffer.from(token).toString("hex")), { recursive: true });
    await start();
    expect((await grpc.call(namespaces.OpenNamespace, { name: NS })).token).toEqual(token);
    await put("a", 1000);
    await expectWhole("a", 1000);
  });

  it("does not start without an NVMe directory that holds its objects", async () => {
    const nvme = join(folder, "nvme");
    await start("--nvme", `${nvme}:256MiB`);
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    // More than memory has room for.
    for (let number = 0; number < 24; number++) await put(`large-${number}`, 12 << 20);
    expect((await grpc.call(nodes.NodeStats, {})).nvmeUsedBytes).toBeGreaterThan(0);
    await end("SIGKILL");
    await expect(startDaemon({ args: ["--state", state] })).rejects.toThrow(/give --nvme .*nvme:SIZE again/);
    await start("--nvme", `${nvme}:256MiB`);
    for (let number = 0; number < 24; number++) await expectWhole(`large-${number}`, 12 << 20);
    const verified = await grpc.call(nodes.Verify, { namespace: NS });
    expect(verified).toEqual({ checked: 24, sizeBytes: 24 * (12 << 20), damaged: [] });
  });
});

describe("damage", () => {
  it("in either tier is found by doctor --verify, and by a read", async () => {
    const nvme = join(folder, "nvme");
    await start("--nvme", `${nvme}:512MiB`);
    await grpc.call(namespaces.CreateNamespace, createRequest(NS));
    for (let number = 0; number < 30; number++) await put(`large-${number}`, 10 << 20);
    await put("small", 50_000);
    const verify = () => millrace("doctor", "--verify", "--endpoint", daemon.endpoint, "--json");
    expect(verify()).toMatchObject({
      code: 0,
      json: { checked: 31, sizeBytes: 30 * (10 << 20) + 50_000, damaged: 0 },
    });
    const middle = (key: string) => pattern(key).bytes(40_000, 64);
    expect(damage(identity().memoryDirectory, middle("small"))).toBe(1);
    const demoted = Array.from({ length: 30 }, (_, number) => `large-${number}`).find(
      (key) => damage(nvme, middle(key)) > 0,
    ) as string;
    const { code, json, stderr } = verify();
    expect(code).toBe(1);
    expect(stderr).toMatch(/2 of 31 objects are damaged/);
    expect(json).toMatchObject({ damaged: 2, namespaces: [{ namespace: NS, checked: 31 }] });
    const { damaged } = (json as { namespaces: [VerifiedNamespace] }).namespaces[0];
    expect(damaged.map(({ key }) => key).sort()).toEqual([demoted, "small"].sort());
    for (const { key, segment, message } of damaged) {
      expect(message).toContain(`'${key}'`);
      expect(message).toContain(String(segment));
    }
    const plain = millrace("doctor", "--verify", "--endpoint", daemon.endpoint);
    expect(plain.stdout).toMatch(/^31 objects of 1 namespaces checked, .*, 2 damaged\n/);
    expect(plain.stdout).toMatch(new RegExp(`^${NS} +small +\\d+ `, "m"));
    for (const key of ["small", demoted]) expect(await codeOf(grpc.get(NS, key))).toBe("CORRUPT");
    const top = millrace("top", "--once", "--endpoint", daemon.endpoint);
    expect(top.stdout).toMatch(/^nvme +\[#/m);
    expect(top.stdout).toMatch(/demoted/);
  });
});

describe("inspect", () => {
  /** Everything below the folders, by path: size and time of the last change. */
  function census(...roots: string[]): string[] {
    return roots.flatMap((root) =>
      readdirSync(root, { recursive: true, encoding: "utf8" }).map((name) => {
        const { size, mtimeMs } = statSync(join(root, name));
        return `${name} ${size} ${mtimeMs}`;
      }),
    );
  }

  it("shows what a dead node left, changes nothing, and finds damage in either tier", async () => {
    const nvme = join(folder, "nvme");
    await start("--nvme", `${nvme}:512MiB`);
    await grpc.call(namespaces.CreateNamespace, { ...createRequest(NS), leaseMs: 600_000 });
    await grpc.call(namespaces.CreateNamespace, createRequest("empty-job"));
    const create = { namespace: NS, shuffle: "s", maps: 3, partitions: 2, partitioner: Buffer.alloc(0) };
    await grpc.call(shuffles.CreateShuffle, create);
    await commit(0, 0, 1000);
    await commit(1, 0, 1000);
    await grpc.call(shuffles.ReportLost, { namespace: NS, shuffle: "s", maps: [1] });
    for (let number = 0; number < 30; number++) await put(`large-${number}`, 10 << 20);
    await put("small", 50_000);
    const running = millrace("inspect", state, "--json");
    expect(running.json).toMatchObject({ running: true });
    expect(running.stderr).toMatch(/a daemon runs on this state/);
    await end("SIGKILL");

    const { memoryDirectory, nodeId } = identity();
    const before = census(state, memoryDirectory, nvme);
    const whole = millrace("inspect", state, "--verify", "--json");
    expect(whole).toMatchObject({ code: 0, stderr: "" });
    expect(whole.json).toMatchObject({ nodeId, running: false, memoryGone: false, badJournals: [] });
    const listed = (whole.json as { namespaces: { name: string; segments: { tier: string }[] }[] })
      .namespaces;
    expect(listed).toMatchObject([
      { name: "empty-job", objects: 0, torn: 0, damaged: [], problem: null },
      {
        name: NS,
        objects: 32,
        sizeBytes: 30 * (10 << 20) + 50_000 + 2000,
        torn: 0,
        damaged: [],
        problem: null,
        shuffles: [{ name: "s", maps: 3, partitions: 2, committed: 1, lost: 1 }],
      },
    ]);
    const tiers = new Set(listed.flatMap(({ segments }) => segments.map(({ tier }) => tier)));
    expect([...tiers].sort()).toEqual(["dram", "nvme"]);
    const { leaseRemainingMs } = listed[1] as unknown as { leaseRemainingMs: number };
    expect(leaseRemainingMs).toBeGreaterThan(400_000);
    expect(leaseRemainingMs).toBeLessThanOrEqual(601_000);
    expect(census(state, memoryDirectory, nvme)).toEqual(before);

    const middle = (key: string) => pattern(key).bytes(40_000, 64);
    expect(damage(memoryDirectory, middle("small"))).toBe(1);
    const demoted = Array.from({ length: 30 }, (_, number) => `large-${number}`).find(
      (key) => damage(nvme, middle(key)) > 0,
    ) as string;
    const found = millrace("inspect", state, "--verify", "--json");
    expect(found.code).toBe(1);
    expect(found.stderr).toMatch(/2 objects are damaged/);
    const keys = (found.json as { namespaces: VerifiedNamespace[] }).namespaces.flatMap(({ damaged }) =>
      damaged.map(({ key }) => key),
    );
    expect(keys.sort()).toEqual([demoted, "small"].sort());
    expect(millrace("inspect", state).stdout).toMatch(
      /^kept-job: 32 objects, .* torn, .* of its lease left\n/m,
    );

    appendFileSync(join(state, "namespaces", "empty-job.jsonl"), "rubbish\n");
    expect(millrace("inspect", state, "--json")).toMatchObject({
      code: 1,
      json: { badJournals: [{ file: expect.stringMatching(/empty-job\.jsonl$/), line: 2 }] },
    });
    // The node itself starts, without the one and with the damage, which it tells when it is read.
    await start("--nvme", `${nvme}:512MiB`);
    for (const key of ["small", demoted]) expect(await codeOf(grpc.get(NS, key))).toBe("CORRUPT");
  });

  it("says what is no state directory", () => {
    expect(millrace("inspect", folder)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/is no state directory/),
    });
    expect(millrace("inspect", join(folder, "nowhere"))).toMatchObject({ code: 2 });
  });
});
