/**
 * `millrace bench`: measures this machine, each figure beside its rival's from the same run. `bench kill` measures
 * nothing: it counts what is lost when the daemon is killed.
 */
import { randomInt } from "node:crypto";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type BenchFigure, isMet } from "../../bench/figure.js";
import { BENCHMARKS, describeMachine, type Machine } from "../../bench/suite.js";
import { MillraceError } from "../../client/index.js";
import { UsageError } from "./errors.js";
import { printJson, printTable } from "./output.js";
import type { HugePages } from "./serve_config.js";
import { formatSize } from "./values.js";
import { parseCount, untilInterrupted } from "./workload.js";

interface Flags {
  seconds: number;
  rounds?: number;
  seed?: number;
  scale: number;
  hugePages: HugePages;
  syscalls?: true;
  json?: true;
}

/** What `--json` prints. */
export interface BenchDocument {
  bench: string;
  machine: Machine;
  figures: (BenchFigure & { met: boolean | null })[];
  /** What could not be measured here, and why. */
  notes: string[];
}

const SECONDS_DEFAULT = 20;
const ROUNDS_DEFAULT = 5;
const KILL = {
  name: "kill",
  summary: "kill the daemon at random moments under load, restart it, and count what was lost or torn",
};
const KILL_ROUNDS_DEFAULT = 100;
const SEED_MAX = 2 ** 31 - 1;
/** For setting up and warming up, over the time for measuring. */
const SET_UP_MS = 120_000;

export function register(program: Command): void {
  program
    .command("bench")
    .description("measure this machine; without a name, list what can be measured")
    .argument("[name]")
    .option("--json", "print one JSON document")
    .addOption(
      new Option("--seconds <seconds>", "time for measuring in all")
        .argParser(parseNumber(0.01, 3600))
        .default(SECONDS_DEFAULT),
    )
    .addOption(
      new Option(
        "--rounds <count>",
        `how often the contenders take turns, whose medians are compared (default: ${ROUNDS_DEFAULT}); ` +
          `of kill, how often the daemon is killed (default: ${KILL_ROUNDS_DEFAULT})`,
      ).argParser(parseCount(1, 1_000_000)),
    )
    .addOption(
      new Option("--seed <number>", "of kill, what its random choices follow from").argParser(
        parseCount(0, SEED_MAX),
      ),
    )
    .addOption(
      new Option("--scale <factor>", "multiplies counts of objects and records")
        .argParser(parseNumber(0.0001, 100))
        .default(1),
    )
    .addOption(
      new Option("--huge-pages <mode>", "of the daemon that is measured")
        .choices(["auto", "reserve", "off"])
        .default("auto"),
    )
    .option("--syscalls", "also count system calls, with strace, outside of the timed rounds")
    .action(async (name: string | undefined, flags: Flags) => {
      if (name === undefined) list(flags);
      else if (name === KILL.name) await kill(flags);
      else await bench(name, flags);
    });
}

function list({ json }: Flags): void {
  const benchmarks = [...BENCHMARKS, KILL].map(({ name, summary }) => ({ name, summary }));
  if (json) printJson({ benchmarks });
  else printTable(benchmarks.map(({ name, summary }) => [name, summary]));
}

async function bench(name: string, flags: Flags): Promise<void> {
  const benchmark = BENCHMARKS.find((candidate) => candidate.name === name);
  if (benchmark === undefined) {
    const names = [...BENCHMARKS, KILL].map((candidate) => candidate.name).join(", ");
    throw new UsageError(`there is no benchmark ${JSON.stringify(name)}; there are ${names}`);
  }
  const { seconds, rounds = ROUNDS_DEFAULT, scale, hugePages } = flags;
  const notes = new Set<string>();
  const figures = await untilInterrupted((interrupted) => {
    const late = new AbortController();
    const limitMs = 2 * seconds * 1000 + SET_UP_MS;
    const timer = setTimeout(() => {
      late.abort(
        new MillraceError("DEADLINE_EXCEEDED", `the benchmark did not end within ${limitMs / 1000} s`),
      );
    }, limitMs);
    return benchmark
      .run({
        seconds,
        rounds,
        scale,
        hugePages,
        countSystemCalls: flags.syscalls ?? false,
        signal: AbortSignal.any([interrupted, late.signal]),
        note: (sentence) => notes.add(sentence),
      })
      .finally(() => clearTimeout(timer));
  });
  const document: BenchDocument = {
    bench: name,
    machine: describeMachine(),
    figures: figures.map((figure) => ({ ...figure, met: isMet(figure) })),
    notes: [...notes],
  };
  if (flags.json) printJson(document);
  else print(document);
}

