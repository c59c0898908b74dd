/** Which derivation a target failed over, where a request has thousands of targets, each with the next one below it. */
import { expect, test } from "vitest";
import type { Approved } from "../../src/sandbox/forward/approve.ts";
import { culpritOf } from "../../src/sandbox/forward/build-failure.ts";
import type { StorePath } from "../../src/store/store-path.ts";

const STEPS = 2000;

function link(step: number): StorePath {
  return `/nix/store/${String(step).padStart(32, "0")}-link.drv`;
}

function run(step: number): Approved {
  return {
    outputs: new Map([["out", link(step).replace(/\.drv$/, "")]]),
    inputs: step === 0 ? [] : [link(step - 1)],
    fetches: false,
    contentAddress: "",
    optsIn: false,
    exportsGraphs: false,
  };
}

test("G8: the search for it lets others run on its way", async () => {
  const runs = new Map(Array.from({ length: STEPS }, (_, step) => [link(step), run(step)]));
  let pauses = 0;
  const pace = {
    due: true,
    async pause() {
      pauses++;
    },
  };
  const words = `error: builder for '${link(0)}' failed with exit code 3`;
  const culprit = await culpritOf(runs, link(STEPS - 1), words, pace);
  expect(culprit).toMatchObject({ derivation: link(0), failure: { what: "failed with exit code 3" } });
  expect(pauses).toBeGreaterThan(STEPS);
});
