/** A lab with nix-broker and the stand-in for nixpkgs, to build what lib/ and docs/examples/ have. */
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { CommandResult } from "../../lab/command.ts";
import { type BuildOptions, type BuildResult, type Daemon, nixString } from "../../lab/lab.ts";

export const projectRoot = join(import.meta.dirname, "../..");
export const examples = join(projectRoot, "docs/examples");

/** The hook waits as long as a machine under load may take. */
export const patient = { rootConfig: "hook_wait_ms=60000\n" } as const;

/** Where the stand-in is beside a daemon. */
const nixpkgs = "/tmp/nixpkgs";

/** Arguments of Nix's programs, with which <nixpkgs> is the stand-in. */
export const withNixpkgs: readonly string[] = ["-I", `nixpkgs=${nixpkgs}`];

/** Puts the stand-in beside a daemon, self-contained: it is copied into the store as one folder. */
export function placeNixpkgs(daemon: Daemon): void {
  const target = daemon.hostPath(nixpkgs);
  cpSync(join(projectRoot, "test/nix/stand-in-nixpkgs"), target, { recursive: true });
  for (const name of ["plain-stdenv.nix", "plain-stdenv.sh"])
    cpSync(join(projectRoot, "lib", name), join(target, name));
}

/** Builds an attribute of a file of docs/examples/. */
export function buildExample(
  daemon: Daemon,
  file: string,
  attribute?: string,
  options: BuildOptions = {},
): Promise<BuildResult> {
  const args = [...withNixpkgs, ...(attribute ? ["-A", attribute] : []), ...(options.args ?? [])];
  return daemon.build({ file: join(examples, file) }, { ...options, args });
}

/** A block of code of a section of a page in docs/, by its language and how it begins. */
export function codeBlock(page: string, section: string, language: string, beginning: string): string {
  const text = readFileSync(join(projectRoot, "docs", page), "utf8");
  const body = text.split("\n## ").find((each) => each.startsWith(`${section}\n`)) ?? "";
  const blocks = [...body.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)];
  const block = blocks.find(([, name, code = ""]) => name === language && code.startsWith(beginning));
  if (block?.[2] === undefined) throw new Error(`${page}, "${section}" has no ${language} of "${beginning}"`);
  return block[2];
}

/** Runs commands as root: a daemon's side, or a machine. */
interface System {
  run(argv: readonly string[], options: { input: string }): Promise<CommandResult>;
}

/** Puts a program, or another file, there. */
export async function place(system: System, path: string, text: string, mode = "755"): Promise<void> {
  const script = 'mkdir -p "$1" && cat > "$2" && chmod "$3" "$2"';
  const { code, stderr } = await system.run(["sh", "-c", script, "sh", dirname(path), path, mode], {
    input: text,
  });
  if (code !== 0) throw new Error(stderr);
}

/** A derivation without dependencies. */
export function simple(name: string, script = "echo made > $out"): string {
  return `derivation { name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" ${nixString(script)} ]; }`;
}

/** Every Nix file of the project, from its root. */
export function nixFiles(): string[] {
  const folders = ["lib", "nixos-module", "docs/examples", "test/nix"];
  const below = folders.flatMap((folder) =>
    readdirSync(join(projectRoot, folder), { recursive: true, encoding: "utf8" }).map(
      (path) => `${folder}/${path}`,
    ),
  );
  return [...readdirSync(projectRoot), ...below].filter((path) => path.endsWith(".nix"));
}
