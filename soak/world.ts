/** What the parts of a soak act on: one daemon, service and linker, and a count of what happened. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandResult } from "../lab/lab.ts";
import type { RecursiveLab } from "../lab/recursive.ts";
import type { Tally } from "./tally.ts";

export interface World {
  readonly lab: RecursiveLab;
  readonly seed: number;
  readonly tally: Tally;
}

/** Longer than anything takes on a loaded machine: what is not over by then hangs. */
export const patienceMs = 10 * 60_000;

/** Runs a command as root on the store itself: whatever is killed, it is not the worker that serves this. */
export function onStore({ lab }: World, ...argv: string[]): Promise<CommandResult> {
  return lab.daemon.run(argv, { env: { NIX_REMOTE: "" }, timeoutMs: patienceMs });
}

/** @returns whether it came true before the patience was over. */
export async function eventually(look: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    if (await look()) return true;
    await sleep(100);
  }
  return false;
}

export interface Process {
  readonly pid: number;
  /** The command line. */
  readonly command: string;
  readonly isRoots: boolean;
}

/** All that runs in this world. */
export function processesOf({ lab }: World): Process[] {
  return lab.daemon.processes().flatMap((pid) => {
    const command = readOrNothing(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim();
    const isRoots = /^Uid:\t0\t/m.test(readOrNothing(`/proc/${pid}/status`));
    // A zombie has none.
    return command === "" ? [] : [{ pid, command, isRoots }];
  });
}

/** Nothing where the file is gone, as a process's are from one moment to the next. */
export function readOrNothing(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
