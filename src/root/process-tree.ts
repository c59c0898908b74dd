/** Facts about processes, from /proc. */
import { readFileSync } from "node:fs";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { errorCode, owner } from "../contract/trusted-file.ts";

export interface ProcessStat extends ProcessIdentity {
  readonly parent: number;
  readonly name: string;
  readonly state: string;
}

/** Deeper chains of parents are not followed: those of a builder can be as long as it likes. */
const MAX_DEPTH = 256;

/** Distinguishes this boot of the machine from others. */
function bootId(): string {
  boot ??= readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  return boot;
}
let boot: string | undefined;

/**
 * @returns undefined when there is no such process. Format: proc_pid_stat(5).
 * @throws errors of the operating system that do not show whether there is one, such as too many open files.
 */
export function processStat(pid: number): ProcessStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes(errorCode(error))) return undefined;
    throw error;
  }
  // The name may contain anything, including spaces and parentheses; the last ")" ends it.
  const close = text.lastIndexOf(")");
  const name = text.slice(text.indexOf("(") + 1, close);
  const rest = text.slice(close + 2).split(" ");
  const [state, parent] = rest;
  const startTime = rest[19];
  if (state === undefined || parent === undefined || startTime === undefined) return undefined;
  return { pid, parent: Number(parent), name, state, startTime, boot: bootId() };
}

/**
 * Whether exactly that process still runs; one that ended but was not waited for does not.
 *
 * @throws errors of the operating system, if that cannot be determined.
 */
export function isAlive(process: ProcessIdentity): boolean {
  const stat = processStat(process.pid);
  return (
    stat !== undefined &&
    stat.startTime === process.startTime &&
    stat.boot === process.boot &&
    stat.state !== "Z" &&
    stat.state !== "X"
  );
}

/** Whether it is certain that the process has ended: what is kept for it is then removed. */
export function hasEnded(process: ProcessIdentity): boolean {
  try {
    return !isAlive(process);
  } catch {
    return false;
  }
}

/**
 * The effective user of a process, which is also what the kernel reports about a peer. From its status: the
 * folder `/proc/<pid>` itself belongs to root as soon as the process makes itself undumpable.
 * @returns undefined when there is no such process.
 */
export function effectiveUid(pid: number): number | undefined {
  try {
    const match = /^Uid:\t[0-9]+\t([0-9]+)\t/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
    return match ? Number(match[1]) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The nearest ancestor of a process (or itself) that is a nix-daemon running as root: the process that
 * builds. It must be root's, because a builder can give its own processes any name.
 */
export function daemonWorker(pid: number): ProcessIdentity | undefined {
  for (const stat of ancestors(pid)) {
    if (isRoots(stat.pid) && isDaemon(stat))
      return { pid: stat.pid, startTime: stat.startTime, boot: stat.boot };
  }
  return undefined;
}

/** Whether a process runs as root, or as whoever runs a rootless Nix. */
export function isRoots(pid: number): boolean {
  const uid = effectiveUid(pid);
  return uid === 0 || uid === owner();
}

/** Whether both are the same process, or none. */
export function isSameProcess(one: ProcessIdentity | null, other: ProcessIdentity | null): boolean {
  return one?.pid === other?.pid && one?.startTime === other?.startTime && one?.boot === other?.boot;
}

/** A process, its parent, and so on. */
export function* ancestors(pid: number): Generator<ProcessStat> {
  let current = pid;
  for (let depth = 0; depth < MAX_DEPTH && current > 0; depth++) {
    const stat = processStat(current);
    if (!stat) return;
    yield stat;
    current = stat.parent;
  }
}

/**
 * `nix-daemon`, or `nix daemon`. The daemon overwrites the second argument of its workers with the client's pid, cut
 * to the length of what stood there ("daemon").
 */
function isDaemon(stat: ProcessStat): boolean {
  if (stat.name === "nix-daemon") return true;
  if (stat.name !== "nix") return false;
  const [program = "", first = ""] = commandLine(stat.pid);
  return program.endsWith("nix-daemon") || first === "daemon" || /^[0-9]+$/.test(first);
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
  } catch {
    return [];
  }
}
