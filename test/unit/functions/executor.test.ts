import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  CallFuture,
  createExecutor,
  type Executor,
  functionRef,
  localBackend,
  type MapProgress,
  workerFunction,
} from "../../../functions/index.js";
import { limits } from "../../../functions/limits.js";
import * as fixtures from "./fixtures/functions.js";

type Fixtures = typeof fixtures;
const module = new URL("./fixtures/functions.ts", import.meta.url);

function named<K extends keyof Fixtures & string>(name: K) {
  return functionRef<Fixtures[K]>(module, name);
}

const failure = (code: string, message: RegExp = /./) =>
  expect.objectContaining({ name: "MillraceError", code, message: expect.stringMatching(message) });

/** Whether the process is there and no zombie. */
function alive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}

async function fileText(file: string, wanted: RegExp): Promise<string> {
  await until(() => existsSync(file) && wanted.test(readFileSync(file, "utf8")));
  return readFileSync(file, "utf8");
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-functions-"));
});
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;
const newFile = () => join(folder, `f${++files}`);

describe("one pool, used again and again", () => {
  let executor: Executor;
  beforeAll(() => {
    executor = createExecutor({ workers: 2, retryDelayMs: 1 });
  });
  afterAll(() => executor.close());

  it("calls a function that knows its own name, and one named by reference", async () => {
    expect(await executor.callAsync(fixtures.square, 7)).toBe(49);
    expect(await executor.callAsync(named("add"), { left: 1, right: 2 })).toBe(3);
    expect(await executor.callAsync({ module: module.href, name: "sum" }, [1, 2, 3])).toBe(6);
  });

  it("runs a map of 1,000 tiny calls, in order", async () => {
    const args = Array.from({ length: 1_000 }, (_, index) => index);
    const futures = executor.map(fixtures.square, args);
    expect(await executor.getResult(futures)).toEqual(args.map((x) => x * x));
    for (const future of futures) {
      expect(future.state).toBe("done");
      expect(future.stats.attempts).toBe(1);
      expect(future.stats.history).toHaveLength(1);
    }
    expect(new Set(futures.map(({ stats }) => stats.workerId)).size).toBe(2);
  });

  it("takes futures as arguments, also nested", async () => {
    const two = executor.callAsync(fixtures.square, Math.SQRT2);
    const four = executor.callAsync(named("add"), { left: two, right: 2 });
    expect(await executor.callAsync(named("echo"), four)).toBeCloseTo(4);
    const nested = { list: [1, { deep: four }], plain: "x" };
    expect(await executor.callAsync(named("echo"), nested)).toEqual({
      list: [1, { deep: expect.closeTo(4) }],
      plain: "x",
    });
    // The caller's own argument still holds the future.
    expect((nested.list[1] as { deep: unknown }).deep).toBe(four);
  });

  it("reduces a map", async () => {
    expect(await executor.mapReduce(fixtures.square, [1, 2, 3, 4], named("sum"))).toBe(30);
    expect(await executor.mapReduce(fixtures.square, [], named("sum"))).toBe(0);
  });

  it("takes futures of another executor", async () => {
    await using other = createExecutor({ workers: 1 });
    const theirs = other.callAsync(fixtures.square, 5);
    expect(await executor.callAsync(named("add"), { left: theirs, right: 1 })).toBe(26);
  });

  it("passes structured values both ways", async () => {
    const value = new Map<unknown, unknown>([
      ["bytes", Uint8Array.of(1, 2, 3)],
      ["when", new Date(0)],
      ["undefined", undefined],
      ["big", 2n ** 65n],
    ]);
    expect(await executor.callAsync(named("echo"), value)).toEqual(value);
    expect(await executor.callAsync(named("echo"), undefined)).toBeUndefined();
  });

  it("tells a function its circumstances", async () => {
    const future = executor.callAsync(named("where"), null);
    expect(await future).toEqual({
      callId: future.callId,
      attempt: 0,
      workerId: future.stats.workerId,
      endpoint: null,
      namespaceName: null,
      pid: expect.any(Number),
    });
    expect(executor.stats().pids).toContain((await future).pid);
  });

  it("says what a call cost", async () => {
    const future = executor.callAsync(named("sleepMs"), 20);
    await future;
    const { stats } = future;
    expect(stats).toMatchObject({ functionName: "sleepMs", attempts: 1 });
    expect(stats.runMs).toBeGreaterThan(0);
    expect(stats.startMs).toBeGreaterThan(0);
    expect(stats.totalMs).toBeGreaterThan(stats.runMs);
    expect(stats.argumentBytes).toBeGreaterThan(0);
    expect(stats.resultBytes).toBeGreaterThan(0);
    expect(stats.history).toMatchObject([{ attempt: 0, outcome: "done" }]);
  });

  it("reports progress, which ends at 1", async () => {
    const seen: MapProgress[] = [];
    const futures = executor.map(named("reportProgress"), [1, 2], {
      onProgress: (progress) => seen.push(progress),
    });
    await executor.wait(futures);
    expect(futures[0]?.progress).toBe(1);
    await until(() => seen.at(-1)?.done === 2);
    expect(seen.at(-1)).toEqual({ total: 2, done: 2, failed: 0, fraction: 1 });
    expect(seen.some(({ fraction, done }) => done === 0 && fraction > 0)).toBe(true);
  });

  describe("errors of user code", () => {
    it("arrive with message, stack, code and cause", async () => {
      const future = executor.callAsync(named("throwError"), null);
      const error = await future
        .result()
        .catch((thrown: unknown) => thrown as Error & { cause: Error & { code: string } });
      expect(error).toEqual(failure("CALL_FAILED", /throwError.*no such column: x/));
      expect(error).toMatchObject({ retryable: false });
      expect((error as Error).cause).toMatchObject({
        name: "TypeError",
        message: "no such column: x",
        code: "E_COLUMN",
      });
      expect(((error as Error).cause as Error).stack).toContain("fixtures/functions.ts");
      expect((error as { cause: { cause: Error } }).cause.cause.message).toBe("the cause");
      expect(future.state).toBe("failed");
      expect(future.stats.attempts).toBe(1);
    });

    it("keep the maps to run again", async () => {
      await expect(executor.callAsync(named("throwMapOutputLost"), null)).rejects.toMatchObject({
        code: "CALL_FAILED",
        maps: [3, 5],
        cause: { name: "MillraceError", code: "MAP_OUTPUT_LOST", maps: [3, 5] },
      });
    });

    it("may be any value", async () => {
      await expect(executor.callAsync(named("throwValue"), null)).rejects.toEqual(
        failure("CALL_FAILED", /just text/),
      );
    });

    it("are tried again where they say so, or the caller does, as fresh attempts", async () => {
      expect(await executor.callAsync(named("failUntil"), { attempt: 2, retryable: true })).toBe(2);
      const twice = { attempt: 2, retryable: false };
      await expect(executor.callAsync(named("failUntil"), twice)).rejects.toEqual(
        failure("CALL_FAILED", /not yet/),
      );
      const retryOn = (error: Error) => (error.cause as Error).message === "not yet";
      expect(await executor.callAsync(named("failUntil"), twice, { retryOn })).toBe(2);
      const future = executor.callAsync(named("failUntil"), { attempt: 9, retryable: true }, { retries: 1 });
      await expect(future).rejects.toMatchObject({ code: "CALL_FAILED", retryable: true });
      expect(future.stats.history.map(({ outcome }) => outcome)).toEqual(["failed", "failed"]);
    });

    it("fail the calls that waited for the result, which do not run", async () => {
      const file = newFile();
      const bad = executor.callAsync(named("throwError"), null);
      await expect(executor.callAsync(named("spin"), [file, bad] as never)).rejects.toEqual(
        failure("CALL_FAILED", /was not run because its input/),
      );
      expect(existsSync(file)).toBe(false);
    });

    it("that nothing caught fail the call, and the process is replaced", async () => {
      for (const name of ["strayRejection", "strayException"] as const) {
        const { replaced } = executor.stats();
        await expect(executor.callAsync(named(name), undefined)).rejects.toEqual(
          failure("CALL_FAILED", name === "strayRejection" ? /nobody caught this/ : /out of nowhere/),
        );
        await until(() => executor.stats().replaced === replaced + 1);
      }
      expect(await executor.callAsync(fixtures.square, 3)).toBe(9);
    });
  });

  describe("names", () => {
    it("of modules and exports that do not exist are NOT_FOUND, said clearly", async () => {
      const missing = new URL("./fixtures/nowhere.ts", import.meta.url);
      await expect(executor.callAsync(functionRef(missing, "f"), 0)).rejects.toEqual(
        failure("NOT_FOUND", /no module .*nowhere/),
      );
      await expect(executor.callAsync(functionRef(module, "nothing"), 0)).rejects.toEqual(
        failure("NOT_FOUND", /exports no function "nothing"; it exports .*square/),
      );
      await expect(executor.callAsync(functionRef(module, "toString"), 0)).rejects.toEqual(
        failure("NOT_FOUND"),
      );
      await expect(executor.callAsync(fixtures.notExportedUnderThisName, 0)).rejects.toEqual(
        failure("NOT_FOUND", /another/),
      );
    });

    it("of a module that does not load fail with what it threw", async () => {
      const broken = new URL("./fixtures/broken.ts", import.meta.url);
      await expect(executor.callAsync(functionRef(broken, "never"), 0)).rejects.toMatchObject({
        code: "CALL_FAILED",
        cause: { message: "this module does not load" },
      });
    });

    it("are refused at once where they cannot be names", () => {
      const refused = (call: () => unknown) => expect(call).toThrow(failure("INVALID_ARGUMENT"));
      refused(() => executor.callAsync((() => 0) as never, 0));
      refused(() => executor.callAsync("square" as never, 0));
      refused(() => functionRef("./functions.ts", "square"));
      refused(() => functionRef("https://example.com/x.js", "square"));
      refused(() => functionRef("file://host/x.js", "square"));
      refused(() => functionRef(module, ""));
      refused(() => workerFunction(module, "x", 7 as never));
      expect(functionRef("/a/b.js", "f").module).toBe("file:///a/b.js");
    });
  });

  describe("values that cannot travel", () => {
    it("are refused with a sentence that says why", async () => {
      await expect(executor.callAsync(named("echo"), () => 0)).rejects.toEqual(
        failure("INVALID_ARGUMENT", /cannot be sent/),
      );
      await expect(executor.callAsync(named("unserializable"), undefined)).rejects.toEqual(
        failure("INVALID_ARGUMENT", /result cannot be sent/),
      );
      const future = executor.callAsync(fixtures.square, 2);
      await expect(executor.callAsync(named("echo"), new Map([[1, future]]))).rejects.toEqual(
        failure("INVALID_ARGUMENT", /cannot be sent/),
      );
    });

    it("are too large where there is no store", async () => {
      const fits = new Uint8Array(limits.inlineBytesMax - 64);
      expect(await executor.callAsync(named("lengthOf"), fits)).toBe(fits.length);
      await expect(
        executor.callAsync(named("lengthOf"), new Uint8Array(limits.inlineBytesMax)),
      ).rejects.toEqual(failure("OBJECT_TOO_LARGE", /endpoint/));
      await expect(executor.callAsync(named("bytes"), limits.inlineBytesMax)).rejects.toEqual(
        failure("OBJECT_TOO_LARGE", /endpoint/),
      );
    });
  });

  describe("wait", () => {
    it("returns when all, any or none need to be done, or when time is up", async () => {
      const slow = executor.callAsync(named("sleepMs"), 60_000);
      const quick = executor.callAsync(fixtures.square, 1);
      const futures = [slow, quick];
      expect((await executor.wait(futures, { returnWhen: "ALWAYS" })).done).not.toContain(slow);
      expect(await executor.wait(futures, { returnWhen: "ANY_COMPLETED" })).toEqual({
        done: [quick],
        notDone: [slow],
      });
      expect(await executor.wait(futures, { returnWhen: "ANY_COMPLETED" })).toEqual({
        done: [quick],
        notDone: [slow],
      });
      expect(await executor.wait(futures, { timeoutMs: 10 })).toEqual({ done: [quick], notDone: [slow] });
      slow.cancel();
      expect(await executor.wait(futures)).toEqual({ done: [slow, quick], notDone: [] });
      expect(await executor.wait([])).toEqual({ done: [], notDone: [] });
      await expect(executor.wait(futures, { returnWhen: "SOMETIMES" as never })).rejects.toEqual(
        failure("INVALID_ARGUMENT"),
      );
    });

    it("is not needed by getResult, which fails with the first failure", async () => {
      const slow = executor.callAsync(named("sleepMs"), 60_000);
      const bad = executor.callAsync(named("throwError"), null);
      await expect(executor.getResult([slow, bad])).rejects.toEqual(failure("CALL_FAILED"));
      slow.cancel();
      expect(await executor.getResult(executor.callAsync(fixtures.square, 2))).toBe(4);
    });
  });

  describe("cancel", () => {
    it("takes a call out of the queue", async () => {
      const blockers = executor.map(named("sleepMs"), [60_000, 60_000]);
      const queued = executor.callAsync(fixtures.square, 1);
      await until(() => blockers.every(({ state }) => state === "running"));
      expect(queued.state).toBe("queued");
      expect(queued.cancel()).toBe(true);
      expect(queued.cancel()).toBe(false);
      expect(queued.state).toBe("cancelled");
      await expect(queued).rejects.toEqual(failure("ABORTED", /cancelled/));
      for (const blocker of blockers) blocker.cancel();
    });

    it("aborts the signal of a running function", async () => {
      const file = newFile();
      const future = executor.callAsync(named("untilAborted"), file);
      const pid = Number(await fileText(file, /^\d+$/));
      future.cancel();
      await fileText(file, /^aborted$/);
      await expect(future).rejects.toEqual(failure("ABORTED"));
      expect(alive(pid)).toBe(true);
      expect(await executor.callAsync(fixtures.square, 4)).toBe(16);
    });
  });
});

