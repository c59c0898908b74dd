/** What a client learns of a build that failed: what its own derivations did wrong, and nothing of others. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

const expression = `
{ salt }:
let
  sh = name: text: extra: derivation ({
    inherit name salt; system = ${nixString(nixSystem)}; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" text ];
  } // extra);
  dep = sh "dep" "echo dep > $out" { };
  nobodys = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  fixed = { outputHash = nobodys; outputHashAlgo = "sha256"; outputHashMode = "flat"; };
in {
  exit = sh "exit" "exit 3" { };
  nothing = sh "nothing" "true" { };
  forbidden = sh "forbidden" "echo \${dep} > $out" { disallowedReferences = [ dep ]; };
  forbiddenBelow = sh "forbidden-below" "echo \${sh "between" "echo \${dep} > $out" { }} > $out" { disallowedRequisites = [ dep ]; };
  notAllowed = sh "not-allowed" "echo \${dep} > $out" { allowedReferences = [ ]; };
  cycle = sh "cycle" "mkdir $a $b; echo $a > $b/x; echo $b > $a/x" { outputs = [ "a" "b" ]; };
  depends = sh "depends" "cat $x > $out" { x = sh "below" "echo its last words; exit 4" { }; };
  machine = sh "machine" "echo hi > $out" { requiredSystemFeatures = [ "big-parallel" "gccarch-nobodys" ]; };
  odd = sh "odd" "mkfifo $out; :" { };
  slow = sh "slow" "sleep 600; echo > $out" { };
  silent = sh "silent" "echo > $out; :" { };
  wrongHash = sh "wrong-hash" "echo hi > $out" fixed;
  fetcher = sh "fetcher" "echo a line of a fetcher; exit 7" fixed;
  many = [ (sh "many-bad" "exit 5" { }) (sh "many-good" "sleep 2; echo good > $out" { }) (sh "many-worse" "sleep 1; exit 8" { }) ];
  above = sh "above" "echo \${dep} > $out; :" { bad = sh "bad-input" "exit 6" { }; };
}`;

describe.each(lab.versions)("a build that fails [daemon %s]", (version) => {
  let daemon: Daemon;
  let broker: TestBroker;
  let jail: TestBroker;
  let silent: TestBroker;

  beforeAll(async () => {
    daemon = await lab.start(version);
    broker = await startBroker(daemon, { profile: "build", config: '[profiles.any]\nextends = "build"\n' });
    jail = await startBroker(daemon, {
      config: '[profiles.fetching]\nextends = "agent"\nfixed_outputs = "allow"\n',
      profile: "fetching",
      view: "store",
    });
    silent = await startBroker(daemon, {
      config: '[profiles.silent]\nextends = "agent"\ninner_logs = "none"\n',
      profile: "silent",
      view: "store",
    });
  });
  afterAll(async () => {
    await silent?.stop();
    await broker?.stop();
    await jail?.stop();
    await daemon?.stop();
  });

  let count = 0;
  const build = (attribute: string, args: readonly string[] = [], at = broker, salt = `${count++}`) =>
    daemon.run(
      ["nix-build", "--no-out-link", "-E", expression, "-A", attribute, "--argstr", "salt", salt, ...args],
      { user: "alice", env: { NIX_REMOTE: `unix://${at.socket}` } },
    );

  test.each<[attribute: string, told: RegExp]>([
    ["exit", /the builder of '\S+-exit\.drv' failed with exit code 3/],
    ["nothing", /the builder of '\S+-nothing\.drv' did not produce its output/],
    ["forbidden", /refers to paths which the derivation forbids: \S+-dep/],
    ["forbiddenBelow", /refers to paths which the derivation forbids: \S+-dep/],
    ["notAllowed", /refers to paths which the derivation forbids: \S+-dep/],
    ["cycle", /produced outputs that refer to each other/],
    [
      "depends",
      /build of '\S+-depends\.drv' failed: the builder of '\S+-below\.drv' failed with exit code 4/,
    ],
    ["machine", /needs a machine .*features \{.*gccarch-nobodys.*\}, which the nix-daemon does not have/],
  ])("%s: the client is told why", async (attribute, told) => {
    const failed = await build(attribute);
    expect(failed.code).not.toBe(0);
    expect(failed.stderr.replaceAll(/\s+/g, " ")).toMatch(told);
    expect(failed.stderr).not.toMatch(/I am a|Available features|Current system/);
  });

  test("the message has the log of what failed, for clients that did not print it", async () => {
    const { stderr } = await build("depends", ["--quiet", "--no-build-output"]);
    expect(stderr.replaceAll(/\s+/g, " ")).toMatch(
      /the builder of '\S+-below\.drv' failed with exit code 4 log: > its last words/,
    );
    const hidden = await build("depends", ["--no-build-output"], silent);
    expect(hidden.stderr).toMatch(/-depends\.drv' failed/);
    expect(hidden.stderr).not.toContain("its last words");
  });

  test("a file that the store cannot hold: the client is told that it failed", async () => {
    const failed = await build("odd");
    expect(failed.code).not.toBe(0);
    expect(failed.stderr).toMatch(
      /-odd\.drv' (?:produced a file of a type|was killed|failed|may not)|-odd\.drv' failed/,
    );
  });

  test("the client's own timeout is told as such, and the administrator's as such", async () => {
    const failed = await build("slow", ["--timeout", "1"]);
    expect(failed.stderr).toContain("took longer than 1 seconds (the client's --timeout)");
    expect(failed.stderr).not.toContain("limits.");
  });

  test("a build that says nothing is shown", async () => {
    expect((await build("silent")).stderr).toMatch(/building '\S+-silent\.drv'/);
  });

  test("G3: in a closed view a client learns only that a fetcher failed; in the view store also the hash it got", async () => {
    for (const attribute of ["wrongHash", "fetcher"]) {
      const { stderr } = await build(attribute);
      expect(stderr).toContain("failed");
      expect(stderr).not.toMatch(/got|specified|wanted|a line of a fetcher|exit code/);
    }
    const told = await build("wrongHash", [], jail);
    expect(told.stderr).toMatch(
      /produced contents with another hash: specified sha256[:-]\S+, got sha256[:-]\S+/,
    );
    expect((await build("fetcher", [], jail)).stderr).toMatch(/a line of a fetcher/);
  });

  test("--keep-going builds what does not need what failed, also below a target that fails", async () => {
    const salt = "keep-going";
    const failed = await build("many", ["--keep-going"], broker, salt);
    expect(failed.code).not.toBe(0);
    expect(failed.stderr).toMatch(
      /many-(?:bad\.drv' failed with exit code 5|worse\.drv' failed with exit code 8)/,
    );
    for (const bad of ["many-bad.drv'", "many-worse.drv'"]) expect(failed.stderr).toContain(bad);
    expect(failed.stderr).not.toMatch(/build of .*-many-good\.drv.* failed/);
    await build("above", ["--keep-going"], broker, salt);
    for (const built of ["many-good", "dep"])
      expect((await daemon.run(["sh", "-c", `ls -d /nix/store/*-${built}`])).code, built).toBe(0);
  });
});
