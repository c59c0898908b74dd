import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { testFiles } from "./scripts/test-kinds.ts";

const files = testFiles();

export default defineConfig({
  test: {
    // Real daemons and sandboxed builds are slow to start on a loaded machine; nothing is tested on time.
    testTimeout: 240_000,
    hookTimeout: 600_000,
    pool: "forks",
    // Much of a test's time is spent waiting for a daemon; by itself Vitest would take one core of two.
    maxWorkers: Math.max(3, availableParallelism()),
    // Real daemons on a machine that others use too: what fails three times in a row is a failure, and .ci/run names what did not.
    retry: process.env.CI ? 2 : 0,
    reporters: ["default", "./scripts/slowest-files.ts"],
    projects: [
      // Without a process for each file: they change nothing that others read, and starting is most of their time.
      { extends: true, test: { name: "unit", include: [...files.unit], isolate: false } },
      {
        extends: true,
        test: {
          name: "daemon",
          include: [...files.daemon],
          globalSetup: ["test/set-up.ts"],
          setupFiles: ["test/tell-waits.ts"],
        },
      },
    ],
  },
});
