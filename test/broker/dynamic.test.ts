/** Dynamic derivations are refused, in words of their own (docs/recursive-nix.md says why). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

const features = "experimental-features = nix-command ca-derivations dynamic-derivations\n";
const config = '[profiles.floating]\nextends = "build"\ncontent_addressed = true\n';
/** Makes a derivation. */
const producing = `derivation {
  name = "made.drv"; system = "${nixSystem}"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ];
  __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256";
}`;
/** Wants what that would make. */
const consuming = `derivation {
  name = "consumer"; system = "${nixSystem}"; builder = "/bin/sh"; args = [ "-c" "echo $made > $out" ];
  __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
  made = builtins.outputOf (${producing}).outPath "out";
}`;

/** Those that have dynamic derivations. */
const versions = lab.versions.filter((version) => version === "2.26" || version === "2.34");

describe.each(versions)("G2: dynamic derivations [daemon %s]", (version) => {
  let daemon: Daemon;
  let broker: TestBroker;
  beforeAll(async () => {
    daemon = await lab.start(version, { config: features });
    broker = await startBroker(daemon, { config, profile: "floating" });
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
  });

  const nix = (...argv: string[]) =>
    daemon.run(argv, {
      user: "alice",
      cwd: "/tmp",
      env: { HOME: "/home/alice", NIX_REMOTE: `unix://${broker.socket}`, NIX_CONFIG: features },
    });

  test("a derivation whose output may be a derivation is refused when it is to be built", async () => {
    const { code, stderr } = await nix("nix-build", "--no-out-link", "-E", producing);
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      "its output 'out' is a text, which could be a derivation that would be built unjudged (dynamic derivations are not supported)",
    );
  });

  test("a derivation that wants an output of one that is built is refused when it is added", async () => {
    const { code, stderr } = await nix("nix-build", "--no-out-link", "-E", consuming);
    expect(code).not.toBe(0);
    expect(stderr).toContain("dynamic derivations (the form DrvWithVersion) are not supported");
  });

  test("an output of an output cannot be built", async () => {
    const { stdout } = await nix("nix-instantiate", "-E", producing);
    const { code, stderr } = await nix("nix", "build", "--no-link", `${stdout.trim()}^out^out`);
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      `'${stdout.trim()}!out!out' cannot be built: outputs of derivations that are built themselves (dynamic derivations) are not supported`,
    );
  });
});
