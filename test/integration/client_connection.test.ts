/** What happens around objects: finding a transport, leases, restarts of the node, many handles. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connect, type TransportKind } from "../../client/index.js";
import { packageRoot } from "../../native/binding/addon.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const failsWith = (code: string, more: object = {}) => expect.objectContaining({ code, ...more });

let names = 0;
const freshName = () => `connection-${process.pid}-${names++}`;

describe("with a node", () => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await startDaemon();
  });
  afterAll(async () => {
    await daemon.stop();
  });

  it("finds it by option or by environment", async () => {
    const before = process.env.MILLRACE_ENDPOINT;
    process.env.MILLRACE_ENDPOINT = `grpc://${daemon.endpoint}`;
    try {
      await using client = await connect();
      expect(client.endpoint).toBe(daemon.endpoint);
      const node = await client.describeNode();
      expect(node).toMatchObject({ socketPath: daemon.socketPath, dataAddress: daemon.dataAddress });
      expect((await client.nodeStats()).dramLimitBytes).toBe(512 * 1024 * 1024);
    } finally {
      if (before === undefined) delete process.env.MILLRACE_ENDPOINT;
      else process.env.MILLRACE_ENDPOINT = before;
    }
  });

  it("creates, lists, opens and deletes namespaces", async () => {
    await using client = await connect(daemon.endpoint);
    const name = freshName();
    const created = await client.createNamespace(name, {
      leaseMs: 30_000,
      limits: { sizeBytes: 64 * 1024 * 1024 },
      hint: "latency",
      expectedBytes: 1024,
      atEnd: "drop",
    });
    expect(created.leaseMs).toBe(30_000);
    await created.put("object", "12345");
    const listed = (await client.listNamespaces()).find((namespace) => namespace.name === name);
    expect(listed).toMatchObject({ objects: 1, sizeBytes: 5 });
    await expect(client.createNamespace(name)).rejects.toThrow(failsWith("ALREADY_EXISTS"));
    const opened = await client.openNamespace(name);
    expect(Buffer.from(await opened.get("object")).toString()).toBe("12345");
    expect(await client.deleteNamespace(name)).toMatchObject({ namespace: name, ended: true });
    await expect(client.deleteNamespace(name)).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(client.openNamespace("no-such-namespace")).rejects.toThrow(failsWith("NOT_FOUND"));
    await expect(client.createNamespace("Not_A_Bucket")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(client.createNamespace(freshName(), { leaseMs: 0.5 })).rejects.toThrow(
      failsWith("INVALID_ARGUMENT"),
    );
  });

  it.each(KINDS)("keeps to the limits of a namespace over %s", async (transport) => {
    await using client = await connect(daemon.endpoint, { transport, timeoutMs: 3000 });
    const sizeBytes = 4 * 1024 * 1024;
    await using namespace = await client.createNamespace(freshName(), { limits: { sizeBytes } });
    await namespace.put("fits", new Uint8Array(1024));
    const tooMuch = namespace.put("too-much", new Uint8Array(2 * sizeBytes));
    await expect(tooMuch).rejects.toThrow(failsWith("RESOURCE_EXHAUSTED"));
    expect(await namespace.exists("too-much")).toBe(false);
    await namespace.put("still-fits", new Uint8Array(1024));
    await client.deleteNamespace(namespace.name);
  });

  it.each(KINDS)("loses a namespace whose lease lapses, over %s", async (transport) => {
    await using client = await connect(daemon.endpoint, { transport });
    const name = freshName();
    const creator = await client.createNamespace(name, { leaseMs: 400 });
    await using user = await client.openNamespace(name);
    await creator.put("object", "x");
    // The creator's heartbeat keeps it well past its lease.
    await sleep(1500);
    expect(await user.exists("object")).toBe(true);
    await creator.close();
    await expect
      .poll(() => user.exists("object").catch((error) => error.code), { timeout: 10_000 })
      .toBe("NAMESPACE_GONE");
    await expect(user.renewLease()).rejects.toThrow(failsWith("NAMESPACE_GONE"));
    await expect(client.openNamespace(name)).rejects.toThrow(failsWith("NAMESPACE_GONE"));
  });

  it("lets an opener keep it alive", async () => {
    await using client = await connect(daemon.endpoint);
    const creator = await client.createNamespace(freshName(), { leaseMs: 400 });
    await using keeper = await client.openNamespace(creator.name, { keepAlive: true });
    await creator.close();
    await sleep(1500);
    await keeper.put("object", "x");
    await client.deleteNamespace(keeper.name);
  });

  /** Runs a program that does nothing but put and get, and ends without closing anything. */
  async function putAndGet(env: Record<string, string>): Promise<{ code: number; output: string }> {
    const script = `
      import { connect } from ${JSON.stringify(`${packageRoot()}/client/index.ts`)};
      const client = await connect(${JSON.stringify(daemon.endpoint)});
      const namespace = await client.createNamespace(${JSON.stringify(freshName())});
      await namespace.put("object", "x".repeat(3_000_000));
      const bytes = await namespace.get("object");
      process.stdout.write(bytes.length + " over " + namespace.transport);`;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
      cwd: packageRoot(),
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.on("data", (text) => {
      output += text;
    });
    const [code] = await once(child, "exit");
    return { code, output };
  }

  it("never keeps a process alive that has nothing else to do", async () => {
    expect(await putAndGet({})).toEqual({ code: 0, output: "3000000 over shm" });
  });

  it("speaks gRPC where the native addon is not built", async () => {
    const missing = { MILLRACE_ADDON: "/nonexistent/millrace.node" };
    expect(await putAndGet(missing)).toEqual({ code: 0, output: "3000000 over grpc" });
  });

  it("closes handles with their client", async () => {
    const client = await connect(daemon.endpoint);
    const namespace = await client.createNamespace(freshName());
    await client.deleteNamespace(namespace.name);
    await client.close();
    await client.close();
    await expect(namespace.get("object")).rejects.toThrow(failsWith("CLOSED"));
    await expect(client.listNamespaces()).rejects.toThrow(failsWith("CLOSED"));
  });
});

