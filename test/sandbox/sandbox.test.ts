/** How paths enter a sandbox. */
import { expect, test } from "vitest";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import { Quota } from "../../src/sandbox/quota.ts";
import type { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { ClosedView, StoreView } from "../../src/sandbox/view.ts";
import { bareSandbox } from "./bare-sandbox.ts";

const path = `/nix/store/${"0".repeat(32)}-x`;

test("G8: in a view of the whole store nothing is asked to find out what is at hand, so nothing of that fails unheard", async () => {
  const { build } = builtinProfiles(["x86_64-linux"]);
  let asked = 0;
  const store = {
    storeDir: "/nix/store",
    info: () => {
      asked++;
      return Promise.reject(new Error("the connection to the nix-daemon broke"));
    },
  } as unknown as UpstreamStore;
  const kept: string[] = [];
  const sandbox = bareSandbox({
    profile: build,
    view: new StoreView(store, () => 38, false),
    quota: new Quota(build.limits, () => undefined),
    home: { keep: async (paths) => void kept.push(...paths), show: async () => {}, end: async () => {} },
    store,
  });
  await sandbox.admit([path]);
  expect(kept).toEqual([path]);
  expect(asked).toBe(0);
});

test("G8: clients that let paths in at the same time get no more than limits.view_paths together", async () => {
  const { build } = builtinProfiles(["x86_64-linux"]);
  const store = {
    storeDir: "/nix/store",
    closure: async (paths: readonly string[]) =>
      paths.map((one) => ({ path: one, narHash: "", narSize: 0, references: [], contentAddress: "" })),
  } as unknown as UpstreamStore;
  const view = new ClosedView(store, () => 38);
  const quota = new Quota({ ...build.limits, viewPaths: 2 }, () => undefined);
  const sandbox = bareSandbox({ profile: build, view, quota, store });
  const entering = ["x", "y", "z", "x"].map((name) =>
    sandbox.admit([`/nix/store/${"0".repeat(32)}-${name}`]),
  );
  const ended = await Promise.allSettled(entering);
  expect(ended.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
  expect(view.size).toBe(2);
  expect(sandbox.gained).toHaveLength(2);
});
