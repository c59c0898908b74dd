import { describe, expect, test } from "vitest";
import { optIn } from "../../src/root/opt-in.ts";
import type { Derivation, DerivationOutput } from "../../src/store/derivation.ts";
import { attributesOf } from "../store/derivation-text.ts";

const path = `/nix/store/${"0".repeat(32)}-x`;
const here = { hasChroot: true, hasWorker: true };
const asked = { requiredSystemFeatures: "kvm nix-broker" };

function derivation(env: Record<string, string>, output: Partial<DerivationOutput> = {}): Derivation {
  return {
    outputs: new Map([["out", { path, hashAlgorithm: "", hash: "", ...output }]]),
    inputDrvs: new Map(),
    inputSrcs: [],
    system: "x86_64-linux",
    builder: "/bin/sh",
    attributes: attributesOf(Object.entries(env)),
  };
}

function structured(json: unknown) {
  return { __json: JSON.stringify(json) };
}

describe("optIn", () => {
  test("by the environment and by structured attributes", () => {
    expect(optIn(derivation(asked), here)).toEqual({ kind: "ok" });
    expect(optIn(derivation(structured({ requiredSystemFeatures: ["nix-broker"] })), here)).toEqual({
      kind: "ok",
    });
  });

  test("a mention anywhere else is no opt-in", () => {
    expect(optIn(derivation({ pname: "nix-broker" }), here)).toEqual({ kind: "none" });
    expect(optIn(derivation({ requiredSystemFeatures: "nix-broker-2" }), here)).toEqual({ kind: "none" });
    expect(optIn(derivation(structured({ name: "nix-broker" })), here)).toEqual({ kind: "none" });
  });

  test.each<[string, Derivation, string]>([
    ["fixed output", derivation(asked, { hashAlgorithm: "sha256", hash: "0".repeat(64) }), "fixed-output"],
    ["content-addressed", derivation(asked, { path: "", hashAlgorithm: "r:sha256" }), "content-addressed"],
    ["impure", derivation(asked, { path: "", hashAlgorithm: "r:sha256", hash: "impure" }), "impure"],
    [
      "too many outputs",
      {
        ...derivation(asked),
        outputs: new Map(
          Array.from({ length: 101 }, (_, i) => [`o${i}`, { path, hashAlgorithm: "", hash: "" }]),
        ),
      },
      "101 outputs",
    ],
    ["deferred", derivation(asked, { path: "" }), "not known before it is built"],
    [
      "recursive-nix",
      derivation({ requiredSystemFeatures: "nix-broker recursive-nix" }),
      "and recursive-nix: each",
    ],
    [
      "builder-rpc-v0, which needs a content-addressed output",
      derivation(
        { requiredSystemFeatures: "builder-rpc-v0 nix-broker" },
        { path: "", hashAlgorithm: "r:sha256" },
      ),
      "and builder-rpc-v0: each",
    ],
    ["uid-range", derivation({ requiredSystemFeatures: "uid-range nix-broker" }), "uid-range"],
    [
      "uid-range, structured",
      derivation(structured({ requiredSystemFeatures: ["nix-broker", "uid-range"] })),
      "uid-range",
    ],
  ])("%s is refused with a reason of its own", (_, refused, reason) => {
    expect(optIn(refused, here)).toEqual({ kind: "refused", reason: expect.stringContaining(reason) });
  });

  test("a build without sandbox, and one without a daemon, are refused", () => {
    const ordinary = derivation(asked);
    expect(optIn(ordinary, { ...here, hasChroot: false })).toMatchObject({
      kind: "refused",
      reason: expect.stringContaining("sandbox = true"),
    });
    expect(optIn(ordinary, { ...here, hasWorker: false })).toMatchObject({
      kind: "refused",
      reason: expect.stringContaining("NIX_REMOTE=daemon"),
    });
  });

  test("a refused kind that did not ask is none of our business", () => {
    const fixed = derivation({}, { hashAlgorithm: "sha256", hash: "0".repeat(64) });
    expect(optIn(fixed, { hasChroot: false, hasWorker: false })).toEqual({ kind: "none" });
  });
});
