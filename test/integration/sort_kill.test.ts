/** Function workers that are killed in the middle of a sort change nothing about its answer. */
import { readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { connect } from "../../client/index.js";
import type { Executor } from "../../functions/index.js";
import { type RunSortOptions, runSort } from "../../server/cli/sort.js";
import type { Stage } from "../../workloads/sort/driver.js";
import { parseStore } from "../../workloads/stores/open.js";
import { startDaemon } from "../support/daemon.js";
import { examine, readParts, Workplace } from "./sort_helpers.js";

const RECORDS = 2_000_000;

function options(output: string, changes: Partial<RunSortOptions>): RunSortOptions {
  return {
    input: { kind: "generated", records: RECORDS, skewed: false },
    output,
    force: false,
    workers: 2,
    partitions: null,
    store: { kind: "millrace" },
    endpoint: null,
    dramBytes: 2 * 1024 ** 3,
    hugePages: "auto",
    ...changes,
  };
}

/** Sorts, and kills function workers once when a stage is underway. */
async function sortWithKill(
  place: Workplace,
  stage: Stage,
  killed: "one" | "all",
  changes: Partial<RunSortOptions> = {},
) {
  let executor: Executor | null = null;
  let victims: readonly number[] = [];
  const output = place.at("out");
  const outcome = await runSort(
    options(output, {
      onStart: (started) => {
        executor = started;
      },
      onProgress: (progress) => {
        if (
          victims.length > 0 ||
          progress.stage !== stage ||
          progress.fraction === 0 ||
          progress.fraction === 1
        )
          return;
        const { pids } = (executor as unknown as Executor).stats();
        victims = killed === "one" ? pids.slice(0, 1) : [...pids];
        for (const pid of victims) process.kill(pid, "SIGKILL");
      },
      ...changes,
    }),
  );
  expect(victims.length).toBe(killed === "one" ? 1 : 2);
  return outcome;
}

/** The sum of the CRC32 of gensort's first two million records, found by sorting them undisturbed. */
let undisturbed: Promise<string> | null = null;
function knownChecksum(): Promise<string> {
  undisturbed ??= (async () => {
    using place = new Workplace();
    const { run } = await runSort(options(place.at("out"), {}));
    const found = examine(readParts(place.at("out")));
    expect(found).toEqual({ records: RECORDS, unordered: 0, checksum: run.document.checksum });
    expect(run.document.retries).toBe(0);
    return found.checksum;
  })();
  return undisturbed;
}

it.each<[Stage, "one" | "all"]>([
  ["map", "one"],
  ["map", "all"],
  ["reduce", "one"],
  ["reduce", "all"],
])("kill -9 in the middle of %s: %s", async (stage, killed) => {
  using place = new Workplace();
  const { run } = await sortWithKill(place, stage, killed);
  expect(run.document.validated).toBe(true);
  expect(run.document.retries).toBeGreaterThanOrEqual(1);
  expect(run.lostAttempts.some((attempt) => attempt.stage === stage && attempt.outcome === "lost")).toBe(
    true,
  );
  const checksum = await knownChecksum();
  expect(run.document.checksum).toBe(checksum);
  expect(examine(readParts(place.at("out")))).toEqual({ records: RECORDS, unordered: 0, checksum });
});

it("kill -9 with the exchange in files", async () => {
  using place = new Workplace();
  const store = parseStore(`file://${place.at("store")}`);
  const { run } = await sortWithKill(place, "map", "all", { store, partitions: 8 });
  expect(run.document).toMatchObject({ validated: true, checksum: await knownChecksum(), store: "file" });
  expect(readdirSync(place.path).sort()).toEqual(["out", "tmp"]);
});

it("a map output that is lost in the middle of reduce is made again", async () => {
  using place = new Workplace();
  const daemon = await startDaemon({ dram: "2GiB" });
  try {
    await using client = await connect(daemon.endpoint);
    let deleting: Promise<unknown> | null = null;
    let namespaceName = "";
    const { run } = await runSort(
      options(place.at("out"), {
        endpoint: daemon.endpoint,
        onStart: (executor) => {
          namespaceName = executor.namespaceName as string;
        },
        onProgress: (progress) => {
          if (deleting !== null || progress.stage !== "reduce" || progress.fraction === 0) return;
          deleting = (async () => {
            await using namespace = await client.openNamespace(namespaceName);
            for await (const { key } of namespace.list({ prefix: "shuffle/" })) {
              if (/\/m[02]\./.test(key)) await namespace.delete(key);
            }
          })();
        },
      }),
    );
    await deleting;
    expect(run.document).toMatchObject({ validated: true, checksum: await knownChecksum() });
    expect(run.document.retries).toBeGreaterThanOrEqual(1);
    const again = run.calls.filter((call) => call.stage === "map" && (call.first === 0 || call.first === 2));
    expect(again.length).toBeGreaterThan(1);
    expect(examine(readParts(place.at("out")))).toEqual({
      records: RECORDS,
      unordered: 0,
      checksum: run.document.checksum,
    });
  } finally {
    await daemon.stop();
  }
});
