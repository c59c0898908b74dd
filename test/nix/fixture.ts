/** A lab with nix-broker and the stand-in for nixpkgs, to build what lib/ and docs/examples/ have. */
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { BuildOptions, BuildResult, Daemon } from "../lab/lab.ts";

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
