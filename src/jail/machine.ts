/** The parts of the machine that every jail sees, read-only: programs, libraries, and what these look for in /etc. */
import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** A mount, as an option of bwrap. */
export type Mount =
  | { readonly kind: "ro-bind" | "bind"; readonly source: string; readonly target: string }
  | { readonly kind: "symlink"; readonly source: string; readonly target: string }
  | { readonly kind: "tmpfs" | "dir" | "proc" | "dev" | "remount-ro"; readonly target: string };

/** Of the root folder: links into /usr on most systems, folders on others. The last one is where NixOS has its programs. */
const programs = [
  "/usr",
  "/bin",
  "/sbin",
  "/lib",
  "/lib32",
  "/lib64",
  "/libx32",
  "/run/current-system",
] as const;

/** Of /etc, what programs need and what holds no secrets. `static` and `profiles` are NixOS's. */
const settings = [
  "alternatives",
  "bash.bashrc",
  "bashrc",
  "ca-certificates",
  "crypto-policies",
  "debian_version",
  "fonts",
  "inputrc",
  "ld.so.cache",
  "ld.so.conf",
  "ld.so.conf.d",
  "localtime",
  "lsb-release",
  "magic",
  "mime.types",
  "os-release",
  "pki",
  "profiles",
  "protocols",
  "services",
  "ssl",
  "static",
  "terminfo",
  "timezone",
] as const;

/** What finds other machines. */
const network = ["hosts", "resolv.conf"] as const;

/** Not, if it is not there. */
export function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

/** Undefined if it is not there, or leads nowhere. */
export function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function shown(path: string): Mount[] {
  const source = realPathOf(path);
  return source === undefined ? [] : [{ kind: "ro-bind", source, target: path }];
}

/** Where a path of the jail is, when the links among the mounts are followed. */
export function placeInside(mounts: readonly Mount[], path: string): string {
  for (const mount of mounts)
    if (mount.kind === "symlink" && path.startsWith(`${mount.target}/`))
      return resolve(dirname(mount.target), mount.source) + path.slice(mount.target.length);
  return path;
}

/** @param withNetwork whether the jail has the machine's network */
export function machineMounts(withNetwork: boolean): Mount[] {
  const etc = [...settings, ...(withNetwork ? network : [])];
  return [
    ...programs.flatMap((path): Mount[] =>
      isLink(path) && path !== "/run/current-system"
        ? [{ kind: "symlink", source: readlinkSync(path), target: path }]
        : shown(path),
    ),
    ...etc.flatMap((name) => shown(`/etc/${name}`)),
  ];
}
