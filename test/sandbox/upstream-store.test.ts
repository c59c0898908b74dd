import { expect, test } from "vitest";
import { DEFAULT_MEMORY } from "../../src/policy/memory.ts";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { type Derivation, parseDerivation, sizeOf } from "../../src/store/derivation.ts";

const MiB = 1024 * 1024;
function pathOf(i: number) {
  return `/nix/store/${String(i).padStart(32, "0")}-x.drv`;
}

function infoOf(i: number): PathInfo {
  return { path: pathOf(i), narHash: "", narSize: 0, references: [], contentAddress: "text:sha256:x" };
}

/** A derivation with so many sources, each of which takes 128 bytes, and a text for its builder. */
function derivationWith(sources: number, text = ""): Derivation {
  const names = Array.from(
    { length: sources },
    (_, i) => `"/nix/store/${String(i).padStart(32, "0")}-${"x".repeat(52)}"`,
  );
  return parseDerivation(
    Buffer.from(
      `Derive([("out","${pathOf(0).slice(0, -4)}","","")],[],[${names}],"system","/builder",[],[("text","${text}")])`,
    ),
  );
}

function storeWithoutUpstream(): UpstreamStore {
  return new UpstreamStore(
    () => Promise.reject(new Error("asked upstream")),
    () => false,
    "/nix/store",
    () => ({ textBytes: 16 * MiB, requestDeadline: 600 }),
    new MemoryBudget(DEFAULT_MEMORY),
  );
}

test("limits are those of the last reload", async () => {
  let textBytes = MiB;
  const store = new UpstreamStore(
    () => Promise.reject(new Error("asked upstream")),
    () => false,
    "/nix/store",
    () => ({ textBytes, requestDeadline: 600 }),
    new MemoryBudget(DEFAULT_MEMORY),
  );
  const info = { ...infoOf(1), narSize: 2 * MiB };
  await expect(store.derivation(pathOf(1), info)).rejects.toThrow(`longer than ${MiB} bytes`);
  textBytes = 4 * MiB;
  await expect(store.derivation(pathOf(1), info)).rejects.toThrow("asked upstream");
});

test("G8: the latest derivations are kept, up to a number of bytes", async () => {
  const store = storeWithoutUpstream();
  const derivation = derivationWith(7000);
  const fitting = Math.floor((32 * MiB) / sizeOf(derivation));
  for (let i = 0; i < 100; i++) store.remember(infoOf(i), derivation);
  await expect(store.derivation(pathOf(0))).rejects.toThrow("asked upstream");
  await expect(store.derivation(pathOf(99 - fitting))).rejects.toThrow("asked upstream");
  expect(await store.derivation(pathOf(100 - fitting))).toBe(derivation);
  expect(await store.derivation(pathOf(99))).toBe(derivation);
});

test("G8: a derivation that takes much memory is not kept, and pushes out no others", async () => {
  const store = storeWithoutUpstream();
  const small = derivationWith(1);
  store.remember(infoOf(1), small);
  store.remember(infoOf(2), derivationWith(10_000));
  expect(await store.derivation(pathOf(1))).toBe(small);
  await expect(store.derivation(pathOf(2))).rejects.toThrow("asked upstream");
});

test("G8: a derivation with a long text for its builder is kept: its text is not", async () => {
  const store = storeWithoutUpstream();
  const long = derivationWith(1, "x".repeat(8 * MiB));
  store.remember(infoOf(1), long);
  expect(await store.derivation(pathOf(1))).toBe(long);
  expect(sizeOf(long)).toBeLessThan(2048);
});
