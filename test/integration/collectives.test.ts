/** Groups and versioned values against a real node, over every transport; with real function workers that are killed. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Group } from "../../client/collectives/group.js";
import {
  type Client,
  connect,
  type Namespace,
  type NumberArray,
  type TransportKind,
} from "../../client/index.js";
import { createExecutor, functionRef } from "../../functions/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { contribution, type receive, type Training, type train } from "./collectives_functions.js";

const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const functions = new URL("./collectives_functions.ts", import.meta.url);
const LONG = { timeoutMs: 40_000 };

let daemon: Daemon;
beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});

let names = 0;
const fresh = (what: string) => `${what}-${process.pid}-${names++}`;

/** Added up in the order of the ranks. */
function sumOf<T extends NumberArray>(arrays: readonly T[]): T {
  const sum = (arrays[0] as T).slice() as T;
  for (const array of arrays.slice(1)) {
    for (let i = 0; i < sum.length; i++) sum[i] = ((sum[i] as number) + (array[i] as number)) as never;
  }
  return sum;
}

/** Numbers of very different magnitudes, so that another order gives another sum. */
const numbers = (rank: number, length: number) =>
  Float64Array.from({ length }, (_, i) => Math.sin(rank * 1e3 + i) * 10 ** ((rank * 5 + i) % 13));

const bits = (array: NumberArray) =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("hex");

