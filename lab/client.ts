import { mkdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type CommandOptions, type CommandResult, machinePath, runCommand, shellQuote } from "./command.ts";
import { clientMountPoint } from "./slot.ts";
import { labUser } from "./system.ts";
import { cacheInside, clientMounts, installedVersion, type NixVersion } from "./versions.ts";

/** How to run a client. */
export interface ClientOptions extends CommandOptions {
  /** The Unix socket to talk to, as a path on the machine: a daemon's, the broker's. */
  readonly socket: string;
  /**
   * A folder on the machine to be seen, read-only, at /nix/store (a daemon's is `${daemon.root}/store`). Without
   * it that folder is empty: clients then fail where they read derivations or outputs from the file system.
   */
  readonly store?: string;
  /** A user of the lab; default root. */
  readonly user?: string;
}

/**
 * Runs a client of any version on the machine, in a private mount namespace with a /nix of its own:
 * everything else there is as on the machine. The socket is where clients look for it.
 */
export function runClient(
  version: NixVersion,
  argv: readonly string[],
  options: ClientOptions,
): Promise<CommandResult> {
  installedVersion(version);
  mkdirSync(clientMountPoint, { recursive: true });
  const { input, timeoutMs } = options;
  const ordinary = process.getuid?.() !== 0;
  const unshare = ["unshare", ...(ordinary ? ["-r"] : []), "-m", "--"];
  return runCommand(
    [...unshare, "sh", "-c", clientScript(options), "client", ...command(version, argv, options)],
    {
      ...(input !== undefined && { input }),
      ...(timeoutMs !== undefined && { timeoutMs }),
    },
  );
}

/** A home that is thrown away afterwards; the machine's users may have settings of Nix in theirs. */
const home = "/nix/home";

function clientScript({ socket, store, user }: ClientOptions): string {
  const { uid, gid } = labUser(user ?? "root");
  const root = clientMountPoint;
  const nix = `${root}/nix`;
  return [
    "set -eu",
    `mount -t tmpfs -o mode=755 lab ${root}`,
    "for entry in /*; do",
    '  if [ -L "$entry" ]; then',
    `    cp -P "$entry" "${root}$entry"`,
    '  elif [ -d "$entry" ] && [ "$entry" != /nix ]; then',
    `    mkdir "${root}$entry"`,
    `    mount --rbind "$entry" "${root}$entry"`,
    "  fi",
    "done",
    `mkdir -p ${root}${cacheInside} ${nix}/store ${nix}/etc ${root}${home} ${nix}/var/nix/daemon-socket`,
    `chown ${uid}:${gid} ${root}${home}`,
    ...clientMounts().map(({ source, target }) => `mount --bind ${shellQuote(source)} ${root}${target}`),
    `mount --bind ${shellQuote(dirname(socket))} ${nix}/var/nix/daemon-socket`,
    ...(store === undefined
      ? []
      : [`mount --bind ${shellQuote(store)} ${nix}/store`, `mount -o remount,bind,ro ${nix}/store`]),
    'exec "$@"',
  ].join("\n");
}

function command(version: NixVersion, argv: readonly string[], options: ClientOptions): string[] {
  const user = labUser(options.user ?? "root");
  const chroot = user.uid === 0 ? [] : [`--userspec=${user.uid}:${user.gid}`, "--groups="];
  const socketName = basename(options.socket);
  const environment = {
    PATH: `${join(cacheInside, version, "bin")}:${machinePath}`,
    HOME: home,
    USER: user.name,
    NIX_REMOTE: socketName === "socket" ? "daemon" : `unix:///nix/var/nix/daemon-socket/${socketName}`,
    // The machine may have a configuration of its own for its own Nix.
    NIX_CONF_DIR: "/nix/etc",
    ...options.env,
  };
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return [
    "chroot",
    ...chroot,
    clientMountPoint,
    "env",
    "-i",
    "-C",
    options.cwd ?? "/",
    ...variables,
    ...argv,
  ];
}
