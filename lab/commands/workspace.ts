/** The folder in which everyday commands are run: a project with expressions, a flake, a source and a key. */
import { existsSync } from "node:fs";
import { nixSystem } from "../expression.ts";
import type { CommandResult, Daemon } from "../lab.ts";

function derivationOf(name: string, script: string, more = "", builder = '"/bin/sh"'): string {
  return `derivation {
    name = "${name}"; system = "${nixSystem}"; builder = ${builder}; PATH = "/usr/bin:/bin";
    args = [ "-e" "-c" ''${script}
      :'' ];
    ${more}
  }`;
}

const program = derivationOf(
  "program-1.0",
  `mkdir -p $out/bin; cat $dep/dep
      echo "building program" >&2
      printf '#!/bin/bash\\necho hello of %s\\n' $dep > $out/bin/program-1.0; chmod +x $out/bin/program-1.0`,
  `dep = dep; src = ./file;`,
);

/** Development shells are made by the derivation's own builder, which has to be a bash. */
const bash = `"${"$"}{${derivationOf("bash", "mkdir -p $out/bin; cp /bin/bash $out/bin/bash")}}/bin/bash"`;

const dep = derivationOf("dep", `mkdir $out; echo dep > $out/dep`);

const files: Readonly<Record<string, string>> = {
  file: "a source\n",
  "tree/a": "a file of a tree\n",
  "tree/sub/b": "another\n",
  "default.nix": `let dep = ${dep}; in ${program}`,
  "set.nix": `{ program = import ./default.nix; dep = ${dep}; }`,
  "fails.nix": derivationOf("fails", "echo no luck >&2; exit 3"),
  // Its output differs from folder to folder, otherwise it would already exist in the second one.
  "fixed.nix": derivationOf(
    "fixed",
    "echo FOLDER > $out",
    `outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "FOLDER\\n";`,
  ),
  "imports.nix": derivationOf(
    "imports",
    "echo $text > $out",
    `text = builtins.readFile "${"$"}{${dep}}/dep";`,
  ),
  "addressed.nix": derivationOf(
    "addressed",
    "echo addressed > $out",
    `__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";`,
  ),
  "shell.nix": derivationOf(
    "shell",
    "echo built > $out",
    `outputs = [ "out" ]; greeting = "hello of the shell"; dep = ${dep};`,
    bash,
  ),
  "nixpkgs/default.nix": `{ ... }: rec { program = import ../default.nix; pkgs = { inherit runCommandCC; };
    runCommandCC = name: attributes: script: derivation (attributes // {
      inherit name script; system = "${nixSystem}"; builder = ${bash}; args = [ "-c" "echo > $out" ]; }); }`,
  "lib/flake.nix": `{ outputs = _: { greeting = "hello of a flake"; }; }`,
  "flake/flake.nix": `{
    inputs.lib.url = "path:FOLDER/lib";
    outputs = { lib, ... }: let default = ${derivationOf(
      "flake-program",
      `mkdir -p $out/bin; printf '#!/bin/bash\\necho %s\\n' "$greeting" > $out/bin/flake-program; chmod +x $out/bin/flake-program`,
      `outputs = [ "out" ]; greeting = lib.greeting;`,
      bash,
    )}; in {
      greeting = lib.greeting;
      packages."${nixSystem}".default = default; defaultPackage."${nixSystem}" = default;
      devShells."${nixSystem}".default = default; devShell."${nixSystem}" = default;
      checks."${nixSystem}".default = default;
    }; }`,
};

/** A workspace beside a daemon, whose commands go to one socket. */
export interface Workspace {
  /** Runs a line of shell as alice. */
  run(line: string): Promise<CommandResult>;
}

/**
 * Writes the project into `folder`, and builds, through `socket`, what the commands ask about.
 *
 * @param socket the daemon's or a broker's, as seen beside the daemon
 */
export async function makeWorkspace(daemon: Daemon, folder: string, socket: string): Promise<Workspace> {
  const run = (line: string): Promise<CommandResult> =>
    daemon.run(["bash", "-c", line], {
      user: "alice",
      ...(existsSync(daemon.hostPath(`${folder}/home`)) && { cwd: folder }),
      env: environment(daemon, folder, socket),
    });
  const mustRun = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await run(line);
    if (code !== 0) throw new Error(`cannot make ${folder}: ${stderr}`);
    return stdout.trim();
  };
  const write = ([name, text]: [string, string]): string =>
    `mkdir -p $(dirname ${name}); cat > ${name} <<'END OF FILE'\n${text.replaceAll("FOLDER", folder)}\nEND OF FILE`;
  await mustRun(
    [`mkdir ${folder} ${folder}/home; cd ${folder}`, ...Object.entries(files).map(write)].join("\n"),
  );
  await mustRun("nix-store --generate-binary-cache-key test-1 secret-key public-key");
  const made = {
    out: await mustRun("nix-build --no-out-link"),
    drv: await mustRun("nix-instantiate"),
    dep: await mustRun("nix-build set.nix -A dep --no-out-link"),
    src: await mustRun("nix-store --add file"),
    missing: `/nix/store/${"0".repeat(32)}-missing`,
  };
  // Written once, here: commands that run at the same time would see each other's.
  if (daemon.version !== "2.3") await mustRun("nix flake lock path:./flake");
  const variables = Object.entries(made).map(([name, value]) => `${name}=${value};`);
  return { run: (line) => run(`${variables.join("")} ${line}`) };
}

function environment(daemon: Daemon, folder: string, socket: string): Record<string, string> {
  return {
    NIX_REMOTE: `unix://${socket}`,
    HOME: `${folder}/home`,
    NIX_PATH: `nixpkgs=${folder}/nixpkgs`,
    NIX_BUILD_SHELL: "bash",
    // Otherwise the flake registry would be fetched.
    ...(daemon.version !== "2.3" && {
      NIX_CONFIG: "experimental-features = nix-command flakes ca-derivations\nflake-registry =",
    }),
  };
}