/** Prints one JSON document in any case. Exit code 1 where anything was lost or torn. */
async function kill({ rounds = KILL_ROUNDS_DEFAULT, seed = randomInt(SEED_MAX) }: Flags): Promise<void> {
  const { runKill } = await import("../../bench/kill.js");
  const progress = (line: string) => process.stderr.write(`${line}\n`);
  progress(`seed ${seed}`);
  const outcome = await untilInterrupted((signal) => runKill({ rounds, seed, signal, progress }));
  printJson(outcome);
  if (outcome.lost + outcome.torn > 0) process.exitCode = 1;
}

function print({ bench: name, machine, figures, notes }: BenchDocument): void {
  const { cpus, memoryBytes, kernel, node, simd } = machine;
  process.stdout.write(
    `${name}: ${cpus} processors, ${formatSize(memoryBytes)}, Linux ${kernel}, Node.js ${node}, ${simd ?? "no addon"}\n\n`,
  );
  printTable([
    ["what", "figure", "rival", "ratio", "met", "target"],
    ...figures.map((figure) => [
      figure.name,
      formatQuantity(figure.figure, figure.unit),
      figure.rival === null ? "-" : formatQuantity(figure.rival, figure.unit),
      figure.ratio === null ? "-" : formatRatio(figure.ratio),
      figure.met === null ? "-" : figure.met ? "yes" : "NO",
      figure.target ?? "-",
    ]),
  ]);
  const rivals = [...new Set(figures.map((figure) => figure.rivalName).filter((rival) => rival !== null))];
  if (rivals.length > 0) process.stdout.write(`\nrivals: ${rivals.join("; ")}\n`);
  process.stdout.write("\n");
  printTable(figures.map((figure) => [figure.name, formatDetails(figure.details)]));
  for (const sentence of notes) process.stdout.write(`\n* ${sentence}\n`);
}

function formatDetails(details: object): string {
  return Object.entries(details)
    .map(([key, value]) => {
      if (typeof value === "number") return `${key} ${formatNumber(value)}`;
      // What has no short form is in the JSON document.
      if (typeof value === "object" && value !== null) return null;
      return `${key}: ${String(value)}`;
    })
    .filter((line) => line !== null)
    .join(", ");
}

function formatRatio(ratio: number): string {
  return ratio >= 0.01 ? `${formatNumber(ratio)}x` : `1/${formatNumber(1 / ratio)}`;
}

const PREFIXES = ["", "k ", "M ", "G "];

/** Rates with a prefix of thousands, everything else as it is. */
function formatQuantity(value: number, unit: string): string {
  if (!unit.endsWith("/s")) return `${formatNumber(value)} ${unit}`;
  let step = 0;
  let scaled = value;
  while (scaled >= 1000 && step < PREFIXES.length - 1) {
    scaled /= 1000;
    step += 1;
  }
  const shown = formatNumber(scaled);
  return unit === "B/s"
    ? `${shown} ${(PREFIXES[step] as string).trim()}B/s`
    : `${shown} ${PREFIXES[step]}${unit}`;
}

/** Four digits, without an exponent. */
function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return value === 0
    ? "0"
    : Number(value.toPrecision(4))
        .toFixed(Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value)))))
        .replace(/\.?0+$/, "");
}

function parseNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= min && value <= max)) {
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
    }
    return value;
  };
}
