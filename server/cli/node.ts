/**
 * A storage node inside this process: engine, policies and doors put together. `millrace serve` runs one, and
 * so does every workload command that was given no endpoint.
 *
 *   state directory -> engine -> what the last life left -> doors
 */
import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { requireAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../../proto/errors.js";
import { loadContract } from "../../proto/load.js";
import type { NodeMessage } from "../../proto/messages.js";
import type { Clock } from "../clock.js";
import type { DoorLog } from "../doors/grpc/context.js";
import { GrpcDoor } from "../doors/grpc/door.js";
import { Guard } from "../doors/grpc/guard.js";
import { OpenStreams } from "../doors/grpc/open_streams.js";
import { KeyRing } from "../doors/s3/auth/credentials.js";
import type { S3Door, S3DoorOptions } from "../doors/s3/door.js";
import { Engine } from "../engine/engine.js";
import { Namespaces } from "../namespaces/namespaces.js";
import { Shuffles } from "../shuffles/shuffles.js";
import { ALIVE_INTERVAL_MS, StateDirectory, type StateLog } from "../state/directory.js";
import { recover } from "./recover.js";
import {
  defaultDramBytes,
  type HugePages,
  isLoopback,
  type Keys,
  LOCAL_KEYS,
  type NvmeDirectory,
  type S3Config,
} from "./serve_config.js";
import type { Address } from "./values.js";
import { packageVersion } from "./version.js";

export interface NodeOptions {
  /** Null: no shared-memory door. Left out: a socket in a fresh temporary folder. */
  socketPath?: string | null;
  /** Left out: 127.0.0.1, any free port. */
  grpc?: Address;
  /** Null: no native TCP door. Left out: 127.0.0.1, any free port. */
  data?: Address | null;
  /** Null or left out: no S3 door. */
  s3?: S3Config | null;
  /** What guarded namespaces and session credentials rest on. Null or left out: those of the S3 door, or none. */
  keys?: Keys | null;
  /** Left out: half of this machine's memory. */
  dramBytes?: number;
  /** Left out: no NVMe tier. */
  nvme?: readonly NvmeDirectory[];
  hugePages?: HugePages;
  /** The directory that lets objects outlive this node. Null or left out: they end with it. */
  state?: string | null;
  log?: NodeLog;
}

export type NodeLog = DoorLog & StateLog;

export interface RunningNode {
  /** What clients connect to: the gRPC address. */
  endpoint: string;
  grpcAddress: string;
  /** "" where the door is closed. */
  socketPath: string;
  /** "" where the door is closed. */
  dataAddress: string;
  /** "" where the door is closed. */
  s3Address: string;
  /** Drains for at most a few seconds, then stops; without a state directory all objects are gone. */
  close(): Promise<void>;
}

const SWEEP_INTERVAL_MS = 250;
const DRAIN_MS = 5_000;
const SHUFFLE_INDEX_BYTES_MAX = 1024 ** 3;
const IO_THREADS_MAX = 4;
const ANY_PORT: Address = { host: "127.0.0.1", port: 0 };
const SILENT: NodeLog = { error() {}, warn() {}, info() {}, debug() {} };

const PROCESS_CLOCK: Clock = { monotonicMs: () => performance.now(), unixMs: () => Date.now() };

/** Starts a node and returns when all of its doors listen. */
export async function startNode(options: NodeOptions = {}): Promise<RunningNode> {
  const cleanup = new Cleanup();
  try {
    return await compose(options, cleanup);
  } catch (thrown) {
    await cleanup.run();
    throw thrown;
  }
}

async function compose(options: NodeOptions, cleanup: Cleanup): Promise<RunningNode> {
  const addon = requireAddon();
  const contract = loadContract();
  const log = options.log ?? SILENT;
  const dramBytes = options.dramBytes ?? defaultDramBytes();
  const nvme = options.nvme ?? [];
  const hugePages = options.hugePages ?? "auto";
  const state =
    options.state === undefined || options.state === null
      ? null
      : new StateDirectory({
          path: options.state,
          dramBytes,
          hugePages,
          nvmePaths: nvme.map(({ path }) => path),
          log,
        });
  if (state !== null) keepAlive(state, log, cleanup);
  const clock = state?.clock ?? PROCESS_CLOCK;
  const socketPath = await prepareSocket(options.socketPath, cleanup);
  const data = options.data === undefined ? ANY_PORT : options.data;
  const grpc = options.grpc ?? ANY_PORT;
  const nodeId = state?.nodeId ?? randomUUID();

  const engine = new Engine({
    dramBytes,
    nvme: [...nvme],
    hugePages,
    keep: state !== null,
    memoryDirectory: state?.memoryDirectory ?? null,
    hugeDirectory: state?.hugeDirectory ?? null,
    // One for the native doors and one more for every further pair of cores; kernels and callers need the rest.
    ioThreads: Math.min(IO_THREADS_MAX, Math.max(1, Math.floor(availableParallelism() / 2))),
    socketPath,
    dataHost: data?.host ?? null,
    dataPort: data?.port ?? 0,
    nodeId,
  });
  cleanup.add(() => engine.close());

  const shuffles = new Shuffles(
    engine,
    {
      partitionsMax: addon.limits.partitionsMax as number,
      mapsMax: addon.limits.mapsMax as number,
      indexBytesMax: SHUFFLE_INDEX_BYTES_MAX,
    },
    state?.journals ?? null,
  );
  const namespaces = new Namespaces({
    clock,
    randomBytes,
    store: engine,
    slowestPartition: (namespace) => shuffles.slowestPartition(namespace),
    sweepIntervalMs: SWEEP_INTERVAL_MS,
    ...(state === null ? {} : { recorder: state.journals }),
  });
  if (state !== null) {
    recover({ state, engine, namespaces, shuffles, log });
    cleanup.add(() => namespaces.recordUsage());
  }
  namespaces.onEnd((name, reason) => {
    shuffles.dropNamespace(name);
    log.debug({ namespace: name, reason }, "namespace ended");
  });
  const sweeper = setInterval(() => {
    try {
      namespaces.sweep();
    } catch (thrown) {
      log.error({ err: thrown }, "a namespace whose lease lapsed could not be dropped");
    }
  }, SWEEP_INTERVAL_MS);
  sweeper.unref();
  cleanup.add(() => clearInterval(sweeper));

  const node: NodeMessage = {
    nodeId,
    version: packageVersion(),
    hostId: bootId(),
    socketPath: "",
    grpcAddress: "",
    dataAddress: "",
    s3Address: "",
    adminAddress: "",
    protocolVersion: addon.protocolVersion,
    startedUnixMs: Date.now(),
  };
  const s3 = options.s3 ?? null;
  // The keys that everybody knows prove nothing.
  const ownKeys = options.keys ?? s3?.keys ?? null;
  const keyRing = ownKeys === null ? null : new KeyRing({ ...ownKeys, anonymous: false });
  const guardedNames = namespaces.names().filter((name) => namespaces.require(name).guarded);
  if (keyRing === null && guardedNames.length > 0) {
    log.warn(
      { namespaces: guardedNames },
      "nobody can get at guarded namespaces: this node was started without keys",
    );
  }
  const door = new GrpcDoor({
    contract,
    engine,
    namespaces,
    shuffles,
    limits: addon.limits,
    describeNode: () => node,
    openStreams: new OpenStreams(),
    keyRing,
    guard: new Guard({ namespaces, keyRing }),
    log,
  });
  cleanup.add(() => door.close(DRAIN_MS));
  const s3Door =
    s3 === null
      ? null
      : await makeS3Door({
          engine,
          namespaces,
          limits: addon.limits,
          credentials: s3KeyRing(s3),
          domain: s3.domain,
          clock,
          log,
        });
  if (s3Door !== null) cleanup.add(() => s3Door.close(DRAIN_MS));

  const native = engine.listen();
  node.socketPath = native.socketPath;
  node.dataAddress = native.dataAddress;
  node.grpcAddress = await door.listen(grpc.host, grpc.port);
  engine.setGrpcAddress(node.grpcAddress);
  if (s3 !== null && s3Door !== null) node.s3Address = await s3Door.listen(s3.address.host, s3.address.port);
  door.setHealth("SERVING");

  return {
    endpoint: node.grpcAddress,
    grpcAddress: node.grpcAddress,
    socketPath: node.socketPath,
    dataAddress: node.dataAddress,
    s3Address: node.s3Address,
    close: () => cleanup.run(),
  };
}

/** Embedded nodes have no such door, and need not load what it is made of. */
async function makeS3Door(options: S3DoorOptions): Promise<S3Door> {
  const { S3Door } = await import("../doors/s3/door.js");
  return new S3Door(options);
}

function s3KeyRing({ address, keys, anonymous }: S3Config): KeyRing {
  if (keys === null && !isLoopback(address.host)) {
    throw new MillraceError("INVALID_ARGUMENT", "an S3 door without keys opens on loopback only");
  }
  return new KeyRing({
    ...(keys ?? LOCAL_KEYS),
    anonymous: anonymous || keys === null,
    wellKnown: keys === null,
  });
}

/** Holds the state directory for as long as the node runs. */
function keepAlive(state: StateDirectory, log: NodeLog, cleanup: Cleanup): void {
  cleanup.add(() => state.close());
  const timer = setInterval(() => {
    try {
      state.noteAlive();
    } catch (thrown) {
      log.error(
        { err: thrown },
        "the state directory cannot be written: leases will lapse late after a restart",
      );
    }
  }, ALIVE_INTERVAL_MS);
  timer.unref();
  cleanup.add(() => clearInterval(timer));
}

/** Undoes what was done, last first, once. A step that fails does not keep the others from running. */
class Cleanup {
  private readonly steps: (() => void | Promise<void>)[] = [];
  private running: Promise<void> | null = null;

  add(step: () => void | Promise<void>): void {
    this.steps.push(step);
  }

  run(): Promise<void> {
    this.running ??= this.runAll();
    return this.running;
  }

  private async runAll(): Promise<void> {
    const failures: unknown[] = [];
    for (const step of this.steps.reverse()) {
      try {
        await step();
      } catch (thrown) {
        failures.push(thrown);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}

async function prepareSocket(asked: string | null | undefined, cleanup: Cleanup): Promise<string | null> {
  if (asked === null) return null;
  if (asked === undefined) {
    const folder = mkdtempSync(join(tmpdir(), "millrace-"));
    const remove = () => rmSync(folder, { recursive: true, force: true });
    // Also where the process ends without closing its node.
    process.once("exit", remove);
    cleanup.add(() => {
      process.off("exit", remove);
      remove();
    });
    return join(folder, "millrace.sock");
  }
  const path = resolve(asked);
  try {
    if (mkdirSync(dirname(path), { recursive: true }) !== undefined) chmodSync(dirname(path), 0o700);
    await removeStaleSocket(path);
  } catch (thrown) {
    if (thrown instanceof MillraceError) throw thrown;
    throw new MillraceError("SYSTEM", `cannot prepare the socket ${path}: ${(thrown as Error).message}`);
  }
  cleanup.add(() => rmSync(path, { force: true }));
  return path;
}

/** A socket file outlives the process that made it. Only one that nobody answers may be removed. */
async function removeStaleSocket(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new MillraceError("ALREADY_EXISTS", `${path} exists and is not a socket; choose another --socket`);
  }
  const answered = await new Promise<boolean>((answer) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      answer(true);
    });
    probe.once("error", () => answer(false));
  });
  if (answered) {
    throw new MillraceError(
      "ALREADY_EXISTS",
      `another process listens on ${path}; stop it or choose another --socket`,
    );
  }
  rmSync(path, { force: true });
}

/** The kernel's boot id: equal on both sides means the same host. */
function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "";
  }
}
