/** Function workers and a real node: large values through the store, and what remains of them. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { createExecutor, type Executor, functionRef } from "../../functions/index.js";
import { limits } from "../../functions/limits.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import type * as fixtures from "../unit/functions/fixtures/functions.js";
import type * as storeFixtures from "../unit/functions/fixtures/store.js";

const plain = new URL("../unit/functions/fixtures/functions.ts", import.meta.url);
const storing = new URL("../unit/functions/fixtures/store.ts", import.meta.url);
type Plain = typeof fixtures;
type Storing = typeof storeFixtures;
const named = <K extends keyof Plain & string>(name: K) => functionRef<Plain[K]>(plain, name);
const storingNamed = <K extends keyof Storing & string>(name: K) => functionRef<Storing[K]>(storing, name);

const MIB = 1 << 20;
const pattern = (sizeBytes: number) => new Uint8Array(sizeBytes).map((_, index) => index % 251);

let daemon: Daemon;
let client: Client;
beforeAll(async () => {
  daemon = await startDaemon();
  client = await connect(daemon.endpoint);
});
afterAll(async () => {
  await client.close();
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});

async function keysOf(namespace: Namespace): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of namespace.list()) keys.push(String(key));
  return keys;
}

async function namespaceNames(): Promise<string[]> {
  return (await client.listNamespaces()).map(({ name }) => name);
}

describe("an executor with a namespace of its own", () => {
  let executor: Executor;
  beforeAll(() => {
    executor = createExecutor({ workers: 2, endpoint: daemon.endpoint });
  });
  afterAll(() => executor.close());

  it("passes arguments and results above 8 KiB through the store, byte for byte", async () => {
    for (const sizeBytes of [
      limits.inlineBytesMax - 512,
      limits.inlineBytesMax,
      limits.inlineBytesMax + 1,
      3 * MIB + 7,
    ]) {
      const future = executor.callAsync(named("echo"), pattern(sizeBytes));
      expect(Buffer.compare((await future) as Uint8Array, pattern(sizeBytes)), `${sizeBytes} bytes`).toBe(0);
      expect(future.stats.resultBytes).toBeGreaterThanOrEqual(sizeBytes);
      expect(future.stats.argumentBytes).toBeGreaterThanOrEqual(sizeBytes);
    }
  });

  it("gives a function an argument of its own, which it may change, and a caller a result of its own", async () => {
    const given = pattern(MIB);
    expect(await executor.callAsync(named("lengthOf"), given)).toBe(MIB);
    expect(Buffer.compare(given, pattern(MIB))).toBe(0);
    const result = await executor.callAsync(named("bytes"), MIB);
    result.fill(9);
    expect(result[MIB - 1]).toBe(9);
  });

  it("hands a large result to the next call by its key, without the driver", async () => {
    const made = executor.callAsync(named("bytes"), MIB);
    const length = executor.callAsync(named("lengthOf"), made);
    expect(await length).toBe(MIB);
    expect(length.stats.argumentBytes).toBeLessThan(1_024);
    // One call wrote to its copy; the result itself is as it was.
    expect(Buffer.compare(await made, pattern(MIB))).toBe(0);
    const pair = executor.callAsync(named("echo"), { a: made, b: [made] });
    const { a, b } = (await pair) as { a: Uint8Array; b: Uint8Array[] };
    expect(Buffer.compare(a, pattern(MIB))).toBe(0);
    expect(Buffer.compare(b[0] as Uint8Array, pattern(MIB))).toBe(0);
  });

  it("reduces results that together exceed what travels inline", async () => {
    const sum = executor.mapReduce(
      named("echo"),
      Array.from({ length: 3_000 }, (_, index) => index),
      functionRef<(values: unknown[]) => number>(plain, "sum"),
    );
    expect(await sum).toBe((3_000 * 2_999) / 2);
    expect(sum.stats.argumentBytes).toBeGreaterThan(limits.inlineBytesMax);
  });

  it("gives functions the namespace, connected once a process", async () => {
    const namespace = await client.openNamespace(executor.namespaceName as string);
    await executor.callAsync(storingNamed("putText"), { key: "k", text: "from a function" });
    expect(Buffer.from(await namespace.get("k")).toString()).toBe("from a function");
    const seen = await executor.getResult(executor.map(storingNamed("sameHandles"), [1, 2, 3, 4, 5, 6]));
    expect(seen.every((same) => same)).toBe(true);
    expect(await executor.callAsync(storingNamed("transport"), null)).toBe("shm");
    await expect(executor.callAsync(storingNamed("getText"), "absent")).rejects.toMatchObject({
      code: "CALL_FAILED",
      cause: { name: "MillraceError", code: "NOT_FOUND" },
    });
    await namespace.close();
  });

  it("keeps a large result right when the process that makes it is killed on the way", async () => {
    const future = executor.callAsync(storingNamed("bytesAfterOneDeath"), MIB);
    expect(Buffer.compare(await future, pattern(MIB))).toBe(0);
    expect(future.stats.history.map(({ outcome }) => outcome)).toEqual(["lost", "done"]);
  });
});

it("drops its own namespace when it closes, and leaves no process", async () => {
  const executor = createExecutor({ workers: 2, endpoint: daemon.endpoint });
  await executor.callAsync(named("bytes"), MIB);
  const future = executor.callAsync(named("bytes"), MIB);
  await executor.wait([future]);
  const name = executor.namespaceName as string;
  const { pids } = executor.stats();
  expect(await namespaceNames()).toContain(name);
  await executor.close();
  expect(await namespaceNames()).not.toContain(name);
  for (const pid of pids) expect(() => readFileSync(`/proc/${pid}/stat`)).toThrow();
  await expect(future).rejects.toMatchObject({ code: "CLOSED" });
});

it("deletes what it stored in a namespace of somebody else, and nothing more", async () => {
  const namespace = await client.createNamespace(`theirs-${process.pid}`);
  await namespace.put("calls/theirs", "stays");
  const executor = createExecutor({ workers: 2, endpoint: daemon.endpoint, namespace: namespace.name });
  const futures = executor.map(named("echo"), [pattern(MIB), pattern(MIB)]);
  await executor.getResult(futures);
  expect((await keysOf(namespace)).length).toBeGreaterThan(1);
  await executor.close();
  expect(await keysOf(namespace)).toEqual(["calls/theirs"]);
  await client.deleteNamespace(namespace.name);
});

it("fails every call where the namespace does not exist", async () => {
  await using executor = createExecutor({
    workers: 1,
    endpoint: daemon.endpoint,
    namespace: "no-such-namespace",
  });
  await expect(executor.callAsync(named("echo"), 1)).rejects.toMatchObject({ code: "NOT_FOUND" });
});
