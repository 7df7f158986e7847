/** What commands that talk to a node have in common: --endpoint, --json, and closing what they opened. */
import { type Command, Option } from "commander";
import { ControlChannel } from "../../client/control.js";
import { environmentCredentials } from "../../client/credentials.js";
import type { Client } from "../../client/index.js";
import { parseEndpoint } from "../../client/names.js";
import { UsageError } from "./errors.js";

export interface ConnectionFlags {
  endpoint?: string;
  json?: boolean;
}

const CONTROL_TIMEOUT_MS = 30_000;

export function addConnectionOptions(command: Command): Command {
  return command
    .addOption(new Option("--endpoint <host:port>", "gRPC address of the node").env("MILLRACE_ENDPOINT"))
    .option("--json", "print one JSON document");
}

/** Runs `work` with a connected client and closes it, whatever happens. */
export async function withClient<T>(
  flags: ConnectionFlags,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const endpoint = endpointOf(flags);
  // Loaded here, so that commands of the control plane alone start without the SDK and its addon.
  const { connect } = await import("../../client/index.js");
  const client = await connect(endpoint);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** As `withClient`, for the control plane alone: no namespace is opened. */
export async function withControl<T>(
  flags: ConnectionFlags,
  work: (channel: ControlChannel) => Promise<T>,
): Promise<T> {
  const { address } = parseEndpoint(endpointOf(flags));
  const channel = new ControlChannel(address, CONTROL_TIMEOUT_MS, environmentCredentials());
  try {
    await channel.reach();
    return await work(channel);
  } finally {
    channel.close();
  }
}

function endpointOf(flags: ConnectionFlags): string {
  if (flags.endpoint === undefined || flags.endpoint === "") {
    throw new UsageError("which node? give --endpoint HOST:PORT or set MILLRACE_ENDPOINT");
  }
  return flags.endpoint;
}
