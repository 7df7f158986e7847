/**
 * The state directory of a node: who it is, where its memory lies, how long it has lived, and the journals of its
 * namespaces. At most one process at a time holds it.
 *
 *   DIR/node.json     DIR/lock     DIR/alive     DIR/namespaces/<name>.jsonl     DIR/memory (where DIR is on tmpfs)
 */
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { requireAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../../proto/errors.js";
import type { Clock } from "../clock.js";
import { Journals, journalFile, journalNames } from "./journal.js";
import { capacityBytes, hugeMounts, isTmpfs, mountHuge, unmountHuge } from "./mounts.js";

export interface StateOptions {
  /** Made where it is missing. */
  path: string;
  dramBytes: number;
  hugePages: "auto" | "reserve" | "off";
  /** The directories of the NVMe tier. */
  nvmePaths: readonly string[];
  log: StateLog;
}

export interface StateLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** `node.json`. */
export interface NodeIdentity {
  version: number;
  nodeId: string;
  memoryDirectory: string;
  hugeDirectory: string | null;
  nvme: string[];
}

export const ALIVE_INTERVAL_MS = 1_000;
const VERSION = 1;
const SHARED_MEMORY = "/dev/shm";
const ALIVE_DIGITS = 16;

export class StateDirectory {
  readonly path: string;
  readonly nodeId: string;
  readonly memoryDirectory: string;
  readonly hugeDirectory: string | null;
  readonly journals: Journals;
  /** Stands still while no daemon runs on this state: what is measured by it goes on where it stopped. */
  readonly clock: Clock;
  private readonly lockFd: number;
  private readonly aliveFd: number;

  /** ALREADY_EXISTS where a daemon runs on it. */
  constructor(private readonly options: StateOptions) {
    this.path = resolve(options.path);
    makePrivate(this.path);
    this.lockFd = lock(this.path);
    try {
      const identity = this.identify();
      this.nodeId = identity.nodeId;
      this.memoryDirectory = identity.memoryDirectory;
      this.hugeDirectory = identity.hugeDirectory;
      this.journals = new Journals(namespacesFolder(this.path));
      const livedMs = readLivedMs(this.path);
      const openedMs = performance.now();
      this.clock = {
        monotonicMs: () => livedMs + performance.now() - openedMs,
        unixMs: () => Date.now(),
      };
      this.aliveFd = openSync(join(this.path, "alive"), constants.O_RDWR | constants.O_CREAT, 0o600);
    } catch (thrown) {
      closeSync(this.lockFd);
      throw thrown instanceof MillraceError ? thrown : systemError(`use ${this.path}`, thrown);
    }
  }

  /** Notes that the node lives; to be called every ALIVE_INTERVAL_MS. */
  noteAlive(): void {
    const lived = Math.round(this.clock.monotonicMs());
    writeSync(this.aliveFd, `${String(lived).padStart(ALIVE_DIGITS, "0")}\n`, 0);
  }

  /** Lets go of the directory. Everything in it stays. */
  close(): void {
    this.noteAlive();
    this.journals.closeAll();
    closeSync(this.aliveFd);
    this.unmountEmpty();
    closeSync(this.lockFd);
  }

  private identify(): NodeIdentity {
    const known = readIdentity(this.path);
    const nodeId = known?.nodeId ?? randomUUID();
    this.checkNvme(known);
    let memoryDirectory = known?.memoryDirectory ?? null;
    if (memoryDirectory !== null && !isTmpfs(memoryDirectory)) {
      this.startEmpty(memoryDirectory);
      memoryDirectory = null;
    }
    memoryDirectory ??= this.chooseMemory(nodeId);
    const identity: NodeIdentity = {
      version: VERSION,
      nodeId,
      memoryDirectory,
      hugeDirectory: this.chooseHuge(nodeId, known?.hugeDirectory ?? null),
      nvme: this.options.nvmePaths.map((path) => resolve(path)),
    };
    this.checkCapacity(identity);
    const file = join(this.path, "node.json");
    writeFileSync(`${file}.new`, `${JSON.stringify(identity, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
    return identity;
  }

  /** The memory of the last life is gone, after a reboot above all, and with it all that the journals speak of. */
  private startEmpty(memoryDirectory: string): void {
    const folder = namespacesFolder(this.path);
    const names = existsSync(folder) ? journalNames(folder) : [];
    for (const name of names) rmSync(journalFile(folder, name), { force: true });
    this.options.log.warn(
      { memoryDirectory, namespaces: names },
      "the memory of the node's last life is gone (was the machine rebooted?): the node starts empty",
    );
  }

  private chooseMemory(nodeId: string): string {
    const onTmpfs = isTmpfs(this.path);
    if (!onTmpfs && !isTmpfs(SHARED_MEMORY)) {
      throw new MillraceError(
        "UNSUPPORTED",
        `${SHARED_MEMORY} is not a tmpfs, so there is no place for memory that outlives the daemon: mount one there ` +
          "(mount -t tmpfs tmpfs /dev/shm), or put --state on a tmpfs",
      );
    }
    const path = onTmpfs ? join(this.path, "memory") : nodeFolder(SHARED_MEMORY, nodeId);
    makePrivate(path);
    return path;
  }

  private chooseHuge(nodeId: string, known: string | null): string | null {
    const { hugePages, log } = this.options;
    const mounts = hugeMounts().filter(({ writable }) => writable);
    // Also with huge pages off now: what the last life left there has to be found.
    if (known !== null && mounts.some(({ path }) => known.startsWith(`${path}/`)) && existsSync(known)) {
      return known;
    }
    if (hugePages === "off") return null;
    let mount = mounts[0]?.path;
    if (mount === undefined && hugePages === "reserve" && process.getuid?.() === 0) {
      try {
        mountHuge(this.ownMount);
        mount = this.ownMount;
      } catch (thrown) {
        log.warn({ err: thrown }, "no hugetlbfs could be mounted: memory lies in small pages");
      }
    }
    if (mount === undefined) return null;
    const path = nodeFolder(mount, nodeId);
    makePrivate(path);
    return path;
  }

  private get ownMount(): string {
    return join(this.path, "huge");
  }

  private unmountEmpty(): void {
    if (this.hugeDirectory === null || !this.hugeDirectory.startsWith(`${this.ownMount}/`)) return;
    if (holdsFiles(this.hugeDirectory)) return;
    try {
      rmSync(this.hugeDirectory, { recursive: true, force: true });
      unmountHuge(this.ownMount);
    } catch (thrown) {
      this.options.log.warn({ err: thrown }, `${this.ownMount} stays mounted`);
    }
  }

  /** A directory that was left out by mistake would cost all that was demoted to it. */
  private checkNvme(known: NodeIdentity | null): void {
    if (known === null) return;
    const given = new Set(this.options.nvmePaths.map((path) => resolve(path)));
    for (const path of known.nvme) {
      const folder = nodeFolder(path, known.nodeId);
      if (given.has(path) || !holdsFiles(folder)) continue;
      throw new MillraceError(
        "INVALID_ARGUMENT",
        `objects of this node lie in ${folder}: give --nvme ${path}:SIZE again, or remove that folder to give them up`,
      );
    }
  }

  private checkCapacity({ memoryDirectory, hugeDirectory }: NodeIdentity): void {
    const capacity = capacityBytes(memoryDirectory);
    if (capacity === null || hugeDirectory !== null || capacity >= this.options.dramBytes) return;
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `the tmpfs of ${memoryDirectory} holds ${capacity} bytes, which is less than --dram ` +
        `(${this.options.dramBytes}): lower --dram, or enlarge it (mount -o remount,size=SIZE)`,
    );
  }
}

/** Where the files of a node lie in a directory that others may use as well. */
export function nodeFolder(path: string, nodeId: string): string {
  return join(path, `millrace-${nodeId}`);
}

export function namespacesFolder(path: string): string {
  return join(path, "namespaces");
}

/** What `node.json` says; null where there is none. CORRUPT where it does not hold. */
export function readIdentity(path: string): NodeIdentity | null {
  const file = join(path, "node.json");
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw systemError(`read ${file}`, thrown);
  }
  let identity: Partial<NodeIdentity>;
  try {
    identity = JSON.parse(text) as Partial<NodeIdentity>;
  } catch (thrown) {
    throw new MillraceError("CORRUPT", `${file} is not JSON: ${(thrown as Error).message}`);
  }
  const { version, nodeId, memoryDirectory, hugeDirectory, nvme } = identity;
  if (version !== VERSION) {
    throw new MillraceError("UNSUPPORTED", `${file} has version ${version}; this millrace reads ${VERSION}`);
  }
  const holds =
    typeof nodeId === "string" &&
    /^[0-9a-f-]{36}$/.test(nodeId) &&
    typeof memoryDirectory === "string" &&
    (hugeDirectory === null || typeof hugeDirectory === "string") &&
    Array.isArray(nvme) &&
    nvme.every((entry) => typeof entry === "string");
  if (!holds) throw new MillraceError("CORRUPT", `${file} lacks what makes a node: see docs/operations.md`);
  return identity as NodeIdentity;
}

/** For how long daemons have run on this state, up to when the last one was seen alive. */
export function readLivedMs(path: string): number {
  const file = join(path, "alive");
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  return /^\d{16}\n/.test(text) ? Number(text.slice(0, ALIVE_DIGITS)) : 0;
}

/** Whether a daemon runs on the state in `path`. Changes nothing. */
export function isHeld(path: string): boolean {
  const file = join(path, "lock");
  if (!existsSync(file)) return false;
  const fd = requireAddon().lockFile(file);
  if (fd === null) return true;
  closeSync(fd);
  return false;
}

function lock(path: string): number {
  const file = join(path, "lock");
  try {
    closeSync(openSync(file, "a", 0o600));
    const fd = requireAddon().lockFile(file);
    if (fd !== null) return fd;
  } catch (thrown) {
    throw systemError(`lock ${file}`, thrown);
  }
  throw new MillraceError(
    "ALREADY_EXISTS",
    `another daemon runs on the state in ${path}; stop it or choose another --state`,
  );
}

function makePrivate(path: string): void {
  try {
    if (mkdirSync(path, { recursive: true, mode: 0o700 }) !== undefined) chmodSync(path, 0o700);
  } catch (thrown) {
    throw systemError(`make ${path}`, thrown);
  }
  const stats = lstatSync(path);
  if (!stats.isDirectory() && !stats.isSymbolicLink()) {
    throw new MillraceError("ALREADY_EXISTS", `${path} exists and is not a directory`);
  }
  // Somebody else's folder under our name would give them our memory.
  const uid = process.getuid?.();
  if (path.startsWith(`${SHARED_MEMORY}/`) && uid !== undefined && stats.uid !== uid) {
    throw new MillraceError("ALREADY_EXISTS", `${path} belongs to user ${stats.uid}; remove it`);
  }
}

function holdsFiles(path: string): boolean {
  try {
    return readdirSync(path, { withFileTypes: true, recursive: true }).some((entry) => entry.isFile());
  } catch {
    return false;
  }
}

function systemError(what: string, thrown: unknown): MillraceError {
  return new MillraceError("SYSTEM", `cannot ${what}: ${(thrown as Error).message}`, { cause: thrown });
}
