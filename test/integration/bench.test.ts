/** `millrace bench` with tiny sizes: that every benchmark runs, says what it must, and cleans up. No times. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BenchFigure } from "../../bench/figure.js";
import { tpcExtension } from "../../bench/tpc.js";
import { packageRoot } from "../../native/binding/addon.js";
import type { BenchDocument } from "../../server/cli/bench.js";
import { millraceCommand } from "../support/daemon.js";

const TINY = ["--seconds", "0.2", "--rounds", "1", "--scale", "0.001", "--huge-pages", "off"];
const TIMEOUT_MS = 120_000;

const hasProgram = (name: string) => spawnSync("sh", ["-c", `command -v ${name}`]).status === 0;
const hasRedis = hasProgram("redis-server") && hasProgram("redis-benchmark");
const programs = process.env.MILLRACE_BENCH_PROGRAMS ?? join(packageRoot(), "build", "native");
const isBuilt = (name: string) => existsSync(join(programs, name));
const isMinioBuilt =
  existsSync(join(packageRoot(), "build", "clients", "bin", "minio")) || hasProgram("minio");

// The generators of TPC-DS and TPC-H come from PyPI. CI must have them.
const isOffline =
  process.env.CI !== "true" &&
  (await Promise.all([tpcExtension("tpcds"), tpcExtension("tpch")]).then(
    () => false,
    (error: unknown) => {
      console.log(`skipped: bench sql: ${String(error)}`);
      return true;
    },
  ));

// Everything that a benchmark leaves on disk, and every process it starts, can be told by this folder.
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-bench-test-"));
});
afterEach(async () => {
  try {
    expect(await stragglers()).toEqual([]);
    expect(readdirSync(folder).filter((name) => name.startsWith("millrace"))).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** Processes that have this test's TMPDIR; those that are just ending are given a moment. */
async function stragglers(): Promise<string[]> {
  let found: string[] = [];
  for (let attempt = 0; attempt < 50; attempt++) {
    found = ownProcesses();
    if (found.length === 0) return found;
    await sleep(100);
  }
  return found;
}

