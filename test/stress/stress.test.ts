/**
 * Many writers and readers in several processes over every transport, of which some are killed as they write.
 *
 *   MILLRACE_STRESS_SECONDS  how long the mixed load runs (20)
 *   MILLRACE_SEED            repeats the choices of a run, though not how the processes interleave
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { identify } from "../../bench/content.js";
import { type Client, connect, type Namespace, type TransportKind } from "../../client/index.js";
import { type ClientProcess, startClientProcess } from "../support/client_process.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";
import { printedSeed, randomOf } from "../support/random.js";
import type { Counts, StressClient } from "./client.js";
import { possibleStates } from "./journal.js";

const MIB = 1 << 20;
const KINDS: TransportKind[] = ["shm", "tcp", "grpc"];
const SECONDS = Number(process.env.MILLRACE_STRESS_SECONDS ?? 20);
const PROCESSES = 4;
const SHARED_KEYS = Array.from({ length: 40 }, (_, index) => `shared/${index % 4}/${index}`);
const TIMEOUT_MS = 60_000 + 3_000 * SECONDS;

let daemon: Daemon;
let client: Client;
const started = new Set<ClientProcess<StressClient>>();

async function startClient(name: string, timeoutMs?: number): Promise<ClientProcess<StressClient>> {
  const one = await startClientProcess<StressClient>(new URL("./client.ts", import.meta.url));
  started.add(one);
  await one.call("open", daemon.endpoint, name, timeoutMs);
  return one;
}

async function kill(one: ClientProcess<StressClient>): Promise<void> {
  await one.kill();
  started.delete(one);
}

async function killAll(): Promise<void> {
  await Promise.all([...started].map(kill));
}

/** All memory is back: what remains is the node's spare. */
function everythingReturned(): Promise<void> {
  return vi.waitFor(
    async () => {
      const { sessions, heldBytes, dramUsedBytes, segments, objects } = await client.nodeStats();
      expect({ sessions, heldBytes, dramUsedBytes, segments, objects }).toEqual({
        sessions: 0,
        heldBytes: 0,
        dramUsedBytes: 0,
        segments: 0,
        objects: 0,
      });
    },
    { timeout: 20_000, interval: 100 },
  );
}

function useDaemon(dram: string): void {
  beforeAll(async () => {
    daemon = await startDaemon({ dram });
    client = await connect(daemon.endpoint);
  });
  afterAll(async () => {
    await killAll();
    await client.close();
    expect(await daemon.stop()).toEqual({ code: 0, signal: null });
    expect(daemon.log()).not.toMatch(/"level":[56]0/);
  });
}

async function keysOf(namespace: Namespace, prefix = ""): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of namespace.list({ prefix })) keys.push(key);
  return keys;
}

