import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["lab/setup.ts"],
    // Real daemons and sandboxed builds are slow to start on a loaded machine; nothing is tested on time.
    testTimeout: 240_000,
    hookTimeout: 600_000,
    pool: "forks",
    // Much of a test's time is spent waiting for a daemon; by itself Vitest would take one core of two.
    maxWorkers: Math.max(3, availableParallelism()),
    // Real daemons on a machine that others use too: what fails twice in a row is a failure, and is shown as retried if not.
    retry: process.env.CI ? 2 : 0,
  },
});
