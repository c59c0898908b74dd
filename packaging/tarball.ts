/** Makes an archive of an installation's tree with a script that installs it, for systems without dpkg. */
import { execFileSync } from "node:child_process";
import { mkdirSync, renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Architecture } from "./architecture.ts";
import { setTimes } from "./deb.ts";
import { settleModes, shell, write } from "./tree.ts";

export interface TarballOptions {
  readonly architecture: Architecture;
  readonly version: string;
  /** Seconds since 1970 that all files are given. */
  readonly time: number;
  /** Of `zstd`; beyond the default it takes minutes for a hundredth less. */
  readonly level?: number;
}

/**
 * @param tree laid out for /usr/local; moved into the archive's folder
 * @param target the archive's file, whose name up to its end is also that of the folder in it
 * @throws Error when tar or zstd is missing or fails
 */
export function makeTarball(tree: string, target: string, options: TarballOptions): void {
  const { architecture, version, time, level = 12 } = options;
  const folder = join(dirname(tree), basename(target, ".tar.zst"));
  mkdirSync(folder);
  const script = shell("install.sh").replace("@VERSION@", version).replace("@MACHINE@", architecture.machine);
  write(join(tree, "usr/local/lib/nix-broker/install.sh"), script, 0o755);
  write(join(folder, "install.sh"), script, 0o755);
  renameSync(tree, join(folder, "files"));
  settleModes(folder);
  setTimes(folder, time);
  const same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
  execFileSync("tar", [
    ...same,
    `--use-compress-program=zstd -${level} -T0`,
    "-cf",
    target,
    "-C",
    dirname(folder),
    basename(folder),
  ]);
}
