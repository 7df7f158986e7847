import { describe, expect, it } from "vitest";
import { Patience } from "../../../../client/collectives/waiting.js";
import type { MillraceError } from "../../../../client/errors.js";

const endOf = (patience: Patience) =>
  new Promise<MillraceError | "late">((resolve) => patience.watch(resolve));

describe("patience", () => {
  it("ends when its signal is aborted", async () => {
    const controller = new AbortController();
    const ended = endOf(new Patience({ signal: controller.signal }));
    controller.abort("enough");
    expect(await ended).toMatchObject({ code: "CANCELLED", cause: "enough" });
  });

  it("ends where its signal was aborted between two waits", async () => {
    const controller = new AbortController();
    const patience = new Patience({ signal: controller.signal });
    controller.abort("enough");
    expect(await endOf(patience)).toMatchObject({ code: "CANCELLED", cause: "enough" });
  });

  it("does not begin where its signal was aborted before", () => {
    expect(() => new Patience({ signal: AbortSignal.abort() })).toThrow("cancelled");
  });

  it("ends late, for what is left of its time, and not at all once it is called off", async () => {
    expect(await endOf(new Patience({ timeoutMs: 1 }))).toBe("late");
    const controller = new AbortController();
    const ends: unknown[] = [];
    new Patience({ timeoutMs: 1, signal: controller.signal }).watch((end) => ends.push(end))();
    controller.abort();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(ends).toEqual([]);
  });
});
