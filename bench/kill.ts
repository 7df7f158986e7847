/**
 * Kills the daemon with SIGKILL at random moments, also while it recovers, and restarts it on the same state, while
 * client processes go on by themselves over all transports. After each restart they check all that they had an
 * acknowledgement for.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, connect, MillraceError, type TransportKind } from "../client/index.js";
import { type ClientProcess, startClient } from "./client_process.js";
import { serveCommand, untilReady } from "./daemon.js";
import type { KillReport } from "./kill_load.js";
import { type Launched, launch } from "./processes.js";
import { type Random, randomOf } from "./random.js";

export interface KillOptions {
  rounds: number;
  seed: number;
  signal: AbortSignal;
  /** Takes lines on how it goes, and on each failure. */
  progress: (line: string) => void;
}

export interface KillOutcome {
  rounds: number;
  /** Looks at objects, in all. */
  checked: number;
  /** Acknowledged objects that were missing, or of which an older version stood. */
  lost: number;
  /** Objects whose bytes were of no version. */
  torn: number;
}

/** Small, so that objects are demoted and segments cleaned all the time. */
const DRAM = "64MiB";
const NVME = "4GiB";
const PROCESSES: readonly { transport: TransportKind; other: TransportKind; namespace: string }[] = [
  { transport: "shm", other: "tcp", namespace: "kill-a" },
  { transport: "tcp", other: "shm", namespace: "kill-a" },
  { transport: "grpc", other: "tcp", namespace: "kill-b" },
  { transport: "shm", other: "grpc", namespace: "kill-b" },
];
const LEASE_MS = 3_600_000;
/** From when the load begins. Mostly soon, so that many rounds fit into a minute. */
const KILL_AFTER_MS = [5, 800] as const;
const LOAD_AFTER_RESTART_MS = 60;
const KILLED_IN_RECOVERY = 0.2;
const PROGRESS_EVERY_MS = 2_000;
const FAILURES_SHOWN_MAX = 50;
/** Outside of the range that the kernel takes ports of outgoing connections from. */
const PORTS = [12_000, 32_000] as const;

