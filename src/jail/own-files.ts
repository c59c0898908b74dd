/** The files in /etc that a jail has of its own. */
import type { ClientFiles } from "./client-files.ts";
import type { JailUser } from "./environment.ts";
import { hasPassword } from "./password.ts";

/** What the jail's clients take from the machine's nix.conf; all else is the daemon's matter, or nobody's in the jail. */
const clientSettings = [
  "experimental-features",
  "extra-experimental-features",
  "flake-registry",
  "nix-path",
  "warn-dirty",
] as const;

/** The lines of nix.conf files that set what clients need. */
function clientLines(nixConf: string): string[] {
  return nixConf
    .split("\n")
    .map((line) => line.replace(/#.*$/, "").trim())
    .filter((line) => clientSettings.some((name) => new RegExp(`^${name}\\s*=`).test(line)))
    .map((line) =>
      line
        .split(/\s+/)
        .filter((word) => !hasPassword(word))
        .join(" "),
    );
}

/** A flake registry of all entries, the first one first; undefined if there is none. */
function registryOf(texts: readonly string[]): string | undefined {
  const flakes = texts.flatMap((text): unknown[] => {
    try {
      const registry: unknown = JSON.parse(text);
      const entries = (registry as { flakes?: unknown } | null)?.flakes;
      return Array.isArray(entries) ? entries : [];
    } catch {
      return [];
    }
  });
  const shown = flakes.filter((flake) => !hasPassword(JSON.stringify(flake)));
  return shown.length === 0 ? undefined : JSON.stringify({ flakes: shown, version: 2 });
}

interface FileSources extends ClientFiles {
  readonly user: JailUser;
  readonly withNetwork: boolean;
}

/** The texts of the files by their paths. */
export function ownFiles({
  user,
  nixConfs,
  registries,
  withNetwork,
}: FileSources): ReadonlyMap<string, string> {
  const { name, uid, gid, home } = user;
  const settings = nixConfs.flatMap(clientLines);
  const hasFlakes = settings.some((line) => /^(?:extra-)?experimental-features\b.*\bflakes\b/.test(line));
  // Otherwise every flake command would try to fetch the registry, several times.
  if (hasFlakes && !withNetwork) settings.push("flake-registry =");
  // What the client itself would fetch, such as logs; the daemon has its own.
  if (!withNetwork) settings.push("substituters =");
  const registry = registryOf(registries);
  return new Map([
    [
      "/etc/passwd",
      `root:x:0:0:root:/root:/bin/sh\n${name}:x:${uid}:${gid}::${home}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n`,
    ],
    ["/etc/group", `root:x:0:\n${name}:x:${gid}:\nnogroup:x:65534:\n`],
    ["/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"],
    ["/etc/nix/nix.conf", ["store = daemon", ...settings, ""].join("\n")],
    ...(registry === undefined ? [] : ([["/etc/nix/registry.json", registry]] as const)),
    ...(withNetwork ? [] : ([["/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"]] as const)),
  ]);
}
