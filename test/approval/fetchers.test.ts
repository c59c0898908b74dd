/**
 * What nixpkgs' fetchers and packages ask for: weak hashes, variables of the daemon's environment, system features, a builder
 * outside of the store. All of it can be instantiated in every profile; what may run is for the profile to say.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

const GOPROXY = "http://proxy.invalid/go";
const TOKENS = "a secret of the machine's";

const expression = `
{ salt }:
let
  sh = name: text: extra: derivation ({
    inherit name salt; system = ${nixString(nixSystem)}; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-e" "-c" "\${text}; :" ];
  } // extra);
  fetch = name: algorithm: variables: text: sh name "\${text} printf %s \${name}-\${salt} > $out" {
    outputHashAlgo = algorithm; outputHashMode = "flat"; outputHash = builtins.hashString algorithm "\${name}-\${salt}";
    impureEnvVars = variables;
  };
  above = name: dep: sh "above-\${name}" "test -e $dep; echo \${name} > $out" { inherit dep; };
  needs = feature: above feature (sh "needs-\${feature}" "echo > $out" { requiredSystemFeatures = [ feature ]; });
  proxies = [ "http_proxy" "https_proxy" "ftp_proxy" "all_proxy" "no_proxy" ];
in {
  url = fetch "url" "sha256" (proxies ++ [ "NIX_SSL_CERT_FILE" "NIX_CURL_FLAGS" "NIX_HASHED_MIRRORS" "NIX_CONNECT_TIMEOUT" "NIX_MIRRORS_gnu" "NIX_MIRRORS_sourceforge" ]) "";
  git = fetch "git" "sha256" (proxies ++ [ "GIT_PROXY_COMMAND" "NIX_GIT_SSL_CAINFO" "SOCKS_SERVER" ]) "";
  go = fetch "go" "sha256" (proxies ++ [ "GOPROXY" ]) "test \\"$GOPROXY\\" = ${GOPROXY};";
  npm = above "npm" (fetch "npm" "sha512" [ "NIX_NPM_REGISTRY" "NIX_NPM_TOKENS" ] "test \\"$NIX_NPM_TOKENS\\" = \\"${TOKENS}\\";");
  private = above "private" (fetch "private" "sha256" [ "NIX_GITHUB_PRIVATE_USERNAME" "NIX_GITHUB_PRIVATE_PASSWORD" ] "");
  netrc = above "netrc" (fetch "netrc" "sha256" [ "MY_OWN_VARIABLE" ] "");
  md5 = above "md5" (fetch "md5" "md5" [ ] "");
  sha1 = above "sha1" (fetch "sha1" "sha1" [ ] "");
  sha512 = above "sha512" (fetch "sha512" "sha512" [ ] "");
  bigParallel = needs "big-parallel";
  benchmark = needs "benchmark";
  otherMachine = needs "gccarch-armv9";
  kvm = needs "kvm";
  nixosTest = needs "nixos-test";
  uidRange = needs "uid-range";
  bash = sh "by-bash" "echo $BASH_VERSION > $out" { builder = "/bin/bash"; };
}`;

const everything = [
  ...["url", "git", "go", "npm", "private", "netrc", "md5", "sha1", "sha512", "bigParallel", "benchmark"],
  ...["otherMachine", "kvm", "nixosTest", "uidRange", "bash"],
] as const;
type Attribute = (typeof everything)[number];

const profiles = `
[profiles.careful]
extends = "build"
weak_hashes = false
[profiles.generous]
extends = "build"
required_system_features = ["nixos-test", "kvm"]
impure_env_vars = ["NIX_NPM_REGISTRY", "NIX_NPM_TOKENS", "MY_*"]
[profiles.fetching-agent]
extends = "agent"
fixed_outputs = "allow"
`;
const profileNames = ["build", "careful", "generous", "agent", "fetching-agent", "pure"] as const;
type ProfileName = (typeof profileNames)[number];

const NO_FETCH = /fixed-output derivations only if the output is already in the view/;
const WEAK = /uses the weak hash (?:md5|sha1), which the profile '\S+' does not allow \(weak_hashes\)/;

/** What a profile refuses to run, and how it says so; all else that is asked of it is built. */
const asked: Readonly<Record<ProfileName, Readonly<Partial<Record<Attribute, RegExp | "built">>>>> = {
  build: {
    url: "built",
    git: "built",
    go: "built",
    npm: /variable 'NIX_NPM_TOKENS' \(impureEnvVars\), which the profile 'build' does not name in full, as it must for variables that may hold a secret \(impure_env_vars\)/,
    private: /variable 'NIX_GITHUB_PRIVATE_\w+' \(impureEnvVars\), .* may hold a secret/,
    netrc:
      /variable 'MY_OWN_VARIABLE' \(impureEnvVars\), which the profile 'build' does not list \(impure_env_vars\)/,
    md5: "built",
    sha1: "built",
    sha512: "built",
    bigParallel: "built",
    benchmark: "built",
    otherMachine: /needs a machine .*gccarch-armv9.*, which the nix-daemon does not have/,
    kvm: /requires the system feature 'kvm', which the profile 'build' does not allow/,
    nixosTest: /requires the system feature 'nixos-test', which the profile 'build' does not allow/,
    uidRange: /requires the system feature 'uid-range', which bypasses the broker/,
    bash: "built",
  },
  careful: { md5: WEAK, sha1: WEAK, sha512: "built" },
  generous: {
    npm: "built",
    netrc: "built",
    go: /variable '(?:http_proxy|GOPROXY)' \(impureEnvVars\), which the profile 'generous' does not list/,
    private: /may hold a secret/,
    nixosTest: "built",
    bigParallel: /requires the system feature 'big-parallel', which the profile 'generous' does not allow/,
  },
  agent: { url: NO_FETCH, sha512: NO_FETCH, bigParallel: "built", bash: "built", kvm: /'kvm'/ },
  "fetching-agent": { url: "built", md5: WEAK, sha1: WEAK, sha512: "built" },
  pure: { url: NO_FETCH, sha512: NO_FETCH, bigParallel: "built", bash: "built", kvm: /'kvm'/ },
};

