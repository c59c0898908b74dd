import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { shellQuote } from "./command.ts";
import { clientMounts, projectRoot } from "./versions.ts";

/** A file or folder of the machine that is visible at a path of a lab system. */
export interface Bind {
  /** Path on the machine. */
  readonly source: string;
  /** Absolute path in the lab system. */
  readonly target: string;
  readonly readonly?: boolean;
}

/** Folders that every lab system has, with their modes; what is below `tmp` and `run` is its own. */
const ownFolders: readonly (readonly [path: string, mode: number])[] = [
  ["etc/nix", 0o755],
  ["home", 0o755],
  ["host", 0o755],
  ["nix", 0o755],
  ["old", 0o755],
  ["root", 0o700],
  ["run", 0o755],
  ["tmp", 0o1777],
  ["var/lib", 0o755],
];

const kernelFolders = ["proc", "sys", "dev"];
const systemFolders = ["usr", "bin", "sbin", "lib", "lib32", "lib64"];

/**
 * Lays out the root folder of a lab system: folders of its own, the links that the unpacked system has at
 * its top, and an empty place for each thing to be mounted.
 *
 * @param root the folder to fill
 * @param system an unpacked system
 * @returns what to mount there, besides the kernel's file systems
 */
export function layOutRoot(root: string, system: string, nix: string, binds: readonly Bind[]): Bind[] {
  for (const [path, mode] of ownFolders) mkdirSync(join(root, path), { recursive: true, mode });
  for (const [path, mode] of ownFolders) chmodSync(join(root, path), mode);
  for (const name of kernelFolders) mkdirSync(join(root, name));
  const mounts: Bind[] = [];
  for (const name of readdirSync(system)) {
    if (!systemFolders.includes(name)) continue;
    const source = join(system, name);
    if (lstatSync(source).isSymbolicLink()) symlinkSync(readlinkSync(source), join(root, name));
    else mounts.push({ source, target: `/${name}`, readonly: true });
  }
  mounts.push(
    { source: nix, target: "/nix" },
    ...clientMounts().map((mount) => ({ ...mount, readonly: true })),
    { source: projectRoot, target: projectRoot, readonly: true },
    ...binds,
  );
  for (const { source, target } of mounts) makeMountPoint(source, join(root, target));
  return mounts;
}

function makeMountPoint(source: string, target: string): void {
  if (statSync(source).isDirectory()) {
    mkdirSync(target, { recursive: true });
    return;
  }
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, "", { flag: "a" });
}

/**
 * The mappings that show a system's programs and libraries in sandboxes. Where the top-level folders are links,
 * the mapping spells them out, since Nix mounts what a path means.
 */
export function systemSandboxPaths(system: string): string[] {
  return readdirSync(system)
    .filter((name) => systemFolders.includes(name) && name !== "sbin")
    .map((name) => (lstatSync(join(system, name)).isSymbolicLink() ? `/${name}=/usr/${name}` : `/${name}`));
}

/**
 * A shell script that, started in a fresh mount namespace, makes `root` the root of that namespace and then
 * stays until its standard input ends. Then it kills what is left in the namespace: the input is a pipe from
 * this process, so a daemon does not outlive a test that was killed.
 *
 * pivot_root and not chroot: Nix's recursive-nix enters the mount namespace from its top.
 */
export function holderScript(root: string, mounts: readonly Bind[], privileged: boolean): string {
  const at = (target: string): string => shellQuote(join(root, target));
  const bind = ({ source, target, readonly }: Bind): string[] => {
    const lines = [`mount --bind ${shellQuote(source)} ${at(target)}`];
    // In a user namespace flags that came with the mount are locked, and the files are not ours to write.
    if (readonly && privileged) lines.push(`mount -o remount,bind,ro ${at(target)}`);
    return lines;
  };
  return [
    "set -eu",
    "mount --make-rprivate /",
    `mount --bind ${at("/")} ${at("/")}`,
    // Unbindable meanwhile, or /host would contain itself.
    `mount --make-unbindable ${at("/")}`,
    `mount --rbind / ${at("host")}`,
    `mount --make-private ${at("/")}`,
    ...kernelFolders.map((name) => `mount --rbind /${name} ${at(name)}`),
    ...mounts.flatMap(bind),
    `cd ${at("/")}`,
    "pivot_root . old",
    "cd /",
    // The shell is still the machine's, but only programs of the new root can be started, and those that need no
    // libraries are sure to run. The machine's own system has its own umount.
    "if [ -x /bin/busybox ]; then /bin/busybox umount -l /old; else umount -l /old; fi",
    `exec /bin/bash -c ${shellQuote(holderLoop)}`,
  ].join("\n");
}

const holderLoop = `
echo ready
while read -r _; do :; done
mine=$(readlink /proc/self/ns/mnt)
for entry in /proc/[0-9]*; do
  pid=\${entry#/proc/}
  [[ $pid == $$ || $(readlink "$entry/ns/mnt" 2>/dev/null) != "$mine" ]] || kill -9 "$pid" 2>/dev/null
done
`;
