import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import type { StorePath } from "../store/store-path.ts";
import { followContinuations, type Installable } from "./continuation.ts";
import { UsageError } from "./outcome.ts";

const defaultMaxRounds = 100;

/** Options of nix-build that take arguments: how many. What follows them is not an option for us. */
const takesArguments: Readonly<Record<string, number>> = {
  "--arg": 2,
  "--argstr": 2,
  "--option": 2,
  "-A": 1,
  "--attr": 1,
  "-I": 1,
  "-j": 1,
  "--max-jobs": 1,
  "--cores": 1,
  "--builders": 1,
  "--store": 1,
  "--timeout": 1,
  "--max-silent-time": 1,
  "--log-format": 1,
  "--eval-store": 1,
};

/** Options that say how to build, not what: they also apply to what continuations name. */
const saysHow = new Set([
  "--option",
  "-j",
  "--max-jobs",
  "--cores",
  "--builders",
  "--store",
  "--timeout",
  "--max-silent-time",
  "--log-format",
  "-k",
  "--keep-going",
  "-K",
  "--keep-failed",
  "--fallback",
  "-Q",
  "--no-build-output",
  "-v",
  "--verbose",
  "--quiet",
]);

/** The arguments of `nix-broker build`, sorted. */
export interface BuildArguments {
  /** For nix-build, as given. */
  readonly what: readonly string[];
  /** Those of them that also apply to later rounds. */
  readonly how: readonly string[];
  /** Where the links to the results go; undefined for none. */
  readonly outLink: string | undefined;
  readonly maxRounds: number;
}

/** @throws UsageError */
export function parseBuildArguments(args: readonly string[]): BuildArguments {
  const what: string[] = [];
  const how: string[] = [];
  let outLink: string | undefined = "result";
  let maxRounds = defaultMaxRounds;
  for (let at = 0; at < args.length; ) {
    const option = args[at] ?? "";
    const count = ["-o", "--out-link", "--max-rounds"].includes(option) ? 1 : (takesArguments[option] ?? 0);
    const values = args.slice(at + 1, at + 1 + count);
    if (values.length < count)
      throw new UsageError(`${option} needs ${count === 1 ? "an argument" : `${count} arguments`}`);
    at += 1 + count;
    const [value = ""] = values;
    if (option === "-o" || option === "--out-link") outLink = value;
    else if (option === "--no-out-link") outLink = undefined;
    else if (option === "--max-rounds") {
      if (!/^[1-9][0-9]{0,5}$/.test(value))
        throw new UsageError(`--max-rounds "${value}": expected a whole number from 1 on`);
      maxRounds = Number(value);
    } else if (option === "--dry-run") {
      throw new UsageError(
        "--dry-run: what continuations name is only known after building; use nix-build --dry-run",
      );
    } else {
      what.push(option, ...values);
      if (saysHow.has(option) || /^-j[0-9]+$/.test(option)) how.push(option, ...values);
    }
  }
  return { what, how, outLink, maxRounds };
}

/** A Nix command failed; it has already printed why. */
class NixFailure extends Error {
  override readonly name = "NixFailure";
  readonly exitCode: number;
  /** The signal that was to end this program. */
  readonly signal: NodeJS.Signals | undefined;
  constructor(program: string, exitCode: number, signal: NodeJS.Signals | undefined) {
    super(`${program} failed`);
    this.exitCode = exitCode;
    this.signal = signal;
  }
}

/** They end the Nix command that runs: what would be left of this program are roots of the garbage collector. */
const ending = ["SIGHUP", "SIGINT", "SIGTERM"] as const;

/** Runs a Nix command, whose messages go to standard error. @returns the lines of its output. */
function nix(program: string, args: readonly string[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let received: NodeJS.Signals | undefined;
    const pass = (signal: NodeJS.Signals): void => {
      received = signal;
      child.kill(signal);
    };
    for (const signal of ending) process.on(signal, pass);
    const child = spawn(program, args, { stdio: ["inherit", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    child.once("error", (error) => reject(new Error(`cannot run ${program}: ${error.message}`)));
    child.once("close", (code) => {
      for (const signal of ending) process.off(signal, pass);
      if (code === 0) resolve(output.split("\n").filter((line) => line !== ""));
      else reject(new NixFailure(program, code ?? 1, received));
    });
  });
}

/** The paths of outputs: what Nix prints are links to them, if it created any. */
function outputsOf(installable: Installable, how: readonly string[]): Promise<string[]> {
  return nix("nix-store", [...how, "--realise", installable]);
}

async function buildAll({ what, how, maxRounds }: BuildArguments, roots: string): Promise<StorePath[]> {
  // Links keep everything from the garbage collector until the results are linked.
  let rooted = 0;
  const first = await nix("nix-build", [...what, "--out-link", join(roots, "first")]);
  return followContinuations(
    first,
    async (installables) => {
      // All in one call, so that they are built in parallel.
      await nix("nix-store", [
        ...how,
        "--realise",
        ...installables,
        "--add-root",
        join(roots, `${++rooted}`),
        "--indirect",
      ]);
      const outputs: string[][] = [];
      for (const installable of installables) outputs.push(await outputsOf(installable, how));
      return outputs;
    },
    {
      maxRounds,
      onRound: (round, installables) =>
        console.error(
          `nix-broker: round ${round}: building ${installables.length} derivations named by outputs`,
        ),
    },
  );
}

async function linkResults(results: readonly StorePath[], outLink: string): Promise<void> {
  for (const [index, path] of results.entries()) {
    const link = index === 0 ? outLink : `${outLink}-${index + 1}`;
    await nix("nix-store", ["--realise", path, "--add-root", link, "--indirect"]);
  }
}

async function build(args: readonly string[]): Promise<void> {
  const parsed = parseBuildArguments(args);
  const roots = mkdtempSync(join(tmpdir(), "nix-broker-build-"));
  let endedBy: NodeJS.Signals | undefined;
  try {
    const results = await buildAll(parsed, roots);
    if (parsed.outLink !== undefined) await linkResults(results, parsed.outLink);
    for (const path of results) console.log(path);
  } catch (error) {
    if (!(error instanceof NixFailure)) throw error;
    process.exitCode = error.exitCode;
    endedBy = error.signal;
  } finally {
    rmSync(roots, { recursive: true, force: true });
  }
  if (endedBy !== undefined) process.kill(process.pid, endedBy);
}

export function command(): Command {
  return new Command("build")
    .description(
      "Build like nix-build, and continue as long as an output has a file nix-support/continuation, by building the derivations that it names. Needs Nix, but no nix-broker service.",
    )
    .usage("[OPTIONS] [ARGUMENTS OF NIX-BUILD...]")
    .argument("[ARGUMENTS...]", "arguments of nix-build; the results are linked and printed at the end")
    .allowUnknownOption()
    .passThroughOptions()
    .addHelpText(
      "after",
      `
Besides the options of nix-build:
  --max-rounds <NUMBER>  how many times in a row outputs may name derivations (default: ${defaultMaxRounds})

Examples:
  nix-broker build -A chapters
  nix-broker build release.nix --no-out-link --cores 4

If nix-build or nix-store fails, its exit code is passed on. docs/lib.md describes continuations.`,
    )
    .action((args: string[]) => build(args));
}