describe.each(lab.versions)("what fetchers and packages ask for [daemon %s]", (version) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version, { env: { GOPROXY, NIX_NPM_TOKENS: TOKENS } });
  });
  afterAll(() => daemon?.stop());

  describe.each(profileNames)("profile %s", (profile) => {
    let broker: TestBroker;
    beforeAll(async () => {
      broker = await startBroker(daemon, {
        profile,
        view: profile.endsWith("agent") ? "store" : "empty",
        config: profiles,
      });
    });
    afterAll(() => broker?.stop());

    const run = (program: string, attribute: string, salt: string, ...more: string[]) =>
      daemon.run([program, "-E", expression, "-A", attribute, "--argstr", "salt", salt, ...more], {
        user: "alice",
        env: { NIX_REMOTE: `unix://${broker.socket}` },
      });

    test("everything can be instantiated", async () => {
      const made = await daemon.run(["nix-instantiate", "-E", expression, "--argstr", "salt", profile], {
        user: "alice",
        env: { NIX_REMOTE: `unix://${broker.socket}` },
      });
      expect(made.code, made.stderr).toBe(0);
      expect(made.stdout.trim().split("\n")).toHaveLength(everything.length);
    });

    test.each(Object.entries(asked[profile]))("%s", async (attribute, outcome) => {
      const built = await run("nix-build", attribute, `${profile}-builds`, "--no-out-link");
      if (outcome === "built") expect(built.code, built.stderr).toBe(0);
      else {
        expect(built.code).not.toBe(0);
        expect(built.stderr.replaceAll(/\s+/g, " ")).toMatch(outcome);
      }
    });
  });

  test("what is named by a weak hash is used where it is held, in profiles that would not build it", async () => {
    const salt = "held";
    const build = (attribute: string, remote: string) =>
      daemon.run(
        ["nix-build", "--no-out-link", "-E", expression, "-A", attribute, "--argstr", "salt", salt],
        { user: "alice", env: { NIX_REMOTE: remote } },
      );
    const outside = await build("md5", "daemon");
    expect(outside.code, outside.stderr).toBe(0);
    const broker = await startBroker(daemon, { profile: "agent", view: "store", config: profiles });
    try {
      expect((await build("md5", `unix://${broker.socket}`)).stdout).toBe(outside.stdout);
      expect((await build("sha1", `unix://${broker.socket}`)).stderr).toMatch(WEAK);
    } finally {
      await broker.stop();
    }
  });
});