describe("transports", () => {
  it.each([
    { args: ["--socket", "off"], found: "tcp" },
    { args: ["--data", "off"], found: "shm" },
    { args: ["--socket", "off", "--data", "off"], found: "grpc" },
    // Listens on all addresses: found at the endpoint's host.
    { args: ["--socket", "off", "--data", "0.0.0.0:0"], found: "tcp" },
  ])("with $args: $found", async ({ args, found }) => {
    const daemon = await startDaemon({ args });
    try {
      await using client = await connect(daemon.endpoint);
      const namespace = await client.createNamespace(freshName());
      expect(namespace.transport).toBe(found);
      await namespace.put("object", "x");
      expect(Buffer.from(await namespace.get("object")).toString()).toBe("x");

      await using strict = await connect(daemon.endpoint, { transport: "shm" });
      const opening = strict.openNamespace(namespace.name);
      if (found === "shm") expect((await opening).transport).toBe("shm");
      else await expect(opening).rejects.toThrow(failsWith("UNAVAILABLE", { retryable: false }));
      await client.deleteNamespace(namespace.name);
    } finally {
      await daemon.stop();
    }
  });
});

describe("a node that goes away", () => {
  it("fails calls in time where nobody answers", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as { port: number };
    await new Promise((resolve) => taken.close(resolve));
    const connecting = connect(`127.0.0.1:${port}`, { timeoutMs: 2000 });
    await expect(connecting).rejects.toThrow(failsWith("UNAVAILABLE", { retryable: true }));
    await expect(connect("nonsense")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(connect("")).rejects.toThrow(failsWith("INVALID_ARGUMENT"));
    await expect(connect("a:1", { transport: "carrier pigeon" as "shm" })).rejects.toThrow(
      failsWith("INVALID_ARGUMENT"),
    );
  });

  it.each(KINDS)("over %s: UNAVAILABLE while it is away, then its namespaces are gone", async (transport) => {
    let daemon = await startDaemon();
    const grpc = daemon.grpcAddress;
    const client = await connect(daemon.endpoint, { transport, timeoutMs: 3000 });
    try {
      const name = freshName();
      const namespace = await client.createNamespace(name);
      await namespace.put("object", "x");
      daemon.kill("SIGKILL");
      await daemon.exited();
      await expect(namespace.put("object", "y")).rejects.toThrow(
        failsWith("UNAVAILABLE", { retryable: true }),
      );
      if (transport !== "shm") {
        await expect(namespace.get("object")).rejects.toThrow(failsWith("UNAVAILABLE"));
      }
      daemon = await startDaemon({ args: ["--grpc", grpc] });
      await expect
        .poll(() => namespace.tryGet("object").catch((error) => error.code), { timeout: 15_000 })
        .toBe("NAMESPACE_GONE");

      // One of the same name is another one.
      const again = await client.createNamespace(name);
      await again.put("object", "new");
      await expect(namespace.get("object")).rejects.toThrow(failsWith("NAMESPACE_GONE"));
      expect(Buffer.from(await again.get("object")).toString()).toBe("new");
    } finally {
      await client.close();
      await daemon.stop();
    }
  });
});
