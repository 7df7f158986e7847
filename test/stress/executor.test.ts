/** Function workers that are killed in the middle of their puts: the store shows whole objects, and gets all room back. */
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { identify } from "../../bench/content.js";
import { type Client, connect } from "../../client/index.js";
import { createExecutor, functionRef } from "../../functions/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { printedSeed, randomOf } from "../support/random.js";
import type * as functions from "./functions.js";

const MIB = 1 << 20;
const CALLS = 6;
const OBJECTS = 4;
const SIZE_BYTES = 3 * MIB;
const DEATHS = 2;
const SMALL_OBJECTS = 50;
const putAndDie = functionRef<typeof functions.putAndDie>(
  new URL("./functions.ts", import.meta.url),
  "putAndDie",
);

let daemon: Daemon;
let client: Client;
beforeAll(async () => {
  daemon = await startDaemon({ dram: "512MiB" });
  client = await connect(daemon.endpoint);
});
afterAll(async () => {
  await client.close();
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});

it("leaves whole objects of one attempt each, and no room lost", async () => {
  const random = randomOf(printedSeed("executor"));
  // Room for the calls' objects and what two processes take ahead, not for what twelve dead ones had taken.
  const namespace = await client.createNamespace("killed", { limits: { sizeBytes: 320 * MIB } });
  const executor = createExecutor({
    workers: 2,
    endpoint: daemon.endpoint,
    namespace: "killed",
    retries: DEATHS + 1,
    retryDelayMs: 10,
  });
  try {
    const options = Array.from({ length: CALLS }, (_, call) => ({
      call,
      objects: OBJECTS,
      sizeBytes: SIZE_BYTES,
      deaths: DEATHS,
      kill: random.below(OBJECTS),
    }));
    const futures = executor.map(putAndDie, options, { stragglers: false });
    expect(await executor.getResult(futures)).toEqual(new Array(CALLS).fill(DEATHS));
    for (const { stats } of futures) {
      expect(stats.history.map(({ outcome }) => outcome)).toEqual([
        ...new Array(DEATHS).fill("lost"),
        "done",
      ]);
    }
    const keys: string[] = [];
    for await (const { key } of namespace.list({ prefix: "call/" })) keys.push(key);
    expect(keys.length).toBe(CALLS * (OBJECTS + SMALL_OBJECTS));
    for (const key of keys) {
      const bytes = await namespace.get(key);
      // The last attempt overwrote whatever earlier ones had sealed.
      expect(identify(key, bytes, 0, bytes.length).version).toBe(DEATHS);
    }
  } finally {
    await executor.close();
  }
  await namespace.close();
  await client.deleteNamespace("killed");
  await vi.waitFor(
    async () => {
      const { sessions, heldBytes, dramUsedBytes } = await client.nodeStats();
      expect({ sessions, heldBytes, dramUsedBytes }).toEqual({ sessions: 0, heldBytes: 0, dramUsedBytes: 0 });
    },
    { timeout: 15_000, interval: 100 },
  );
});
