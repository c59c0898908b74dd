import { type ClientOptions, runClient } from "./client.ts";
import type { CommandResult } from "./command.ts";
import { type Daemon, startDaemon } from "./daemon.ts";
import type { DaemonOptions } from "./daemon-options.ts";
import { fetchVersions, findDebian, findSystem, findTool, findToolInside } from "./fetch.ts";
import {
  cacheFolder,
  cacheInside,
  installedVersion,
  installedVersions,
  type NixVersion,
} from "./versions.ts";

export type { ClientOptions } from "./client.ts";
export { type CommandResult, LabError } from "./command.ts";
export type { BuildOptions, BuildResult, Daemon } from "./daemon.ts";
export type { BesideOptions, DaemonOptions } from "./daemon-options.ts";
export { nixString, sandboxScript } from "./expression.ts";
export type { Bind } from "./mounts.ts";
export type { NixVersion } from "./versions.ts";

/** Real Nix of several versions, for tests, the demo and the benchmark. See README.md. */
export const lab = {
  /** The versions that are here, oldest first; `fetch` first, or this may be empty. */
  get versions(): NixVersion[] {
    return installedVersions().map(({ version }) => version);
  },

  /** The whole number of a version, such as "2.26.3". */
  fullVersion(version: NixVersion): string {
    return installedVersion(version).fullVersion;
  },

  /** Gets the versions that are not in the cache yet, from Debian by the machine's own apt sources. */
  fetch(): Promise<void> {
    return fetchVersions();
  },

  /** The path of a program on this machine, such as "socat": its own, else one out of a Debian package. */
  tool(name: string, debianPackage = name): Promise<string> {
    return findTool(name, debianPackage);
  },

  /** The path in sandboxes of a program that is fetched for them, whatever this machine has. */
  toolInside(name: string, debianPackage = name): Promise<string> {
    return findToolInside(name, debianPackage);
  },

  /**
   * The folder on this machine of a system out of Debian packages, with bash, coreutils, mount and ip; it is not to be
   * written to.
   */
  system(name: string, packages: readonly string[]): Promise<string> {
    return findSystem(name, packages);
  },

  /** The folder on this machine of a Debian system with apt and systemd that are set up; it is not to be written to. */
  debian(suite: string, packages: readonly string[]): Promise<string> {
    return findDebian(suite, packages);
  },

  /** Starts a daemon. Needs root. */
  start(version: NixVersion, options: DaemonOptions = {}): Promise<Daemon> {
    return startDaemon(version, options);
  },

  /** Starts a daemon as an ordinary user in a user namespace: no build users, everything runs as that user. */
  startRootless(version: NixVersion = "2.8", options: DaemonOptions = {}): Promise<Daemon> {
    return startDaemon(version, options, true);
  },

  /** Runs a client of any version against any Unix socket of the machine. */
  client(version: NixVersion, argv: readonly string[], options: ClientOptions): Promise<CommandResult> {
    return runClient(version, argv, options);
  },

  /** Where the clients of a version are beside daemons, in their sandboxes and for `client`: a folder for PATH. */
  clientFolder(version: NixVersion): string {
    return `${cacheInside}/${version}/bin`;
  },

  /** The cache on this machine; beside daemons and in sandboxes it is /lab. */
  cacheFolder,
} as const;