describe("writers and readers, some of which are killed", () => {
  useDaemon("2GiB");
  const folder = mkdtempSync(join(tmpdir(), "millrace-stress-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  interface Running {
    one: ClientProcess<StressClient>;
    id: number;
    journalPath: string;
    /** Rejects with the violation; never settles for one that was killed. */
    result: Promise<Counts>;
  }

  it(
    "never see a torn, mixed, half or older object, and lose nothing that was acknowledged",
    async () => {
      const seed = printedSeed("stress");
      const random = randomOf(seed);
      const namespace = await client.createNamespace("stress");
      let ids = 0;
      let kills = 0;
      let failure: Error | undefined;
      const journals: string[] = [];
      const totals: Counts = {};

      const start = async (): Promise<Running> => {
        const id = ids++;
        const one = await startClient("stress");
        const journalPath = join(folder, `${id}.jsonl`);
        writeFileSync(journalPath, ""); // for one that is killed before it has begun
        journals.push(journalPath);
        const running = { one, id, journalPath, killed: false };
        const result = one.call("run", { seed, id, sharedKeys: SHARED_KEYS, journalPath });
        result.catch((error: Error) => {
          if (!running.killed) failure ??= error;
        });
        return Object.assign(running, { result });
      };
      const running = await Promise.all(Array.from({ length: PROCESSES }, start));

      const end = Date.now() + SECONDS * 1000;
      let starting: Promise<void> = Promise.resolve();
      while (Date.now() < end && failure === undefined) {
        await sleep(300 + random.below(1700));
        if (running.length < 2) await starting;
        const victim = running.splice(random.below(running.length), 1)[0] as Running;
        Object.assign(victim, { killed: true });
        await kill(victim.one);
        kills++;
        await checkJournal(namespace, victim.journalPath);
        // The others go on while its successor starts.
        starting = Promise.all([starting, start()]).then(([, successor]) => void running.push(successor));
        starting.catch(() => {});
      }
      await starting;
      for (const { one } of running) await one.call("stop").catch(() => {});
      for (const { result } of running) {
        const counts = await result;
        for (const [what, count] of Object.entries(counts)) totals[what] = (totals[what] ?? 0) + count;
      }
      if (failure !== undefined) throw failure;
      console.log(`stress: ${kills} killed; of the others ${JSON.stringify(totals)}`);
      for (const what of ["put", "batch", "get", "range", "view again", "stream", "list", "private"]) {
        expect(totals[what] ?? 0, what).toBeGreaterThan(0);
      }

      // Also what others wrote before they died is still there, and the same over every transport.
      for (const journal of journals) await checkJournal(namespace, journal);
      await checkEverything();
      await Promise.all(running.map(({ one }) => one.call("close")));
      await killAll();

      // What is deleted is not held by anybody any more.
      await namespace.close();
      const last = await client.openNamespace("stress");
      for (const key of await keysOf(last)) await last.delete(key);
      await last.close();
      await vi.waitFor(async () => expect((await client.nodeStats()).heldBytes).toBe(0), {
        timeout: 10_000,
        interval: 100,
      });
      await client.deleteNamespace("stress");
      await everythingReturned();
    },
    TIMEOUT_MS,
  );

  async function checkJournal(namespace: Namespace, path: string): Promise<void> {
    for (const [key, possible] of possibleStates(path)) {
      const got = await namespace.tryGet(key);
      const found = got === null ? null : identify(key, got, 0, got.length);
      const fits = possible.some((state) =>
        state === null
          ? found === null
          : found?.version === state.version && found.sizeBytes === state.sizeBytes,
      );
      expect(fits, `${key} is ${JSON.stringify(found)}, not one of ${JSON.stringify(possible)}`).toBe(true);
    }
  }

  async function checkEverything(): Promise<void> {
    const clients = await Promise.all(KINDS.map((transport) => connect(daemon.endpoint, { transport })));
    const handles = await Promise.all(clients.map((each) => each.openNamespace("stress")));
    const keys = await keysOf(handles[0] as Namespace);
    for (const handle of handles) {
      expect(await keysOf(handle)).toEqual(keys);
      for (const key of keys) {
        expect(key).toMatch(/^(shared|copy\/shared|private)\//);
        const { bytes, info } = await handle.getWithInfo(key);
        identify(key.replace(/^copy\//, ""), bytes, 0, info.sizeBytes);
      }
    }
    await Promise.all(clients.map((each) => each.close()));
  }
});

describe("room that a dead client had", () => {
  useDaemon("512MiB");
  const LIMIT_BYTES = 128 * MIB;
  const OBJECT_BYTES = 5 * MIB;
  beforeEach(async () => {
    const owner = await client.createNamespace("small", { limits: { sizeBytes: LIMIT_BYTES } });
    await owner.close();
  });
  afterEach(async () => {
    await killAll();
    await client.deleteNamespace("small");
    await everythingReturned();
  });

  /** Puts as much as must fit, reads it, deletes it. */
  async function fill(transport: TransportKind, round: number): Promise<void> {
    await using filler = await connect(daemon.endpoint, { transport, timeoutMs: 10_000 });
    await using namespace = await filler.openNamespace("small");
    expect(await keysOf(namespace)).toEqual([]);
    const pattern = new Pattern(`${round}`);
    const keys = Array.from({ length: 12 }, (_, index) => `filled/${index}`);
    for (const key of keys) await namespace.put(key, pattern.bytes(0, OBJECT_BYTES));
    for (const key of keys) expect(pattern.differs(await namespace.get(key), 0)).toBeNull();
    for (const key of keys) await namespace.delete(key);
  }

  it.each(KINDS)("comes back when one is killed that had taken all of it over %s", async (kind) => {
    for (let round = 0; round < (kind === "grpc" ? 2 : 4); round++) {
      const hoarder = await startClient("small", kind === "grpc" ? 6_000 : 500);
      const taken = await hoarder.call("hoard", kind);
      expect(taken).toBeGreaterThanOrEqual(LIMIT_BYTES / 4);
      await kill(hoarder);
      await fill(KINDS[round % 3] as TransportKind, round);
    }
  });

  /** What was sealed before the kill is whole. */
  async function checkAndDelete(): Promise<void> {
    await using namespace = await client.openNamespace("small");
    // The last of the requests may still be on the way through the node's doors.
    await vi.waitFor(
      async () => {
        for (const key of await keysOf(namespace)) {
          expect(key).toMatch(/^cut\/(batch|large)\//);
          const bytes = await namespace.get(key);
          expect(bytes.length).toBe(key.startsWith("cut/batch/") ? 1000 : 6 * MIB);
          expect(bytes.every((byte) => byte === 0xcc)).toBe(true);
          await namespace.delete(key);
        }
        const { objects, sessions } = await client.nodeStats();
        expect({ objects, sessions }).toEqual({ objects: 0, sessions: 1 });
      },
      { timeout: 10_000 },
    );
  }

  it.each(KINDS)("comes back when one is killed in the middle of puts over %s", async (kind) => {
    const random = randomOf(printedSeed("kill"));
    for (let round = 0; round < 5; round++) {
      const victim = await startClient("small");
      await victim.call("beginPuts", kind);
      await sleep(random.below(30));
      await kill(victim);
      await checkAndDelete();
      await fill(KINDS[round % 3] as TransportKind, round);
    }
  });
});

describe("a full node", () => {
  useDaemon("256MiB");
  afterEach(async () => {
    await client.deleteNamespace("full");
    await everythingReturned();
  });
  const OBJECT_BYTES = 9 * MIB;

  // Over gRPC a put carries no deadline, for it may take any time; the node then gives up after 5 s by itself.
  it.each<[TransportKind, { timeoutFullMs: number; rounds: number; smallPuts: number }]>([
    ["shm", { timeoutFullMs: 700, rounds: 3, smallPuts: 400 }],
    ["tcp", { timeoutFullMs: 700, rounds: 3, smallPuts: 400 }],
    ["grpc", { timeoutFullMs: 6_000, rounds: 0, smallPuts: 0 }],
  ])("pushes back over %s, then fails by name, and takes more after deletes", async (kind, options) => {
    const { timeoutFullMs, rounds, smallPuts } = options;
    await using patient = await connect(daemon.endpoint, { transport: kind, timeoutMs: 20_000 });
    await using hurried = await connect(daemon.endpoint, { transport: kind, timeoutMs: timeoutFullMs });
    await using namespace = await patient.createNamespace("full");
    await using impatient = await hurried.openNamespace("full");
    const pattern = new Pattern(kind);
    const data = pattern.bytes(0, OBJECT_BYTES);
    // By a handle of its own: views keep their memory until they are collected or their handle is closed.
    const check = async (keys: string[]) => {
      await using reader = await patient.openNamespace("full");
      for (const key of keys) {
        const { bytes, info } = await reader.getWithInfo(key);
        expect(bytes.length).toBe(info.sizeBytes);
        expect(pattern.differs(bytes, 0)).toBeNull();
      }
    };
    const checkAll = async (expected: string[]) => {
      expect(await keysOf(namespace)).toEqual(expected);
      await check(expected);
    };
    const full = { name: "MillraceError", code: "RESOURCE_EXHAUSTED", retryable: true };
    const untilFull = async (): Promise<string[]> => {
      for (let i = 0; i < 100; i++) {
        const key = `object/${String(i).padStart(3, "0")}`;
        try {
          await impatient.put(key, data);
        } catch (error) {
          expect(error).toMatchObject(full);
          expect(String(error)).toMatch(/--dram|bytes/);
          return keysOf(namespace);
        }
      }
      throw new Error("the node never became full");
    };

    const keys = await untilFull();
    expect(keys.length).toBeGreaterThanOrEqual(10);
    await checkAll(keys);
    // In every way of writing, and over again.
    await expect(impatient.put("more", data)).rejects.toMatchObject(full);
    const batch = impatient.batch();
    const flushing = (async () => {
      for (let i = 0; i < smallPuts; i++) batch.put(`object/batch/${i}`, data.subarray(0, 256 << 10));
      for (let i = 0; i < 4; i++) batch.put(`object/batch/more/${i}`, data);
      await batch.flush();
    })();
    await expect(flushing).rejects.toMatchObject(full);
    const sealed = await keysOf(namespace, "object/batch/");
    await check(sealed);
    for (const key of sealed) await namespace.delete(key);
    const writer = await impatient.openWriter("more");
    const writing = (async () => {
      for (let i = 0; i < 100; i++) await writer.write(data);
      await writer.seal();
    })();
    await expect(writing).rejects.toMatchObject(full);
    await writer.abort().catch(() => {});
    await checkAll(keys);

    // A put that waits goes on when there is room.
    let waited = true;
    const waiting = namespace.put("waited", data).finally(() => {
      waited = false;
    });
    await sleep(200);
    const wasWaiting = waited;
    const [first, ...rest] = keys as [string, ...string[]];
    const deleted = [first, ...rest.splice(0, Math.ceil(rest.length / 2))];
    for (const key of deleted) expect(await namespace.delete(key)).toBe(true);
    expect((await waiting).sizeBytes).toBe(OBJECT_BYTES);
    await check(["waited"]);
    if (!wasWaiting) console.log(`${kind}: there was room at once`);
    await impatient.put("object/000", data);
    expect(await namespace.delete("waited")).toBe(true);
    await checkAll(["object/000", ...rest]);

    // Filled and emptied again and again, it never loses room.
    for (const key of await keysOf(namespace)) await namespace.delete(key);
    let fewest = keys.length;
    for (let round = 0; round < rounds; round++) {
      const again = await untilFull();
      fewest = Math.min(fewest, again.length);
      await checkAll(again);
      for (const key of again) await namespace.delete(key);
    }
    expect(fewest).toBeGreaterThanOrEqual(keys.length / 2);
    await Promise.all([impatient.close(), namespace.close()]);
  });

  it("has room for a namespace when another has deleted its objects", async () => {
    await using first = await client.createNamespace("full");
    const data = new Pattern("first").bytes(0, OBJECT_BYTES);
    for (let i = 0; i < 20; i++) await first.put(`${i}`, data);
    for (const key of await keysOf(first)) await first.delete(key);
    await using second = await client.createNamespace("second");
    for (let i = 0; i < 20; i++) await second.put(`${i}`, data);
    await client.deleteNamespace("second");
  });
});
