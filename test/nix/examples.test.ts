import { existsSync, lstatSync, readlinkSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { buildExample, examples, patient, placeNixpkgs, withNixpkgs } from "./fixture.ts";

describe.each(lab.versions)("examples of the library [daemon %s]", (version) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version, patient);
    placeNixpkgs(recursive.daemon);
  });
  afterAll(() => recursive?.stop());

  const host = (path: string): string => recursive.daemon.hostPath(path);
  const read = async (path: string): Promise<string> => (await recursive.daemon.run(["cat", path])).stdout;
  const references = async (path: string): Promise<string[]> =>
    (await recursive.daemon.run(["nix-store", "-q", "--references", path])).stdout
      .split("\n")
      .filter(Boolean);

  test("buildFromUpstream builds what upstream's expression says, from the patched source", async () => {
    const { out } = await buildExample(recursive.daemon, "packages", "greeter");
    expect(out).toMatch(/-greeter-1\.2$/);
    expect((await recursive.daemon.run([`${out}/bin/greeter`, "Ada"])).stdout).toBe("Good day, Ada\n");
    const inner = readlinkSync(host(out));
    expect(inner).toMatch(/^\/nix\/store\/[0-9a-z]{32}-greeter$/);
    expect(await references(out)).toEqual([inner]);
  });

  test("buildFromUpstream hands on packages and numbers, and makes several outputs", async () => {
    const { out } = await buildExample(recursive.daemon, "packages", "wordcount");
    expect(await read(`${out}/share/summary`)).toBe("Good day, reader\nfox.txt: 9\nhamlet.txt: 6\n");
    const { out: doc } = await buildExample(recursive.daemon, "packages", "wordcount.doc");
    expect(await read(`${doc}/README`)).toBe(`counted by ${readlinkSync(host(out))}\n`);
  });

  test("override changes what was given, overrideAttrs what came of it", async () => {
    const overridden = async (expression: string): Promise<string> => {
      const { out } = await recursive.daemon.build(
        `let p = import ${examples}/packages { }; in ${expression}`,
        { args: withNixpkgs },
      );
      return out;
    };
    const longWords = await overridden(
      "p.wordcount.override (old: { arguments = old.arguments // { shortest = 3; }; })",
    );
    expect(await read(`${longWords}/share/summary`)).toBe("Good day, reader\nfox.txt: 8\nhamlet.txt: 1\n");
    const polite = await overridden(
      `p.greeter.overrideAttrs (old: { version = "1.3"; postPatch = old.postPatch + "substitute day evening"; })`,
    );
    expect(polite).toMatch(/-greeter-1\.3$/);
    expect((await recursive.daemon.run([`${polite}/bin/greeter`, "Ada"])).stdout).toBe("Good evening, Ada\n");
    const bare = `(import ${examples}/../../lib { pkgs = import <nixpkgs> { }; }).buildFromUpstream`;
    const final = await overridden(
      `(${bare} (final: { pname = "greeter"; version = "1"; src = ${examples}/packages/upstream/greeter; passthru.tag = "v\${final.version}"; })).overrideAttrs (old: { version = "2"; })`,
    );
    expect(final).toMatch(/-greeter-2$/);
  });

  test("recursiveBuild hands on nixpkgs, its configuration, and overlays as files and as packages", async () => {
    const { out } = await buildExample(recursive.daemon, "packages", "report");
    expect(await read(out)).toBe("Welcome!!, report\nGood day, report\n");
  });

  test("without nixpkgs; installed as a tree of links that can be added to", async () => {
    const { out } = await buildExample(recursive.daemon, "plain.nix");
    expect(await read(`${out}/note`)).toBe("added by the outer build\n");
    expect(await read(`${out}/share/letter`)).toBe("dear reader\n");
    expect(lstatSync(host(`${out}/share/letter`)).isSymbolicLink()).toBe(true);
  });

  test("the setup hook makes Nix usable in any derivation", async () => {
    const { out } = await buildExample(recursive.daemon, "setup-hook.nix");
    expect(await read(out)).toBe("1\n2\n3\n");
  });

  test("instantiateInside returns derivations, and keeps them", async () => {
    const { out } = await buildExample(recursive.daemon, "continuation", "chapters");
    const named = (await read(`${out}/nix-support/continuation`)).trim().split("\n");
    expect(named).toHaveLength(2);
    expect((await references(out)).sort()).toEqual(named.toSorted());
    for (const derivation of named) expect(existsSync(host(derivation))).toBe(true);
  });

  test("the nested build of the NixOS test, with store paths for its inputs", async () => {
    const programs = { bash: "/bin", coreutils: "/bin", nix: "/usr/bin" };
    const inStore = async (name: string, folder: string): Promise<string> => {
      const made = `mkdir -p /tmp/${name}-in-store && ln -sfn ${folder} /tmp/${name}-in-store/bin && nix-store --add /tmp/${name}-in-store`;
      return (await recursive.daemon.run(["sh", "-c", made])).stdout.trim();
    };
    const args: string[] = [];
    for (const [name, folder] of Object.entries(programs))
      args.push("--argstr", name, await inStore(name, folder));
    const { out } = await recursive.daemon.build(
      { file: `${examples}/../../nixos-module/nested-build.nix` },
      { args },
    );
    const inner = (await read(out)).trim();
    expect(await read(inner)).toBe("built inside\n");
    expect(await references(out)).toEqual([inner]);
  });

  test("what is known of a package needs nothing fetched or built", async () => {
    const expression = `
      { pkgs ? import <nixpkgs> { } }:
      {
        remote = (import ${examples}/../../lib { inherit pkgs; }).buildFromUpstream {
          pname = "remote"; version = "4.2";
          src = derivation {
            name = "source"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "exit 1" ];
            outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputHash = "${"0".repeat(52)}";
          };
          meta.description = "Not fetched";
          passthru.tests = { };
        };
      }`;
    await recursive.daemon.run(["sh", "-c", "cat > /tmp/remote.nix"], { input: expression });
    const store = async (): Promise<string> => (await recursive.daemon.run(["ls", "/nix/store"])).stdout;
    await recursive.daemon.run(["nix-instantiate", ...withNixpkgs, "--eval", "-E", "1"]);
    const before = await store();
    const listed = await recursive.daemon.run(
      ["nix-env", ...withNixpkgs, "-f", "/tmp/remote.nix", "-qa", "--json", "--meta"],
      { env: { HOME: "/root" } },
    );
    expect(listed).toMatchObject({ code: 0 });
    expect(JSON.parse(listed.stdout)).toMatchObject({
      remote: { name: "remote-4.2", pname: "remote", version: "4.2", meta: { description: "Not fetched" } },
    });
    const realised = (await store())
      .split("\n")
      .filter((name) => !before.includes(name) && !name.endsWith(".drv"));
    expect(realised).toEqual([]);
  });

  test("what cannot be handed on is said clearly", async () => {
    const failure = async (given: string): Promise<string> => {
      const { code, log } = await recursive.daemon.tryBuild(
        `(import ${examples}/../../lib { pkgs = import <nixpkgs> { }; }).recursiveBuild { name = "x"; src = ${examples}/plain; ${given} }`,
        { args: withNixpkgs },
      );
      expect(code).not.toBe(0);
      return log;
    };
    expect(await failure("overlays = [ (final: prev: { }) ];")).toContain(
      "an overlay that is a function cannot be handed to the evaluation inside of a build",
    );
    expect(await failure("config.allowUnfreePredicate = package: true;")).toContain(
      "config.allowUnfreePredicate is a function",
    );
    expect(await failure("arguments.who = x: x;")).toContain("arguments.who is a function");
    expect(await failure('installAs = "hardlink";')).toContain("one of link, tree, copy");
    const misnamed = await recursive.daemon.tryBuild(
      `(import ${examples}/../../lib { }).recursiveBuild { name = "x"; source = ${examples}/plain; }`,
    );
    expect(misnamed.log).toContain("the sources of an outer build are named src");
    const missing = await recursive.daemon.tryBuild(
      `(import ${examples}/../../lib { }).buildFromUpstream { pname = "x"; src = ${examples}/plain; }`,
    );
    expect(missing.log).toContain("buildFromUpstream needs version");
  });

  test("toExpression round-trips values, and escapes what Nix would take for more than text", async () => {
    const value = String.raw`{ a = "\"\${x}\\\n''"; b = [ 1 (-2) 0.5 true null ]; "c d" = { }; }`;
    const { stdout } = await recursive.daemon.run([
      "nix-instantiate",
      "--eval",
      "--strict",
      "--read-write-mode",
      "-E",
      `let v = ${value}; text = (import ${examples}/../../lib { }).toExpression "v" v; in import (builtins.toFile "v.nix" text) == v`,
    ]);
    expect(stdout).toBe("true\n");
  });
});
