/** What the derivations of a view make and resolve to: one question takes a bounded time, however many there are. */
import { expect, test } from "vitest";
import { staticOutputs } from "../../src/policy/view-queries.ts";
import { Derivers } from "../../src/sandbox/derivers.ts";
import { Resolver } from "../../src/sandbox/upstream/resolver.ts";
import type { Derivation } from "../../src/store/derivation.ts";
import { noPause } from "../../src/store/slices.ts";
import type { StorePath } from "../../src/store/store-path.ts";
import { attributesOf } from "../store/derivation-text.ts";

const MOST_LOOKED_AT = 5000;
const MOST_FLOATING = 1000;

function path(i: number, name: string): StorePath {
  return `/nix/store/${String(i).padStart(32, "0")}-${name}`;
}

function derivation(output: StorePath | "", inputs: readonly StorePath[] = []): Derivation {
  const out =
    output === ""
      ? { path: "", hashAlgorithm: "r:sha256", hash: "" }
      : { path: output, hashAlgorithm: "", hash: "" };
  return {
    outputs: new Map([["out", out]]),
    inputDrvs: new Map(inputs.map((input) => [input, ["out"]])),
    inputSrcs: [],
    system: "x",
    builder: "/bin/sh",
    attributes: attributesOf([]),
  } as Derivation;
}

/** A store with these derivations, of which none is built but those in `built`. It counts what it is asked. */
class Store {
  readonly derivations = new Map<StorePath, Derivation>();
  readonly built = new Map<StorePath, StorePath>();
  looked = 0;
  asked = 0;
  atOnce = 0;
  mostAtOnce = 0;

  readonly resolver = (most: number): Resolver =>
    new Resolver(
      {
        derivation: (of) => this.derivation(of),
        text: () => Promise.resolve(undefined),
        realisation: ({ output }) => {
          this.asked++;
          const made = typeof output === "string" ? undefined : this.built.get(output.derivation);
          return Promise.resolve(made === undefined ? undefined : { path: made, signatures: [] });
        },
      },
      { pace: noPause, most, known: () => undefined },
    );

  readonly derivers = new Derivers(
    {
      derivation: (of) => this.derivation(of),
      outputs: async (of) => {
        this.asked++;
        const outputs = staticOutputs(await this.derivation(of));
        if (outputs.get("out") === "") outputs.set("out", this.built.get(of) ?? "");
        return outputs;
      },
      resolver: this.resolver,
    },
    noPause,
  );

  add(of: StorePath, made: Derivation): void {
    this.derivations.set(of, made);
    this.derivers.add(of);
  }

  async derivation(of: StorePath): Promise<Derivation> {
    this.looked++;
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.atOnce);
    await new Promise(setImmediate);
    this.atOnce--;
    return this.derivations.get(of) ?? derivation(path(9_999_999, "else"));
  }
}

test("G8: who asks for a realisation has a bounded number of derivations looked at, the newest first", async () => {
  const store = new Store();
  const unbuilt = path(1, "input.drv");
  store.derivations.set(unbuilt, derivation(""));
  for (let i = 0; i < 2 * MOST_LOOKED_AT; i++) store.add(path(1000 + i, "x.drv"), derivation("", [unbuilt]));
  // Without inputs, one resolves to itself.
  const newest = path(2, "x.drv");
  store.add(newest, derivation(""));
  expect(await store.derivers.isResolved(newest)).toBe(true);
  expect(store.looked).toBe(1);
  store.looked = 0;
  expect(await store.derivers.isResolved(path(3, "x.drv"))).toBe(false);
  expect(store.looked).toBeLessThanOrEqual(MOST_LOOKED_AT);
  expect(store.looked).toBeGreaterThan(MOST_LOOKED_AT - 10);
  expect(store.asked).toBe(2);
});

test("what is known to resolve to something, or to be no such derivation, is not looked at again", async () => {
  const store = new Store();
  const paths = Array.from({ length: 100 }, (_, i) => path(1000 + i, "x.drv"));
  for (const [i, one] of paths.entries()) store.add(one, derivation(i % 2 === 0 ? "" : path(i, "x")));
  expect(await store.derivers.isResolved(path(1, "x.drv"))).toBe(false);
  expect(store.looked).toBe(100);
  store.looked = store.asked = 0;
  expect(await store.derivers.isResolved(paths[2]!)).toBe(true);
  expect(await store.derivers.isResolved(paths[3]!)).toBe(false);
  expect(await store.derivers.isResolved(path(1, "x.drv"))).toBe(false);
  expect([store.looked, store.asked]).toEqual([0, 0]);
});

test("G8: derivations that need each other in a long row are looked at once for a question, and not without end", async () => {
  const store = new Store();
  for (let i = 0; i < 10_000; i++)
    store.add(path(i, `${i}.drv`), derivation("", i === 0 ? [] : [path(i - 1, `${i - 1}.drv`)]));
  const resolver = store.resolver(200);
  for (let i = 0; i < 100; i++) await resolver.resolution(path(i, `${i}.drv`));
  expect(store.looked).toBe(100);
  const { outputs, resolved } = await resolver.resolution(path(9999, "9999.drv"));
  expect([outputs.get("out"), resolved, resolver.exhausted]).toEqual(["", undefined, true]);
  expect(store.looked).toBe(200);
});

test("G8: who asks for derivers has few derivations read at once, and few asked about that are not built", async () => {
  const store = new Store();
  const output = path(1, "x");
  for (let i = 0; i < 3 * MOST_FLOATING; i++) store.add(path(1000 + i, `${i}.drv`), derivation(""));
  store.add(path(2, "static.drv"), derivation(output));
  store.add(path(3, "floating.drv"), derivation(""));
  store.built.set(path(3, "floating.drv"), output);
  expect(new Set(await store.derivers.of(output))).toEqual(
    new Set([path(2, "static.drv"), path(3, "floating.drv")]),
  );
  expect(store.mostAtOnce).toBeLessThanOrEqual(64);
  expect(store.asked).toBe(MOST_FLOATING);
  // The one that is built has its place, and is not asked about again.
  store.add(path(4, "later.drv"), derivation(""));
  store.looked = store.asked = 0;
  expect(await store.derivers.of(output)).toContain(path(3, "floating.drv"));
  expect(store.asked).toBe(MOST_FLOATING);
});

test("a derivation of which only some outputs are known is the deriver of those", async () => {
  const store = new Store();
  const two = derivation("");
  (two.outputs as Map<string, unknown>).set("dev", { path: "", hashAlgorithm: "r:sha256", hash: "" });
  store.add(path(1, "two.drv"), two);
  store.built.set(path(1, "two.drv"), path(2, "two"));
  expect(await store.derivers.of(path(2, "two"))).toEqual([path(1, "two.drv")]);
});
