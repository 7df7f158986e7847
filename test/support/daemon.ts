/**
 * A real `millrace serve` in a process of its own, on free ports and a socket in a temporary folder. Runs from
 * sources through tsx, or from dist/ where MILLRACE_TEST_DIST is set.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../native/binding/addon.js";

export interface DaemonOptions {
  /** As `--dram`. */
  dram?: string;
  hugePages?: "auto" | "reserve" | "off";
  /** More flags of `serve`. */
  args?: readonly string[];
  env?: Record<string, string>;
}

export interface Daemon {
  readonly process: ChildProcess;
  readonly pid: number;
  /** What `connect` takes: the gRPC address. */
  readonly endpoint: string;
  readonly grpcAddress: string;
  readonly socketPath: string;
  readonly dataAddress: string;
  /** "" where the S3 door is closed. */
  readonly s3Address: string;
  /** What it wrote on stderr so far. */
  log(): string;
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the process is gone. */
  exited(): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** SIGTERM, and waits; SIGKILL where that does not help within 15 s. */
  stop(): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

const READY = /^millrace ready socket=(\S*) grpc=(\S*) data=(\S*) s3=(\S*) admin=(\S*)$/m;
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;

/** The command line of `millrace`, to be followed by its arguments. */
export function millraceCommand(): [string, ...string[]] {
  const root = packageRoot();
  return process.env.MILLRACE_TEST_DIST
    ? [process.execPath, join(root, "dist", "server", "cli", "main.js")]
    : [process.execPath, "--import", "tsx", join(root, "server", "cli", "main.ts")];
}

export async function startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
  const folder = mkdtempSync(join(tmpdir(), "millrace-test-"));
  const [program, ...leading] = millraceCommand();
  const child = spawn(
    program,
    [
      ...leading,
      "serve",
      "--socket",
      join(folder, "millrace.sock"),
      "--grpc",
      "127.0.0.1:0",
      "--data",
      "127.0.0.1:0",
      "--dram",
      options.dram ?? "512MiB",
      "--huge-pages",
      options.hugePages ?? "off",
      ...(options.args ?? []),
    ],
    // tsx is resolved from the working directory.
    { cwd: packageRoot(), env: { ...process.env, ...options.env }, stdio: ["ignore", "pipe", "pipe"] },
  );
  // A test process that dies takes its daemons along.
  const killAtExit = () => child.kill("SIGKILL");
  process.once("exit", killAtExit);
  const exit = once(child, "exit").then(([code, signal]) => {
    process.off("exit", killAtExit);
    rmSync(folder, { recursive: true, force: true });
    return { code: code as number | null, signal: signal as NodeJS.Signals | null };
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const ready = await untilReady(child, exit, () => log);
  const [, socketPath = "", grpcAddress = "", dataAddress = "", s3Address = ""] = ready;
  return {
    process: child,
    pid: child.pid as number,
    endpoint: grpcAddress,
    grpcAddress,
    socketPath,
    dataAddress,
    s3Address,
    log: () => log,
    kill: (signal) => {
      child.kill(signal);
    },
    exited: () => exit,
    stop: async () => {
      child.kill("SIGTERM");
      const timer = setTimeout(killAtExit, STOP_TIMEOUT_MS);
      try {
        return await exit;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

async function untilReady(
  child: ChildProcess,
  exit: Promise<unknown>,
  log: () => string,
): Promise<RegExpExecArray> {
  let output = "";
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      new Promise<RegExpExecArray>((resolve) => {
        child.stdout?.setEncoding("utf8").on("data", (text: string) => {
          output += text;
          const match = READY.exec(output);
          if (match !== null) resolve(match);
        });
      }),
      exit.then(() => Promise.reject(new Error(`the daemon ended before it was ready:\n${output}${log()}`))),
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          child.kill("SIGKILL");
          reject(new Error(`the daemon was not ready within ${START_TIMEOUT_MS} ms:\n${output}${log()}`));
        }, START_TIMEOUT_MS);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
