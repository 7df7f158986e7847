/** What doors hold for a namespace in memory that is no segment is in its account. */
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type Client, connect, type Namespace } from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

const MIB = 1 << 20;
const NS = "job-1";

let daemon: Daemon;
let client: Client;
let namespace: Namespace;
beforeAll(async () => {
  daemon = await startDaemon({ dram: "256MiB" });
  client = await connect(daemon.endpoint, { transport: "grpc" });
  namespace = await client.createNamespace(NS, { limits: { sizeBytes: 4 * MIB } });
});
afterAll(async () => {
  await client.close();
  await daemon.stop();
});

async function bufferBytes(): Promise<{ namespace: number; node: number }> {
  const [summary] = await client.listNamespaces();
  return { namespace: summary?.bufferBytes ?? -1, node: (await client.nodeStats()).bufferBytes };
}

it("a put that waits for room is told of until it has it", async () => {
  expect(await bufferBytes()).toEqual({ namespace: 0, node: 0 });
  const large = Buffer.alloc(900_000, "x");
  let stored = 0;
  while (stored < 4) await namespace.put(`fill/${stored++}`, large);
  const waiting = namespace.put("patient", large);
  await vi.waitFor(async () => {
    expect((await bufferBytes()).namespace).toBeGreaterThan(0);
  });
  const held = await bufferBytes();
  expect(held.node).toBe(held.namespace);
  expect(held.namespace).toBeLessThanOrEqual(large.length);
  for (let i = 0; i < stored; i++) await namespace.delete(`fill/${i}`);
  expect((await waiting).sizeBytes).toBe(large.length);
  expect(await bufferBytes()).toEqual({ namespace: 0, node: 0 });
});

it("and until it gives up", async () => {
  const large = Buffer.alloc(900_000, "x");
  const brief = await connect(daemon.endpoint, { transport: "grpc", timeoutMs: 1_000 });
  const handle = await brief.openNamespace(NS);
  const fill = async () => {
    for (let i = 0; i < 8; i++) await handle.put(`again/${i}`, large);
  };
  await expect(fill()).rejects.toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    message: expect.stringMatching(/limit.*buffers of connections/),
  });
  await vi.waitFor(async () => expect(await bufferBytes()).toEqual({ namespace: 0, node: 0 }));
  await brief.close();
});
