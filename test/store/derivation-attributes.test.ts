import { describe, expect, test } from "vitest";
import { DerivationError, derivationOf } from "../../src/store/derivation.ts";
import type { DerivationAttributes } from "../../src/store/derivation-attributes.ts";
import { atOnce } from "../../src/store/slices.ts";
import { attributesOf } from "./derivation-text.ts";

function attributes(env: Record<string, string>): DerivationAttributes {
  return attributesOf(Object.entries(env));
}

function structured(json: unknown, env: Record<string, string> = {}): DerivationAttributes {
  return attributes({ ...env, __json: Buffer.from(JSON.stringify(json)).toString("latin1") });
}

describe("attributes in the environment", () => {
  const given = attributes({
    __noChroot: "1",
    __impure: "true",
    requiredSystemFeatures: " kvm\tbig-parallel\n nix-broker ",
    sandboxProfile: "",
  });

  test("are read", () => {
    expect(given.text("sandboxProfile")).toBe("");
    expect(given.text("url")).toBeUndefined();
    expect(given.flag("__noChroot")).toBe(true);
    expect(given.flag("__impure"), "only 1 is true to Nix").toBe(false);
    expect(given.list("requiredSystemFeatures")).toEqual(["kvm", "big-parallel", "nix-broker"]);
    expect(given.list("sandboxProfile")).toEqual([]);
    expect(given.list("impureEnvVars")).toEqual([]);
    expect(given.has("sandboxProfile")).toBe(true);
    expect(given.has("url")).toBe(false);
    expect(given.isStructured).toBe(false);
    expect(given.structured("url")).toBeUndefined();
  });

  test("that no builder could be given are refused when any is asked for", () => {
    const text = `Derive([("out","","","")],[],[],"s","/bin/sh",[],[("requiredSystemFeatures","${"a ".repeat(65_537)}")])`;
    const { attributes: read } = atOnce(derivationOf(Buffer.from(text)));
    expect(() => read.flag("__noChroot")).toThrow(
      'attribute "requiredSystemFeatures" of the derivation is longer than 131072 bytes',
    );
  });
});

describe("structured attributes", () => {
  test("are read", () => {
    const given = structured({
      __noChroot: true,
      requiredSystemFeatures: ["kvm", "nix-broker"],
      url: "ü",
      outputChecks: { out: { allowedReferences: ["out"] } },
      exportReferencesGraph: null,
    });
    expect(given.flag("__noChroot")).toBe(true);
    expect(given.list("requiredSystemFeatures")).toEqual(["kvm", "nix-broker"]);
    expect(given.text("url"), "as bytes, like the environment").toBe(Buffer.from("ü").toString("latin1"));
    expect(given.has("exportReferencesGraph")).toBe(true);
    expect(given.isStructured).toBe(true);
    expect(given.structured("outputChecks")).toEqual(
      new Map([["out", new Map([["allowedReferences", ["out"]]])]]),
    );
  });

  test("count together with the environment", () => {
    const given = structured(
      { impureEnvVars: ["a"], __impure: false, url: "json" },
      { impureEnvVars: "b c", __impure: "1", url: "env", __noChroot: "1" },
    );
    expect(given.list("impureEnvVars")).toEqual(["a", "b", "c"]);
    expect(given.flag("__impure")).toBe(true);
    expect(given.flag("__noChroot")).toBe(true);
    expect(given.text("url")).toBe("json");
    expect(given.variable("url")).toBe("env");
    expect(given.text("__noChroot")).toBe("1");
    expect(given.has("__noChroot")).toBe(true);
  });

  test("hide nothing behind prototypes", () => {
    const given = attributes({
      __json: '{"__proto__":{"__noChroot":true},"outputChecks":{"__proto__":{"a":1},"constructor":"x"}}',
    });
    expect(given.flag("__noChroot")).toBe(false);
    expect(given.structured("outputChecks")).toEqual(
      new Map<string, unknown>([
        ["__proto__", new Map([["a", 1]])],
        ["constructor", "x"],
      ]),
    );
  });

  test("of the wrong type are refused when they are asked for", () => {
    const given = structured({
      url: 1,
      __impure: "1",
      urls: "a b",
      impureEnvVars: ["a", 1],
      __noChroot: null,
    });
    expect(() => given.text("url")).toThrow('attribute "url" of the derivation must be a string');
    expect(() => given.flag("__impure")).toThrow("must be true or false");
    expect(() => given.list("urls")).toThrow("must be a list of strings");
    expect(() => given.list("impureEnvVars")).toThrow("must be a list of strings");
    expect(() => given.list("__noChroot")).toThrow("must be a list of strings");
    expect(() => given.flag("__noChroot")).toThrow(DerivationError);
  });

  test("that cannot be read are an error of whoever asks for any attribute", () => {
    const given = attributes({ __json: "{", __noChroot: "1" });
    expect(() => given.flag("__noChroot")).toThrow(DerivationError);
    expect(() => given.text("url")).toThrow(DerivationError);
    expect(() => given.list("urls")).toThrow(DerivationError);
    expect(() => given.has("url")).toThrow(DerivationError);
    expect(() => given.isStructured).toThrow(DerivationError);
  });
});
