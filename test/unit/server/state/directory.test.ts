import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { MillraceError } from "../../../../proto/errors.js";
import {
  isHeld,
  namespacesFolder,
  readIdentity,
  readLivedMs,
  StateDirectory,
  type StateOptions,
} from "../../../../server/state/directory.js";
import { isTmpfs } from "../../../../server/state/mounts.js";

const DRAM_BYTES = 16 << 20;

let folder: string;
let warnings: string[];
const made = new Set<string>();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-directory-"));
  warnings = [];
});
afterEach(() => {
  for (const path of [folder, ...made]) rmSync(path, { recursive: true, force: true });
  made.clear();
});

function open(path: string, options: Partial<StateOptions> = {}): StateDirectory {
  const log = { info() {}, warn: (_: object, message: string) => warnings.push(message) };
  const state = new StateDirectory({
    path,
    dramBytes: DRAM_BYTES,
    hugePages: "off",
    nvmePaths: [],
    log,
    ...options,
  });
  made.add(state.memoryDirectory);
  return state;
}

function failure(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    return `${(thrown as MillraceError).code}: ${(thrown as Error).message}`;
  }
  return "OK";
}

describe("a state directory", () => {
  it("is the same node each time, for one daemon at a time", () => {
    const path = join(folder, "a", "state");
    const first = open(path);
    const { nodeId, memoryDirectory } = first;
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(statSync(memoryDirectory).mode & 0o777).toBe(0o700);
    expect(isHeld(path)).toBe(true);
    expect(failure(() => open(path))).toMatch(/^ALREADY_EXISTS: another daemon runs/);
    first.close();
    expect(isHeld(path)).toBe(false);
    const second = open(path);
    expect(second).toMatchObject({ nodeId, memoryDirectory, hugeDirectory: null });
    second.close();
    expect(warnings).toEqual([]);
  });

  it("keeps memory in itself on a tmpfs, else in /dev/shm", () => {
    const elsewhere = open(join(folder, "state"));
    const expected = isTmpfs(folder)
      ? join(folder, "state", "memory")
      : `/dev/shm/millrace-${elsewhere.nodeId}`;
    expect(elsewhere.memoryDirectory).toBe(expected);
    elsewhere.close();
    const path = mkdtempSync("/dev/shm/millrace-directory-");
    made.add(path);
    const onTmpfs = open(path);
    expect(onTmpfs.memoryDirectory).toBe(join(path, "memory"));
    onTmpfs.close();
  });

  it("has a clock that stands still while nobody holds it", async () => {
    const path = join(folder, "state");
    mkdirSync(path);
    writeFileSync(join(path, "alive"), "0000000000005000\n");
    const first = open(path);
    const begun = first.clock.monotonicMs();
    expect(begun).toBeGreaterThanOrEqual(5_000);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(first.clock.monotonicMs()).toBeGreaterThan(begun);
    first.noteAlive();
    const noted = readLivedMs(path);
    expect(noted).toBeGreaterThan(5_000);
    first.close();
    const closed = readLivedMs(path);
    const closedAtMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const second = open(path);
    const lived = second.clock.monotonicMs() - closed;
    expect(lived).toBeLessThan(performance.now() - closedAtMs - 40);
    second.close();
  });

  it("starts empty where the memory is gone", () => {
    const path = join(folder, "state");
    const first = open(path);
    const { nodeId, memoryDirectory } = first;
    first.close();
    rmSync(memoryDirectory, { recursive: true });
    writeFileSync(join(namespacesFolder(path), "job-1.jsonl"), "whatever\n");
    const second = open(path);
    expect(second.nodeId).toBe(nodeId);
    expect(existsSync(second.memoryDirectory)).toBe(true);
    expect(warnings).toEqual([expect.stringMatching(/the node starts empty/)]);
    expect(second.journals.takeUp(() => expect.unreachable())).toEqual([]);
    second.close();
  });

  it("does not let an NVMe directory with files of the node be left out", () => {
    const path = join(folder, "state");
    const nvme = join(folder, "nvme");
    const first = open(path, { nvmePaths: [nvme] });
    first.close();
    const files = join(nvme, `millrace-${first.nodeId}`, "token");
    mkdirSync(files, { recursive: true });
    open(path).close();
    open(path, { nvmePaths: [nvme] }).close();
    writeFileSync(join(files, "1.seg"), "bytes");
    expect(failure(() => open(path))).toMatch(/^INVALID_ARGUMENT: .*give --nvme .*nvme:SIZE again/);
    expect(isHeld(path)).toBe(false);
    open(path, { nvmePaths: [nvme] }).close();
    rmSync(files, { recursive: true });
    open(path).close();
  });

  it("says what is wrong with it", () => {
    const path = join(folder, "state");
    open(path).close();
    const file = join(path, "node.json");
    const whole = readFileSync(file, "utf8");
    for (const [content, expected] of [
      ["{", /^CORRUPT: .*node\.json is not JSON/],
      [whole.replace('"version": 1', '"version": 9'), /^UNSUPPORTED: .*version 9/],
      [whole.replace(/"nodeId": "[^"]*"/, '"nodeId": "../../etc"'), /^CORRUPT: .*lacks what makes a node/],
    ] as const) {
      writeFileSync(file, content);
      expect(failure(() => open(path))).toMatch(expected);
      expect(isHeld(path)).toBe(false);
    }
    writeFileSync(file, whole);
    expect(readIdentity(path)).toMatchObject({ version: 1 });
    expect(failure(() => open(path, { dramBytes: 2 ** 52 }))).toMatch(
      /^INVALID_ARGUMENT: the tmpfs of .* holds/,
    );
    writeFileSync(join(folder, "file"), "");
    expect(failure(() => open(join(folder, "file")))).toMatch(/^(SYSTEM|ALREADY_EXISTS): .*file/);
    if (process.getuid?.() !== 0) {
      chmodSync(folder, 0o500);
      expect(failure(() => open(join(folder, "new")))).toMatch(/^SYSTEM: cannot make/);
      chmodSync(folder, 0o700);
    }
  });
});