describe.each(KINDS)("collectives over %s", (kind) => {
  let clients: Client[];
  let namespaces: Namespace[];
  let name: string;

  /** Handles of their own, as processes of their own have them. */
  beforeEach(async () => {
    name = fresh("collectives");
    clients = await Promise.all([0, 1, 2].map(() => connect(daemon.endpoint, { transport: kind })));
    const [first, ...others] = clients as [Client, ...Client[]];
    namespaces = [await first.createNamespace(name)];
    for (const client of others) namespaces.push(await client.openNamespace(name));
  });
  afterEach(async () => {
    await clients[0]?.deleteNamespace(name).catch(() => {});
    await Promise.all(clients.map((client) => client.close()));
  });

  const members = (group: string, size: number, keepRounds = 1) =>
    Array.from({ length: size }, (_, rank) =>
      (namespaces[rank % namespaces.length] as Namespace).group(group, { rank, size, keepRounds }),
    );

  it.each([
    [1, 3],
    [3, 0],
    [3, 1],
    [5, 1000],
    [4, 300_000], // sharded
    [5, 200_013], // sharded, with a last slice that is shorter
  ])("sums arrays of %i members, %i numbers each, round after round", async (size, length) => {
    const group = members("sum", size);
    for (let round = 0; round < 4; round++) {
      const arrays = group.map(({ rank }) => numbers(rank + round, length));
      const expected = bits(sumOf(arrays));
      const into = new Float64Array(length);
      const sums = await Promise.all(
        group.map((member, rank) =>
          member.allReduce(round, arrays[rank] as Float64Array, rank === 0 ? { ...LONG, into } : LONG),
        ),
      );
      expect(sums[0]).toBe(into);
      for (const sum of sums) expect(bits(sum) === expected).toBe(true);
    }
    // Two slots a rank, whatever the number of rounds.
    const keys: string[] = [];
    for await (const { key } of (namespaces[0] as Namespace).list({ prefix: "_millrace/group/sum/" }))
      keys.push(key);
    expect(keys.filter((key) => !key.endsWith("/slice"))).toHaveLength(2 * size);
  });

  it("sums in place", async () => {
    for (const length of [10, 300_000]) {
      const group = members(`in-place-${length}`, 4);
      const arrays = group.map(({ rank }) => numbers(rank, length));
      const expected = bits(sumOf(arrays));
      const sums = await Promise.all(
        group.map((member, rank) => {
          const array = arrays[rank] as Float64Array;
          return member.allReduce(0, array, { into: array, ...LONG });
        }),
      );
      expect(sums[2]).toBe(arrays[2]);
      for (const sum of sums) expect(bits(sum) === expected).toBe(true);
    }
  });

  it("sums every type of number", async () => {
    const group = members("types", 3);
    const float = await Promise.all(
      group.map((member, rank) => member.allReduce(0, Float32Array.of(0.1 * (rank + 1), Number.NaN), LONG)),
    );
    expect([...(float[1] as Float32Array)]).toEqual([
      Math.fround(Math.fround(Math.fround(0.1) + Math.fround(0.2)) + Math.fround(0.1 * 3)),
      Number.NaN,
    ]);
    const int = await Promise.all(
      group.map((member) => member.allReduce(1, Int32Array.of(2 ** 30, -5), LONG)),
    );
    expect([...(int[0] as Int32Array)]).toEqual([(3 * 2 ** 30) | 0, -15]);
    const long = await Promise.all(
      group.map((member) => member.allReduce(2, BigInt64Array.of(2n ** 62n, -1n), LONG)),
    );
    expect([...(long[0] as BigInt64Array)]).toEqual([BigInt.asIntN(64, 3n * 2n ** 62n), -3n]);
  });

  it("reduces to one root, and lets the others go on", async () => {
    for (const length of [4, 300_000]) {
      const group = members(`reduce-${length}`, 4);
      for (let round = 0; round < 5; round++) {
        const arrays = group.map(({ rank }) => numbers(rank + round, length));
        const sums = await Promise.all(
          group.map((member, rank) =>
            member.reduce(round, arrays[rank] as Float64Array, { root: 2, ...LONG }),
          ),
        );
        expect(sums.map((sum) => sum !== null)).toEqual([false, false, true, false]);
        expect(bits(sums[2] as Float64Array) === bits(sumOf(arrays))).toBe(true);
      }
    }
  });

  it("does not write over what a slow root has not read", async () => {
    const [fast, root] = members("slow-root", 2) as [Group, Group];
    const fastRounds = (async () => {
      for (let round = 0; round < 6; round++)
        await fast.reduce(round, Int32Array.of(10 ** round), { root: 1, ...LONG });
    })();
    const sums: number[] = [];
    for (let round = 0; round < 6; round++) {
      await sleep(20);
      sums.push((await root.reduce(round, Int32Array.of(1), { root: 1, ...LONG }))?.[0] as number);
    }
    await fastRounds;
    expect(sums).toEqual([2, 11, 101, 1001, 10_001, 100_001]);
  });

  it("broadcasts round after round, from any root", async () => {
    const group = members("broadcast", 3);
    for (let round = 0; round < 6; round++) {
      const root = round < 3 ? 0 : round % 3;
      const data = new Uint8Array(round * 100_000).fill(round);
      const got = await Promise.all(
        group.map((member, rank) => member.broadcast(round, rank === root ? data : null, { root, ...LONG })),
      );
      for (const bytes of got) expect(Buffer.compare(bytes, data)).toBe(0);
    }
  });

  it("holds everybody at a barrier", async () => {
    const group = members("barrier", 3);
    let passed = 0;
    const waiting = group.slice(0, 2).map((member) => member.barrier(0, LONG).then(() => passed++));
    await sleep(100);
    expect(passed).toBe(0);
    await Promise.all([group[2]?.barrier(0, LONG), ...waiting]);
    expect(passed).toBe(2);
  });

  it("counts each rank once, whatever its attempts give", async () => {
    const [zero, one] = members("attempts", 2) as [Group, Group];
    const again = members("attempts", 2)[0] as Group;
    // Its first attempt puts its entry and gives up; the second has something else to give, and is not counted.
    await expect(zero.allReduce(0, Int32Array.of(1), { timeoutMs: 50 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      retryable: true,
      message: expect.stringContaining("of rank 1 are missing"),
    });
    const sums = await Promise.all([
      again.allReduce(0, Int32Array.of(100), LONG),
      one.allReduce(0, Int32Array.of(1000), LONG),
      zero.allReduce(0, Int32Array.of(10), LONG),
    ]);
    expect(sums.map(([sum]) => sum)).toEqual([1001, 1001, 1001]);
  });

  it("reads no array of an older round while it waits", async () => {
    const [zero, one] = members("patient", 2) as [Group, Group];
    const array = new Float64Array(10_000);
    for (const round of [0, 1])
      await Promise.all([zero, one].map((member) => member.allReduce(round, array, LONG)));
    const namespace = namespaces[0] as Namespace;
    const before = namespace.usage().bytesOut;
    const waiting = zero.allReduce(2, array, LONG);
    // It finds what was put two rounds before.
    await sleep(100);
    await Promise.all([waiting, one.allReduce(2, array, LONG)]);
    const readBytes = namespace.usage().bytesOut - before;
    expect(readBytes).toBeGreaterThanOrEqual(array.byteLength);
    expect(readBytes).toBeLessThan(2 * array.byteLength);
  });

  it("tells an attempt that comes too late", async () => {
    const group = members("late", 2);
    for (let round = 0; round < 4; round++)
      await Promise.all(group.map((member) => member.allReduce(round, Int32Array.of(round), LONG)));
    const late = members("late", 2)[0] as Group;
    await expect(late.allReduce(1, Int32Array.of(1), LONG)).rejects.toMatchObject({ code: "NOT_FOUND" });
    // What stands can be had again.
    expect([...(await (members("late", 2)[0] as Group).allReduce(3, Int32Array.of(9), LONG))]).toEqual([6]);
  });

  it("refuses what members do not agree on", async () => {
    const refused = async (what: string, first: Promise<unknown>, second: () => Promise<unknown>) => {
      first.catch(() => {});
      await sleep(20);
      await expect(second()).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
        message: expect.stringContaining(what),
      });
      await expect(first).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    };
    let group = members("length", 2) as [Group, Group];
    await refused("length", group[0].allReduce(0, Int32Array.of(1), LONG), () =>
      group[1].allReduce(0, Int32Array.of(1, 2), LONG),
    );
    group = members("type", 2) as [Group, Group];
    await refused("type", group[0].allReduce(0, Int32Array.of(1), LONG), () =>
      group[1].allReduce(0, Float32Array.of(1), LONG),
    );
    group = members("operation", 2) as [Group, Group];
    await refused("operation", group[0].allReduce(0, Int32Array.of(1), LONG), () =>
      group[1].barrier(0, LONG),
    );
    const small = members("size", 2)[0] as Group;
    const large = members("size", 3)[1] as Group;
    await refused("size", small.barrier(0, LONG), () => large.barrier(0, LONG));
  });

  it("refuses wrong calls at once", async () => {
    const namespace = namespaces[0] as Namespace;
    const invalid = expect.objectContaining({ code: "INVALID_ARGUMENT" });
    expect(() => namespace.group("g", { rank: 2, size: 2 })).toThrow(invalid);
    expect(() => namespace.group("g", { rank: -1, size: 2 })).toThrow(invalid);
    expect(() => namespace.group("g", { rank: 0, size: 0 })).toThrow(invalid);
    expect(() => namespace.group("", { rank: 0, size: 1 })).toThrow(invalid);
    expect(() => namespace.value("")).toThrow(invalid);
    const member = namespace.group("g", { rank: 0, size: 2 });
    await expect(member.allReduce(0, new Uint8Array(4) as never)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await expect(member.allReduce(0, Int32Array.of(1), { into: new Int32Array(2) })).rejects.toThrow("into");
    await expect(member.reduce(0, Int32Array.of(1), { root: 2 })).rejects.toThrow("root");
    await expect(member.broadcast(0, null)).rejects.toThrow("root");
    await expect(member.broadcast(0, new Uint8Array(1), { root: 1 })).rejects.toThrow("root");
    await expect(member.barrier(-1)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const alone = namespace.group("alone", { rank: 0, size: 1 });
    await alone.barrier(4);
    await expect(alone.barrier(6)).rejects.toThrow("comes 5");
    const busy = member.barrier(0, { timeoutMs: 100 }).catch(() => {});
    await expect(member.barrier(0)).rejects.toThrow("at a time");
    await busy;
  });

  it("ends a wait by a signal, and by closing the handle", async () => {
    const controller = new AbortController();
    const cancelled = members("cancel", 2)[0]?.barrier(0, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 30);
    await expect(cancelled).rejects.toMatchObject({ code: "CANCELLED", cause: { message: "enough" } });
    const closed = (members("close", 2)[1] as Group).barrier(0);
    closed.catch(() => {});
    await sleep(30);
    await namespaces[1]?.close();
    await expect(closed).rejects.toMatchObject({ code: "CLOSED" });
  });

  it("counts every contribution exactly once, at any interleaving of attempts", async () => {
    const plan = fc.record({
      size: fc.integer({ min: 1, max: 4 }),
      // For every rank: attempts that give up after so many ms, before the one that stays; and when it begins.
      ranks: fc.array(
        fc.record({
          failures: fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 2 }),
          twins: fc.boolean(),
          waitMs: fc.integer({ min: 0, max: 10 }),
        }),
        { minLength: 4, maxLength: 4 },
      ),
      operations: fc.array(fc.constantFrom("allReduce", "reduce", "broadcast", "barrier", "sharded"), {
        minLength: 1,
        maxLength: 4,
      }),
    });
    await fc.assert(
      fc.asyncProperty(plan, async ({ size, ranks, operations }) => {
        const group = fresh("property");
        // Of every rank one of the values that its attempts offer, the same one for all members.
        const offered = (rank: number, round: number, attempt: number) =>
          BigInt64Array.of(10n ** BigInt(4 * rank) * BigInt(1 + attempt + 10 * round), 1n);
        const directExtraBytesMax = operations.includes("sharded") ? -1 : 1 << 20;
        const open = (rank: number) => {
          const namespace = namespaces[rank % namespaces.length] as Namespace;
          return withThreshold(namespace, group, { rank, size }, directExtraBytesMax);
        };
        const act = async (member: Group, round: number, attempt: number, timeoutMs: number) => {
          const operation = operations[round];
          const root = round % size;
          const mine = offered(member.rank, round, attempt);
          if (operation === "barrier") return member.barrier(round, { timeoutMs });
          if (operation === "broadcast") {
            const bytes = new Uint8Array(mine.buffer);
            return member.broadcast(round, member.rank === root ? bytes : null, { root, timeoutMs });
          }
          if (operation === "reduce") return member.reduce(round, mine, { root, timeoutMs });
          return member.allReduce(round, mine, { timeoutMs });
        };
        const results = await Promise.all(
          ranks.slice(0, size).map(async ({ failures, twins, waitMs }, rank) => {
            const seen: unknown[] = [];
            let member = open(rank);
            for (let round = 0; round < operations.length; round++) {
              await sleep(waitMs);
              let attempt = 0;
              for (const timeoutMs of failures) {
                await act(open(rank), round, attempt++, timeoutMs).catch(() => {});
                member = open(rank);
              }
              const runs = [act(member, round, attempt, 40_000)];
              if (twins) runs.push(act(open(rank), round, attempt + 1, 40_000));
              const [first, second] = await Promise.all(runs);
              if (twins) expect(second).toEqual(first);
              seen.push(first);
            }
            return seen;
          }),
        );
        for (let round = 0; round < operations.length; round++) {
          const operation = operations[round] as string;
          const ofRound = results.map((seen) => seen[round]);
          if (operation === "barrier") continue;
          const given = ofRound.filter((result) => result !== null);
          expect(given).toHaveLength(operation === "reduce" ? 1 : size);
          for (const result of given) expect(result).toEqual(given[0]);
          if (operation === "broadcast") continue;
          const [sum, count] = given[0] as BigInt64Array;
          expect(count).toBe(BigInt(size));
          for (let rank = 0; rank < size; rank++) {
            const digits =
              Number((((sum as bigint) / 10n ** BigInt(4 * rank)) % 10_000n) as bigint) - 10 * round;
            expect(digits).toBeGreaterThanOrEqual(1);
            expect(digits).toBeLessThanOrEqual(4);
          }
        }
      }),
      { numRuns: kind === "grpc" ? 15 : 50 },
    );
  });
});

