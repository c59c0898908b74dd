import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LabError, mustRun } from "./command.ts";

/**
 * Unpacks all packages of a folder into a root file system. Nothing is configured: maintainer scripts do not
 * run, so the few links that they would create and that builds need are created here.
 *
 * @param mergedUsr whether the suite has `/bin`, `/sbin`, `/lib` and `/lib64` as links into `/usr`
 */
export async function unpackPackages(packages: string, root: string, mergedUsr: boolean): Promise<void> {
  mkdirSync(root, { recursive: true });
  if (mergedUsr) {
    for (const name of ["bin", "sbin", "lib", "lib64"]) {
      mkdirSync(join(root, "usr", name), { recursive: true });
      symlinkSync(`usr/${name}`, join(root, name));
    }
  }
  for (const name of readdirSync(packages)) {
    if (!name.endsWith(".deb")) continue;
    const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --no-same-owner -C "$2"';
    await mustRun(["bash", "-o", "pipefail", "-c", unpack, "bash", join(packages, name), root]);
  }
  linkIfMissing("bash", join(root, "bin", "sh"));
  linkIfMissing("gawk", join(root, "usr", "bin", "awk"));
}

function linkIfMissing(target: string, link: string): void {
  if (existsSync(link) || !existsSync(join(link, "..", target))) return;
  symlinkSync(target, link);
}

/**
 * Makes `bin/PROGRAM` beside `root`: scripts that start a program of the unpacked system with its own dynamic
 * linker and libraries. They find everything from their own place, so the folder can be mounted anywhere:
 * on the machine, beside a daemon of another version, in a sandbox.
 */
export function linkClients(folder: string, programs: readonly string[]): void {
  const root = join(folder, "root");
  const triplet = readdirSync(join(root, "usr", "lib")).find((name) => name.endsWith("-linux-gnu"));
  // Not the link in lib64: on older suites it is absolute.
  const linker = [`lib/${triplet}`, "lib"]
    .flatMap((lib) =>
      existsSync(join(root, lib)) ? readdirSync(join(root, lib)).map((name) => `${lib}/${name}`) : [],
    )
    .find((path) => /\/ld-linux[^/]*\.so\.[0-9]+$/.test(path));
  if (triplet === undefined || linker === undefined) throw new LabError(`No dynamic linker in ${root}.`);
  mkdirSync(join(folder, "bin"));
  for (const program of programs) {
    const script = join(folder, "bin", program);
    writeFileSync(script, clientScript(program, linker, triplet));
    chmodSync(script, 0o755);
  }
}

function clientScript(program: string, linker: string, triplet: string): string {
  return `#!/bin/bash
root="\${BASH_SOURCE[0]%/*}/../root"
[[ $root == /* ]] || root="$PWD/$root"
# Up to 2.3 Nix reads parts of its own language library from its data folder.
export NIX_DATA_DIR="$root/usr/share"
libraries="$root/lib/${triplet}:$root/usr/lib/${triplet}:$root/usr/lib/nix"
exec "$root/${linker}" --library-path "$libraries" "$root/usr/bin/${program}" "$@"
`;
}
