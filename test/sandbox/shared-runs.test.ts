/** What build requests keep of the derivations that may run, while they are built: for hours perhaps, and any number at once. */
import { afterEach, expect, test } from "vitest";
import { DEFAULT_MEMORY } from "../../src/policy/memory.ts";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import { type Approval, approve, sharedRuns } from "../../src/sandbox/forward/approve.ts";
import type { HeldOutputs } from "../../src/sandbox/forward/held-outputs.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import { Quota } from "../../src/sandbox/quota.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { ClosedView } from "../../src/sandbox/view.ts";
import { parseDerivation } from "../../src/store/derivation.ts";
import type { StorePath } from "../../src/store/store-path.ts";
import { type Made, makeDerivation } from "../attack/derivations.ts";
import { bareSandbox } from "./bare-sandbox.ts";

const below = makeDerivation({ name: "below", script: "echo > $out" });
const above = makeDerivation({ name: "above", script: "echo > $out", inputs: [below] });
const weak = makeDerivation({ name: "weak", script: "", inputs: [above], env: { __noChroot: "1" } });

const nothingIsHeld: HeldOutputs = {
  among: async () => new Set(),
  keep: async (paths) => new Set(paths),
  fetch: async () => false,
  download: async () => {},
  readToo() {},
  settled: async () => {},
};

function sandbox(id: string): Sandbox {
  const { build } = builtinProfiles(["x86_64-linux", "aarch64-linux"]);
  const nobody = () => Promise.reject(new Error("nobody is there"));
  const store = new UpstreamStore(
    nobody,
    () => false,
    "/nix/store",
    () => build.limits,
    new MemoryBudget(DEFAULT_MEMORY),
  );
  const view = new ClosedView(store, () => 38);
  for (const made of [below, above, weak]) {
    view.add([infoOf(made)]);
    store.remember(infoOf(made), parseDerivation(made.text));
  }
  return bareSandbox({
    id,
    profile: build,
    view,
    quota: new Quota(build.limits, () => undefined),
    store,
  });
}

function infoOf({ path, references, text }: Made): PathInfo {
  return {
    path,
    narHash: "0".repeat(64),
    narSize: text.length,
    references,
    contentAddress: "text:sha256:x",
  };
}

const approvals: Approval[] = [];
afterEach(async () => {
  for (const approval of approvals.splice(0)) await approval.release();
});

async function approved(of: Sandbox, derivation: StorePath): Promise<Approval> {
  const approval = await approve(of, nothingIsHeld, [{ derivation, outputs: ["out"] }]);
  approvals.push(approval);
  return approval;
}

test("G8: what many requests may run is kept once for all of them, also of different sandboxes", async () => {
  const [one, other] = [sandbox("one"), sandbox("other")];
  const all = await Promise.all([one, one, other].map((of) => approved(of, above.path)));
  for (const { runs } of all) {
    expect([...runs.keys()]).toEqual([above.path, below.path]);
    for (const path of runs.keys()) expect(runs.get(path)).toBe(all[0]!.runs.get(path));
  }
  expect(sharedRuns.size).toBe(2);
});

test("G8: it is kept until the last of them is over, and not at all for one that is refused", async () => {
  const of = sandbox("one");
  await approved(of, below.path);
  const last = await approved(of, above.path);
  await approvals.shift()!.release();
  expect(sharedRuns.size).toBe(2);
  await expect(approve(of, nothingIsHeld, [{ derivation: weak.path, outputs: ["out"] }])).rejects.toThrow(
    "__noChroot",
  );
  expect(sharedRuns.size).toBe(2);
  approvals.length = 0;
  await last.release();
  expect(sharedRuns.size).toBe(0);
});
