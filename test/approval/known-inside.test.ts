/**
 * Inside of builds of profile `pure`: a package that is an input of the outer build is used and built upon, though the file
 * that was fetched for it is gone; one that is not an input is refused, whatever the host has of it.
 */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { invent } from "../../lab/package-graph.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { outer } from "../recursive/scripts.ts";

/** A socket of profile `pure` with an empty view, for clients outside of builds. */
const jail = "/var/lib/nix-broker/service/jail";
const file = "/tmp/known.nix";

const expression = `
{ salt }:
let
  sh = name: text: extra: derivation ({
    inherit name salt; system = ${nixString(nixSystem)}; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" "\${text}; :" ];
  } // extra);
in rec {
  src = sh "known.tar.gz" "exit 1" { outputHashAlgo = "sha256"; outputHashMode = "flat"; outputHash = builtins.hashString "sha256" salt; };
  pkg = sh "known-pkg" "exit 1" { inherit src; outputs = [ "out" "dev" ]; };
  user = sh "known-user" "read x < $pkg/name; echo built upon $x > $out" { inherit pkg; };
  usesDev = sh "known-uses-dev" "read x < $dev/name; echo built upon $x > $out" { inherit (pkg) dev; };
}`;

describe.each(ways)("packages that are known inside [daemon %s, %s]", (version, way) => {
  let made: RecursiveLab;

  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      hooks: way === "hooks",
      serviceConfig: `[hooks]\nprofile = "pure"\n[[listen]]\npath = "${jail}"\nallow_uids = ["*"]\nprofile = "pure"\nview = "empty"\n`,
    });
    writeFileSync(made.daemon.hostPath(file), expression);
  });
  afterAll(() => made?.stop());

  const instantiate = async (attribute: string, salt: string): Promise<string> => {
    const { stdout, stderr, code } = await made.daemon.run(
      ["nix-instantiate", file, "-A", attribute, "--argstr", "salt", salt],
      { user: "alice" },
    );
    expect(code, stderr).toBe(0);
    return stdout.trim().replace(/!.*/, "");
  };

  test("an input of the outer build is used and built upon, though its source is gone", async () => {
    await invent(made.daemon, [await instantiate("pkg", "known")]);
    const script = `
cp $file known.nix
for attribute in pkg user usesDev; do
  echo "$attribute: $(nix-build --no-out-link known.nix -A $attribute --argstr salt known 2>&1 | tail -n 1)"
done > $out
echo "user says: $(cat $(nix-build --no-out-link known.nix -A user --argstr salt known))" >> $out`;
    const { out } = await made.daemon.build(
      outer(script, { attributes: { file, pkg: `(import ${file} { salt = "known"; }).pkg` } }),
    );
    const told = (await made.daemon.run(["cat", out])).stdout;
    expect(told).toMatch(/^pkg: \/nix\/store\/\S+-known-pkg$/m);
    expect(told).toMatch(/^user: \/nix\/store\/\S+-known-user$/m);
    expect(told).toMatch(/^user says: built upon known-pkg$/m);
    // Of the package's outputs only one is an input: the other would have to be built.
    expect(told).toMatch(/^usesDev: error: .*known\.tar\.gz\.drv' may not be built here: .*fixed-output/m);
    const references = await made.daemon.run(["nix-store", "-q", "--references", out]);
    expect(references.stdout).toMatch(/-known-user\n/);
  });

  if (way === "hooks")
    test("G1: what is not in the view is refused in the same words, whatever the host has of it", async () => {
      const ask = async () => {
        const { code, stdout, stderr } = await made.daemon.run(
          ["nix-build", "--no-out-link", file, "-A", "user", "--argstr", "salt", "hidden"],
          { user: "alice", env: { NIX_REMOTE: `unix://${jail}` } },
        );
        return { code, stdout, stderr };
      };
      const refused = await ask();
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toMatch(/known\.tar\.gz\.drv' may not be built here/);
      for (const attribute of ["pkg", "src", "user"]) {
        await invent(made.daemon, [await instantiate(attribute, "hidden")]);
        expect(await ask()).toEqual(refused);
      }
    });
});
