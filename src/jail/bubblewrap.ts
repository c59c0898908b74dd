/** The command line of bwrap that makes a jail. Pure: what it opens and starts is in run.ts. */
import { dirname } from "node:path";
import type { JailFolder } from "./folders.ts";
import type { Mount } from "./machine.ts";

export interface JailPlan {
  readonly bwrap: string;
  readonly machine: readonly Mount[];
  /** The user's name. */
  readonly user: string;
  /** Where the jail's home is; its contents are those of a folder, or none and gone at the end. */
  readonly home: string;
  readonly keptHome: string | undefined;
  readonly folders: readonly JailFolder[];
  readonly storeDir: string;
  /** The daemon's build logs, if they are there. */
  readonly logs: string | undefined;
  /** The broker's socket. */
  readonly socket: string;
  /** Whether the broker may be started again, with another socket of this name: then the jail has its folder. */
  readonly brokerStays: boolean;
  /** Texts of files by their paths. */
  readonly files: ReadonlyMap<string, string>;
  /** A program for the kernel: see call-filter.ts. */
  readonly filter: Buffer | undefined;
  readonly withNetwork: boolean;
  readonly ownSession: boolean;
  /** Whether the keys of the terminal, Ctrl-C among them, are for the command alone. */
  readonly leavesInterrupts: boolean;
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly command: readonly string[];
}

/** What bwrap reads from descriptors: texts, bytes, or words with a zero after each. */
export interface JailInput {
  readonly fd: number;
  readonly contents: string | Buffer | readonly string[];
}

/** The shell in the jail writes a line here when all is mounted, and reads one before it goes on. */
export const READY_FD = 3;
const FIRST_INPUT_FD = READY_FD + 1;

/** Where Nix's clients look for the daemon. */
export const daemonSocket = "/nix/var/nix/daemon-socket/socket";
const buildLogs = "/nix/var/log/nix";

/** Where clients keep the user's profiles: from 2.14 on in the home. */
export function ownProfiles(home: string): string {
  return `${home}/.local/state/nix/profiles`;
}

/** Where clients keep them before 2.14: in the jail it is a link to the same place. */
export function oldProfiles(user: string): string {
  return `/nix/var/nix/profiles/per-user/${user}`;
}

function mountOptions(mount: Mount): string[] {
  return "source" in mount
    ? [`--${mount.kind}`, mount.source, mount.target]
    : [`--${mount.kind}`, mount.target];
}

function mountsOf(plan: JailPlan): Mount[] {
  return [
    { kind: "proc", target: "/proc" },
    { kind: "dev", target: "/dev" },
    ...(["/tmp", "/var/tmp", "/run"] as const).map((target): Mount => ({ kind: "tmpfs", target })),
    ...plan.machine,
    ...(plan.keptHome === undefined
      ? ([
          { kind: "tmpfs", target: plan.home },
          { kind: "dir", target: ownProfiles(plan.home) },
        ] as const)
      : ([{ kind: "bind", source: plan.keptHome, target: plan.home }] as const)),
    ...plan.folders.map(
      ({ source, target, writable }): Mount => ({ kind: writable ? "bind" : "ro-bind", source, target }),
    ),
    { kind: "ro-bind", source: plan.storeDir, target: plan.storeDir },
    ...(plan.logs === undefined
      ? []
      : ([{ kind: "ro-bind", source: plan.logs, target: buildLogs }] as const)),
    { kind: "symlink", source: ownProfiles(plan.home), target: oldProfiles(plan.user) },
    ...(plan.brokerStays
      ? ([{ kind: "ro-bind", source: dirname(plan.socket), target: dirname(daemonSocket) }] as const)
      : ([
          { kind: "dir", target: dirname(daemonSocket) },
          { kind: "ro-bind", source: plan.socket, target: daemonSocket },
        ] as const)),
  ];
}

