/** The daemon that is measured: `millrace serve` in a process of its own. */
import { join } from "node:path";
import { MillraceError } from "../client/index.js";
import { defaultDramBytes, type HugePages } from "../server/cli/serve_config.js";
import { type Launched, launch, moduleCommand } from "./processes.js";

export interface Daemon {
  readonly pid: number;
  readonly endpoint: string;
  readonly socketPath: string;
  readonly dataAddress: string;
  /** "" without `s3`. */
  readonly s3Address: string;
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

const READY = /^millrace ready socket=(\S*) grpc=(\S*) data=(\S*) s3=(\S*)/m;
const START_TIMEOUT_MS = 30_000;
const DRAM_BYTES_MAX = 8 * 1024 ** 3;

export async function startDaemon(
  folder: string,
  options: {
    hugePages: HugePages;
    signal: AbortSignal;
    dramBytes?: number;
    /** State directory; left out: nothing outlives the daemon. */
    state?: string;
    /** Opens the S3 door with these keys. */
    s3?: { accessKey: string; secretKey: string };
  },
): Promise<Daemon> {
  const dramBytes = options.dramBytes ?? Math.min(defaultDramBytes(), DRAM_BYTES_MAX);
  const launched = await launch([
    ...serveCommand(),
    ...["--socket", join(folder, "millrace.sock"), "--grpc", "127.0.0.1:0", "--data", "127.0.0.1:0"],
    ...["--dram", String(dramBytes), "--huge-pages", options.hugePages],
    ...(options.state === undefined ? [] : ["--state", options.state]),
    ...(options.s3 === undefined
      ? []
      : ["--s3", "127.0.0.1:0", "--access-key", options.s3.accessKey, "--secret-key", options.s3.secretKey]),
    ...["--log-level", "warn"],
  ]);
  try {
    const match = (await untilReady(launched, options.signal)) as unknown as string[];
    const [, socketPath, endpoint, dataAddress, s3Address] = match as [
      string,
      string,
      string,
      string,
      string,
    ];
    return {
      pid: launched.pid,
      endpoint,
      socketPath,
      dataAddress,
      s3Address,
      stop: () => launched.stop(),
      kill: () => launched.stop("SIGKILL"),
    };
  } catch (thrown) {
    await launched.stop("SIGKILL");
    throw thrown;
  }
}

/** The command line of `millrace serve`, to be followed by its flags. */
export function serveCommand(): string[] {
  return [...moduleCommand(import.meta.url, "../server/cli/main"), "serve"];
}

/** Waits for the line that says where the doors are: socket, gRPC, data. UNAVAILABLE where the daemon ends before. */
export async function untilReady(launched: Launched, signal: AbortSignal): Promise<RegExpExecArray> {
  let timer: NodeJS.Timeout | undefined;
  let abort = () => {};
  try {
    return await new Promise<RegExpExecArray>((resolve, reject) => {
      const look = () => {
        const match = READY.exec(launched.output());
        if (match !== null) resolve(match);
      };
      launched.child.stdout?.on("data", look);
      const fail = (what: string) =>
        reject(new MillraceError("UNAVAILABLE", `${what}: ${launched.errors().trim()}`));
      void launched.exited.then(() => fail("the daemon ended before it was ready"));
      timer = setTimeout(
        () => fail(`the daemon was not ready within ${START_TIMEOUT_MS} ms`),
        START_TIMEOUT_MS,
      );
      abort = () => reject(signal.reason as Error);
      signal.addEventListener("abort", abort, { once: true });
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}
