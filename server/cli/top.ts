/** `millrace top`: a node, live. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import type { ControlChannel } from "../../client/control.js";
import { loadContract } from "../../proto/load.js";
import type { NamespaceSummary, NodeMessage, NodeStatsResponse } from "../../proto/messages.js";
import { addConnectionOptions, type ConnectionFlags, withControl } from "./connection.js";
import { formatTable, printJson } from "./output.js";
import { formatDuration, formatSize, parseDuration } from "./values.js";

interface TopFlags extends ConnectionFlags {
  once?: boolean;
  interval: string;
}

interface Snapshot {
  node: NodeMessage;
  stats: NodeStatsResponse;
  namespaces: NamespaceSummary[];
}

const NAMESPACES_SHOWN = 20;
const HOME_AND_CLEAR = "\x1b[H\x1b[2J";
const ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l";
const NORMAL_SCREEN = "\x1b[?1049l\x1b[?25h";

export function register(program: Command): void {
  addConnectionOptions(program.command("top"))
    .description("show how a node fares, again and again on a terminal")
    .option("--once", "print one snapshot and end")
    .option("--interval <duration>", "time between two looks", "1s")
    .action(top);
}

async function top(flags: TopFlags): Promise<void> {
  const intervalMs = Math.max(100, parseDuration(flags.interval, "--interval"));
  await withControl(flags, async (channel) => {
    const first = await look(channel);
    if (flags.json) printJson(first);
    else if (flags.once || !process.stdout.isTTY) process.stdout.write(render(first, null, 0));
    else await refresh(channel, first, intervalMs);
  });
}

async function look(channel: ControlChannel): Promise<Snapshot> {
  const { nodes, namespaces } = loadContract();
  const settings = { idempotent: true };
  const [node, stats, list] = await Promise.all([
    channel.unary(nodes.DescribeNode, {}, settings),
    channel.unary(nodes.NodeStats, {}, settings),
    channel.unary(namespaces.ListNamespaces, {}, settings),
  ]);
  return { node, stats, namespaces: list.namespaces };
}

/** Until Ctrl-C. The terminal gets its old content back, also when the node goes away. */
async function refresh(channel: ControlChannel, first: Snapshot, intervalMs: number): Promise<void> {
  const ending = new AbortController();
  const end = () => ending.abort();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  process.stdout.write(ALTERNATE_SCREEN);
  try {
    let before = first;
    let beforeMs = performance.now();
    process.stdout.write(HOME_AND_CLEAR + render(first, null, 0));
    while (!ending.signal.aborted) {
      await sleep(intervalMs, undefined, { signal: ending.signal }).catch(() => {});
      if (ending.signal.aborted) break;
      const now = await look(channel);
      const nowMs = performance.now();
      process.stdout.write(HOME_AND_CLEAR + render(now, before, (nowMs - beforeMs) / 1000));
      before = now;
      beforeMs = nowMs;
    }
  } finally {
    process.stdout.write(NORMAL_SCREEN);
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
}

function render({ node, stats, namespaces }: Snapshot, before: Snapshot | null, seconds: number): string {
  const sealedRate =
    before === null || seconds <= 0
      ? ""
      : `, ${Math.max(0, Math.round((stats.sealedTotal - before.stats.sealedTotal) / seconds))} sealed/s`;
  const rate = (of: (stats: NodeStatsResponse) => number) =>
    before === null || seconds <= 0
      ? ""
      : ` (${formatSize(Math.max(0, Math.round((of(stats) - of(before.stats)) / seconds)))}/s)`;
  const doors = [
    `grpc ${node.grpcAddress}`,
    `data ${node.dataAddress || "closed"}`,
    `socket ${node.socketPath || "closed"}`,
  ];
  const head = formatTable([
    [
      "millrace",
      `${node.version}, up ${formatDuration(Date.now() - node.startedUnixMs)}, ${doors.join(", ")}`,
    ],
    ["dram", usage(stats.dramUsedBytes, stats.dramLimitBytes)],
    [
      "",
      `${formatSize(stats.dramSpareBytes)} spare, ${formatSize(stats.grantedBytes)} granted to writers, ` +
        `${formatSize(stats.heldBytes)} held by clients, ${formatSize(stats.bufferBytes)} in buffers, ${formatSize(stats.hugePageBytes)} in huge pages`,
    ],
    ...(stats.nvmeLimitBytes === 0
      ? []
      : [
          ["nvme", usage(stats.nvmeUsedBytes, stats.nvmeLimitBytes)],
          ...stats.nvmeDirectories.map(({ path, usedBytes, limitBytes, fault }) => [
            "",
            `${path}: ${formatSize(usedBytes)} of ${formatSize(limitBytes)}` +
              (fault === "" ? "" : `, TAKES NOTHING NEW: ${fault}`),
          ]),
          [
            "",
            `${formatSize(stats.nvmeWrittenBytes)} written${rate((of) => of.nvmeWrittenBytes)} through ${stats.fileBackend}`,
          ],
          [
            "moved",
            `${formatSize(stats.demotedBytes)} demoted${rate((of) => of.demotedBytes)}, ` +
              `${formatSize(stats.promotedBytes)} promoted${rate((of) => of.promotedBytes)}, ` +
              `${formatSize(stats.cleanedBytes)} cleaned${rate((of) => of.cleanedBytes)}`,
          ],
        ]),
    ["objects", `${stats.objects} in ${stats.segments} segments${sealedRate}`],
    ["sessions", String(stats.sessions)],
  ]);
  const largest = [...namespaces].sort((a, b) => b.sizeBytes - a.sizeBytes);
  const table = formatTable([
    ["NAMESPACE", "OBJECTS", "SIZE", "DRAM", "NVME", "LEASE LEFT"],
    ...largest
      .slice(0, NAMESPACES_SHOWN)
      .map(({ name, objects, sizeBytes, dramBytes, nvmeBytes, leaseRemainingMs }) => [
        name,
        String(objects),
        formatSize(sizeBytes),
        formatSize(dramBytes),
        formatSize(nvmeBytes),
        formatDuration(leaseRemainingMs),
      ]),
  ]);
  const hidden = largest.length - NAMESPACES_SHOWN;
  return `${head}\n${table}${hidden > 0 ? `and ${hidden} more\n` : ""}`;
}

function usage(usedBytes: number, limitBytes: number): string {
  const used = limitBytes === 0 ? 0 : usedBytes / limitBytes;
  const bar = "#".repeat(Math.round(Math.min(used, 1) * 30)).padEnd(30, ".");
  return `[${bar}] ${formatSize(usedBytes)} of ${formatSize(limitBytes)}`;
}
