/** The rules for derivations (docs/recursive-nix.md), one by one: what a derivation is refused for, and in which words. */
import { describe, expect, test } from "vitest";
import { refuseFixedOutput, refuseInputs, refuseToRun } from "../../src/policy/derivation-rules.ts";
import type { Profile } from "../../src/policy/profile.ts";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import type { Derivation, DerivationOutput } from "../../src/store/derivation.ts";
import { attributesOf } from "../store/derivation-text.ts";

const STORE_DIR = "/nix/store";
function storePath(letter: string, name: string) {
  return `${STORE_DIR}/${letter.repeat(32)}-${name}`;
}
const source = storePath("a", "source");
const input = storePath("b", "input.drv");
const out = storePath("c", "out");

const { build, pure, query } = builtinProfiles(["x86_64-linux"]);

type Attributes = Readonly<Record<string, unknown>>;

function structured(json: Attributes) {
  return Buffer.from(JSON.stringify(json)).toString("latin1");
}
function environment(env: Readonly<Record<string, string>>) {
  return attributesOf(Object.entries(env));
}

const inputAddressed: DerivationOutput = { path: out, hashAlgorithm: "", hash: "" };
function fixed(hashAlgorithm = "sha256"): DerivationOutput {
  return {
    path: out,
    hashAlgorithm,
    hash: "0".repeat(hashAlgorithm.endsWith("sha512") ? 128 : 64),
  };
}

function derivation(change: Partial<Derivation> = {}): Derivation {
  return {
    outputs: new Map([["out", inputAddressed]]),
    inputDrvs: new Map([[input, ["out"]]]),
    inputSrcs: [source],
    system: "x86_64-linux",
    builder: "/bin/sh",
    attributes: attributesOf([]),
    ...change,
  };
}

function withOutput(output: DerivationOutput, change: Partial<Derivation> = {}) {
  return derivation({ outputs: new Map([["out", output]]), ...change });
}

function refusal(judged: Derivation, profile: Profile = build) {
  return refuseToRun(judged, profile);
}

describe("a derivation", () => {
  test.each<[string, Derivation]>([
    ["as they usually are", derivation()],
    ["with a builder in the store", derivation({ builder: `${storePath("a", "bash")}/bin/bash` })],
    ["with a builder that the administrator maps", derivation({ builder: "/bin/bash" })],
    [
      "that needs a large or a certain machine",
      derivation({
        attributes: environment({ requiredSystemFeatures: "big-parallel benchmark gccarch-x86-64-v3" }),
      }),
    ],
    ["named by a weak hash", withOutput(fixed("md5"))],
    ["named by a weak hash of its NAR", withOutput(fixed("r:sha1"))],
    ["with a builder that Nix has inside", derivation({ builder: "builtin:buildenv", system: "builtin" })],
    ["that fetches a fixed output", withOutput(fixed(), { builder: "builtin:fetchurl", system: "builtin" })],
    ["with a fixed output", withOutput(fixed())],
    ["with a fixed output hashed as a NAR", withOutput(fixed("r:sha512"))],
    [
      "that asks for a sandbox of its own",
      derivation({ attributes: environment({ requiredSystemFeatures: "nix-broker" }) }),
    ],
    [
      "that takes the proxy of the daemon",
      derivation({ attributes: environment({ impureEnvVars: "http_proxy NO_PROXY NIX_MIRRORS_gnu" }) }),
    ],
    [
      "that sets to nothing what could open its sandbox",
      derivation({
        attributes: environment({
          __noChroot: "",
          __impure: "",
          __contentAddressed: "",
          __impureHostDeps: "",
          sandboxProfile: "",
          __json: structured({ __noChroot: false, sandboxProfile: "", requiredSystemFeatures: [] }),
        }),
      }),
    ],
  ])("%s is accepted", (_, judged) => {
    expect(refusal(judged)).toBeUndefined();
  });

  test.each<[string, Derivation]>([
    ["an output that is not fixed", derivation({ builder: "builtin:fetchurl" })],
    [
      "a fixed output of another name",
      derivation({ builder: "builtin:fetchurl", outputs: new Map([["other", fixed()]]) }),
    ],
    [
      "a second output",
      derivation({
        builder: "builtin:fetchurl",
        outputs: new Map([
          ["other", inputAddressed],
          ["out", fixed()],
        ]),
      }),
    ],
  ])("of the daemon's own fetcher is refused %s", (_, judged) => {
    expect(refusal(judged)).toBe("its builder builtin:fetchurl needs one output, 'out', whose hash is fixed");
  });

  test("is refused an input that its references do not have, and a reference that is no input", () => {
    expect(refuseInputs(derivation(), [input, source])).toBeUndefined();
    expect(refuseInputs(derivation(), [input])).toBe(
      `its input '${source}' is not among the references it was added with`,
    );
    expect(refuseInputs(derivation(), [source])).toBe(
      `its input '${input}' is not among the references it was added with`,
    );
    expect(refuseInputs(derivation(), [source, input, out])).toBe(
      `its reference '${out}' is not one of its inputs`,
    );
  });
});

