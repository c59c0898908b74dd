import { expect, test } from "vitest";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import type { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { ClosedView } from "../../src/sandbox/view.ts";
import { type Derivation, DerivationError } from "../../src/store/derivation.ts";
import { attributesOf } from "../store/derivation-text.ts";

function path(i: number, name: string) {
  return `/nix/store/${String(i).padStart(32, "0")}-${name}`;
}
function info(of: string): PathInfo {
  return {
    path: of,
    narHash: "0".repeat(64),
    narSize: 120,
    references: [],
    contentAddress: "",
  };
}
function withOutput(output: string): Derivation {
  return {
    outputs: new Map([["out", { path: output, hashAlgorithm: "", hash: "" }]]),
    inputDrvs: new Map(),
    inputSrcs: [],
    system: "x",
    builder: "/bin/sh",
    attributes: attributesOf([]),
  };
}

test("derivers are found among derivations that came at any time, and each is read once", async () => {
  const out = path(50, "out");
  let read = 0;
  const started = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const derivations = new Map([
    [path(2, "b.drv"), withOutput(out)],
    [path(1, "a.drv"), withOutput(out)],
    [path(3, "c.drv"), withOutput(path(51, "other"))],
  ]);
  const store = {
    storeDir: "/nix/store",
    derivation: async (of: string) => {
      read++;
      started.resolve();
      await goOn.promise;
      const found = derivations.get(of);
      if (!found) throw new DerivationError("It is none.");
      return found;
    },
  } as unknown as UpstreamStore;
  const view = new ClosedView(store, () => 38);
  view.add([info(out), info(path(2, "b.drv")), info(path(9, "none.drv"))]);
  const first = view.derivers(out);
  // While they are read, more come.
  await started.promise;
  view.add([info(path(1, "a.drv")), info(path(3, "c.drv"))]);
  goOn.resolve();
  expect(await first).toEqual([path(2, "b.drv")]);
  const both = new Set([path(1, "a.drv"), path(2, "b.drv")]);
  for (const derivers of await Promise.all([view.derivers(out), view.derivers(out)]))
    expect(new Set(derivers)).toEqual(both);
  expect(await view.derivers(path(51, "other"))).toEqual([path(3, "c.drv")]);
  expect(read).toBe(4);
});
