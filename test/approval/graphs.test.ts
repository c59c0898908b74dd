/**
 * `exportReferencesGraph`: Nix adds to the graph the outputs of the derivations that it lists, as far as they are there. So in
 * a closed view a graph that could list a derivation is refused, and no other.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

/** `asText` is a .drv that is there as a file alone; `deep` brings the whole closure of it. */
const expression = `
{ structured, salt }:
let
  sh = name: text: extra: derivation ({
    inherit name salt; system = ${nixString(nixSystem)}; builder = "/bin/bash"; PATH = "/usr/bin:/bin"; args = [ "-e" "-c" "\${text}; :" ];
  } // extra);
  graphOf = name: paths: extra: sh name (if structured == "yes"
    then ". ./.attrs.sh; PATH=/usr/bin:/bin; grep -o '/nix/store/[^\\"]*' .attrs.json | sort -u > \\\${outputs[out]}"
    else "cat graph > $out") (extra // (if structured == "yes"
    then { __structuredAttrs = true; exportReferencesGraph.graph = paths; }
    else { exportReferencesGraph = builtins.concatMap (path: [ "graph" path ]) paths; }));
  dep = sh "dep" "echo dep > $out" { };
  user = sh "user" "echo \${dep} > $out" { };
  asText = builtins.unsafeDiscardOutputDependency dep.drvPath;
  deep = dep.drvPath;
  reads = sh "reads" "test -s $file; echo nothing of it > $out" { file = asText; };
  keeps = sh "keeps" "echo $file > $out" { file = asText; };
  above = sh "above" "echo \${keeps} > $out" { };
  opting = sh "opting" "echo made inside > $out" { requiredSystemFeatures = [ "nix-broker" ]; };
  aboveOpting = sh "above-opting" "echo \${opting} > $out" { };
  floating = extra: sh "floating" "echo floating > $out" ({
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; } // extra);
in {
  inherit dep reads keeps;
  plain = graphOf "plain" [ user ] { };
  beside = graphOf "beside" [ user ] { file = asText; };
  ofText = graphOf "of-text" [ asText ] { };
  ofDeep = graphOf "of-deep" [ deep ] { };
  ofReads = graphOf "of-reads" [ reads ] { };
  ofKeeps = graphOf "of-keeps" [ keeps ] { };
  ofAbove = graphOf "of-above" [ above ] { };
  ofOpting = graphOf "of-opting" [ opting ] { };
  ofAboveOpting = graphOf "of-above-opting" [ aboveOpting ] { };
  besideOpting = graphOf "beside-opting" [ user ] { inherit opting; };
  ofFloating = graphOf "of-floating" [ (floating { }) ] { };
  ofFloatingBeside = graphOf "of-floating-beside" [ (floating { }) ] { file = asText; };
  ofFloatingReads = graphOf "of-floating-reads" [ (floating { file = asText; }) ] { };
}`;

const SETTINGS = "experimental-features = nix-command ca-derivations\n";
const forms = ["environment", "structured attributes"] as const;
/** Which versions have content-addressed outputs that are known only when they are built. */
const withFloating = (version: string): boolean => version !== "2.3";

describe.each(lab.versions)("exported graphs [daemon %s]", (version) => {
  let daemon: Daemon;
  let broker: TestBroker;
  let salts = 0;

  beforeAll(async () => {
    daemon = await lab.start(version, withFloating(version) ? { config: SETTINGS } : {});
    broker = await startBroker(daemon, {
      profile: "floating",
      config: '[profiles.floating]\nextends = "build"\ncontent_addressed = true\n',
    });
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
  });

  describe.each(forms)("by %s", (form) => {
    const newSalt = () => `s${salts++}`;
    const at = (remote: string) => ({
      user: "alice",
      env: {
        NIX_REMOTE: remote,
        ...(withFloating(version) && { NIX_CONFIG: SETTINGS }),
      },
    });
    const build = (attribute: string, salt: string, remote = `unix://${broker.socket}`) =>
      daemon.run(
        [
          ...["nix-build", "--no-out-link", "-E", expression, "-A", attribute, "--argstr", "salt", salt],
          ...["--argstr", "structured", form === "environment" ? "no" : "yes"],
        ],
        at(remote),
      );
    async function graphOf(attribute: string, salt: string): Promise<string> {
      const built = await build(attribute, salt);
      expect(built.code, built.stderr).toBe(0);
      return (await daemon.run(["cat", built.stdout.trim()])).stdout;
    }
    async function refusal(attribute: string, salt: string): Promise<string> {
      const refused = await build(attribute, salt);
      expect(refused.code).not.toBe(0);
      return refused.stderr;
    }

    test("a graph that lists no derivation is made, whatever else the build reads", async () => {
      for (const attribute of ["plain", "beside"]) {
        const graph = await graphOf(attribute, newSalt());
        expect(graph).toMatch(/-user$/m);
        expect(graph).toMatch(/-dep$/m);
        const listed = form === "environment" ? graph : graph.replaceAll(/^.*-(beside|dep\.drv)$/gm, "");
        expect(listed).not.toContain(".drv");
      }
    });

    test.each<[attribute: string, why: RegExp]>([
      ["ofText", /'\S+-dep\.drv' is in a closure that it could list/],
      ["ofDeep", /'\S+-dep\.drv' is in a closure that it could list/],
      ["ofReads", /'\S+-dep\.drv' is in a closure that it could list/],
      ["ofKeeps", /'\S+-dep\.drv' is in a closure that it could list/],
      ["ofAbove", /'\S+-dep\.drv' is in a closure that it could list/],
      [
        "ofOpting",
        /'\S+-opting\.drv' among its inputs may make outputs that refer to derivations: build that one first/,
      ],
      ["ofAboveOpting", /'\S+-opting\.drv' among its inputs may make outputs/],
    ])(
      "G1: one that could list a derivation is refused, whatever the host has built: %s",
      async (attribute, why) => {
        const salt = newSalt();
        const told = await refusal(attribute, salt);
        expect(told).toMatch(/may not be built here: it sets exportReferencesGraph, and /);
        expect(told).toMatch(why);
        // The host builds what the graph would tell of.
        for (const one of ["dep", "reads", "keeps"]) {
          const built = await build(one, salt, "daemon");
          expect(built.code, built.stderr).toBe(0);
        }
        expect(await refusal(attribute, salt)).toBe(told);
      },
    );

    test("of outputs that are there, what they really refer to counts", async () => {
      const salt = newSalt();
      for (const one of ["reads", "keeps"]) expect((await build(one, salt)).code).toBe(0);
      expect(await graphOf("ofReads", salt)).toMatch(/-reads$/m);
      expect(await refusal("ofKeeps", salt)).toMatch(/'\S+-dep\.drv' is in a closure that it could list/);
    });

    test("an input that asks for a sandbox of its own does not matter unless the graph is of it", async () => {
      // It is judged, and then the daemon says that it has no machine for the input.
      expect(await refusal("besideOpting", newSalt())).not.toContain("exportReferencesGraph");
    });

    if (withFloating(version))
      test("G1: where a graph's paths are known only after a build, all inputs count", async () => {
        const salt = newSalt();
        expect(await graphOf("ofFloating", salt)).toMatch(/-floating$/m);
        for (const attribute of ["ofFloatingBeside", "ofFloatingReads"])
          expect(await refusal(attribute, salt)).toMatch(/'\S+-dep\.drv' is in a closure that it could list/);
      });
  });
});
