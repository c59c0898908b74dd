import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { parseBuildArguments } from "../../src/cli/build.ts";
import {
  ContinuationError,
  followContinuations,
  type Installable,
  parseContinuation,
  readContinuation,
} from "../../src/cli/continuation.ts";
import { examples, patient, placeNixpkgs, projectRoot, withNixpkgs } from "./fixture.ts";

function drv(letter: string): string {
  return `/nix/store/${letter.repeat(32)}-${letter}.drv`;
}
function out(letter: string): string {
  return `/nix/store/${letter.repeat(32)}-${letter}`;
}

describe("the format of continuations", () => {
  test("what is no regular file, or too long, is not read", () => {
    const output = mkdtempSync(join(tmpdir(), "nix-broker-continuation-"));
    const file = join(output, "nix-support/continuation");
    try {
      expect(readContinuation(output)).toBeUndefined();
      mkdirSync(join(output, "nix-support"));
      symlinkSync("/dev/null", file);
      expect(() => readContinuation(output)).toThrow(`${file} is not a regular file`);
      rmSync(file);
      writeFileSync(file, "");
      expect(readContinuation(output)).toEqual([]);
      truncateSync(file, 2 ** 40);
      expect(() => readContinuation(output)).toThrow("more than the 16777216 that are read");
    } finally {
      rmSync(output, { recursive: true });
    }
  });

  test("a derivation a line, with outputs if not all; comments and repetitions mean nothing", () => {
    const text = `# comes next\n${drv("a")}\n\n${drv("b")}!out,dev\n${drv("a")}\n`;
    expect(parseContinuation(text, "f", "/nix/store")).toEqual([drv("a"), `${drv("b")}!out,dev`]);
  });

  test.each([
    "--option",
    out("a"),
    `${drv("a")}!`,
    `${drv("a")}!out!dev`,
    `${drv("a")} ${drv("b")}`,
    "/etc/passwd.drv",
    ` ${drv("a")}`,
  ])("refuses %j, naming the line", (line) => {
    expect(() => parseContinuation(`\n${line}\n`, "f", "/nix/store")).toThrow(
      /^f, line 2: expected a derivation/,
    );
  });
});

describe("following continuations", () => {
  /** @param graph what each output names; each derivation has one output, of its letter */
  const follow = async (
    graph: Readonly<Record<string, string>>,
    maxRounds = 100,
  ): Promise<{ results: string[]; rounds: string[] }> => {
    const rounds: string[] = [];
    const letter = (path: string): string => path[11] ?? "";
    const results = await followContinuations(
      [out("a")],
      async (installables: readonly Installable[]) => {
        rounds.push(installables.map(letter).join(""));
        return installables.map((installable) => [out(letter(installable))]);
      },
      { maxRounds, read: (path) => graph[letter(path)]?.split("").map(drv) },
    );
    return { results: results.map(letter), rounds };
  };

  test("what names nothing is the result", async () => {
    expect(await follow({})).toEqual({ results: ["a"], rounds: [] });
  });

  test("each round is built at once, results keep their order, and what is shared is built and told once", async () => {
    expect(await follow({ a: "bcd", b: "xy", d: "yz" })).toEqual({
      results: ["x", "y", "c", "z"],
      rounds: ["bcd", "xyz"],
    });
  });

  test("an output may name nothing at all", async () => {
    expect(await follow({ a: "bc", b: "" })).toEqual({ results: ["c"], rounds: ["bc"] });
  });

  test("a cycle is an error that names it", async () => {
    await expect(follow({ a: "b", b: "c", c: "b" })).rejects.toThrow(
      new ContinuationError(`a cycle of continuations: ${out("b")} -> ${out("c")} -> ${out("b")}`),
    );
  });

  test("rounds are bounded", async () => {
    const graph = { a: "b", b: "c", c: "d" };
    expect((await follow(graph, 3)).results).toEqual(["d"]);
    await expect(follow(graph, 2)).rejects.toThrow(/after 2 rounds .*-c still names derivations/);
  });
});

describe("arguments of nix-broker build", () => {
  test("those of nix-build go to nix-build; those that say how, to later rounds too", () => {
    const args = "x.nix -A a --argstr -o value -o link --option cores 2 -j4 -k --max-rounds 7".split(" ");
    expect(parseBuildArguments(args)).toEqual({
      what: "x.nix -A a --argstr -o value --option cores 2 -j4 -k".split(" "),
      how: "--option cores 2 -j4 -k".split(" "),
      outLink: "link",
      maxRounds: 7,
    });
    expect(parseBuildArguments(["--no-out-link"]).outLink).toBeUndefined();
    expect(parseBuildArguments([])).toMatchObject({ outLink: "result", maxRounds: 100 });
  });

  test.each([["-o"], ["--option", "cores"], ["--max-rounds", "0"], ["--dry-run"]])(
    "%j is an error",
    (...args) => {
      expect(() => parseBuildArguments(args)).toThrow();
    },
  );
});

