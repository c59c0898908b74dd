/** Whom a daemon's worker serves. */
import { readFileSync } from "node:fs";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { effectiveUid, isAlive, processStat } from "./process-tree.ts";

export interface WorkerClient {
  readonly pid: number;
  readonly uid: number;
}

/** The kernel gives no pid more digits. */
const LONGEST_PID = 7;

/**
 * The client of a worker. As soon as it has accepted a connection, the daemon writes the pid that the kernel tells of the client
 * over the worker's second argument (`daemonLoop` in src/nix/unix/daemon.cc in the Nix tree, the same since 2.0), which
 * nobody but root can change. Lix (`daemonLoopForSocket` in lix/nix/daemon.cc in its tree) runs `nix-daemon --for PID` for each.
 * @throws when that cannot be told, or the client is gone
 */
export function clientOf(worker: ProcessIdentity): WorkerClient {
  const commandLine = readFileSync(`/proc/${worker.pid}/cmdline`, "latin1");
  if (!isAlive(worker)) throw new Error(`the nix-daemon's process ${worker.pid} has ended`);
  const pid = shownPid(commandLine);
  if (pid === undefined)
    throw new Error(
      'the nix-daemon does not show whom it serves; it must be started as "nix-daemon --daemon", see docs/linker-and-hooks.md',
    );
  const uid = effectiveUid(pid);
  const stat = processStat(pid);
  if (uid === undefined || !stat) throw new Error(`process ${pid}, which asked for it, has ended`);
  // A process that began after the worker is another one, which was given the pid of the client.
  if (BigInt(stat.startTime) > BigInt(worker.startTime))
    throw new Error(`the process that asked for it has ended, and ${pid} is another one now`);
  return { pid, uid };
}

/**
 * The daemon cuts the pid to the length of what stood there; what it does not fill, it fills with NULs. So a pid that no
 * NUL but the last one follows may lack digits, unless it has as many as there can be.
 */
export function shownPid(commandLine: string): number | undefined {
  const [, named] = /^[^\0]*nix-daemon\0--for\0([0-9]+)\0/.exec(commandLine) ?? [];
  if (named !== undefined) return Number(named) > 0 ? Number(named) : undefined;
  const [, digits = "", padding = ""] = /^[^\0]*\0([0-9]+)(\0+)/.exec(commandLine) ?? [];
  const whole = digits.length === LONGEST_PID || padding.length > 1;
  return whole && digits.length <= LONGEST_PID && Number(digits) > 0 ? Number(digits) : undefined;
}
