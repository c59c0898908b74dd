/** Which derivation each target failed over, where a request has thousands of targets, each with the next one below it. */
import { expect, test } from "vitest";
import type { Approved } from "../../src/sandbox/forward/approve.ts";
import { culpritsOf } from "../../src/sandbox/forward/build-failure.ts";
import { noPause } from "../../src/store/slices.ts";
import type { StorePath } from "../../src/store/store-path.ts";

const STEPS = 2000;

/** Counts how often one of them is looked up. */
class Counted extends Map<StorePath, Approved> {
  lookUps = 0;
  override get(path: StorePath): Approved | undefined {
    this.lookUps++;
    return super.get(path);
  }
  override has(path: StorePath): boolean {
    this.lookUps++;
    return super.has(path);
  }
}

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

/** Each needs the one before it. */
function chain(): Counted {
  return new Counted(Array.from({ length: STEPS }, (_, step) => [link(step), run(step)]));
}

function failed(step: number, code: number): string {
  return `error: builder for '${link(step)}' failed with exit code ${code}`;
}

test("G8: the search for it lets others run on its way", async () => {
  let pauses = 0;
  const pace = {
    due: true,
    async pause() {
      pauses++;
    },
  };
  const culprits = await culpritsOf(chain(), [failed(0, 3)], pace);
  expect(culprits.get(link(STEPS - 1))).toMatchObject({
    derivation: link(0),
    failure: { what: "failed with exit code 3" },
  });
  expect(pauses).toBeGreaterThan(STEPS);
});

test("G8: the search looks at each that may run a few times, however many failed", async () => {
  const runs = chain();
  const words = Array.from({ length: STEPS }, (_, step) => failed(STEPS - 1 - step, 3));
  const culprits = await culpritsOf(runs, words, noPause);
  expect(culprits.size).toBe(STEPS);
  expect(runs.lookUps).toBeLessThan(10 * STEPS);
});

test("each failed over the first failure that is told of, its own or one below it", async () => {
  const culprits = await culpritsOf(chain(), [failed(20, 5), failed(10, 3)], noPause);
  expect(culprits.get(link(9))).toBeUndefined();
  expect(culprits.get(link(10))?.derivation).toBe(link(10));
  expect(culprits.get(link(19))?.derivation).toBe(link(10));
  expect(culprits.get(link(20))?.derivation).toBe(link(20));
  expect(culprits.get(link(30))?.failure.what).toBe("failed with exit code 5");
});

test("what fetches is found by the name of its output where nothing has the path that is told", async () => {
  const fetching = { ...run(0), fetches: true };
  const runs = new Map([
    [link(0), fetching],
    [link(1), run(1)],
  ]);
  const told = `/nix/store/${"9".repeat(32)}-link`;
  const words = `hash mismatch in fixed-output derivation '${told}':\n  wanted: sha256:aa\n  got:    sha256:bb`;
  const culprits = await culpritsOf(runs, [words], noPause);
  expect(culprits.get(link(1))?.derivation).toBe(link(0));
});