/** The arguments of bwrap, and what it reads. */
export function jailArguments(plan: JailPlan): { args: string[]; inputs: JailInput[] } {
  const inputs: JailInput[] = [];
  const input = (contents: JailInput["contents"]): string => {
    const fd = FIRST_INPUT_FD + inputs.length;
    inputs.push({ fd, contents });
    return String(fd);
  };
  const args = [
    "--unshare-all",
    ...(plan.withNetwork ? ["--share-net"] : []),
    "--die-with-parent",
    ...(plan.ownSession ? ["--new-session"] : []),
    ...mountsOf(plan).flatMap(mountOptions),
    ...[...plan.files].flatMap(([path, text]) => ["--ro-bind-data", input(text), path]),
    // What is left of the root folder, /nix/var/nix among it, is not to be written to: clients would make a store there.
    "--remount-ro",
    "/",
    ...(plan.filter === undefined ? [] : ["--seccomp", input(plan.filter)]),
    // Not bwrap's own environment: it is outside, and LD_PRELOAD could name a library that an earlier jail has left in a folder.
    // Not its command line: everybody can read that.
    "--args",
    input(Object.entries(plan.environment).flatMap(([name, value]) => ["--setenv", name, value])),
    "--chdir",
    plan.cwd,
  ];
  return { args, inputs };
}

/** With these words before it, a command gets the signals of the terminal's keys again that bwrap ignores. */
export const restoringInterrupts = ["/usr/bin/env", "--default-signal=INT,QUIT"] as const;

/**
 * The command as bwrap gets it: a shell that tells when it was started, waits, and leaves its place to the command. What it
 * does to a kept home it does in the jail, for outside links in there could lead anywhere.
 */
export function announced({ command, home, leavesInterrupts }: JailPlan): string[] {
  const start = `echo >&${READY_FD}; read -r go <&${READY_FD} || exit; exec ${READY_FD}>&-`;
  const script = `${start}; [ -d "$1" ] || mkdir -p "$1" 2> /dev/null; shift; exec "$@"`;
  const before = leavesInterrupts ? restoringInterrupts : [];
  return [...before, "/bin/sh", "-c", script, "nix-broker jail", ownProfiles(home), ...command];
}

/**
 * The program that makes the jail, and its arguments. Ctrl-C reaches all programs at the terminal, and would end bwrap
 * and with it whatever command takes it for itself.
 */
export function startedAs({ bwrap, leavesInterrupts }: JailPlan, args: readonly string[]): string[] {
  return leavesInterrupts
    ? ["/bin/sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh", bwrap, ...args]
    : [bwrap, ...args];
}

/** A word as a shell takes it. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * Lines for bash that run the same, apart from what only this program can do: the broker is not there.
 * @param byName variables whose values are not to be printed: bash has them, too
 */
export function jailLines(plan: JailPlan, byName: readonly string[]): string {
  const { args, inputs } = jailArguments(plan);
  const options: string[] = [];
  for (const word of args)
    if (word.startsWith("--") || options.length === 0) options.push(quoted(word));
    else options[options.length - 1] += ` ${quoted(word)}`;
  const redirections = inputs.map(({ fd, contents }) => `${fd}< <(${printing(contents, byName)})`);
  return [
    `env -i ${quoted(plan.bwrap)}`,
    ...[...options, `-- ${plan.command.map(quoted).join(" ")}`, ...redirections].map((line) => `  ${line}`),
  ].join(" \\\n");
}

/** A command of bash that prints what bwrap reads. */
function printing(contents: JailInput["contents"], byName: readonly string[]): string {
  if (typeof contents === "string") return `printf %s ${quoted(contents)}`;
  if (Buffer.isBuffer(contents)) return `base64 -d <<< ${contents.toString("base64")}`;
  const words = contents.map((word, at) => {
    const name = contents[at - 1] ?? "";
    return contents[at - 2] === "--setenv" && byName.includes(name) ? `"$${name}"` : quoted(word);
  });
  return `printf '%s\\0' ${words.join(" ")}`;
}
