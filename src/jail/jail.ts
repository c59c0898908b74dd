/** Makes a jail, runs a command in it, and takes it down. */
import { spawnSync } from "node:child_process";
import { homedir, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { AuditError } from "../audit/error.ts";
import type { Config } from "../config/config.ts";
import { profileNamed } from "../config/overrides.ts";
import { currentUser, ownPlaces } from "../config/places.ts";
import { makeFolders } from "../host/make-folders.ts";
import { explained, UpstreamError } from "../sandbox/upstream/connection.ts";
import { missingGroup } from "../service/upstream.ts";
import { socketsFolder, startJailBroker } from "./broker.ts";
import {
  type JailPlan,
  jailLines,
  oldProfiles,
  ownProfiles,
  quoted,
  restoringInterrupts,
} from "./bubblewrap.ts";
import { callFilter, hasCallFilter } from "./call-filter.ts";
import { clientFiles } from "./client-files.ts";
import { jailConfig, jailProfile } from "./config.ts";
import { type JailUser, jailEnvironment } from "./environment.ts";
import { findBwrap } from "./find-bwrap.ts";
import {
  type Forbidden,
  inOrder,
  isThrough,
  type JailFolder,
  jailFolder,
  lookAhead,
  outsidePath,
  refuseLinks,
} from "./folders.ts";
import { JailError } from "./jail-error.ts";
import { machineMounts, realPathOf } from "./machine.ts";
import { ownFiles } from "./own-files.ts";
import { type JailEnd, runJail } from "./run.ts";
import { troubleHere } from "./trouble.ts";

/** As the command line has them. */
export interface JailOptions {
  readonly config?: string;
  readonly profile: string;
  readonly allowUrl?: readonly string[];
  readonly bind?: readonly string[];
  readonly roBind?: readonly string[];
  readonly home?: string;
  readonly env?: readonly string[];
  readonly net?: true;
  readonly allowTrusted?: true;
  readonly audit?: true;
  readonly print?: true;
}

/** The jail could not be made, or its command not be started. */
export const NO_JAIL = 125;

/**
 * @returns the exit code
 * @throws JailError, ConfigError, AuditError, UpstreamError: nothing was run
 */
export async function jail(options: JailOptions, command: readonly string[]): Promise<number> {
  const user = whoWeAre();
  const config = await jailConfig(options.config, options.allowTrusted === true);
  const withNetwork = options.net === true;
  const profile = jailProfile(config, {
    name: options.profile,
    patterns: options.allowUrl ?? [],
    withNetwork,
  });
  const cwd = process.cwd();
  const folders = foldersOf(options, cwd, user, config);
  const home =
    options.home === undefined ? undefined : keptHome(options.home, folders, options, user, config);
  const given = home === undefined ? folders : [home, ...folders];
  refuseLinks(given);
  const plan = planOf({ options, command, user, config, folders, home, cwd });
  if (options.print) {
    print(plan, options, join(config.runtime.dir, "jail/socket"));
    return 0;
  }
  if (!withNetwork && profileNamed(config, options.profile).fixedOutputs === "allow")
    console.error(
      `nix-broker: the profile '${profile.name}' would give builds the network (fixed_outputs = "allow"), and a jail without --net has none: nix-broker fetches what --allow-url names`,
    );
  // The broker's temporary files are not for the jail to exchange.
  if (isThrough(resolve(tmpdir()), writable(given))) process.env.TMPDIR = "/tmp";
  const broker = await startJailBroker(config, profile, (inside) =>
    outsidePath(given, withoutOldProfiles(inside, user)),
  ).catch((error: Error) => told(error, config, user.name));
  let end: JailEnd;
  try {
    end = await runJail({ ...plan, socket: broker.socket }, given, broker.hide);
  } finally {
    await broker.end();
  }
  if (options.audit) tellAudit(broker.summary.lines(), broker.audit);
  if (end.interrupted) process.kill(process.pid, "SIGINT");
  if (end.started || end.code > 128) return end.code;
  const trouble = troubleHere();
  console.error(
    `nix-broker: bubblewrap could not make the jail; ${trouble ?? "its message is above (try --print)"}`,
  );
  return NO_JAIL;
}

/** @param socket of a broker that is not there yet; never the daemon's own, for the lines are to be run */
function print(plan: Omit<JailPlan, "socket">, options: JailOptions, socket: string): void {
  const { config, env = [], profile } = options;
  const byName = env.filter((word) => !word.includes("="));
  console.log(jailLines({ ...plan, socket }, byName));
  const named = config === undefined ? [] : ["--config", resolve(config)];
  const serve = ["serve", ...named, "--listen", socket, "--profile", profile, "--view", "store", "--allow"];
  console.error(
    `nix-broker: These lines are for bash. First run a broker, which stays: ${["nix-broker", ...serve, plan.user].map(quoted).join(" ")}`,
  );
  console.error(
    "nix-broker: What that broker fetches, and whether it gives builds the network, its profile alone says (fixed_outputs), and not --allow-url and --net",
  );
}

/** @throws JailError for root */
function whoWeAre(): JailUser {
  const { uid, name } = currentUser();
  if (uid === 0)
    throw new JailError(
      "nix-broker jail is for ordinary users: the daemon trusts root, and root in a jail could do what root can. Run it as another user: sudo -u USER nix-broker jail -- COMMAND, or setpriv --reuid USER --regid GROUP --init-groups",
    );
  const home = homedir();
  return {
    name,
    uid,
    gid: process.getgid?.() ?? uid,
    home: /^\/./.test(home) ? resolve(home) : `/home/${name}`,
  };
}

function forbidden(user: JailUser, config: Config, configFile: string | undefined): Forbidden[] {
  // The next jail is made as these say, and `upstream.command` is run outside.
  const configFiles = [
    configFile,
    process.env.NIX_BROKER_CONFIG || undefined,
    ownPlaces(process.env, currentUser())?.configFile,
  ].filter((file) => file !== undefined);
  return [
    { path: user.home, what: "your home", inParts: true },
    { path: dirname(config.upstream.socket), what: "the folder of the daemon's socket" },
    { path: socketsFolder(), what: "the folder of the jails' sockets", inParts: true },
    // Programs outside listen there: tmux, X, agents of ssh.
    { path: "/tmp", what: "the folder of everybody's temporary files", inParts: true },
    { path: "/run", what: "the folder of the machine's sockets", inParts: true },
    { path: dirname(config.audit.path), what: "the folder of nix-broker's audits" },
    ...configFiles.map(
      (file): Forbidden => ({ path: resolve(file), what: "nix-broker's configuration", asIs: true }),
    ),
  ];
}

/** @throws JailError */
function foldersOf(options: JailOptions, cwd: string, user: JailUser, config: Config): JailFolder[] {
  const requests = [
    { path: cwd, option: "", writable: true },
    ...(options.roBind ?? []).map((path) => ({ path, option: "--ro-bind", writable: false })),
    ...(options.bind ?? []).map((path) => ({ path, option: "--bind", writable: true })),
  ];
  const { storeDir } = config.upstream;
  return inOrder(
    requests.map((request) => jailFolder(request, forbidden(user, config, options.config), storeDir)),
  );
}

/**
 * The folder that is the jail's home; it is made if it is not there, and may be.
 * @param folders the others
 * @throws JailError
 */
function keptHome(
  path: string,
  folders: readonly JailFolder[],
  options: JailOptions,
  user: JailUser,
  config: Config,
): JailFolder {
  const request = { path, option: "--home", writable: true };
  const judged = (look?: typeof lookAhead): JailFolder => ({
    ...jailFolder(request, forbidden(user, config, options.config), config.upstream.storeDir, look),
    target: user.home,
  });
  const wanted = judged(lookAhead);
  refuseLinks([wanted, ...folders]);
  try {
    makeFolders(wanted.source, 0o700);
  } catch (error) {
    throw new JailError(`--home ${path}: ${(error as Error).message}`);
  }
  return judged();
}

/** Where the jail can write on the machine. */
function writable(folders: readonly JailFolder[]): string[] {
  return folders.filter((folder) => folder.writable).map(({ source }) => source);
}

/** Where a path of the jail leads if it is one of the user's profiles, as older clients name them. */
function withoutOldProfiles(inside: string, { name, home }: JailUser): string {
  const old = oldProfiles(name);
  return inside.startsWith(`${old}/`) ? ownProfiles(home) + inside.slice(old.length) : inside;
}

interface Parts {
  readonly options: JailOptions;
  readonly command: readonly string[];
  readonly user: JailUser;
  readonly config: Config;
  readonly folders: readonly JailFolder[];
  readonly home: JailFolder | undefined;
  readonly cwd: string;
}

/** @throws JailError */
function planOf({ options, command, user, config, folders, home, cwd }: Parts): Omit<JailPlan, "socket"> {
  const { storeDir } = config.upstream;
  const withNetwork = options.net === true;
  const filters = hasCallFilter(process.arch);
  // A terminal is only for who sits at it; then the filter keeps the jail from typing.
  const ownSession = !(process.stdin.isTTY && filters);
  return {
    bwrap: bwrapFor(options, writable(home === undefined ? folders : [home, ...folders])),
    brokerStays: options.print === true,
    machine: machineMounts(withNetwork),
    user: user.name,
    home: user.home,
    keptHome: home?.source,
    folders,
    storeDir,
    logs: realPathOf("/nix/var/log/nix"),
    files: ownFiles({ user, ...clientFiles(user, process.env), withNetwork }),
    filter: filters ? callFilter(process.arch) : undefined,
    withNetwork,
    ownSession,
    leavesInterrupts: !ownSession && canRestoreInterrupts(),
    cwd,
    environment: jailEnvironment(options.env ?? [], {
      environment: process.env,
      user,
      storeDir,
      realPath: realPathOf,
    }),
    command,
  };
}

/** Whether this machine's `env` can: busybox' cannot. */
function canRestoreInterrupts(): boolean {
  const [env, option] = restoringInterrupts;
  return spawnSync(env, [option, env], { stdio: "ignore", env: {} }).status === 0;
}

/** @throws JailError */
function bwrapFor(options: JailOptions, writable: readonly string[]): string {
  try {
    return findBwrap(process.env.PATH ?? "", writable);
  } catch (error) {
    // Lines that are printed may be for another machine.
    if (options.print && error instanceof JailError) return "/usr/bin/bwrap";
    throw error;
  }
}

/** @throws the error, in words for whoever started a jail */
function told(error: Error, { audit, upstream }: Config, user: string): never {
  if (error instanceof AuditError)
    throw new JailError(
      `what the jail asks for cannot be recorded below ${dirname(audit.path)}: ${(error.cause instanceof Error ? error.cause : error).message}. Make that folder writable for you, or set XDG_STATE_HOME to one that is`,
    );
  if (!(error instanceof UpstreamError)) throw error;
  if (/trusts the user/.test(error.message))
    throw new JailError(
      "the nix-daemon trusts you (trusted-users in its nix.conf), so a bug in nix-broker would open it to the jail. Take yourself out of trusted-users, use another user, or say --allow-trusted",
    );
  const group = missingGroup(upstream, error);
  if (group !== undefined)
    throw new JailError(
      `the nix-daemon is for members of the group ${group}, and you are not one. As root: usermod -aG ${group} ${user}; then log in again`,
    );
  const inBuild =
    process.env.NIX_BUILD_TOP === undefined
      ? ""
      : " In a build of Nix there is none, unless nix-broker serves that build";
  throw new JailError(
    `the nix-daemon cannot be used: ${explained(error)}. Is Nix installed for all users, and nix-daemon running (systemctl start nix-daemon)?${inBuild}`,
  );
}

function tellAudit(lines: readonly string[], folder: string): void {
  console.error(
    ["nix-broker: what the jail asked of the daemon:", ...lines.map((line) => `  ${line}`)].join("\n"),
  );
  console.error(`  all of it: nix-broker audit --store ${folder}`);
}
