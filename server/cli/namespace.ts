/** `millrace namespace create|list|renew|delete|receipt|credentials`: the control plane from the shell. */
import { type Command, Option } from "commander";
import { loadContract } from "../../proto/load.js";
import type { Hint, Receipt } from "../../proto/messages.js";
import { addConnectionOptions, type ConnectionFlags, withControl } from "./connection.js";
import { printJson, printTable } from "./output.js";
import { formatDuration, formatSize, parseDuration, parseSize } from "./values.js";

const HINTS: Record<string, Hint> = {
  latency: "HINT_LATENCY",
  throughput: "HINT_THROUGHPUT",
  capacity: "HINT_CAPACITY",
};
// A shell renews nothing by itself, so the server's default of a minute would be over too soon.
const LEASE_FROM_SHELL = "1h";
const TTL_FROM_SHELL = "1h";

interface CreateFlags extends ConnectionFlags {
  lease: string;
  limit?: string;
  dramLimit?: string;
  bandwidth?: string;
  expect?: string;
  hint?: string;
  guarded?: true;
}

export function register(program: Command): void {
  const group = program.command("namespace").description("create, list, renew and delete namespaces");
  addConnectionOptions(group.command("create"))
    .description("create a namespace; it lives until its lease runs out")
    .argument("<name>")
    .option("--lease <duration>", "how long it lives unless renewed, for example 90s or 2h", LEASE_FROM_SHELL)
    .option("--limit <size>", "most bytes in all")
    .option("--dram-limit <size>", "most bytes in memory")
    .option("--bandwidth <size>", "most bytes a second through remote doors")
    .option("--expect <size>", "bytes to prepare for")
    .addOption(new Option("--hint <hint>", "what matters").choices(Object.keys(HINTS)))
    .option("--guarded", "ask for credentials at every door")
    .action(create);
  addConnectionOptions(group.command("list")).description("list namespaces").action(list);
  addConnectionOptions(group.command("renew"))
    .description("extend a namespace's lease from now")
    .argument("<name>")
    .option("--lease <duration>", "how long from now; left out: as at creation")
    .action(renew);
  addConnectionOptions(group.command("delete"))
    .description("end a namespace with all of its objects, and print its receipt")
    .argument("<name>")
    .action(remove);
  addConnectionOptions(group.command("receipt"))
    .description("print what a namespace has cost; also of one that ended within the last minutes")
    .argument("<name>")
    .action(receipt);
  addConnectionOptions(group.command("credentials"))
    .description(
      "issue session credentials: good for one namespace and for a while, at the S3 door or, guarded, at all",
    )
    .argument("<name>")
    .option("--prefix <prefix>", "only for keys that start with it", "")
    .option("--read-only", "only to read and list")
    .option("--ttl <duration>", "how long they are good", TTL_FROM_SHELL)
    .action(credentials);
}

async function create(name: string, flags: CreateFlags): Promise<void> {
  const size = (text: string | undefined, flag: string) => (text === undefined ? 0 : parseSize(text, flag));
  const request = {
    name,
    leaseMs: parseDuration(flags.lease, "--lease"),
    limits: {
      sizeBytes: size(flags.limit, "--limit"),
      dramBytes: size(flags.dramLimit, "--dram-limit"),
      bandwidthBytesPerSecond: size(flags.bandwidth, "--bandwidth"),
    },
    hint: flags.hint === undefined ? ("HINT_UNSPECIFIED" as const) : (HINTS[flags.hint] as Hint),
    expectedBytes: size(flags.expect, "--expect"),
    atEnd: "drop",
    guarded: flags.guarded ?? false,
  };
  const { token: _, ...created } = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.CreateNamespace, request),
  );
  if (flags.json) printJson(created);
  else process.stdout.write(`${name}: created, its lease runs for ${formatDuration(created.leaseMs)}\n`);
}

async function list(flags: ConnectionFlags): Promise<void> {
  const { namespaces } = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.ListNamespaces, {}, { idempotent: true }),
  );
  if (flags.json) {
    printJson({ namespaces });
    return;
  }
  printTable([
    ["NAME", "OBJECTS", "SIZE", "DRAM", "NVME", "LEASE LEFT"],
    ...namespaces.map(({ name, objects, sizeBytes, dramBytes, nvmeBytes, leaseRemainingMs }) => [
      name,
      String(objects),
      formatSize(sizeBytes),
      formatSize(dramBytes),
      formatSize(nvmeBytes),
      formatDuration(leaseRemainingMs),
    ]),
  ]);
}

async function renew(name: string, flags: ConnectionFlags & { lease?: string }): Promise<void> {
  const leaseMs = flags.lease === undefined ? 0 : parseDuration(flags.lease, "--lease");
  const { leaseRemainingMs } = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.RenewLease, { name, leaseMs }, { idempotent: true }),
  );
  if (flags.json) printJson({ name, leaseRemainingMs });
  else process.stdout.write(`${name}: ${formatDuration(leaseRemainingMs)} left\n`);
}

async function remove(name: string, flags: ConnectionFlags): Promise<void> {
  const { receipt: last } = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.DeleteNamespace, { name }),
  );
  printReceipt(last as Receipt, flags);
}

async function receipt(name: string, flags: ConnectionFlags): Promise<void> {
  const current = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.GetReceipt, { name }, { idempotent: true }),
  );
  printReceipt(current, flags);
}

async function credentials(
  name: string,
  flags: ConnectionFlags & { prefix: string; readOnly?: true; ttl: string },
): Promise<void> {
  const request = {
    namespace: name,
    prefix: flags.prefix,
    readOnly: flags.readOnly ?? false,
    ttlMs: parseDuration(flags.ttl, "--ttl"),
  };
  const issued = await withControl(flags, (channel) =>
    channel.unary(loadContract().namespaces.IssueCredentials, request, { idempotent: true }),
  );
  if (flags.json) {
    printJson(issued);
    return;
  }
  // As clients of S3 read them from their environment.
  process.stdout.write(
    `AWS_ACCESS_KEY_ID=${issued.accessKey}\nAWS_SECRET_ACCESS_KEY=${issued.secretKey}\n` +
      `AWS_SESSION_TOKEN=${issued.sessionToken}\n`,
  );
}

function printReceipt(receipt: Receipt, flags: ConnectionFlags): void {
  if (flags.json) {
    printJson(receipt);
    return;
  }
  const gibSeconds = (byteSeconds: number) => `${(byteSeconds / 1024 ** 3).toFixed(3)} GiB x s`;
  printTable([
    ["namespace", `${receipt.namespace}${receipt.ended ? " (ended)" : ""}`],
    ["objects", `${receipt.objects}, ${formatSize(receipt.sizeBytes)}`],
    ["peak", formatSize(receipt.peakBytes)],
    ["dead", formatSize(receipt.deadBytes)],
    ["held by clients", formatSize(receipt.heldBytes)],
    ["dram", gibSeconds(receipt.dramByteSeconds)],
    ["nvme", gibSeconds(receipt.nvmeByteSeconds)],
    ["copies avoided", formatSize(receipt.copiesAvoidedBytes)],
    ...receipt.traffic
      .filter(({ operations }) => operations > 0)
      .map(({ by, bytesIn, bytesOut, operations }) => [
        `by ${by}`,
        `${formatSize(bytesIn)} in, ${formatSize(bytesOut)} out, ${operations} operations`,
      ]),
    ...(receipt.slowestPartition === ""
      ? []
      : [["slowest partition", `${receipt.slowestPartition}, ${formatSize(receipt.slowestPartitionBytes)}`]]),
  ]);
}
