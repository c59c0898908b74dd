/** G9: builds that would wait for each other, or for build users, get their reason instead. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { lab } from "../../lab/lab.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";

/**
 * A folder whose derivations build each other: each finds this very folder as `self`, so that inside a build the
 * same derivations come out of it as outside.
 */
const family = `
let
  self = builtins.path { path = ./.; name = "family"; };
  # Two recipes for the same fixed output: what depends on either has the same output path.
  fixed = recipe: derivation {
    name = "fixed"; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo \${recipe} >/dev/null; echo fixed > $out; :" ];
    outputHash = builtins.hashString "sha256" "fixed\\n"; outputHashMode = "flat"; outputHashAlgo = "sha256";
  };
  outer = name: recipe: script: derivation {
    inherit name self;
    dep = fixed recipe;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" ("export PATH=/lab/2.8/bin:/bin:/usr/bin PAGER=cat NIX_PAGER=cat HOME=$PWD/home; mkdir home; set -e; " + script + "; :") ];
    requiredSystemFeatures = [ "nix-broker" ];
  };
  build = attribute: "nix-build $self -A \${attribute} --no-out-link";
  plain = name: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo \${name} > $out; :" ];
  };
in rec {
  dependency = fixed "1";
  asksForItself = outer "asks-for-itself" "1" "\${build "asksForItself"} > $out";
  # The same output path as twin2's, by another derivation.
  twin1 = outer "twin" "1" "\${build "twin2"} > $out";
  twin2 = outer "twin" "2" "\${build "twin2"} > $out";
  # Its inner build needs the outer one.
  needsIt = derivation {
    name = "needs-it"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo \${asksForWhatNeedsIt} > $out; :" ];
  };
  asksForWhatNeedsIt = outer "asks-for-what-needs-it" "1" "\${build "needsIt"} > $out";
  left = outer "left" "1" "sleep 2; \${build "right"} > $out";
  right = outer "right" "1" "sleep 2; \${build "left"} > $out";
  inner1 = plain "inner1";
  inner2 = plain "inner2";
  # Both run before either asks.
  bothRun = name: "touch began-\${name}; until [ -e /signal/go ]; do sleep 0.1; done";
  first = outer "first" "1" "\${bothRun "first"}; \${build "inner1"} > $out";
  second = outer "second" "1" "\${bothRun "second"}; \${build "inner2"} > $out";
}
`;

async function startWithFamily(
  version: (typeof lab.versions)[number],
  hooks: boolean,
  buildUsers: number,
): Promise<RecursiveLab> {
  const made = await RecursiveLab.start(version, {
    hooks,
    buildUsers,
    sandboxPaths: ["/signal=/tmp/signal"],
  });
  await made.daemon.run(
    ["sh", "-c", "mkdir /tmp/signal /tmp/family; cat > /tmp/family/default.nix; chmod -R a+rX /tmp/family"],
    { input: family },
  );
  return made;
}

function build(recursive: RecursiveLab, attribute: string) {
  return recursive.daemon.run(["nix-build", "/tmp/family", "-A", attribute, "--no-out-link"], {
    user: "alice",
  });
}

describe.each(ways)("G9: nobody hangs [daemon %s, by %s]", (version, way) => {
  const hooks = way === "hooks";
  describe("over outputs", () => {
    let recursive: RecursiveLab;
    beforeAll(async () => {
      recursive = await startWithFamily(version, hooks, 8);
    });
    afterAll(() => recursive?.stop());

    test("G9: a build that asks for itself is refused, with the reason", async () => {
      const { code, stderr } = await build(recursive, "asksForItself");
      expect(code).not.toBe(0);
      expect(stderr).toContain("needs the outputs of the build that asks for it");
    });

    test("G9: a build that asks for another derivation with its own output path is refused, with the reason", async () => {
      const { code, stderr } = await build(recursive, "twin1");
      expect(code).not.toBe(0);
      expect(stderr).toContain("needs the outputs of the build that asks for it");
    });

    test("G9: a build that asks for one that needs it is refused, with the reason", async () => {
      const { code, stderr } = await build(recursive, "asksForWhatNeedsIt");
      expect(code).not.toBe(0);
      expect(stderr).toContain("needs the outputs of the build that asks for it");
    });

    test("G9: two builds that ask for each other both end, and are told why", async () => {
      const [left, right] = await Promise.all([build(recursive, "left"), build(recursive, "right")]);
      expect([left.code, right.code]).not.toContain(0);
      const denied = (await recursive.audit("--verdict", "deny")).filter((row) => row.op === "BuildPaths");
      expect(denied.map((row) => row.reason)).toContain("wait cycle");
    });
  });

  describe("over build users", () => {
    let recursive: RecursiveLab;
    beforeAll(async () => {
      recursive = await startWithFamily(version, hooks, 2);
    });
    afterAll(() => recursive?.stop());

    test("G9: of two outer builds on two build users the newer one gets no inner build, and both end", async () => {
      // Both outer builds start at once only when what they need is there.
      await build(recursive, "dependency");
      const names = ["first", "second"];
      const building = names.map((name) => build(recursive, name));
      for (const name of names) await recursive.daemon.fileInBuild(`began-${name}`);
      await recursive.daemon.run(["touch", "/tmp/signal/go"]);
      const results = await Promise.all(building);
      const refused = results.filter(({ stderr }) => stderr.includes("all 2 build users are taken"));
      expect(refused).toHaveLength(1);
      // 2.3 gives up where later versions wait for a user to be free again.
      if (version !== "2.3") expect(results.filter(({ code }) => code === 0)).toHaveLength(1);
    });
  });
});