describe("attributes", () => {
  const feature = (name: string) => `it requires the system feature '${name}'`;
  const beyond = ", which bypasses the broker";
  const unlisted = ", which the profile 'build' does not allow";
  test.each<[attribute: string, env: string, json: unknown, refusal: string]>([
    ["__noChroot", "1", true, "it sets __noChroot"],
    ["__impure", "1", true, "it sets __impure"],
    ["__contentAddressed", "1", true, `it sets __contentAddressed${unlisted}`],
    ["__impureHostDeps", "/etc", "/etc", "it sets __impureHostDeps"],
    ["__propagatedImpureHostDeps", "/etc", "/etc", "it sets __propagatedImpureHostDeps"],
    ["sandboxProfile", "(allow default)", "(allow default)", "it sets sandboxProfile"],
    ["__sandboxProfile", "(allow default)", "(allow default)", "it sets __sandboxProfile"],
    [
      "impureEnvVars",
      "http_proxy AWS_SECRET_ACCESS_KEY",
      ["http_proxy", "AWS_SECRET_ACCESS_KEY"],
      "it asks for the daemon's variable 'AWS_SECRET_ACCESS_KEY' (impureEnvVars), which the profile 'build' does not name in full, as it must for variables that may hold a secret (impure_env_vars)",
    ],
    [
      "impureEnvVars",
      "xhttp_proxy",
      ["xhttp_proxy"],
      "it asks for the daemon's variable 'xhttp_proxy' (impureEnvVars), which the profile 'build' does not list (impure_env_vars)",
    ],
    ["requiredSystemFeatures", "nix-broker kvm", ["nix-broker", "kvm"], `${feature("kvm")}${unlisted}`],
    ["requiredSystemFeatures", "recursive-nix", ["recursive-nix"], `${feature("recursive-nix")}${beyond}`],
    ["requiredSystemFeatures", "builder-rpc-v0", ["builder-rpc-v0"], `${feature("builder-rpc-v0")}${beyond}`],
    ["requiredSystemFeatures", "uid-range", ["uid-range"], `${feature("uid-range")}${beyond}`],
  ])("%s = %j is refused, from the environment and from __json", (name, env, json, expected) => {
    expect(refusal(derivation({ attributes: environment({ [name]: env }) })), "env").toBe(expected);
    expect(
      refusal(derivation({ attributes: environment({ __json: structured({ [name]: json }) }) })),
      "__json",
    ).toBe(expected);
    // Neither place hides the other.
    const harmless = Array.isArray(json) ? [] : typeof json === "boolean" ? false : json;
    const both = environment({ [name]: env, __json: structured({ [name]: harmless }) });
    expect(refusal(derivation({ attributes: both })), "both").toBe(expected);
    const hidden = environment({ [name]: "", __json: structured({ [name]: json }) });
    expect(refusal(derivation({ attributes: hidden })), "hidden").toBe(expected);
  });

  test("of a type that Nix might read otherwise are refused", () => {
    const noChroot = environment({ __json: structured({ __noChroot: "1" }) });
    expect(refusal(derivation({ attributes: noChroot }))).toContain("must be true or false");
    const features = environment({ __json: structured({ requiredSystemFeatures: "recursive-nix" }) });
    expect(refusal(derivation({ attributes: features }))).toContain("must be a list of strings");
    expect(refusal(derivation({ attributes: environment({ __json: "{" }) }))).toContain(
      "are not a JSON object in UTF-8",
    );
  });

  test("system features are those that the profile lists, and never those that go past the broker", () => {
    const profile: Profile = { ...build, requiredSystemFeatures: ["kvm", "recursive-nix"] };
    const requiring = (features: string) =>
      derivation({ attributes: environment({ requiredSystemFeatures: features }) });
    expect(refusal(requiring("kvm"), profile)).toBeUndefined();
    expect(refusal(requiring("kvm recursive-nix"), profile)).toBe(`${feature("recursive-nix")}${beyond}`);
    expect(refusal(requiring("big-parallel"), profile)).toBe(`${feature("big-parallel")}${unlisted}`);
    const any: Profile = { ...build, requiredSystemFeatures: ["*"] };
    expect(refusal(requiring("kvm"), any)).toBeUndefined();
    expect(refusal(requiring("uid-range"), any)).toBe(`${feature("uid-range")}${beyond}`);
  });

  test("variables of nixpkgs' fetchers are allowed; those that hold secrets only where they are named in full", () => {
    const taking = (names: string) => derivation({ attributes: environment({ impureEnvVars: names }) });
    expect(refusal(taking("GOPROXY NIX_NPM_REGISTRY NIX_MIRRORS_gnu NIX_HASHED_MIRRORS"))).toBeUndefined();
    const secrets = "NIX_NPM_TOKENS NIX_GITHUB_PRIVATE_USERNAME";
    expect(refusal(taking(secrets))).toContain("name in full");
    expect(refusal(taking(secrets), { ...build, impureEnvVars: ["NIX_*"] })).toContain("name in full");
    expect(refusal(taking(secrets), { ...build, impureEnvVars: secrets.split(" ") })).toBeUndefined();
  });

  test("__contentAddressed is for the profile to allow", () => {
    const profile: Profile = { ...build, contentAddressed: true };
    const floating = withOutput(
      { path: "", hashAlgorithm: "r:sha256", hash: "" },
      { attributes: environment({ __contentAddressed: "1" }) },
    );
    expect(refusal(floating, profile)).toBeUndefined();
    expect(refusal(floating)).toBe(
      "its output 'out' is content-addressed, which the profile 'build' does not allow",
    );
  });
});

