import type { CommandOptions } from "./command.ts";
import type { Bind } from "./mounts.ts";
import { cacheInside, type NixVersion } from "./versions.ts";

/** How to start a daemon. */
export interface DaemonOptions {
  /** Lines added to the end of nix.conf, for instance `pre-build-hook = …`. Later lines win over the lab's. */
  readonly config?: string;
  /** How many build users there are; default 16, at most 63. */
  readonly buildUsers?: number;
  /** System features that the daemon offers besides Nix's usual ones. */
  readonly systemFeatures?: readonly string[];
  /** Users or @groups that the daemon trusts besides root. */
  readonly trustedUsers?: readonly string[];
  /** The daemon's max-jobs; default 4. */
  readonly maxJobs?: number;
  /** Files and folders of the machine to be seen beside the daemon, at paths of your choice. */
  readonly binds?: readonly Bind[];
  /** Folders beside the daemon that sandboxes should also see, as `TARGET` or `TARGET=SOURCE`. */
  readonly sandboxPaths?: readonly string[];
  /** Keeps the daemon's /nix in memory, not on disk. */
  readonly memory?: boolean;
  /** Environment of the daemon, besides PATH and HOME. */
  readonly env?: Readonly<Record<string, string>>;
}

/** How to run a command beside a daemon. */
export interface BesideOptions extends CommandOptions {
  /** A user of the lab: root (default), nix-broker, alice or nobody. */
  readonly user?: string;
  /** Whose programs come first in PATH: by default the daemon's own Nix version. */
  readonly client?: NixVersion;
}

/** The nix.conf of a lab daemon. */
export function nixConf(
  options: DaemonOptions,
  systemSandboxPaths: readonly string[],
  rootless: boolean,
  slot: number,
): string {
  const features = ["nixos-test", "benchmark", "big-parallel", ...(options.systemFeatures ?? [])];
  const lines = [
    `build-users-group = ${rootless ? "" : "nixbld"}`,
    "sandbox = true",
    "sandbox-fallback = false",
    // Not extra-: Debian's default maps /bin/sh, which clashes with a mapping of /bin.
    `sandbox-paths = ${[...systemSandboxPaths, cacheInside, ...(options.sandboxPaths ?? [])].join(" ")}`,
    "substituters =",
    `max-jobs = ${options.maxJobs ?? 4}`,
    "cores = 1",
    `system-features = ${features.join(" ")}`,
    `trusted-users = ${["root", ...(options.trustedUsers ?? [])].join(" ")}`,
  ];
  // Uids of auto-allocate-uids must differ between daemons too; without it, Nix warns of the setting.
  if (options.config?.includes("auto-allocate-uids")) {
    lines.push(`start-id = ${872_415_232 + slot * autoUids}`, `id-count = ${autoUids}`);
  }
  return `${lines.join("\n")}\n${options.config ?? ""}\n`;
}

/** Four builds of 65536 uids each; Nix's own range has room for 32 such daemons. */
const autoUids = 4 * 65_536;
