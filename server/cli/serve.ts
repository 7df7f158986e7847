/** `millrace serve`: one node in the foreground until a signal comes. */
import type { Command } from "commander";
import { destination, pino } from "pino";
import { type RunningNode, startNode } from "./node.js";
import { addServeOptions, resolveServeConfig } from "./serve_config.js";

export function register(program: Command): void {
  addServeOptions(program.command("serve"))
    .description("run a storage node")
    .action(async (flags: Record<string, unknown>) => {
      await serve(flags);
    });
}

async function serve(flags: Record<string, unknown>): Promise<void> {
  const config = resolveServeConfig(flags, process.env);
  const log = pino({ name: "millrace", level: config.logLevel }, destination({ dest: 2, sync: true }));
  const stopped = waitForSignal();
  const node = await startNode({ ...config, log });
  // Everything but the secret.
  const keys = config.keys?.accessKey ?? null;
  const s3 = config.s3 === null ? null : { ...config.s3, keys };
  log.info({ ...config, s3, keys, ...addresses(node) }, "ready");
  process.stdout.write(
    `millrace ready socket=${node.socketPath} grpc=${node.grpcAddress} data=${node.dataAddress} ` +
      `s3=${node.s3Address} admin=\n`,
  );
  const signal = await stopped;
  log.info({ signal }, "draining");
  await node.close();
  log.info("stopped");
}

function addresses({ socketPath, grpcAddress, dataAddress, s3Address }: RunningNode): object {
  return { socketPath, grpcAddress, dataAddress, s3Address };
}

/** Resolves at the first SIGTERM or SIGINT; a second one ends the process at once. */
function waitForSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let asked = false;
    const onSignal = (signal: NodeJS.Signals) => {
      if (asked) process.exit(signal === "SIGINT" ? 130 : 143);
      asked = true;
      resolve(signal);
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}