function brokerBuild(recursive: RecursiveLab, ...args: string[]) {
  return recursive.daemon.run([process.execPath, program.cli, "build", ...args], {
    user: "alice",
    cwd: "/home/alice",
  });
}

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "nix-broker build ends the Nix command at %s, and leaves no roots behind",
  async (signal) => {
    const folder = mkdtempSync(join(tmpdir(), "nix-broker-ended-"));
    const [programs, temporary] = [join(folder, "bin"), join(folder, "tmp")];
    try {
      for (const made of [programs, temporary]) mkdirSync(made);
      const builds = '#!/bin/sh\ncase "$*" in *nix-broker-build-*) echo builds >&2; exec sleep 100;; esac\n';
      writeFileSync(join(programs, "nix-build"), builds, { mode: 0o755 });
      const child = spawn(process.execPath, [program.cli, "build", "x.nix"], {
        env: { PATH: `${programs}:/usr/bin:/bin`, TMPDIR: temporary },
        stdio: ["ignore", "ignore", "pipe"],
      });
      const [ended, closed] = [once(child, "exit"), once(child, "close")];
      expect(String(await once(child.stderr, "data"))).toBe("builds\n");
      expect(readdirSync(temporary)).toHaveLength(1);
      child.kill(signal);
      expect(await ended).toEqual([null, signal]);
      expect(readdirSync(temporary)).toEqual([]);
      // The command has ended, too: it had the other end of standard error.
      await closed;
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

describe.each(lab.versions)("nix-broker build [daemon %s]", (version) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version, patient);
    placeNixpkgs(recursive.daemon);
  });
  afterAll(() => recursive?.stop());

  const example = join(examples, "continuation");

  test("builds what a builder instantiated inside, and links the results", async () => {
    const built = await brokerBuild(recursive, example, "-A", "chapters", ...withNixpkgs);
    expect(built).toMatchObject({ code: 0 });
    const results = built.stdout.trim().split("\n");
    expect(results.map((path) => path.slice(44))).toEqual(["typeset-one", "typeset-two"]);
    const texts = await recursive.daemon.run(["cat", ...results]);
    expect(texts.stdout).toBe("FIRST CHAPTER\nSECOND CHAPTER\n");
    const link = (name: string): string => readlinkSync(recursive.daemon.hostPath(`/home/alice/${name}`));
    expect([link("result"), link("result-2")]).toEqual(results);
  });

  test("needs no nix-broker in the build: derivations that are known before", async () => {
    const built = await brokerBuild(recursive, example, "-A", "later", "--no-out-link", ...withNixpkgs);
    expect(built).toMatchObject({ code: 0 });
    expect(built.stdout).toMatch(/^\/nix\/store\/[0-9a-z]{32}-hello-1\.0\n$/);
  });

  test("a continuation of a continuation; only the outputs that it names", async () => {
    const expression = `
      let
        pkgs = import <nixpkgs> { };
        return = (import ${projectRoot}/lib { inherit pkgs; }).returnDerivations;
        two = pkgs.stdenv.mkDerivation { name = "two"; outputs = [ "out" "dev" ]; buildCommand = "echo out > $out; echo dev > $dev"; };
        inner = pkgs.stdenv.mkDerivation {
          name = "inner";
          next = builtins.unsafeDiscardOutputDependency two.drvPath;
          buildCommand = "mkdir -p $out/nix-support; echo $next'!dev' > $out/nix-support/continuation";
        };
      in
      return { name = "outer"; derivations = [ inner ]; }`;
    const built = await brokerBuild(recursive, "-E", expression, "--no-out-link", ...withNixpkgs);
    expect(built).toMatchObject({ code: 0 });
    expect(built.stdout).toMatch(/^\/nix\/store\/[0-9a-z]{32}-two-dev\n$/);
    const bounded = await brokerBuild(
      recursive,
      "-E",
      expression,
      "--max-rounds",
      "1",
      "--no-out-link",
      ...withNixpkgs,
    );
    expect(bounded.code).toBe(1);
    expect(bounded.stderr).toContain("--max-rounds allows more");
  });

  test("fails as Nix fails, and says which line of a continuation is wrong", async () => {
    const failing = await brokerBuild(recursive, "-E", 'throw "no such thing"');
    expect(failing.code).toBe(1);
    expect(failing.stderr).toContain("no such thing");
    const wrong = await brokerBuild(
      recursive,
      "-E",
      `(import <nixpkgs> { }).stdenv.mkDerivation { name = "wrong"; buildCommand = "mkdir -p $out/nix-support; echo --help > $out/nix-support/continuation"; }`,
      "--no-out-link",
      ...withNixpkgs,
    );
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toMatch(/nix-support\/continuation, line 1: expected a derivation/);
  });
});
