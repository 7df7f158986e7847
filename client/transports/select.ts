/**
 * Which transport a namespace handle gets: shared memory on the node's own host, native TCP where the data door
 * can be reached, gRPC everywhere else.
 */
import { existsSync, readFileSync } from "node:fs";
import { loadAddon } from "../../native/binding/addon.js";
import type { NodeMessage } from "../../proto/messages.js";
import type { ControlChannel } from "../control.js";
import { MillraceError } from "../errors.js";
import { splitAddress } from "../names.js";
import type { Transport } from "../transport.js";
import { GrpcTransport } from "./grpc.js";
import { openNativeTransport } from "./native.js";

export type TransportKind = Transport["kind"];

export interface TransportTarget {
  channel: ControlChannel;
  /** Host of the endpoint that the caller named. */
  host: string;
  node: NodeMessage;
  namespace: string;
  namespaceId: string;
  /** What opens native sessions; empty: nothing does, the credentials are good for a part of the namespace. */
  token: Uint8Array;
  /** Takes this one or fails. */
  forced: TransportKind | null;
}

/** The boot id of this machine's kernel: equal to a node's `hostId` on the same host, in containers too. */
export function thisHostId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return ""; // Not Linux: no node is on this host.
  }
}

/** Opens a transport, falling back from the fastest to the next; errors of the namespace itself are final. */
export async function openTransport(target: TransportTarget): Promise<Transport> {
  const kinds = target.forced === null ? candidates(target) : [target.forced];
  let failure: MillraceError | null = null;
  for (const kind of kinds) {
    try {
      return await open(kind, target);
    } catch (thrown) {
      failure = MillraceError.from(thrown);
      if (!MEANS_ANOTHER_WAY.has(failure.code)) break;
    }
  }
  throw failure ?? new MillraceError("UNAVAILABLE", "the node offers no door that this client can use");
}

/** Failures to open that say nothing of the namespace, only of this way to it. */
const MEANS_ANOTHER_WAY = new Set([
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "SYSTEM",
  "PROTOCOL",
  "UNSUPPORTED",
  "INTERNAL",
]);

function candidates({ node, token }: TransportTarget): TransportKind[] {
  const kinds: TransportKind[] = [];
  if (loadAddon() !== null && token.length > 0) {
    const sameHost = node.hostId !== "" && node.hostId === thisHostId();
    // A container of the same host may not see the socket.
    if (sameHost && node.socketPath !== "" && existsSync(node.socketPath)) kinds.push("shm");
    if (node.dataAddress !== "") kinds.push("tcp");
  }
  kinds.push("grpc");
  return kinds;
}

async function open(kind: TransportKind, target: TransportTarget): Promise<Transport> {
  const { channel, node, namespace, namespaceId, token } = target;
  if (kind === "grpc") {
    // A node that went away just now failed the better ways too; it offers them again when it is back.
    if (!channel.connected) {
      throw new MillraceError("UNAVAILABLE", `the node at ${channel.address} cannot be reached`);
    }
    return new GrpcTransport(channel, namespace, namespaceId);
  }
  if (token.length === 0) {
    throw new MillraceError(
      "PERMISSION_DENIED",
      `transport ${kind} shows all of namespace ${namespace}, but these credentials are good for a prefix alone; use grpc`,
    );
  }
  if (loadAddon() === null) {
    throw new MillraceError(
      "UNSUPPORTED",
      `transport ${kind} needs the native addon; run \`npm run build:native\``,
    );
  }
  const common = { namespace, token, timeoutMs: channel.timeoutMs };
  if (kind === "shm") {
    if (node.socketPath === "") throw doorIsOff("shared-memory", "--socket");
    return openNativeTransport({ ...common, socketPath: node.socketPath, host: "", port: 0 });
  }
  if (node.dataAddress === "") throw doorIsOff("data", "--data");
  return openNativeTransport({ ...common, socketPath: null, ...dataAddress(node.dataAddress, target.host) });
}

/** Where the data door is, seen from here: a node that listens on all addresses is where its endpoint is. */
export function dataAddress(advertised: string, endpointHost: string): { host: string; port: number } {
  const parsed = splitAddress(advertised);
  if (parsed === null) {
    throw new MillraceError("PROTOCOL", `the node advertises the data address ${JSON.stringify(advertised)}`);
  }
  const anywhere = parsed.host === "0.0.0.0" || parsed.host === "::";
  return { host: anywhere ? endpointHost : parsed.host, port: parsed.port };
}

function doorIsOff(door: string, flag: string): MillraceError {
  return new MillraceError("UNAVAILABLE", `the node's ${door} door is off; start it with ${flag}`, {
    retryable: false,
  });
}
