/** A daemon that is killed and restarted on its state, and clients that go on by themselves. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Client, connect, type Namespace, type TransportKind } from "../../client/index.js";
import { packageRoot } from "../../native/binding/addon.js";
import { type Daemon, millraceCommand, startDaemon } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";
import { printedSeed } from "../support/random.js";

const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const MIB = 1 << 20;
const failsWith = (code: string, more: object = {}) => expect.objectContaining({ code, ...more });
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

describe("a client of a node that is killed", () => {
  let state: string;
  let daemon: Daemon;
  let client: Client;
  let namespace: Namespace;

  beforeEach(() => {
    state = mkdtempSync("/dev/shm/millrace-test-");
  });
  afterEach(async () => {
    await client?.close();
    await daemon?.stop();
    rmSync(state, { recursive: true, force: true });
  });

  async function open(transport: TransportKind, timeoutMs = 30_000): Promise<void> {
    daemon = await startDaemon({ args: ["--state", state] });
    client = await connect(daemon.endpoint, { transport, timeoutMs });
    namespace = await client.createNamespace("job", { leaseMs: 60_000 });
    expect(namespace.transport).toBe(transport);
  }

  async function kill(): Promise<void> {
    daemon.kill("SIGKILL");
    await daemon.exited();
  }

  async function restart(): Promise<void> {
    await kill();
    daemon = await startDaemon({ args: ["--state", state, "--grpc", daemon.grpcAddress] });
  }

  it.each(KINDS)("goes on over %s: calls wait, and those under way are made again", async (kind) => {
    await open(kind);
    const large = new Pattern("large").bytes(0, 20 * MIB);
    await namespace.put("large", large);
    const before = await namespace.put("object", "before");
    const seen = await namespace.get("object");
    // One half under way, one half called while the node is away.
    const calls = () => [
      ...Array.from({ length: 20 }, (_, i) => namespace.put(`more/${i}`, `value ${i}`)),
      namespace.put("large/again", large),
      namespace.delete("object"),
      namespace.exists("large"),
      namespace.tryGet("large").then((bytes) => bytes?.length),
      namespace.listPage({ prefix: "large" }),
    ];
    const underWay = calls();
    await kill();
    const waiting = calls();
    await sleep(300);
    await restart();
    await Promise.all(underWay);
    await Promise.all(waiting);

    expect(namespace.transport).toBe(kind);
    expect(await namespace.exists("object")).toBe(false);
    expect(text(seen)).toBe("before");
    for (let i = 0; i < 20; i++) expect(text(await namespace.get(`more/${i}`))).toBe(`value ${i}`);
    const pattern = new Pattern("large");
    for (const key of ["large", "large/again"])
      expect(pattern.differs(await namespace.get(key), 0)).toBeNull();
    const again = await namespace.put("object", "after");
    expect(again.sequence).toBeGreaterThan(before.sequence);
  });

  it.each(KINDS)("over %s: says so where nobody knows the outcome", async (kind) => {
    await open(kind);
    const { sequence } = await namespace.put("object", "before");
    const writer = await namespace.openWriter("written");
    await writer.write(new Uint8Array(3 * MIB));
    const stream = namespace.createWriteStream("streamed");
    stream.write(new Uint8Array(100_000));
    const failed = once(stream, "error").then(([error]) => error);
    const batch = namespace.batch();
    batch.put("batched", "x");
    await batch.flush();
    await restart();
    const unavailable = failsWith("UNAVAILABLE", { retryable: true });
    const sealing = (async () => {
      await writer.write(new Uint8Array(3 * MIB));
      await writer.seal();
    })();
    await expect(sealing).rejects.toThrow(unavailable);
    stream.end(new Uint8Array(100_000));
    expect(await failed).toEqual(unavailable);
    expect(await namespace.exists("written")).toBe(false);
    expect(await namespace.exists("streamed")).toBe(false);
    // By now it is known to be back: conditions are sent once, to the node that holds what they speak of.
    await namespace.put("object", "after", { ifSequence: sequence });
    await expect(namespace.put("object", "never", { ifAbsent: true })).rejects.toThrow(
      failsWith("CONDITION_FAILED"),
    );
    await namespace.copy("object", "copied", { ifAbsent: true });
    expect(text(await namespace.get("copied"))).toBe("after");
    expect(text(await namespace.get("batched"))).toBe("x");

    const puts = namespace.batch();
    for (let i = 0; i < 1000; i++) puts.put(`lost/${i}`, new Uint8Array(1000));
    await kill();
    await expect(
      (async () => {
        for (let i = 0; i < 1000; i++) puts.put(`lost/more/${i}`, new Uint8Array(1000));
        await puts.flush();
      })(),
    ).rejects.toThrow(unavailable);
  });

  it("keeps views that it gave, without keeping what nobody views", async () => {
    await open("shm");
    const pattern = new Pattern("viewed");
    await namespace.put("viewed", pattern.bytes(0, 5 * MIB));
    const view = namespace.view("viewed") as Uint8Array;
    await restart();
    await namespace.put("viewed", new Uint8Array(5 * MIB));
    await namespace.delete("viewed");
    expect(pattern.differs(view, 0)).toBeNull();
    expect(view.length).toBe(5 * MIB);
    await namespace.close();
    expect(view.length).toBe(0);
  });

  it.each(KINDS)("over %s: fails with UNAVAILABLE when the node stays away", async (kind) => {
    await open(kind, 500);
    await namespace.put("object", "x");
    await kill();
    const unavailable = failsWith("UNAVAILABLE", { retryable: true });
    await expect(namespace.put("object", "y")).rejects.toThrow(unavailable);
    await expect(namespace.get("object")).rejects.toThrow(unavailable);
    expect(() => namespace.batch().put("object", "z")).toThrow(unavailable);
  });

  it.each(KINDS)("over %s: shuffles go on, also those that are watched and waited for", async (kind) => {
    await open(kind);
    const MAPS = 6;
    const shuffle = await namespace.createShuffle("exchange", { maps: MAPS, partitions: 2 });
    const commit = async (map: number) => {
      const writer = await shuffle.writer(map, 0);
      await writer.write(0, `zero of ${map}`);
      await writer.write(1, `one of ${map}`);
      return writer.commit();
    };
    const events: number[] = [];
    const watching = (async () => {
      for await (const { map, complete } of shuffle.watch()) {
        events.push(map);
        if (complete) return;
      }
    })();
    const reading = shuffle.reader(1).extents();
    const streamed = (async () => {
      const maps: number[] = [];
      for await (const { map, bytes } of shuffle.reader(0)) {
        expect(text(bytes)).toBe(`zero of ${map}`);
        maps.push(map);
      }
      return maps.sort();
    })();
    for (let map = 0; map < MAPS; map++) {
      expect(await commit(map)).toMatchObject({ won: true });
      if (map % 2 === 0) await restart();
    }
    await watching;
    expect(new Set(events)).toEqual(new Set(Array.from({ length: MAPS }, (_, map) => map)));
    const extents = await reading;
    expect(extents.map(({ bytes }) => text(bytes))).toEqual(
      Array.from({ length: MAPS }, (_, map) => `one of ${map}`),
    );
    expect(await streamed).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await shuffle.progress()).toMatchObject({ committed: MAPS, lostMaps: [] });
  });
});

describe("millrace bench kill", () => {
  it(
    "loses nothing and tears nothing",
    async () => {
      const seed = printedSeed("kill");
      const [program, ...leading] = millraceCommand();
      const folder = mkdtempSync(join(tmpdir(), "millrace-test-"));
      const child = spawn(
        program,
        [...leading, "bench", "kill", "--rounds", "40", "--seed", String(seed), "--json"],
        {
          cwd: packageRoot(),
          env: { ...process.env, TMPDIR: folder },
          stdio: ["ignore", "pipe", "pipe"],
        },
      );
      let output = "";
      let errors = "";
      child.stdout.setEncoding("utf8").on("data", (chunk) => {
        output += chunk;
      });
      child.stderr.setEncoding("utf8").on("data", (chunk) => {
        errors += chunk;
      });
      const [code] = await once(child, "close");
      rmSync(folder, { recursive: true, force: true });
      expect({ code, errors }).toEqual({ code: 0, errors });
      const outcome = JSON.parse(output);
      expect(outcome).toEqual({ rounds: 40, checked: expect.any(Number), lost: 0, torn: 0 });
      expect(outcome.checked).toBeGreaterThan(1000);
    },
    15 * 60_000,
  );
});
