/** Counts the system calls of running processes with strace, which slows them down: never in a timed round. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram, launch } from "./processes.js";
import type { Workbench } from "./workbench.js";

const ATTACH_TIMEOUT_MS = 5_000;

/**
 * The system calls that each process makes while `work` runs, by the names given. Null where nobody asked for
 * them, and with a note where strace is missing or may not attach.
 */
export async function countSystemCalls<T>(
  workbench: Workbench,
  pids: Record<string, number>,
  work: () => Promise<T>,
): Promise<{ result: T; calls: Record<string, number> } | null> {
  const { countSystemCalls: asked, note } = workbench.options;
  if (!asked) return null;
  const strace = findProgram("strace");
  if (strace === null) {
    note("strace is not installed: system calls were not counted");
    return null;
  }
  const tracers = await Promise.all(
    Object.entries(pids).map(async ([name, pid]) => {
      const file = join(workbench.folder, `strace-${name}`);
      const tracer = await launch([strace, "-f", "-c", "-o", file, "-p", String(pid)]);
      workbench.defer(() => tracer.stop("SIGINT"));
      const until = performance.now() + ATTACH_TIMEOUT_MS;
      while (
        !/attached/.test(tracer.errors()) &&
        tracer.child.exitCode === null &&
        performance.now() < until
      ) {
        await sleep(20);
      }
      return {
        name,
        file,
        tracer,
        attached: /\battached/.test(tracer.errors()) && tracer.child.exitCode === null,
      };
    }),
  );
  const failed = tracers.find(({ attached }) => !attached);
  if (failed !== undefined) {
    note(`strace could not attach, so system calls were not counted: ${failed.tracer.errors().trim()}`);
    await Promise.all(tracers.map(({ tracer }) => tracer.stop("SIGINT")));
    return null;
  }
  const result = await work();
  const calls: Record<string, number> = {};
  for (const { name, file, tracer } of tracers) {
    await tracer.stop("SIGINT");
    calls[name] = totalCalls(readFileSync(file, "utf8"));
  }
  return { result, calls };
}

/** The line `100.00  0.012  1  4321  12 total`: calls are the fourth column. */
function totalCalls(table: string): number {
  const total = table.split("\n").find((line) => line.trim().endsWith(" total"));
  return total === undefined ? 0 : Number(total.trim().split(/\s+/)[3]);
}
