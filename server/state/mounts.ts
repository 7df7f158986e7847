/** Where named memory may lie: tmpfs and hugetlbfs. */
import { execFileSync } from "node:child_process";
import { accessSync, constants, mkdirSync, readFileSync, rmdirSync, statfsSync } from "node:fs";

const TMPFS_MAGIC = 0x01021994;
const HUGE_PAGE_BYTES = 2 * 1024 ** 2;

/** False also where there is nothing at `path`. */
export function isTmpfs(path: string): boolean {
  try {
    return statfsSync(path).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

/** The most bytes that the file system at `path` may ever hold; null: as many as there is memory. */
export function capacityBytes(path: string): number | null {
  const { blocks, bsize } = statfsSync(path);
  return blocks === 0 ? null : blocks * bsize;
}

export interface HugeMount {
  path: string;
  /** Whether this process may make files there. */
  writable: boolean;
}

/** Mounted hugetlbfs with pages of 2 MiB. */
export function hugeMounts(): HugeMount[] {
  const defaultBytes = defaultHugePageBytes();
  return readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type, options]) => {
      if (type !== "hugetlbfs") return false;
      const size = /(?:^|,)pagesize=(\d+)([KMG])/i.exec(options ?? "");
      const unit = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[(size?.[2] ?? "K").toUpperCase()] ?? 1;
      return (size === null ? defaultBytes : Number(size[1]) * unit) === HUGE_PAGE_BYTES;
    })
    .map(([, at]) => {
      // The kernel writes blanks and the like in octal.
      const path = (at as string).replace(/\\([0-7]{3})/g, (_, octal) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      );
      return { path, writable: isWritable(path) };
    });
}

/** Mounts a hugetlbfs at `path`. Throws where the kernel or our rights do not allow that. */
export function mountHuge(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  try {
    const options = ["-t", "hugetlbfs", "-o", "pagesize=2M,mode=0700", "none", path];
    execFileSync("mount", options, { stdio: ["ignore", "ignore", "pipe"] });
  } catch (thrown) {
    rmdirSync(path);
    throw thrown;
  }
}

export function unmountHuge(path: string): void {
  execFileSync("umount", [path], { stdio: ["ignore", "ignore", "pipe"] });
  rmdirSync(path);
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function defaultHugePageBytes(): number {
  const match = /^Hugepagesize:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"));
  return match === null ? 0 : Number(match[1]) * 1024;
}
