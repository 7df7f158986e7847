import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MillraceError } from "../../../client/errors.js";
import { Heartbeat } from "../../../client/lease.js";

describe("Heartbeat", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("renews three times a lease until it is stopped", async () => {
    const renew = vi.fn(async () => {});
    const heartbeat = new Heartbeat({ leaseMs: 3000, renew, onGone: () => expect.unreachable() });
    await vi.advanceTimersByTimeAsync(6100);
    expect(renew).toHaveBeenCalledTimes(6);
    heartbeat.stop();
    await vi.advanceTimersByTimeAsync(6000);
    expect(renew).toHaveBeenCalledTimes(6);
  });

  it("tries again sooner after a failure, so that one lost call does not cost the lease", async () => {
    const renew = vi.fn(async () => {});
    renew.mockRejectedValueOnce(new MillraceError("UNAVAILABLE", "away"));
    const heartbeat = new Heartbeat({ leaseMs: 3000, renew, onGone: () => expect.unreachable() });
    await vi.advanceTimersByTimeAsync(1350);
    expect(renew).toHaveBeenCalledTimes(2);
    heartbeat.stop();
  });

  it("says once that the namespace is gone, and stops", async () => {
    const renew = vi.fn(async () => {
      throw new MillraceError("NAMESPACE_GONE", "lapsed");
    });
    const onGone = vi.fn();
    new Heartbeat({ leaseMs: 3000, renew, onGone });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(renew).toHaveBeenCalledTimes(1);
    expect(onGone).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: "NAMESPACE_GONE" }));
  });
});
