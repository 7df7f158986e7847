/** `millrace doctor`: what this machine offers, what is built, what would help, and whether a node's bytes hold. */
import { constants, existsSync, readdirSync, readFileSync } from "node:fs";
import { open, unlink } from "node:fs/promises";
import { availableParallelism, freemem, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { loadAddon } from "../../native/binding/addon.js";
import { engineVersion, findLibrary } from "../../workloads/sql/duckdb.js";
import { capacityBytes, type HugeMount, hugeMounts, isTmpfs } from "../state/mounts.js";
import { addConnectionOptions, type ConnectionFlags } from "./connection.js";
import { UsageError } from "./errors.js";
import { printJson, printTable } from "./output.js";
import { formatSize } from "./values.js";
import { verifyNode } from "./verify.js";
import { packageVersion } from "./version.js";

export interface HugePagePool {
  pageBytes: number;
  total: number;
  free: number;
}

export interface Diagnosis {
  version: string;
  node: string;
  kernel: string;
  processors: number;
  memoryBytes: number;
  freeMemoryBytes: number;
  sharedMemoryBytes: number | null;
  addon: Record<string, string | number | boolean> | null;
  cpuFeatures: string[];
  hugePages: HugePagePool[];
  /** Mounted hugetlbfs with pages of 2 MiB, where `--state` can keep memory in huge pages. */
  hugeMounts: HugeMount[];
  shmemHugePages: string | null;
  /** Where `--state` keeps memory unless it lies on a tmpfs itself; null: there is no such place. */
  namedMemory: { path: string; capacityBytes: number | null } | null;
  /** Whether the kernel's settings allow it; what files are really read with is the addon's `fileBackend`. */
  ioUring: boolean;
  /** By folder. */
  directIo: Record<string, boolean>;
  libfabric: string | null;
  /** What `millrace sql` runs on; `version` null: it is there and cannot be used. Null: it is not there. */
  duckdb: { path: string; version: string | null } | null;
  openFilesMax: number | null;
  advice: string[];
}

// Those that kernels of Millrace can make use of.
const CPU_FEATURES = new Set([
  "sse4_2",
  "pclmulqdq",
  "avx2",
  "avx512f",
  "avx512bw",
  "avx512vl",
  "vpclmulqdq",
  "crc32",
  "pmull",
  "sve",
]);

// What the addon reports and this command finds out by itself.
const SHOWN_ANYWAY = new Set(["kernel", "processors", "memoryBytes"]);

export function register(program: Command): void {
  addConnectionOptions(program.command("doctor"))
    .description(
      "what this machine offers and what is built; with --verify whether a node's objects are whole",
    )
    .argument("[directory...]", "directories to try direct I/O in, as --nvme would use it")
    .option("--verify", "read all objects of the node at --endpoint again and check them")
    .action(async (directories: string[], flags: ConnectionFlags & { verify?: true }) => {
      if (flags.verify) {
        await verifyNode(flags);
        return;
      }
      const diagnosis = await diagnose(directories);
      if (flags.json) printJson(diagnosis);
      else print(diagnosis);
    });
}

export async function diagnose(directories: readonly string[] = []): Promise<Diagnosis> {
  for (const directory of directories) {
    if (!existsSync(directory)) throw new UsageError(`there is no directory ${directory}`);
  }
  const tried = directories.length > 0 ? directories.map((path) => resolve(path)) : [tmpdir(), process.cwd()];
  const directIo: Record<string, boolean> = {};
  for (const directory of tried) directIo[directory] = await supportsDirectIo(directory);
  const found: Omit<Diagnosis, "advice"> = {
    version: packageVersion(),
    node: process.version,
    kernel: readText("/proc/sys/kernel/osrelease") ?? "unknown",
    processors: availableParallelism(),
    memoryBytes: totalmem(),
    freeMemoryBytes: freemem(),
    sharedMemoryBytes: memoryInfoBytes("Shmem"),
    addon: loadAddon()?.doctor() ?? null,
    cpuFeatures: cpuFeatures(),
    hugePages: hugePages(),
    hugeMounts: hugeMounts(),
    namedMemory: isTmpfs("/dev/shm") ? { path: "/dev/shm", capacityBytes: capacityBytes("/dev/shm") } : null,
    shmemHugePages: selected(readText("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
    ioUring: ioUring(),
    directIo,
    libfabric: libfabric(),
    duckdb: await duckdb(),
    openFilesMax: openFilesMax(),
  };
  return { ...found, advice: advise(found) };
}

function advise(found: Omit<Diagnosis, "advice">): string[] {
  const advice: string[] = [];
  if (found.addon === null) {
    advice.push(
      "The native addon is not built, so no node can run here and clients speak gRPC only: npm run build:native",
    );
  }
  const reserved = found.hugePages.some(({ total }) => total > 0);
  if (!reserved && found.shmemHugePages !== "advise" && found.shmemHugePages !== "always") {
    advice.push(
      "No huge pages: the first touch of memory costs about 50 times more. Run serve with --huge-pages reserve " +
        "(as root), or: sysctl vm.nr_hugepages=N (2 MiB each), or: echo advise > " +
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
    );
  } else if (reserved && found.hugePages.every(({ free }) => free === 0)) {
    advice.push("All huge pages are in use; raise vm.nr_hugepages for another node");
  }
  if (found.duckdb === null) {
    advice.push(
      "No DuckDB for this platform, which `millrace sql` needs: npm install, with optional packages, or " +
        "MILLRACE_DUCKDB=/path/of/libduckdb.so",
    );
  } else if (found.duckdb.version === null && found.addon !== null) {
    advice.push(
      `${found.duckdb.path} cannot be loaded, so \`millrace sql\` will not run: is it of this platform?`,
    );
  }
  if (found.openFilesMax !== null && found.openFilesMax < 4096) {
    advice.push(
      `Only ${found.openFilesMax} open files are allowed; large namespaces need one a segment: ulimit -n 65536`,
    );
  }
  const { fileBackend, liburing, opensslDigests } = found.addon ?? {};
  if (fileBackend === "threads") {
    const why = !liburing
      ? "the addon was built without liburing (install liburing-dev and build again)"
      : found.ioUring
        ? "the kernel refuses it to this process (a container's seccomp profile?)"
        : "the kernel does not offer it (Linux 5.1 and kernel.io_uring_disabled=0)";
    advice.push(`Files of the NVMe tier are read by threads, not through io_uring: ${why}`);
  }
  if (opensslDigests === false) {
    advice.push(
      "This node.js offers the addon no MD5, SHA-1 and SHA-256 (an OpenSSL without symbols, or FIPS mode), which the " +
        "S3 door needs: use the official builds or a distribution's",
    );
  }
  for (const [directory, works] of Object.entries(found.directIo)) {
    if (!works) {
      advice.push(`${directory} does not take direct I/O: as --nvme it would share the kernel's page cache`);
    }
  }
  if (found.namedMemory === null) {
    advice.push("/dev/shm is not a tmpfs: serve --state needs one there, or a --state directory on a tmpfs");
  }
  return advice;
}

function print(diagnosis: Diagnosis): void {
  const yes = (value: boolean) => (value ? "yes" : "no");
  printTable([
    ["millrace", diagnosis.version],
    ["node.js", diagnosis.node],
    ["kernel", diagnosis.kernel],
    ["processors", String(diagnosis.processors)],
    ["memory", `${formatSize(diagnosis.memoryBytes)}, ${formatSize(diagnosis.freeMemoryBytes)} free`],
    ["native addon", diagnosis.addon === null ? "not built" : "built"],
    ...Object.entries(diagnosis.addon ?? {})
      .filter(([name]) => !SHOWN_ANYWAY.has(name))
      .map(([name, value]) => [`  ${name}`, typeof value === "boolean" ? yes(value) : String(value)]),
    ["cpu features", diagnosis.cpuFeatures.join(" ") || "none that matter"],
    ...diagnosis.hugePages.map(({ pageBytes, total, free }) => [
      `huge pages of ${formatSize(pageBytes)}`,
      `${total} reserved, ${free} free`,
    ]),
    ["huge pages in shmem", diagnosis.shmemHugePages ?? "unknown"],
    ...diagnosis.hugeMounts.map(({ path, writable }) => [
      "hugetlbfs",
      `${path}${writable ? "" : ", not writable for this user"}`,
    ]),
    ["memory for --state", describeNamedMemory(diagnosis.namedMemory)],
    ["io_uring", yes(diagnosis.ioUring)],
    ...Object.entries(diagnosis.directIo).map(([folder, works]) => [`O_DIRECT in ${folder}`, yes(works)]),
    ["libfabric", diagnosis.libfabric ?? "not installed"],
    ["DuckDB", describeDuckDb(diagnosis.duckdb)],
    ["open files", diagnosis.openFilesMax === null ? "unknown" : String(diagnosis.openFilesMax)],
  ]);
  for (const line of diagnosis.advice) process.stdout.write(`\n* ${line}\n`);
}

function describeNamedMemory(found: Diagnosis["namedMemory"]): string {
  if (found === null) return "none";
  return `${found.path}${found.capacityBytes === null ? "" : `, ${formatSize(found.capacityBytes)}`}`;
}

function describeDuckDb(found: Diagnosis["duckdb"]): string {
  if (found === null) return "not installed";
  return `${found.version ?? "cannot be loaded"}, ${found.path}`;
}

async function duckdb(): Promise<Diagnosis["duckdb"]> {
  const path = findLibrary();
  return path === null ? null : { path, version: await engineVersion().catch(() => null) };
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return null;
  }
}

/** The choice in brackets: "always within_size [never]". */
function selected(text: string | null): string | null {
  return text === null ? null : (/\[(\w+)\]/.exec(text)?.[1] ?? null);
}

function memoryInfoBytes(name: string): number | null {
  const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(readText("/proc/meminfo") ?? "");
  return match === null ? null : Number(match[1]) * 1024;
}

function cpuFeatures(): string[] {
  const match = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readText("/proc/cpuinfo") ?? "");
  return (match?.[1] ?? "").split(" ").filter((feature) => CPU_FEATURES.has(feature));
}

function hugePages(): HugePagePool[] {
  const folder = "/sys/kernel/mm/hugepages";
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((name) => {
    const match = /^hugepages-(\d+)kB$/.exec(name);
    if (match === null) return [];
    const count = (file: string) => Number(readText(join(folder, name, file)) ?? 0);
    return [
      { pageBytes: Number(match[1]) * 1024, total: count("nr_hugepages"), free: count("free_hugepages") },
    ];
  });
}

function ioUring(): boolean {
  const kernel = /^(\d+)\.(\d+)/.exec(readText("/proc/sys/kernel/osrelease") ?? "");
  if (kernel === null || Number(kernel[1]) * 1000 + Number(kernel[2]) < 5001) return false;
  // The switch came with Linux 6.6; 2 means off for everybody, 1 for those without CAP_SYS_ADMIN.
  const disabled = readText("/proc/sys/kernel/io_uring_disabled");
  return disabled === null || disabled === "0" || (disabled === "1" && process.getuid?.() === 0);
}

async function supportsDirectIo(folder: string): Promise<boolean> {
  const path = join(folder, `.millrace-doctor-${process.pid}`);
  try {
    const file = await open(
      path,
      constants.O_CREAT | constants.O_EXCL | constants.O_RDWR | constants.O_DIRECT,
      0o600,
    );
    await file.close();
    return true;
  } catch {
    return false;
  } finally {
    await unlink(path).catch(() => {});
  }
}

/** The path of the library, from the loader's own list of folders. */
function libfabric(): string | null {
  const folders = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/amazon/efa/lib64",
  ];
  for (const folder of folders) {
    const path = join(folder, "libfabric.so.1");
    if (existsSync(path)) return path;
  }
  return null;
}

function openFilesMax(): number | null {
  const match = /^Max open files\s+(\d+)/m.exec(readText("/proc/self/limits") ?? "");
  return match === null ? null : Number(match[1]);
}