describe("system", () => {
  test("another system is refused, unless the profile takes any", () => {
    const other = derivation({ system: "aarch64-darwin" });
    expect(refusal(other)).toBe("its system 'aarch64-darwin' is not among those of the profile 'build'");
    expect(refusal(other, { ...build, systems: "any" })).toBeUndefined();
  });
});

describe("outputs", () => {
  test.each<[string, DerivationOutput, string]>([
    ["impure", { path: "", hashAlgorithm: "r:sha256", hash: "impure" }, "its output 'out' is impure"],
    ["of BLAKE3", fixed("blake3"), "its output 'out' uses the hash blake3, which is not allowed here"],
    [
      "that may be a derivation",
      { path: "", hashAlgorithm: "text:sha256", hash: "" },
      "its output 'out' is a text, which could be a derivation that would be built unjudged (dynamic derivations are not supported)",
    ],
    [
      "hashed as Git does",
      { path: "", hashAlgorithm: "git:sha256", hash: "" },
      "its output 'out' is hashed by a method that is not allowed here",
    ],
  ])("%s are refused, though the profile allows content-addressed ones", (_, output, expected) => {
    expect(refusal(withOutput(output), { ...build, contentAddressed: true })).toBe(expected);
  });
});

test("weak hashes are for the profile to allow", () => {
  for (const algorithm of ["md5", "r:sha1"])
    expect(refusal(withOutput(fixed(algorithm)), pure)).toMatch(
      /^its output 'out' uses the weak hash (md5|sha1), which the profile 'pure' does not allow \(weak_hashes\)$/,
    );
});

describe("fixed outputs", () => {
  const patterns: Profile = { ...build, name: "mirror", fixedOutputs: ["https://mirror.test/*"] };
  const fetchurl = (env: Readonly<Record<string, string>>, builder = "builtin:fetchurl") =>
    withOutput(fixed(), { builder, attributes: environment(env) });
  const mine = "https://mirror.test/a";
  const evil = "https://evil.test/a";
  const judge = (judged: Derivation, profile: Profile) => refuseFixedOutput(judged, profile);

  test("are no matter of derivations that fetch nothing", () => {
    for (const profile of [query, pure, patterns, build])
      expect(judge(derivation(), profile), profile.name).toBeUndefined();
  });

  test("are all allowed, or none", () => {
    expect(judge(fetchurl({ url: evil }), build)).toBeUndefined();
    const denied = "the profile 'query' allows no fixed-output derivations";
    expect(refuseFixedOutput(fetchurl({ url: mine }), query)).toBe(denied);
  });

  test("have to be there, in a profile that takes only known ones", () => {
    const refused =
      "the profile 'pure' allows fixed-output derivations only if the output is already in the view";
    expect(judge(fetchurl({ url: mine }), pure)).toContain(refused);
    expect(judge(fetchurl({ url: mine }), pure)).toContain("--allow-url");
  });

  test("are not built where the profile lists URLs: nix-broker fetches them itself", () => {
    for (const judged of [
      fetchurl({ url: mine }),
      fetchurl({ url: evil }),
      fetchurl({ url: mine }, "/bin/sh"),
    ])
      expect(judge(judged, patterns)).toBe(
        "the profile 'mirror' lets no derivation use the network (fixed_outputs)",
      );
  });
});
