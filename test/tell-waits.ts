/** Runs with each test file of the project `daemon`: leaves what it waited for where the reporter finds it. */
import { afterAll } from "vitest";
import { tally } from "../lab/tally.ts";

declare module "vitest" {
  interface TaskMeta {
    /** The longest waits of a file, as the reporter prints them. */
    waits?: string;
  }
}

// biome-ignore lint/correctness/noEmptyPattern: vitest reads the source, and takes nothing else.
afterAll(({}, file) => {
  const longest = tally().slice(0, 3);
  file.meta.waits = longest
    .map(({ what, times, ms }) => `${what} ${times} ×, ${(ms / 1000).toFixed(1)} s`)
    .join("; ");
});
