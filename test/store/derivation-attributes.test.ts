import { describe, expect, test } from "vitest";
import { type Derivation, DerivationError } from "../../src/store/derivation.ts";
import { type DerivationAttributes, derivationAttributes } from "../../src/store/derivation-attributes.ts";

function attributes(env: Record<string, string>): DerivationAttributes {
  const derivation: Derivation = {
    outputs: new Map([["out", { path: "", hashAlgorithm: "", hash: "" }]]),
    inputDrvs: new Map(),
    inputSrcs: [],
    system: "",
    builder: "",
    args: [],
    env: new Map(Object.entries(env)),
  };
  return derivationAttributes(derivation);
}

function structured(json: unknown, env: Record<string, string> = {}): DerivationAttributes {
  return attributes({ ...env, __json: Buffer.from(JSON.stringify(json)).toString("latin1") });
}

describe("attributes in the environment", () => {
  const given = attributes({
    __noChroot: "1",
    preferLocalBuild: "true",
    requiredSystemFeatures: " kvm\tbig-parallel\n nix-broker ",
    empty: "",
  });

  test("are read", () => {
    expect(given.text("empty")).toBe("");
    expect(given.text("missing")).toBeUndefined();
    expect(given.flag("__noChroot")).toBe(true);
    expect(given.flag("preferLocalBuild"), "only 1 is true to Nix").toBe(false);
    expect(given.list("requiredSystemFeatures")).toEqual(["kvm", "big-parallel", "nix-broker"]);
    expect(given.list("empty")).toEqual([]);
    expect(given.list("missing")).toEqual([]);
    expect(given.has("empty")).toBe(true);
    expect(given.has("missing")).toBe(false);
    expect(given.json).toBeUndefined();
  });
});

describe("structured attributes", () => {
  test("are read", () => {
    const given = structured({
      __noChroot: true,
      requiredSystemFeatures: ["kvm", "nix-broker"],
      name: "ü",
      outputChecks: { out: { allowedReferences: ["out"] } },
      nothing: null,
    });
    expect(given.flag("__noChroot")).toBe(true);
    expect(given.list("requiredSystemFeatures")).toEqual(["kvm", "nix-broker"]);
    expect(given.text("name"), "as bytes, like the environment").toBe(Buffer.from("ü").toString("latin1"));
    expect(given.has("nothing")).toBe(true);
    expect(given.json?.get("outputChecks")).toEqual(
      new Map([["out", new Map([["allowedReferences", ["out"]]])]]),
    );
  });

  test("count together with the environment", () => {
    const given = structured(
      { list: ["a"], no: false, text: "json" },
      { list: "b c", no: "1", text: "env", only: "1" },
    );
    expect(given.list("list")).toEqual(["a", "b", "c"]);
    expect(given.flag("no")).toBe(true);
    expect(given.flag("only")).toBe(true);
    expect(given.text("text")).toBe("json");
    expect(given.text("only")).toBe("1");
    expect(given.has("only")).toBe(true);
  });

  test("hide nothing behind prototypes", () => {
    const given = attributes({ __json: '{"__proto__":{"__noChroot":true},"constructor":"x"}' });
    expect(given.flag("__noChroot")).toBe(false);
    expect(given.has("__proto__")).toBe(true);
    expect(given.has("toString")).toBe(false);
    expect(given.text("constructor")).toBe("x");
  });

  test("of the wrong type are refused when they are asked for", () => {
    const given = structured({ text: 1, flag: "1", list: "a b", mixed: ["a", 1], null: null });
    expect(() => given.text("text")).toThrow('attribute "text" of the derivation must be a string');
    expect(() => given.flag("flag")).toThrow("must be true or false");
    expect(() => given.list("list")).toThrow("must be a list of strings");
    expect(() => given.list("mixed")).toThrow("must be a list of strings");
    expect(() => given.list("null")).toThrow("must be a list of strings");
    expect(() => given.flag("null")).toThrow(DerivationError);
  });

  test("of two equal names are the last one's, as in Nix", () => {
    expect(attributes({ __json: '{"a":false,"a":true}' }).flag("a")).toBe(true);
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["null", "null"],
    ["nothing", ""],
    ["bytes that are not UTF-8", '{"a":"\xff"}'],
    ["half a surrogate pair", '{"a":"\\ud800"}'],
    ["half a surrogate pair in a name", '{"\\ud800":1}'],
    ["a byte order mark", "\xef\xbb\xbf{}"],
    ["more after a NUL, which some versions of Nix read as the end", "{}\0x"],
    ["a structure too deep", `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
  ])("that are %s are refused", (_, json) => {
    expect(() => attributes({ __json: json })).toThrow(DerivationError);
  });
});