describe("a pool with trouble", () => {
  let executor: Executor;
  beforeEach(() => {
    executor = createExecutor({
      workers: 2,
      cancelGraceMs: 50,
      backend: localBackend({ heartbeatMs: 50, heartbeatTimeoutMs: 400 }),
    });
  });
  afterEach(() => executor.close());

  it("runs a call again when its process is killed in the middle", async () => {
    const file = newFile();
    const future = executor.callAsync(named("hangOnce"), { file, how: "await" });
    const [pid] = (await fileText(file, /\n/)).split(" ");
    process.kill(Number(pid), "SIGKILL");
    expect(await future).toBe(1);
    expect(future.stats.attempts).toBe(2);
    expect(future.stats.history.map(({ outcome }) => outcome)).toEqual(["lost", "done"]);
    await until(() => executor.stats().ready === 2);
    expect(executor.stats()).toMatchObject({ replaced: 1, retries: 1 });
  });

  it("finishes a map while its processes are killed", async () => {
    const futures = executor.map(
      named("sleepMs"),
      Array.from({ length: 60 }, () => 20),
      { retries: 10 },
    );
    for (let kills = 0; kills < 6; kills++) {
      await until(() => executor.stats().busy > 0);
      const pids = executor.stats().pids;
      process.kill(pids[kills % pids.length] as number, "SIGKILL");
      await until(() => executor.stats().replaced === kills + 1);
    }
    expect(await executor.getResult(futures)).toEqual(futures.map(() => 20));
    expect(executor.stats().replaced).toBe(6);
  });

  it("lets a process that is told to end finish its call, whose signal aborts", async () => {
    const file = newFile();
    const future = executor.callAsync(named("untilAborted"), file, { retries: 0 });
    process.kill(Number(await fileText(file, /^\d+$/)), "SIGTERM");
    await future;
    await fileText(file, /^aborted$/);
    await until(() => executor.stats().replaced === 1 && executor.stats().ready === 2);
    const [idle] = executor.stats().pids;
    process.kill(idle as number, "SIGTERM");
    await until(() => executor.stats().replaced === 2);
    expect(await executor.callAsync(fixtures.square, 6)).toBe(36);
  });

  it("gives up on a call that ends its process every time, and says how", async () => {
    const future = executor.callAsync(named("exitWith"), 7, { retries: 1 });
    await expect(future).rejects.toEqual(failure("WORKER_LOST", /exit code 7/));
    await expect(future).rejects.toMatchObject({ retryable: true });
    expect(future.stats.attempts).toBe(2);
  });

  it("kills what takes too long, whether it waits or spins, and tries again", async () => {
    for (const how of ["await", "spin"] as const) {
      const file = newFile();
      const future = executor.callAsync(named("hangOnce"), { file, how }, { timeoutMs: 1_000 });
      expect(await future).toBe(1);
      const pid = Number((await fileText(file, /\n/)).split(" ")[0]);
      await until(() => !alive(pid));
      expect(future.stats.history.map(({ outcome }) => outcome)).toEqual(["timed-out", "done"]);
    }
    const slow = executor.callAsync(named("sleepMs"), 60_000, { timeoutMs: 50, retries: 0 });
    await expect(slow).rejects.toEqual(failure("CALL_TIMED_OUT", /50 ms/));
  });

  it("kills a process that stands still, without any timeout of the call", async () => {
    const file = newFile();
    const future = executor.callAsync(named("hangOnce"), { file, how: "stop" }, { timeoutMs: 0 });
    expect(await future).toBe(1);
    expect(future.stats.history.map(({ outcome }) => outcome)).toEqual(["lost", "done"]);
  });

  it("lets a function compute without a sign of life", async () => {
    const future = executor.callAsync(named("computeMs"), 1_500);
    expect(await future).toBe(1_500);
    expect(future.stats.attempts).toBe(1);
  });

  it("kills a function that does not heed its cancellation", async () => {
    const file = newFile();
    const future = executor.callAsync(named("spin"), file);
    const pid = Number(await fileText(file, /^\d+$/));
    future.cancel();
    await until(() => !alive(pid));
    await until(() => executor.stats().ready === 2);
    expect(executor.stats().replaced).toBe(1);
  });

  it("gives a straggler a second run, takes the first result and stops the other", async () => {
    const items = Array.from({ length: 8 }, (_, item) => item);
    const futures = executor.map(named("straggle"), items, {
      stragglers: { factor: 2, minDoneFraction: 0.5, minRunMs: 50 },
    });
    expect(await executor.getResult(futures)).toEqual(items.map((item) => (item === 0 ? 1 : item * 10)));
    expect(futures[0]?.stats.history.map(({ attempt, outcome }) => [attempt, outcome])).toEqual([
      [1, "done"],
      [0, "cancelled"],
    ]);
    // The first run ignores its signal, so its process is killed and replaced.
    await until(() => executor.stats().replaced === 1);
    expect(executor.stats()).toMatchObject({ secondRuns: 1, secondRunsWon: 1, retries: 0 });
  });

  it("has no second runs where they are turned off", async () => {
    const policy = { factor: 2, minDoneFraction: 0.5, minRunMs: 10 };
    await using quick = createExecutor({ workers: 2, stragglers: policy });
    const futures = quick.map(named("straggle"), [0, 1, 2, 3], { stragglers: false });
    await quick.getResult(futures.slice(1));
    await sleep(200);
    expect(futures[0]?.state).toBe("running");
    expect(quick.stats().secondRuns).toBe(0);
  });

  it("kills a process whose frames are broken", async () => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(limits.frameBytesMax + 1);
    for (const data of [header, Buffer.from([4, 0, 0, 0, 1, 2, 3, 4])]) {
      const future = executor.callAsync(named("writeFrame"), data, { retries: 0 });
      await expect(future).rejects.toEqual(failure("WORKER_LOST", /broke the protocol/));
    }
    expect(await executor.callAsync(fixtures.square, 5)).toBe(25);
  });
});

