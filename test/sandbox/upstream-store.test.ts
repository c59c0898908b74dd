import { expect, test } from "vitest";
import { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import type { Derivation } from "../../src/store/derivation.ts";

const MiB = 1024 * 1024;
const derivation = {} as Derivation;
function pathOf(i: number) {
  return `/nix/store/${String(i).padStart(32, "0")}-x.drv`;
}

function storeWithoutUpstream(): UpstreamStore {
  return new UpstreamStore(
    () => Promise.reject(new Error("asked upstream")),
    () => false,
    "/nix/store",
    {
      textBytes: 16 * MiB,
      requestDeadline: 600,
    },
  );
}

test("G8: derivations are kept up to a number of bytes, the last ones", async () => {
  const store = storeWithoutUpstream();
  for (let i = 0; i < 100; i++) store.remember(pathOf(i), derivation, MiB);
  await expect(store.derivation(pathOf(0))).rejects.toThrow("asked upstream");
  await expect(store.derivation(pathOf(67))).rejects.toThrow("asked upstream");
  expect(await store.derivation(pathOf(68))).toBe(derivation);
  expect(await store.derivation(pathOf(99))).toBe(derivation);
});

test("G8: a huge derivation is not kept, and pushes out no others", async () => {
  const store = storeWithoutUpstream();
  store.remember(pathOf(1), derivation, 1000);
  store.remember(pathOf(2), derivation, 16 * MiB);
  expect(await store.derivation(pathOf(1))).toBe(derivation);
  await expect(store.derivation(pathOf(2))).rejects.toThrow("asked upstream");
});
