/**
 * Function workers as processes of this host. Each runs functions/host.ts and is joined to the driver by a
 * socket pair of its own.
 *
 * A process that does not report while it runs a call is looked at before it is killed: a function may compute
 * for minutes without yielding to its event loop, which is no fault, so only one that neither reports nor uses
 * processor time counts as hung.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Duplex } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import { checkCount } from "../../client/names.js";
import { monotonicMs } from "../clock.js";
import { limits } from "../limits.js";
import {
  type CallMessage,
  type CancelMessage,
  checkFromFunctionWorker,
  encodeFrame,
  FrameReader,
  type SetupMessage,
} from "../protocol.js";
import type { Backend, FunctionWorker, FunctionWorkerEvents, FunctionWorkerSetup } from "./backend.js";

export interface LocalBackendOptions {
  /** Arguments of node before the host's file; for example a loader for the modules that functions live in. */
  execArgv?: readonly string[];
  /** Added to the driver's environment. */
  env?: Readonly<Record<string, string>>;
  /** How often a function worker reports while it runs a call. Default 1,000. */
  heartbeatMs?: number;
  /** A function worker that neither reports nor uses processor time for this long is killed. Default 15,000. */
  heartbeatTimeoutMs?: number;
}

/** A closed function worker has this long to end by itself. */
const CLOSE_GRACE_MS = 500;
/** What a process wrote before it ended is read for at most this long after its end. */
const DRAIN_MS = 100;

export function localBackend(options: LocalBackendOptions = {}): Backend {
  return new LocalBackend(options);
}

class LocalBackend implements Backend {
  readonly name = "local";
  readonly #env: Readonly<Record<string, string>>;
  readonly #argv: readonly string[];
  readonly #heartbeatMs: number;
  readonly #heartbeatTimeoutMs: number;
  readonly #processes = new Set<HostProcess>();
  #watch: NodeJS.Timeout | undefined;
  #lastWatchMs = 0;

