/** How many roots a jail's clients get. */
import { expect, test } from "vitest";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import { Quota } from "../../src/sandbox/quota.ts";
import { JailHome } from "../../src/service/jail-home.ts";

test("G8: clients that keep paths at the same time get no more than limits.gc_roots together", async () => {
  const { agent } = builtinProfiles(["x86_64-linux"]);
  const kept = new Set<string>();
  const roots = {
    get size() {
      return kept.size;
    },
    has: (path: string) => kept.has(path),
    async keep(paths: readonly string[]) {
      await Promise.resolve();
      for (const path of paths) kept.add(path);
    },
    followLink: async () => {},
    end: async () => {},
  };
  const home = new JailHome(
    roots,
    new Quota({ ...agent.limits, gcRoots: 2 }, () => undefined),
    () => undefined,
  );
  const keeping = ["x", "y", "z", "x"].map((name) => home.keep([`/nix/store/${"0".repeat(32)}-${name}`]));
  const ended = await Promise.allSettled(keeping);
  expect(ended.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
  expect([...kept]).toHaveLength(2);
});