describe("the executor's edges", () => {
  it("leaves no process behind when it closes, and cancels what has not ended", async () => {
    const file = newFile();
    const executor = createExecutor({ workers: 3 });
    const spinning = executor.callAsync(named("spin"), file);
    const sleeping = executor.callAsync(named("sleepMs"), 60_000);
    const after = executor.callAsync(named("echo"), sleeping);
    await fileText(file, /^\d+$/);
    await until(() => executor.stats().ready === 3);
    const { pids } = executor.stats();
    expect(pids).toHaveLength(3);
    expect(pids.every(alive)).toBe(true);
    await Promise.all([executor.close(), executor.close()]);
    expect(pids.some(alive)).toBe(false);
    for (const future of [spinning, sleeping, after]) {
      expect(future.state).toBe("cancelled");
      await expect(future).rejects.toEqual(failure("ABORTED", /closed/));
    }
    expect(() => executor.callAsync(fixtures.square, 1)).toThrow(failure("CLOSED"));
  });

  it("closes before its pool is ready", async () => {
    const executor = createExecutor({ workers: 2 });
    const future = executor.callAsync(fixtures.square, 1);
    await executor.close();
    await expect(future).rejects.toEqual(failure("ABORTED"));
  });

  it("bounds the calls in flight", async () => {
    await using executor = createExecutor({ workers: 1, maxInFlight: 3 });
    expect(() => executor.map(fixtures.square, [1, 2, 3, 4])).toThrow(
      failure("RESOURCE_EXHAUSTED", /maxInFlight/),
    );
    const futures = executor.map(fixtures.square, [1, 2]);
    expect(() => executor.mapReduce(fixtures.square, [1], named("sum"))).toThrow(
      failure("RESOURCE_EXHAUSTED"),
    );
    await executor.wait(futures);
    expect(await executor.mapReduce(fixtures.square, [1, 2], named("sum"))).toBe(5);
  });

  it("fails its calls where no process can start", async () => {
    await using executor = createExecutor({
      workers: 1,
      backend: localBackend({ execArgv: ["--no-such-option-of-node"] }),
    });
    await expect(executor.callAsync(fixtures.square, 1)).rejects.toEqual(
      failure("WORKER_LOST", /do not start/),
    );
  });

  it("fails its calls where the store cannot be reached", async () => {
    await using executor = createExecutor({ workers: 1, endpoint: "127.0.0.1:1" });
    await expect(executor.callAsync(fixtures.square, 1)).rejects.toMatchObject({ name: "MillraceError" });
  });

  it("checks its options", () => {
    const refused = (options: object) =>
      expect(() => createExecutor(options)).toThrow(failure("INVALID_ARGUMENT"));
    refused({ workers: 0 });
    refused({ workers: 1.5 });
    refused({ timeoutMs: -1 });
    refused({ timeoutMs: 2 ** 31 });
    refused({ retries: 101 });
    refused({ stragglers: { factor: 1 } });
    refused({ stragglers: { minDoneFraction: 2 } });
    refused({ namespace: "some-namespace" });
    refused({ endpoint: "" });
    refused({ endpoint: "x".repeat(600) });
    refused({ endpoint: "127.0.0.1:1", namespace: 7 });
    refused({ backend: "cloud" });
    refused({ retryOn: true });
    refused({ maxInFlight: 0 });
  });

  it("gives futures that are futures", async () => {
    await using executor = createExecutor({ workers: 1 });
    const future = executor.callAsync(fixtures.square, 3);
    expect(future).toBeInstanceOf(CallFuture);
    expect(future.result()).toBe(future.result());
    // A failure that nobody looks at is no unhandled rejection; vitest would fail the run.
    await executor.wait([executor.callAsync(named("throwError"), null)]);
  });
});