  constructor(options: LocalBackendOptions) {
    this.#env = options.env ?? {};
    this.#argv = [...(options.execArgv ?? []), ...hostArguments()];
    this.#heartbeatMs = checkCount("heartbeatMs", options.heartbeatMs ?? 1_000, 1, limits.timeoutMsMax);
    this.#heartbeatTimeoutMs = checkCount(
      "heartbeatTimeoutMs",
      options.heartbeatTimeoutMs ?? 15_000,
      1,
      limits.timeoutMsMax,
    );
  }

  startFunctionWorker(setup: FunctionWorkerSetup, events: FunctionWorkerEvents): FunctionWorker {
    const message: SetupMessage = { type: "setup", heartbeatMs: this.#heartbeatMs, ...setup };
    const host = new HostProcess(this.#argv, this.#env, message, {
      ...events,
      onGone: (departure) => {
        this.#processes.delete(host);
        if (this.#processes.size === 0) this.#stopWatch();
        events.onGone(departure);
      },
    });
    this.#processes.add(host);
    this.#startWatch();
    return host;
  }

  async close(): Promise<void> {
    this.#stopWatch();
    await Promise.all([...this.#processes].map((host) => host.close()));
  }

  #startWatch(): void {
    if (this.#watch !== undefined) return;
    this.#lastWatchMs = monotonicMs();
    this.#watch = setInterval(() => {
      // Behind the reports that already lie in the sockets.
      setImmediate(() => this.#look());
    }, this.#heartbeatMs).unref();
  }

  #stopWatch(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  #look(): void {
    const nowMs = monotonicMs();
    // Where the driver itself stood still (or slept with the machine), the silence was its own.
    const driverStoodStill = nowMs - this.#lastWatchMs > this.#heartbeatMs + this.#heartbeatTimeoutMs / 2;
    this.#lastWatchMs = nowMs;
    for (const host of this.#processes) host.look(nowMs, driverStoodStill, this.#heartbeatTimeoutMs);
  }
}

class HostProcess implements FunctionWorker {
  readonly #workerId: string;
  readonly #child: ChildProcess;
  readonly #channel: Duplex;
  readonly #frames = new FrameReader();
  readonly #events: FunctionWorkerEvents;
  readonly #exited: Promise<void>;
  #ready = false;
  #busy = false;
  #gone = false;
  #killReason: string | undefined;
  #lastHeardMs = monotonicMs();
  #processorTicks = -1;

  constructor(
    argv: readonly string[],
    env: Readonly<Record<string, string>>,
    setup: SetupMessage,
    events: FunctionWorkerEvents,
  ) {
    this.#workerId = setup.workerId;
    this.#events = events;
    this.#child = spawn(process.execPath, argv, {
      stdio: ["ignore", 2, 2, "pipe"],
      env: { ...process.env, ...env },
      windowsHide: true,
    });
    this.#channel = this.#child.stdio[3] as Duplex;
    this.#channel.on("data", (chunk: Buffer) => this.#onData(chunk));
    this.#channel.on("error", () => this.#onChannelClosed());
    this.#channel.on("end", () => this.#onChannelClosed());
    this.#exited = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => {
        resolve();
        live.delete(this.#child);
        const reason =
          this.#killReason ?? (signal !== null ? `was killed by ${signal}` : `ended with exit code ${code}`);
        // Its last words may still lie in the socket; a grandchild that inherited the socket may keep it open.
        if (this.#channel.readableEnded || this.#channel.destroyed) this.#leave(reason);
        else {
          const timer = setTimeout(() => this.#leave(reason), DRAIN_MS);
          this.#channel.once("end", () => {
            clearTimeout(timer);
            this.#leave(reason);
          });
        }
      });
      this.#child.once("error", (error) => {
        if (this.#child.pid !== undefined) return;
        resolve();
        // After the constructor's caller has its function worker.
        setImmediate(() => this.#leave(`could not be started: ${error.message}`));
      });
    });
    killWithDriver(this.#child);
    this.#write(setup);
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  send(message: CallMessage | CancelMessage): void {
    if (message.type === "call") {
      this.#busy = true;
      this.#lastHeardMs = monotonicMs();
      this.#processorTicks = -1;
    }
    this.#write(message);
  }

  kill(reason: string): void {
    this.#killReason ??= reason;
    this.#child.kill("SIGKILL");
  }

  async close(): Promise<void> {
    this.#gone = true;
    this.#channel.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), this.#ready ? CLOSE_GRACE_MS : 0);
    await this.#exited;
    clearTimeout(timer);
    this.#channel.destroy();
  }

  /** Kills the process where it has been silent too long and has not been computing either. */
  look(nowMs: number, excused: boolean, timeoutMs: number): void {
    // A process that starts is as busy as one that runs a call.
    if ((this.#ready && !this.#busy) || nowMs - this.#lastHeardMs < timeoutMs / 2) return;
    const ticks = processorTicks(this.#child.pid);
    if (excused || (ticks !== null && ticks !== this.#processorTicks)) {
      // The first look of a silence only notes where the count stands.
      if (excused || this.#processorTicks !== -1) this.#lastHeardMs = nowMs;
      this.#processorTicks = ticks ?? -1;
      return;
    }
    if (nowMs - this.#lastHeardMs >= timeoutMs)
      this.kill(`did not report for ${timeoutMs} ms and was killed`);
  }

  #onData(chunk: Buffer): void {
    if (this.#gone) return;
    this.#lastHeardMs = monotonicMs();
    this.#processorTicks = -1;
    try {
      for (const raw of this.#frames.read(chunk)) {
        const message = checkFromFunctionWorker(raw);
        if (message.type === "heartbeat") continue;
        if (message.type === "ready") {
          this.#ready = true;
          this.#events.onReady();
          continue;
        }
        if (message.type !== "progress") this.#busy = false;
        this.#events.onMessage(message);
        if (this.#gone) return;
      }
    } catch (error) {
      this.kill(
        `broke the protocol (${error instanceof Error ? error.message : String(error)}) and was killed`,
      );
      this.#channel.destroy();
    }
  }

  /** Mostly the first sign of the end of the process, whose exit then tells why. */
  #onChannelClosed(): void {
    setTimeout(() => this.kill("closed its channel and was killed"), DRAIN_MS).unref();
  }

  #leave(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#channel.destroy();
    this.#events.onGone({ reason: `function worker ${this.#workerId} ${reason}`, beforeReady: !this.#ready });
  }

  #write(message: SetupMessage | CallMessage | CancelMessage): void {
    if (this.#channel.writable) this.#channel.write(encodeFrame(message));
  }
}

/** How to start functions/host.ts: compiled with plain node, from sources through tsx. */
function hostArguments(): string[] {
  const isSource = import.meta.url.endsWith(".ts");
  const host = fileURLToPath(new URL(isSource ? "../host.ts" : "../host.js", import.meta.url));
  if (!isSource) return [host];
  return ["--import", pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href, host];
}

/** Processor time used by all threads of a process, in ticks of the kernel; null where that cannot be told. */
function processorTicks(pid: number | undefined): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command's name is in parentheses and may hold anything; the fields after it are plain.
    const after = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(after[11]) + Number(after[12]);
  } catch {
    return null;
  }
}

/** Processes to kill when the driver exits without closing its executors. */
const live = new Set<ChildProcess>();
let hooked = false;

function killWithDriver(child: ChildProcess): void {
  live.add(child);
  if (hooked) return;
  hooked = true;
  process.on("exit", () => {
    for (const each of live) each.kill("SIGKILL");
  });
}
