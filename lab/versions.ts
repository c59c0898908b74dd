import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LabError } from "./command.ts";

/** A Nix version of the lab, by its first two numbers; "host" is the machine's own, if no other is available. */
export type NixVersion = "2.3" | "2.8" | "2.26" | "2.34" | "host";

/** Where a version comes from. */
export interface VersionSource {
  readonly version: NixVersion;
  /** Debian suites that have or had it, the most likely first. */
  readonly suites: readonly string[];
}

/** All versions that the lab knows, oldest first. */
export const versionSources: readonly VersionSource[] = [
  { version: "2.3", suites: ["bullseye"] },
  { version: "2.8", suites: ["bookworm"] },
  { version: "2.26", suites: ["trixie"] },
  { version: "2.34", suites: ["forky", "sid"] },
];

/** The programs that Nix comes with; all are the same program under several names. */
export const nixPrograms = [
  "nix",
  "nix-build",
  "nix-channel",
  "nix-collect-garbage",
  "nix-copy-closure",
  "nix-daemon",
  "nix-env",
  "nix-hash",
  "nix-instantiate",
  "nix-prefetch-url",
  "nix-shell",
  "nix-store",
];

/** The number out of what `nix --version` prints. */
export function versionNumber(output: string): string {
  return /[0-9]+(\.[0-9]+)+/.exec(output)?.[0] ?? "";
}

/** The project's folder. */
export const projectRoot = dirname(import.meta.dirname);

/**
 * Where fetched versions are kept: `$NIX_BROKER_LAB_CACHE`, else `.cache/lab` in the project. The number is
 * raised when the result of `unpack.ts` changes, so that an older cache is not used.
 */
export const cacheFolder = join(process.env.NIX_BROKER_LAB_CACHE || join(projectRoot, ".cache", "lab"), "2");

/** Where daemons, the commands beside them and their sandboxes see the cache folder. */
export const cacheInside = "/lab";

/** A Nix that somebody built: it takes the place of the newest known version that is not newer. */
export const namedFolder: string | undefined = process.env.NIX_BROKER_LAB_NIX || undefined;

/** The known version that behaves most like a release: the newest that is not newer, else the oldest. */
export function nearestVersion(fullVersion: string): NixVersion {
  const number = (version: string): number => {
    const [major = 0, minor = 0] = version.split(".").map(Number);
    return major * 1000 + minor;
  };
  const older = versionSources.filter(({ version }) => number(version) <= number(fullVersion));
  return (older.at(-1) ?? versionSources[0]!).version;
}

/** What is seen at `cacheInside`, and below it: the clients of the named Nix take the place of those that were fetched. */
export function clientMounts(): { readonly source: string; readonly target: string }[] {
  const named = namedVersion();
  return [
    { source: cacheFolder, target: cacheInside },
    ...(named && namedFolder ? [{ source: namedFolder, target: join(cacheInside, named.version) }] : []),
  ];
}

/** A version that was fetched. */
export interface InstalledVersion {
  readonly version: NixVersion;
  /** The whole version number, such as "2.26.3". */
  readonly fullVersion: string;
  /** The unpacked system (for "host": the machine's): a root file system with Nix, bash, coreutils and a few more. */
  readonly root: string;
}

/** What `unpack.ts` writes last into a version's folder: its presence says that the version is complete. */
export const markerName = "version.json";

function namedVersion(): InstalledVersion | undefined {
  if (namedFolder === undefined) return undefined;
  const marker = join(namedFolder, markerName);
  if (!existsSync(marker)) return undefined;
  const { fullVersion } = JSON.parse(readFileSync(marker, "utf8")) as { fullVersion: string };
  return { version: nearestVersion(fullVersion), fullVersion, root: join(namedFolder, "root") };
}

/** The versions that are there, oldest first. Asks the disk each time, since a fetch may come in between. */
export function installedVersions(): InstalledVersion[] {
  const known: NixVersion[] = [...versionSources.map(({ version }) => version), "host"];
  const named = namedVersion();
  return known.flatMap((version) => {
    if (version === named?.version) return [named];
    const folder = join(cacheFolder, version);
    const marker = join(folder, markerName);
    if (!existsSync(marker)) return [];
    const { fullVersion } = JSON.parse(readFileSync(marker, "utf8")) as { fullVersion: string };
    return [{ version, fullVersion, root: version === "host" ? "/" : join(folder, "root") }];
  });
}

/** @throws LabError if that version was not fetched. */
export function installedVersion(version: NixVersion): InstalledVersion {
  const installed = installedVersions();
  const found = installed.find((one) => one.version === version);
  if (found !== undefined) return found;
  const have = installed.map((one) => one.version).join(", ") || "none";
  throw new LabError(
    `Nix ${version} is not in the lab's cache (${cacheFolder}; there: ${have}). Run: node lab/shell.ts --fetch`,
  );
}
