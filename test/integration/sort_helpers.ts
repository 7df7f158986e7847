/** Inputs, an independent check of sorted output, and the command itself in a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { packageRoot } from "../../native/binding/addon.js";
import type { SortDocument } from "../../workloads/sort/result.js";
import { millraceCommand } from "../support/daemon.js";

export const RECORD_BYTES = 100;
export const KEY_BYTES = 10;

/** A folder of the test's own with one for the command's temporary files, so that leftovers show. */
export class Workplace implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "millrace-sort-test-"));
  readonly temporary = join(this.path, "tmp");

  constructor() {
    mkdirSync(this.temporary);
  }

  at(name: string): string {
    return join(this.path, name);
  }

  write(name: string, bytes: Uint8Array): string {
    writeFileSync(this.at(name), bytes);
    return this.at(name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Records with the keys that `key` gives; the rest tells them apart. */
export function makeRecords(count: number, key: (record: number) => Uint8Array): Buffer {
  const bytes = Buffer.alloc(count * RECORD_BYTES);
  for (let i = 0; i < count; i += 1) {
    bytes.set(key(i), i * RECORD_BYTES);
    bytes.write(`record ${i}`, i * RECORD_BYTES + KEY_BYTES, "latin1");
  }
  return bytes;
}

export interface Found {
  records: number;
  unordered: number;
  checksum: string;
}

/** Count, order and checksum of records, found without any code of Millrace. */
export function examine(files: readonly Uint8Array[]): Found {
  let records = 0;
  let unordered = 0;
  let sum = 0n;
  let before: Uint8Array | null = null;
  for (const bytes of files) {
    if (bytes.length % RECORD_BYTES !== 0)
      throw new Error(`a file of ${bytes.length} bytes is not whole records`);
    for (let at = 0; at < bytes.length; at += RECORD_BYTES) {
      const record = bytes.subarray(at, at + RECORD_BYTES);
      const key = record.subarray(0, KEY_BYTES);
      if (before !== null && Buffer.compare(before, key) > 0) unordered += 1;
      before = key;
      sum += BigInt(crc32(record));
      records += 1;
    }
  }
  return { records, unordered, checksum: sum.toString(16) };
}

/** The parts of an output directory, in order. It must hold nothing else. */
export function readParts(directory: string): Buffer[] {
  const names = readdirSync(directory).sort();
  names.forEach((name, i) => {
    if (name !== `part-${String(i).padStart(5, "0")}`)
      throw new Error(`${name} is not part ${i} of the output`);
  });
  return names.map((name) => readFileSync(join(directory, name)));
}

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunningSort {
  process: ChildProcess;
  ended: Promise<Ended>;
}

/** Starts `millrace sort`. */
export function startSort(
  place: Workplace,
  args: readonly string[],
  env: Record<string, string> = {},
): RunningSort {
  const [program, ...leading] = millraceCommand();
  const child = spawn(program, [...leading, "sort", ...args], {
    cwd: packageRoot(),
    env: { ...process.env, TMPDIR: place.temporary, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return { process: child, ended: once(child, "close").then(([code]) => ({ code, stdout, stderr })) };
}

/** Runs `millrace sort --json` to its end, which must be a good one that leaves nothing in TMPDIR. */
export async function sortDocument(
  place: Workplace,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<SortDocument> {
  const { code, stdout, stderr } = await startSort(place, [...SMALL, ...args, "--json"], env).ended;
  if (code !== 0) throw new Error(`millrace sort ended with ${code}: ${stderr}${stdout}`);
  if (leftovers(place).length > 0) throw new Error(`left in TMPDIR: ${leftovers(place).join(", ")}`);
  return JSON.parse(stdout) as SortDocument;
}

/** A node for small inputs that leaves the machine's huge pages alone. */
export const SMALL = ["--dram", "1GiB", "--huge-pages", "off"] as const;

/** What lies in the command's temporary folder, but for the caches of the TypeScript loader. */
export function leftovers(place: Workplace): string[] {
  return readdirSync(place.temporary).filter(
    (name) => !name.startsWith("tsx-") && name !== "node-compile-cache",
  );
}

/** Processes whose parent is or was `pid`, by /proc. */
export function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((candidate) => {
      try {
        const stat = readFileSync(`/proc/${candidate}/stat`, "latin1");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === pid;
      } catch {
        return false; // It has ended meanwhile.
      }
    });
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie is not alive: it only waits to be reaped.
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) !== "Z";
  } catch {
    return false;
  }
}