describe("a driver", () => {
  function runDriver(...args: string[]) {
    const child = spawn(
      process.execPath,
      ["--import", "tsx", new URL("./fixtures/driver.ts", import.meta.url).pathname, ...args],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const output = { stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => {
      output.stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      output.stderr += chunk;
    });
    const closed = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
    return { child, output, closed };
  }

  it("has a stdout of its own: what functions print goes to stderr", async () => {
    const { output, closed } = runDriver();
    expect(await closed).toBe(0);
    expect(JSON.parse(output.stdout)).toEqual({ pids: [expect.any(Number), expect.any(Number)] });
    expect(output.stderr).toContain("printed by a function");
  });

  it("that exits without closing leaves no process behind", async () => {
    const { output, closed } = runDriver("exit");
    expect(await closed).toBe(0);
    const { pids } = JSON.parse(output.stdout) as { pids: number[] };
    await until(() => !pids.some(alive));
  });

  it("that is killed leaves no process behind", async () => {
    const { child, output, closed } = runDriver("linger");
    await until(() => output.stdout.endsWith("\n"));
    const { pids } = JSON.parse(output.stdout) as { pids: number[] };
    expect(pids.every(alive)).toBe(true);
    child.kill("SIGKILL");
    await closed;
    await until(() => !pids.some(alive));
  });
});