/** The group with another threshold between the exchanges, which the public API does not let one choose. */
function withThreshold(
  namespace: Namespace,
  name: string,
  options: { rank: number; size: number },
  directExtraBytesMax: number,
): Group {
  return namespace.group(name, { ...options, directExtraBytesMax } as never);
}

describe.each(KINDS)("versioned values over %s", (kind) => {
  let client: Client;
  let namespace: Namespace;
  beforeEach(async () => {
    client = await connect(daemon.endpoint, { transport: kind });
    namespace = await client.createNamespace(fresh("values"));
  });
  afterEach(async () => {
    await client.deleteNamespace(namespace.name).catch(() => {});
    await client.close();
  });
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

  it("wakes readers of a version when it, or a later one, is published", async () => {
    const value = namespace.value("model");
    const waiting = [1, 2, 3].map((atLeast) => value.read({ atLeast, ...LONG }));
    const [one, two, three] = waiting as [(typeof waiting)[0], (typeof waiting)[0], (typeof waiting)[0]];
    expect(await value.publish(1, "one")).toBe(true);
    expect(text((await one).bytes)).toBe("one");
    expect(await value.publish(5, "five")).toBe(true);
    for (const waited of [two, three]) {
      const { version, bytes } = await waited;
      expect([version, text(bytes)]).toEqual([5, "five"]);
    }
    expect((await value.read()).version).toBe(5);
  });

  it("lets versions only grow, and the first of a version count", async () => {
    const value = namespace.value("grows");
    expect(await value.publish(3, "three")).toBe(true);
    expect(await value.publish(3, "another three")).toBe(false);
    expect(await value.publish(2, "two")).toBe(false);
    expect(text((await value.read({ atLeast: 2 })).bytes)).toBe("three");
    await Promise.all(Array.from({ length: 20 }, (_, version) => value.publish(version, String(version))));
    const last = await value.read();
    expect([last.version, text(last.bytes)]).toEqual([19, "19"]);
  });

  it("says what there is when a version does not come in time", async () => {
    const value = namespace.value("late");
    await value.publish(2, "two");
    await expect(value.read({ atLeast: 7, timeoutMs: 40 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      message: expect.stringMatching(/version 7 or later; the latest is 2/),
    });
    const signal = AbortSignal.abort();
    await expect(value.read({ atLeast: 7, signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(value.publish(-1, "")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("reads a version once a process, and keeps it while it is read", async () => {
    const value = namespace.value("once");
    const data = new Uint8Array(3_000_000).map((_, index) => index % 253);
    await value.publish(0, data);
    const before = namespace.usage().bytesOut;
    const seen = await Promise.all(Array.from({ length: 8 }, () => namespace.value("once").read()));
    for (const { bytes } of seen) expect(Buffer.compare(bytes, data)).toBe(0);
    if (kind === "shm") {
      expect(namespace.usage().copiesAvoidedBytes).toBeGreaterThanOrEqual(8 * data.length);
    } else {
      expect(namespace.usage().bytesOut - before).toBeLessThan(2 * data.length);
    }
    await value.publish(1, "next");
    expect(Buffer.compare((seen[0] as { bytes: Uint8Array }).bytes, data)).toBe(0);
  });

  it("leaves objects of others under its keys alone", async () => {
    await namespace.put("_millrace/value/foreign", "something");
    await expect(namespace.value("foreign").read()).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(namespace.value("foreign").publish(1, "x")).rejects.toMatchObject({ code: "CORRUPT" });
  });
});

describe.each(KINDS)("function workers over %s", (kind) => {
  it.each([
    ["before", 30, true, false],
    ["after", 30, true, false],
    ["after", 10_000, true, true],
    ["before", 30, false, false],
  ] as const)(
    "sum the same when one is killed %s its entry is put (%i numbers, state saved: %s, sharded: %s)",
    async (when, length, saves, sharded) => {
      const size = 3;
      const rounds = 6;
      const training = (rank: number): Training => ({
        kind,
        group: "training",
        rank,
        size,
        rounds,
        length,
        dies: { rank: 1, round: 3, when },
        saves,
        sharded,
        keepRounds: saves ? 1 : rounds,
      });
      const executor = createExecutor({ workers: size, endpoint: daemon.endpoint, stragglers: false });
      try {
        const calls = executor.map(
          functionRef<typeof train>(functions, "train"),
          Array.from({ length: size }, (_, rank) => training(rank)),
        );
        const states = await executor.getResult(calls);
        expect(calls[1]?.stats.history.map(({ outcome }) => outcome)).toEqual(["lost", "done"]);
        let expected: Float64Array = new Float64Array(length);
        for (let round = 0; round < rounds; round++) {
          const state = expected;
          expected = sumOf(Array.from({ length: size }, (_, rank) => contribution(rank, round, state)));
        }
        for (const state of states) expect(bits(Float64Array.from(state)) === bits(expected)).toBe(true);
      } finally {
        await executor.close();
      }
    },
  );

  it("share one broadcast", async () => {
    const size = 3;
    const sizeBytes = 2_000_000;
    const executor = createExecutor({ workers: size, endpoint: daemon.endpoint, stragglers: false });
    try {
      const args = Array.from({ length: size }, (_, rank) => ({
        kind,
        rank,
        size,
        name: "share",
        sizeBytes,
      }));
      const seen = await executor.getResult(
        executor.map(functionRef<typeof receive>(functions, "receive"), args),
      );
      const sum = new Uint8Array(sizeBytes).map((_, index) => index % 251).reduce((a, b) => a + b, 0);
      for (const { sum: got, length } of seen) expect([got, length]).toEqual([sum, sizeBytes]);
      // One put.
      const putBytes = seen.reduce((total, { bytesIn }) => total + bytesIn, 0);
      expect(putBytes).toBeLessThan(1.1 * sizeBytes);
      if (kind === "shm") {
        for (const { copiesAvoidedBytes } of seen)
          expect(copiesAvoidedBytes).toBeGreaterThanOrEqual(sizeBytes);
      }
    } finally {
      await executor.close();
    }
  });
});

it.each(KINDS)("goes on over %s when the node is killed and restarted with its state", async (kind) => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-state-"));
  const state = join(folder, "state");
  const args = ["--state", state];
  let node = await startDaemon({ args });
  const [, port] = node.grpcAddress.split(":");
  const client = await connect(node.endpoint, { transport: kind });
  try {
    const namespace = await client.createNamespace(fresh("restarted"));
    const [zero, one] = [0, 1].map((rank) => namespace.group("g", { rank, size: 2 })) as [Group, Group];
    const value = namespace.value("v");
    await value.publish(0, "before");
    const read = value.read({ atLeast: 1, ...LONG });
    const waiting = zero.allReduce(0, Int32Array.of(1), LONG);
    await sleep(100);
    node.kill("SIGKILL");
    await node.exited();
    node = await startDaemon({ args: [...args, "--grpc", `127.0.0.1:${port}`] });
    expect([...(await one.allReduce(0, Int32Array.of(10), LONG))]).toEqual([11]);
    expect([...(await waiting)]).toEqual([11]);
    await value.publish(1, "after");
    expect((await read).version).toBe(1);
  } finally {
    await client.close();
    await node.stop();
    const { memoryDirectory } = JSON.parse(readFileSync(join(state, "node.json"), "utf8"));
    rmSync(memoryDirectory, { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
  }
});