function ownProcesses(): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      if (!readFileSync(`/proc/${pid}/environ`, "utf8").includes(`TMPDIR=${folder}\0`)) return [];
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      // esbuild, with which tsx compiles, ends when it notices that its parent did.
      return command.includes("esbuild") ? [] : [`${pid} ${command}`];
    } catch {
      return [];
    }
  });
}

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[], env: Record<string, string> = {}) {
  const [program, ...leading] = millraceCommand();
  const child: ChildProcess = spawn(program, [...leading, "bench", ...args], {
    cwd: packageRoot(),
    env: { ...process.env, TMPDIR: folder, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const outcome: Outcome = { code: null, stdout: "", stderr: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    outcome.stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    outcome.stderr += text;
  });
  const ended = new Promise<Outcome>((resolve) => {
    child.once("close", (code) => resolve({ ...outcome, code }));
  });
  return { child, ended };
}

function run(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  return start(args, env).ended;
}

async function measure(
  name: string,
  args: readonly string[] = TINY,
  env: Record<string, string> = {},
): Promise<BenchDocument> {
  const { code, stdout, stderr } = await run([name, "--json", ...args], env);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const document = JSON.parse(stdout) as BenchDocument;
  expect(document.bench).toBe(name);
  expect(document.machine).toMatchObject({
    cpus: expect.any(Number),
    memoryBytes: expect.any(Number),
    kernel: expect.any(String),
    node: expect.stringMatching(/^v\d+\./),
    simd: expect.any(String),
  });
  expect(document.figures.length).toBeGreaterThan(0);
  for (const figure of document.figures) checkFigure(figure);
  return document;
}

function checkFigure(figure: BenchDocument["figures"][number]): void {
  const { name, figure: value, unit, rival, rivalName, ratio, met } = figure;
  expect(name).not.toBe("");
  expect(unit).not.toBe("");
  expect(value, name).toEqual(expect.any(Number));
  if (rival === null) {
    expect(ratio).toBeNull();
  } else {
    expect(rivalName).not.toBe("");
    expect(rival).toBeGreaterThan(0);
    expect(ratio).toBeCloseTo(value / rival, 2);
  }
  expect([true, false, null]).toContain(met);
}

/** The one figure whose name begins so. */
function figureOf({ figures }: BenchDocument, start: string): BenchFigure {
  const found = figures.filter((figure) => figure.name.startsWith(start));
  expect(found.length, `figures that begin with ${start}`).toBe(1);
  return found[0] as BenchFigure;
}

describe("millrace bench", { timeout: TIMEOUT_MS }, () => {
  it("lists the benchmarks", async () => {
    const { code, stdout } = await run(["--json"]);
    expect(code).toBe(0);
    const { benchmarks } = JSON.parse(stdout) as { benchmarks: { name: string }[] };
    const names = benchmarks.map((benchmark) => benchmark.name);
    for (const name of [
      "get-local put-local get-tcp put-tcp metadata grpc dispatch sort-local kernels overhead drop",
    ].flatMap((line) => line.split(" "))) {
      expect(names).toContain(name);
    }
  });

  it.each([
    ["nonsense"],
    ["drop", "--rounds", "0"],
    ["drop", "--seconds", "long"],
    ["drop", "--huge-pages", "maybe"],
  ])("refuses %s %s %s with 2", async (...args) => {
    const { code, stdout, stderr } = await run(args);
    expect(code).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).not.toBe("");
  });

  it("get-local: beside Redis and memcpy", async () => {
    const document = await measure("get-local");
    expect(figureOf(document, "1 KiB, JavaScript").rival === null).toBe(!hasRedis);
    expect(figureOf(document, "64 MiB").rival).toBeGreaterThan(0);
    if (isBuilt("client_bench")) expect(figureOf(document, "1 KiB, C++").unit).toBe("us");
  });

  it("get-local --syscalls: reads make none", async () => {
    const document = await measure("get-local", [...TINY, "--syscalls"]);
    if (document.notes.some((note) => note.includes("system calls were not counted"))) return;
    const details = figureOf(document, "1 KiB, JavaScript").details as Record<string, number>;
    expect(details.clientSystemCallsPerOperation).toBeLessThan(0.05);
  });

  it("put-local: beside Redis and memcpy", async () => {
    const document = await measure("put-local");
    expect(figureOf(document, "1 KiB, sealed, JavaScript").rival === null).toBe(!hasRedis);
    expect(figureOf(document, "64 MiB").rival).toBeGreaterThan(0);
  });

  it("goes without a rival that is missing, and says so", async () => {
    const document = await measure("put-local", TINY, { PATH: "/nonexistent" });
    expect(figureOf(document, "1 KiB, sealed, JavaScript")).toMatchObject({
      rival: null,
      ratio: null,
      rivalName: expect.stringContaining("not installed"),
    });
    expect(document.notes.join()).toContain("redis-server is not installed");
  });

  it("s3: beside MinIO", async () => {
    const document = await measure("s3");
    expect(document.figures).toHaveLength(18);
    expect(figureOf(document, "put, 1 KiB, 1 at").rival === null).toBe(!isMinioBuilt);
  });

  it.each(["get-tcp", "put-tcp"])("%s: beside Redis and a plain copy", async (name) => {
    const document = await measure(name);
    expect(figureOf(document, "1 KiB per daemon core, JavaScript").rival === null).toBe(!hasRedis);
    for (const size of ["1 MiB, JavaScript", "64 MiB, JavaScript"]) {
      expect(figureOf(document, size).rival === null).toBe(!isBuilt("socket_copy"));
    }
  });

  it("metadata", async () => {
    const document = await measure("metadata");
    expect(figureOf(document, "per daemon core, JavaScript").unit).toBe("ops/s");
  });

  it("grpc: beside bare streams", async () => {
    const document = await measure("grpc");
    expect(figureOf(document, "put").rival).toBeGreaterThan(0);
    expect(figureOf(document, "get").rival).toBeGreaterThan(0);
  });

  it("allreduce: beside Redis and the sum in one process", async () => {
    const document = await measure("allreduce");
    for (const size of ["8 B", "100 KB", "100 MB"]) {
      const figure = figureOf(document, `all-reduce of ${size}`);
      expect(figure.rival === null).toBe(!hasRedis);
      const { sizeBytes, bytesPerRound } = figure.details as { sizeBytes: number; bytesPerRound: number };
      // Four members put an array each.
      expect(bytesPerRound).toBeGreaterThan(4 * sizeBytes);
    }
    expect(figureOf(document, "2 MB, a slice summed by each member").rival).toBeGreaterThan(0);
  });

  it("dispatch", async () => {
    expect(figureOf(await measure("dispatch"), "dispatch").unit).toBe("us");
  });

  it("sort-local: beside the same kernels without a store", async () => {
    const document = await measure("sort-local");
    expect(document.figures.some((figure) => figure.rival !== null && figure.unit === "records/s")).toBe(
      true,
    );
  });

  it.runIf(isBuilt("kernels_bench"))("kernels: beside memcpy, as a table", async () => {
    await measure("kernels");
    const { code, stdout } = await run(["kernels", ...TINY]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^what\s+figure\s+rival\s+ratio\s+met\s+target$/m);
    expect(stdout).toMatch(/^merge K=64 uniform\s+[\d.,]+ ms\s+[\d.,]+ ms\s+\S+x?\s+(yes|NO)\s+<= 6\.5x$/m);
  });

  it.skipIf(isOffline)("sql: beside DuckDB alone", async () => {
    const document = await measure("sql", [
      "--seconds",
      "1",
      "--rounds",
      "1",
      "--scale",
      "0.01",
      "--huge-pages",
      "off",
    ]);
    expect(document.figures).toHaveLength(9);
    for (const figure of document.figures) expect(figure.rival).toBeGreaterThan(0);
    expect((figureOf(document, "TPC-DS 77").details as { stages: number }).stages).toBeGreaterThan(0);
  });

  it("overhead", async () => {
    expect((await measure("overhead")).figures.every((figure) => figure.unit === "B")).toBe(true);
  });

  it("drop: many objects beside few", async () => {
    expect(figureOf(await measure("drop"), "drop of").rival).toBeGreaterThan(0);
  });

  it("fails with a sentence where the daemon cannot start", async () => {
    const { code, stdout, stderr } = await run(["get-local", ...TINY], {
      MILLRACE_ADDON: "/nonexistent/millrace.node",
    });
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain("npm run build:native");
  });

  it.each(["SIGINT", "SIGTERM"] as const)("ends with 1 and cleans up after %s", async (signal) => {
    const { child, ended } = start(["put-local", "--seconds", "60", "--huge-pages", "off"]);
    // Until daemon and client run: the client's processes are three with the command itself.
    for (let attempt = 0; attempt < 300 && ownProcesses().length < 3; attempt++) await sleep(100);
    await sleep(1000);
    child.kill(signal);
    const { code, stdout, stderr } = await ended;
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain(`interrupted by ${signal}`);
  });
});
