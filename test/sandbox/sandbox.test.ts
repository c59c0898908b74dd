/** How paths enter a sandbox, when upstream fails. */
import { expect, test } from "vitest";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import { Quota } from "../../src/sandbox/quota.ts";
import type { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { StoreView } from "../../src/sandbox/view.ts";
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
