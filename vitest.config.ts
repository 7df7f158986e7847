import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Real daemons and function workers share two cores: one file at a time outside of unit tests.
    fileParallelism: false,
    pool: "forks",
  },
});
