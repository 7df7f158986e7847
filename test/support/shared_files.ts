/**
 * The shared-memory files of a process as the kernel tells them: what it has mapped and what it holds open.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";

export interface MappedFile {
  inode: number;
  name: string;
  bytes: number;
  writable: boolean;
  /** Whether mprotect could make it writable, which it can not where the descriptor was read-only. */
  mayBecomeWritable: boolean;
}

export interface OpenFile {
  inode: number;
  name: string;
  /** Path that opens the same file. */
  path: string;
  bytes: number;
  writable: boolean;
}

const O_ACCMODE = 3;
const isShared = (name: string) => /^\/(memfd:|dev\/shm\/|dev\/zero|SYSV)/.test(name);

export function mappedFiles(pid: number): MappedFile[] {
  const files: MappedFile[] = [];
  let current: MappedFile | null = null;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "latin1").split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)$/.exec(line);
    if (head !== null) {
      const [, begin, end, permissions, inode, name] = head as unknown as string[];
      current = {
        inode: Number(inode),
        name: name as string,
        bytes: Number.parseInt(end as string, 16) - Number.parseInt(begin as string, 16),
        writable: (permissions as string)[1] === "w",
        mayBecomeWritable: false,
      };
      if (isShared(current.name)) files.push(current);
    } else if (current !== null && line.startsWith("VmFlags:")) {
      current.mayBecomeWritable = line.split(/\s+/).includes("mw");
    }
  }
  return files;
}

export function openFiles(pid: number): OpenFile[] {
  const files: OpenFile[] = [];
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const path = `/proc/${pid}/fd/${fd}`;
    try {
      const name = readlinkSync(path);
      if (!isShared(name)) continue;
      const { ino, size } = statSync(path);
      const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "latin1"));
      const access = Number.parseInt(flags?.[1] ?? "", 8) & O_ACCMODE;
      files.push({ inode: ino, name, path, bytes: size, writable: access !== 0 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error; // Closed meanwhile.
    }
  }
  return files;
}

/** Inodes of everything that the process has mapped or open. */
export function sharedInodes(pid: number): Set<number> {
  return new Set([...mappedFiles(pid), ...openFiles(pid)].map(({ inode }) => inode));
}
