import { describe, expect, it } from "vitest";
import { ValueCache } from "../../../../client/collectives/cache.js";

describe("the cache of values", () => {
  const fetcher = () => {
    let fetched = 0;
    const fetch = async () => Uint8Array.of(++fetched);
    return { fetch, count: () => fetched };
  };

  it("fetches a version once, for all who ask at the same time or later", async () => {
    const cache = new ValueCache(100);
    const { fetch, count } = fetcher();
    const [a, b] = await Promise.all([cache.get("k", 1, 10, fetch), cache.get("k", 1, 10, fetch)]);
    expect(a).toBe(b);
    expect(await cache.get("k", 1, 10, fetch)).toBe(a);
    expect(count()).toBe(1);
    await cache.get("k", 2, 10, fetch);
    expect(count()).toBe(2);
  });

  it("forgets the longest unused beyond its bound, and keeps nothing larger", async () => {
    const cache = new ValueCache(100);
    const { fetch, count } = fetcher();
    for (const key of ["a", "b"]) await cache.get(key, 1, 40, fetch);
    await cache.get("a", 1, 40, fetch);
    await cache.get("c", 1, 40, fetch); // b goes
    expect(count()).toBe(3);
    await cache.get("a", 1, 40, fetch);
    expect(count()).toBe(3);
    await cache.get("b", 1, 40, fetch);
    expect(count()).toBe(4);
    await cache.get("large", 1, 101, fetch);
    await cache.get("large", 1, 101, fetch);
    expect(count()).toBe(6);
    await cache.get("b", 1, 40, fetch);
    expect(count()).toBe(6);
  });

  it("keeps no failure, and nothing that was written over", async () => {
    const cache = new ValueCache(100);
    await expect(cache.get("k", 1, 10, () => Promise.reject(new Error("away")))).rejects.toThrow("away");
    expect(await cache.get("k", 1, 10, async () => null)).toBeNull();
    const { fetch, count } = fetcher();
    await cache.get("k", 1, 10, fetch);
    expect(count()).toBe(1);
  });
});
