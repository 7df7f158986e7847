import { describe, expect, it, vi } from "vitest";
import { backoffMs, retrying } from "../../../client/control.js";
import { MillraceError } from "../../../client/errors.js";

const AWAY_MS = 60_000;
const soon = () => Date.now() + 60_000;

/** Fails with `codes` one after the other, then succeeds. */
function failing(...codes: string[]) {
  const left = [...codes];
  return vi.fn(async () => {
    const code = left.shift();
    if (code !== undefined) throw new MillraceError(code, "for the test");
    return "done";
  });
}

describe("retrying", () => {
  it("repeats what failed retryably", async () => {
    const attempt = failing("UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED");
    expect(await retrying(attempt, soon(), AWAY_MS)).toBe("done");
    expect(attempt).toHaveBeenCalledTimes(4);
  });

  it.each(["NOT_FOUND", "NAMESPACE_GONE", "CLOSED", "DEADLINE_EXCEEDED"])(
    "gives up at once on %s",
    async (code) => {
      const attempt = failing(code);
      await expect(retrying(attempt, soon(), AWAY_MS)).rejects.toMatchObject({ code });
      expect(attempt).toHaveBeenCalledTimes(1);
    },
  );

  it("gives up after five attempts, with the last error", async () => {
    const attempt = failing(...Array<string>(9).fill("RESOURCE_EXHAUSTED"));
    await expect(retrying(attempt, soon(), AWAY_MS)).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(attempt).toHaveBeenCalledTimes(5);
  });

  it("goes on for as long as the node is away, within its limit", async () => {
    const attempt = failing(...Array<string>(7).fill("UNAVAILABLE"));
    expect(await retrying(attempt, soon(), AWAY_MS)).toBe("done");
    expect(attempt).toHaveBeenCalledTimes(8);
    const hopeless = failing(...Array<string>(99).fill("UNAVAILABLE"));
    const trying = retrying(hopeless, Number.POSITIVE_INFINITY, 300);
    await expect(trying).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(hopeless.mock.calls.length).toBeGreaterThan(1);
    expect(hopeless.mock.calls.length).toBeLessThan(99);
  });

  it("does not begin a wait that would outlast the deadline", async () => {
    const attempt = failing("UNAVAILABLE");
    await expect(retrying(attempt, Date.now(), AWAY_MS)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  it("waits longer each time, up to a limit, and never twice the same for all", () => {
    for (let tried = 1; tried < 12; tried++) {
      const full = Math.min(20 * 2 ** (tried - 1), 500);
      const waits = Array.from({ length: 50 }, () => backoffMs(tried));
      expect(Math.min(...waits)).toBeGreaterThanOrEqual(full / 2);
      expect(Math.max(...waits)).toBeLessThanOrEqual(full);
      expect(new Set(waits).size).toBeGreaterThan(1);
    }
  });
});