export async function runKill(options: KillOptions): Promise<KillOutcome> {
  const { rounds, seed, signal, progress } = options;
  const random = randomOf(seed);
  const folder = mkdtempSync(join(tmpdir(), "millrace-kill-"));
  const daemon = new RestartedDaemon(folder, random, signal);
  const clients: ClientProcess[] = [];
  const outcome: KillOutcome = { rounds, checked: 0, lost: 0, torn: 0 };
  const counts: Record<string, number> = {};
  /** Between the kills. */
  const moved = { demotedBytes: 0, promotedBytes: 0, cleanedBytes: 0 };
  let shown = 0;
  let owner: Client | null = null;

  const add = (round: number, report: KillReport) => {
    outcome.checked += report.checked;
    for (const [what, count] of Object.entries(report.counts)) counts[what] = (counts[what] ?? 0) + count;
    for (const { kind, process, transport, key, message } of report.failures) {
      outcome[kind]++;
      if (shown++ >= FAILURES_SHOWN_MAX) continue;
      progress(`round ${round}: ${kind}: process ${process} over ${transport}: ${key}: ${message}`);
    }
  };
  const inAll = <T>(work: (client: ClientProcess) => Promise<T>) =>
    Promise.race([Promise.all(clients.map(work)), daemon.died]);

  try {
    await daemon.start();
    owner = await connect(daemon.endpoint);
    for (const name of new Set(PROCESSES.map(({ namespace }) => namespace))) {
      await owner.createNamespace(name, { leaseMs: LEASE_MS });
    }
    for (const [process, { transport, other, namespace }] of PROCESSES.entries()) {
      const client = await startClient(
        { endpoint: daemon.endpoint, transport, namespace, expectedBytes: null },
        signal,
      );
      clients.push(client);
      await client.run("openKillLoad", { seed, process, other });
    }
    let progressAt = Date.now() + PROGRESS_EVERY_MS;
    for (let round = 1; round <= rounds; round++) {
      await inAll((client) => client.run("runKillLoad", null));
      const [least, most] = KILL_AFTER_MS;
      await sleep(least + (most - least) * random.next() ** 3, undefined, { signal });
      const restartMs = await daemon.restart();
      await sleep(random.below(LOAD_AFTER_RESTART_MS), undefined, { signal });
      for (const report of await inAll((client) => client.run("checkKillLoad", null))) add(round, report);
      const stats = await owner.nodeStats();
      for (const what of ["demotedBytes", "promotedBytes", "cleanedBytes"] as const)
        moved[what] += stats[what];
      if (Date.now() < progressAt && round < rounds) continue;
      progressAt = Date.now() + PROGRESS_EVERY_MS;
      const { checked, lost, torn } = outcome;
      progress(
        `round ${round} of ${rounds}: ${checked} checked, ${lost} lost, ${torn} torn; restarted in ${restartMs} ms`,
      );
    }
    progress(`${daemon.kills} kills; ${list(counts)}; ${list(moved)}`);
    return outcome;
  } catch (thrown) {
    progress(`failed with seed ${seed}; the daemon said: ${daemon.lastWords() || "nothing"}`);
    throw thrown;
  } finally {
    await Promise.all(clients.map((client) => client.stop()));
    await owner?.close();
    await daemon.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

function list(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([what, count]) => `${what} ${count}`)
    .join(", ");
}

class RestartedDaemon {
  /** Of its gRPC door. */
  endpoint = "";
  kills = 0;
  /** Rejects when it ends by itself. */
  readonly died: Promise<never>;
  #die: (error: MillraceError) => void = () => {};
  readonly #folder: string;
  readonly #random: Random;
  readonly #signal: AbortSignal;
  readonly #state: string;
  #ports: { grpc: number; data: number } | null = null;
  #launched: Launched | null = null;
  /** How long the last start took. */
  #startMs = 500;

  constructor(folder: string, random: Random, signal: AbortSignal) {
    this.#folder = folder;
    this.#random = random;
    this.#signal = signal;
    this.died = new Promise((_, reject) => {
      this.#die = reject;
    });
    this.died.catch(() => {}); // whoever waits for something else sees it
    // Its memory lies beside it, and goes with it.
    this.#state = mkdtempSync("/dev/shm/millrace-kill-");
  }

  /** What it wrote on stderr of late. */
  lastWords(): string {
    return this.#launched?.errors().trim() ?? "";
  }

  async start(): Promise<void> {
    this.#ports ??= { grpc: await freePort(this.#random), data: await freePort(this.#random) };
    const begunMs = Date.now();
    const launched = await this.#launch();
    const [, , endpoint] = await untilReady(launched, this.#signal);
    this.endpoint = endpoint as string;
    this.#startMs = Date.now() - begunMs;
  }

  /** Kills and restarts it, now and then more than once. How long the last start took. */
  async restart(): Promise<number> {
    await this.#kill();
    while (this.#random.next() < KILLED_IN_RECOVERY) {
      const launched = await this.#launch();
      // From when the program has hardly begun until it has just become ready.
      const afterMs = this.#startMs * (0.3 + 0.8 * this.#random.next());
      await Promise.race([launched.exited, sleep(afterMs, undefined, { signal: this.#signal })]);
      await this.#kill();
    }
    await Promise.race([this.start(), this.died]);
    return this.#startMs;
  }

  async end(): Promise<void> {
    await this.#stop();
    rmSync(this.#state, { recursive: true, force: true });
  }

  async #kill(): Promise<void> {
    this.#signal.throwIfAborted();
    this.kills++;
    await this.#stop();
  }

  async #stop(): Promise<void> {
    const launched = this.#launched;
    this.#launched = null;
    await launched?.stop("SIGKILL");
  }

  async #launch(): Promise<Launched> {
    const { grpc, data } = this.#ports as { grpc: number; data: number };
    const launched = await launch([
      ...serveCommand(),
      ...["--socket", join(this.#folder, "socket"), "--grpc", `127.0.0.1:${grpc}`],
      ...["--data", `127.0.0.1:${data}`, "--state", this.#state, "--nvme", `${this.#folder}:${NVME}`],
      ...["--dram", DRAM, "--huge-pages", "off", "--log-level", "warn"],
    ]);
    this.#launched = launched;
    void launched.exited.then(({ code, signal }) => {
      if (this.#launched !== launched) return;
      this.#die(
        new MillraceError("INTERNAL", `the daemon ended by itself, with ${signal ?? `status ${code}`}`),
      );
    });
    return launched;
  }
}

/**
 * A port for a daemon that comes and goes: one of the kernel's own range could be taken meanwhile, by a client that
 * tries to connect to it of all things.
 */
async function freePort(random: Random): Promise<number> {
  const [least, most] = PORTS;
  for (let tries = 0; tries < 100; tries++) {
    const port = least + random.below(most - least);
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer()
        .once("error", () => resolve(false))
        .listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
  throw new MillraceError("UNAVAILABLE", `no port is free from ${least} to ${most}`);
}
