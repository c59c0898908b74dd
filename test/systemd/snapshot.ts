/** What is on a system: to see that something that was installed and removed has left nothing. */
import { asRoot } from "./debian.ts";
import type { Systemd } from "./init.ts";

/** What changes by itself, what apt keeps for itself, and what is of Nix's own use. */
const apart = [
  "/proc",
  "/sys",
  "/dev",
  "/tmp",
  "/packages",
  "/nix/store",
  "/nix/var/nix/db",
  "/nix/var/nix/builds",
  "/nix/var/nix/temproots",
  "/nix/var/nix/userpool",
  "/nix/var/nix/userpool2",
  "/nix/var/nix/gc.lock",
  "/nix/var/nix/gc-socket",
  "/nix/var/nix/gcroots/auto",
  "/nix/var/nix/gcroots/per-user",
  "/nix/var/nix/profiles/per-user",
  "/nix/var/log",
  "/run/systemd",
  "/run/log",
  "/var/cache",
  "/var/log",
  "/var/lib/apt",
  "/var/lib/dpkg",
  "/var/lib/systemd",
  "/root/.cache",
];

/** Path to owner, mode and contents of everything, but for folders' times and sizes. */
export async function snapshot(systemd: Systemd): Promise<Map<string, string>> {
  const pruned = apart.flatMap((path) => ["-o", "-path", path]).slice(1);
  const found = ["find", "/", "(", ...pruned, ")", "-prune", "-o"];
  const entries = await systemd.run(...asRoot, ...found, "-printf", "%p\t%u %g %m %y %l\n");
  const sums = await systemd.run(
    ...asRoot,
    ...found,
    "-path",
    "/etc/*",
    "-type",
    "f",
    "-exec",
    "sha256sum",
    "{}",
    "+",
  );
  const all = new Map<string, string>();
  for (const line of entries.stdout.trim().split("\n")) {
    const [path = "", what = ""] = line.split("\t");
    // Backups that useradd and its kin make.
    if (!/^\/etc\/(passwd|shadow|group|gshadow|subuid|subgid)-$/.test(path)) all.set(path, what);
  }
  for (const line of sums.stdout.trim().split("\n")) {
    const [sum = "", path = ""] = line.split(/ {2}/);
    if (all.has(path)) all.set(path, `${all.get(path)} ${sum}`);
  }
  return all;
}

/** What differs, a line each, in the order of the paths. */
export function changesOf(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): string[] {
  return [...new Set([...before.keys(), ...after.keys()])]
    .sort()
    .filter((path) => before.get(path) !== after.get(path))
    .map((path) => {
      if (!before.has(path)) return `new ${path}`;
      return after.has(path) ? `changed ${path}` : `missing ${path}`;
    });
}
