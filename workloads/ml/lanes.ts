/** Calls as rows of a report's timeline. */

import type { CallReport } from "../calling/call_report.js";
import type { ReportCall, ReportLane } from "../report/model.js";

/** A row a function worker, by their names. */
export function timelineLanes(
  calls: readonly (CallReport & { stage: string; label: string })[],
): ReportLane[] {
  const byWorker = new Map<string, ReportCall[]>();
  for (const { functionWorker, attempt, startMs, endMs, spans, stage, label } of calls) {
    const lane = byWorker.get(functionWorker) ?? [];
    byWorker.set(functionWorker, lane);
    lane.push({ label, stage, startMs, endMs, attempt: attempt + 1, spans, details: [] });
  }
  return [...byWorker]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([name, lane]) => ({
      name: `function worker ${name.replace(/^w/, "")}`,
      calls: lane.sort((a, b) => a.startMs - b.startMs),
    }));
}
