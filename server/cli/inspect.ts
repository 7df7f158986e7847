/**
 * `millrace inspect DIR`: what a state directory holds, read from its files without starting a node. Changes nothing;
 * where a daemon runs on the directory, what it shows may be out of date before it is printed.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { type NativeInspection, requireAddon } from "../../native/binding/addon.js";
import { MillraceError } from "../../proto/errors.js";
import { isHeld, namespacesFolder, nodeFolder, readIdentity, readLivedMs } from "../state/directory.js";
import { badJournals, journalFile, journalNames, readJournal } from "../state/journal.js";
import type { Journaled } from "../state/lines.js";
import { UsageError } from "./errors.js";
import { printJson, printTable } from "./output.js";
import { formatDuration, formatSize } from "./values.js";
import { type Damage, printDamage, readable } from "./verify.js";

interface Inspection {
  path: string;
  nodeId: string;
  memoryDirectory: string;
  hugeDirectory: string | null;
  nvme: string[];
  /** A daemon runs on it. */
  running: boolean;
  /** After a reboot above all: the node would start empty. */
  memoryGone: boolean;
  namespaces: InspectedNamespace[];
  /** Journals that were set aside earlier, and those that do not hold. */
  badJournals: { file: string; line?: number; reason?: string }[];
}

interface InspectedNamespace {
  name: string;
  leaseMs: number;
  /** What is left of it when a daemon starts now. */
  leaseRemainingMs: number;
  createdUnixMs: number;
  shuffles: { name: string; maps: number; partitions: number; committed: number; lost: number }[];
  objects: number;
  sizeBytes: number;
  /** Entries that the index names and that do not hold: a start leaves them out. */
  torn: number;
  segments: NativeInspection["segments"];
  /** Of --verify. */
  damaged: Damage[];
  /** Why nothing is known of its objects; null where it is. */
  problem: string | null;
}

export function register(program: Command): void {
  program
    .command("inspect")
    .description("what a state directory (serve --state) holds; reads and changes nothing")
    .argument("<dir>")
    .option("--verify", "read every object and compare it with its checksum")
    .option("--json", "print one JSON document")
    .action(async (path: string, flags: { verify?: true; json?: true }) => {
      const inspection = await inspect(resolve(path), flags.verify ?? false);
      if (inspection.running) {
        process.stderr.write(
          "millrace: a daemon runs on this state; what it does meanwhile may look like damage\n",
        );
      }
      if (flags.json) printJson(inspection);
      else print(inspection, flags.verify ?? false);
      const damaged = inspection.namespaces.reduce((sum, one) => sum + one.damaged.length, 0);
      const problems = inspection.namespaces.filter(({ problem }) => problem !== null).length;
      if (damaged + problems + inspection.badJournals.length === 0) return;
      throw new MillraceError(
        "CORRUPT",
        `${damaged} objects are damaged, ${problems} namespaces and ${inspection.badJournals.length} journals do not hold`,
      );
    });
}

async function inspect(path: string, verify: boolean): Promise<Inspection> {
  const identity = existsSync(path) ? readIdentity(path) : null;
  if (identity === null) throw new UsageError(`${path} is no state directory: it has no node.json`);
  const folder = namespacesFolder(path);
  const running = isHeld(path);
  const livedMs = readLivedMs(path);
  const names = existsSync(folder) ? journalNames(folder) : [];
  const inspection: Inspection = {
    path,
    nodeId: identity.nodeId,
    memoryDirectory: identity.memoryDirectory,
    hugeDirectory: identity.hugeDirectory,
    nvme: identity.nvme,
    running,
    memoryGone: !existsSync(identity.memoryDirectory),
    namespaces: [],
    badJournals: existsSync(folder) ? badJournals(folder).map((file) => ({ file })) : [],
  };
  const roots = [identity.memoryDirectory, identity.hugeDirectory].filter((root) => root !== null);
  for (const name of names) {
    const journaled = readJournal(journalFile(folder, name), name);
    if (journaled === null) continue;
    if ("reason" in journaled) {
      inspection.badJournals.push(journaled);
      continue;
    }
    const token = Buffer.from(journaled.namespace.token).toString("hex");
    const found = await requireAddon()
      .inspectNamespace({
        name,
        token: journaled.namespace.token,
        memoryFolders: roots.map((root) => join(root, token)),
        nvmeFolders: identity.nvme.map((root) => join(nodeFolder(root, identity.nodeId), token)),
        verify,
      })
      .catch((thrown) => MillraceError.from(thrown));
    inspection.namespaces.push(describe(journaled, livedMs, found));
  }
  return inspection;
}

function describe(
  { namespace, shuffles }: Journaled,
  livedMs: number,
  found: NativeInspection | MillraceError,
): InspectedNamespace {
  const known = found instanceof MillraceError ? null : found;
  return {
    name: namespace.name,
    leaseMs: namespace.leaseMs,
    leaseRemainingMs: Math.max(0, Math.round(namespace.lapsesAtMs - livedMs)),
    createdUnixMs: namespace.createdUnixMs,
    shuffles: [...shuffles.values()].map(({ name, maps, partitions, outputs, lost }) => ({
      name,
      maps,
      partitions,
      committed: outputs.size,
      lost: lost.size,
    })),
    objects: known?.objects ?? 0,
    sizeBytes: known?.sizeBytes ?? 0,
    torn: known?.torn ?? 0,
    segments: known?.segments ?? [],
    damaged: readable(known?.damaged ?? []),
    problem: found instanceof MillraceError ? found.message : null,
  };
}

function print(inspection: Inspection, verified: boolean): void {
  printTable([
    ["node", `${inspection.nodeId}${inspection.running ? ", running" : ""}`],
    ["memory", `${inspection.memoryDirectory}${inspection.memoryGone ? ", GONE: a start begins empty" : ""}`],
    ...(inspection.hugeDirectory === null ? [] : [["huge pages", inspection.hugeDirectory]]),
    ...inspection.nvme.map((path) => ["nvme", path]),
  ]);
  for (const namespace of inspection.namespaces) {
    const { name, objects, sizeBytes, torn, leaseRemainingMs, problem } = namespace;
    process.stdout.write(
      `\n${name}: ${objects} objects, ${formatSize(sizeBytes)}, ${torn} torn, ` +
        `${formatDuration(leaseRemainingMs)} of its lease left\n`,
    );
    if (problem !== null) process.stdout.write(`  ${problem}\n`);
    for (const { name: shuffle, maps, partitions, committed, lost } of namespace.shuffles) {
      process.stdout.write(
        `  shuffle ${shuffle}: ${maps} maps x ${partitions} partitions, ${committed} committed, ${lost} lost\n`,
      );
    }
    if (namespace.segments.length === 0) continue;
    printTable([
      ["  SEGMENT", "TIER", "SIZE", "LIVE", "OBJECTS", "PATH"],
      ...namespace.segments.map((segment) => [
        `  ${segment.number}`,
        segment.tier,
        formatSize(segment.bytes),
        formatSize(segment.liveBytes),
        String(segment.objects),
        segment.path,
      ]),
    ]);
  }
  if (verified) {
    process.stdout.write("\n");
    printDamage(inspection.namespaces.map((one) => ({ namespace: one.name, damaged: one.damaged })));
  }
  for (const { file, line, reason } of inspection.badJournals) {
    process.stdout.write(`\n${file} does not hold${line === undefined ? "" : `: line ${line}: ${reason}`}\n`);
  }
}
