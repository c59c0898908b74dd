import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { LabError } from "./command.ts";

/**
 * When a process started, in clock ticks since boot (field 22 of /proc/PID/stat), or undefined if there is
 * no such process. Together with the pid it identifies a process uniquely, although pids are reused.
 */
export function processStartTime(pid: number): string | undefined {
  const stat = readOrUndefined(() => readFileSync(`/proc/${pid}/stat`, "latin1"));
  // The second field is the program's name in parentheses and may contain anything, so count from its end.
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

/**
 * The processes whose mount namespace has a mount of something below a lab folder: the daemon, its workers,
 * builders in their sandboxes, commands beside the daemon. Builders get namespaces, users and environments of
 * their own, and lose their parent when a worker is killed; but they cannot lose their mounts.
 *
 * @param marker the end of the lab folder's path, which is part of the root field of such mounts
 */
export function processesWithMountsOf(marker: string): number[] {
  const ours = readlinkSync("/proc/self/ns/mnt");
  const found: number[] = [];
  for (const entry of readdirSync("/proc")) {
    if (!/^[0-9]+$/.test(entry)) continue;
    const namespace = readOrUndefined(() => readlinkSync(`/proc/${entry}/ns/mnt`));
    if (namespace === undefined || namespace === ours) continue;
    const mounts = readOrUndefined(() => readFileSync(`/proc/${entry}/mountinfo`, "latin1"));
    if (mounts?.split("\n").some((line) => line.split(" ")[3]?.includes(marker))) found.push(Number(entry));
  }
  return found;
}

/**
 * Kills all processes that `processesWithMountsOf` finds, until there are none.
 *
 * @throws LabError if some do not go away.
 */
export async function killProcessesWithMountsOf(marker: string): Promise<void> {
  const rounds = 500;
  for (let round = 0; round < rounds; round++) {
    // A zombie has no mounts any more, so what its parent does not reap is not waited for.
    const found = processesWithMountsOf(marker);
    if (found.length === 0) return;
    for (const pid of found) readOrUndefined(() => process.kill(pid, "SIGKILL"));
    await sleep(Math.min(2 + round * 2, 50));
  }
  throw new LabError(`Processes of the lab folder ${marker} do not end: ${processesWithMountsOf(marker)}.`);
}

/** The pids of a process's children. */
export function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((entry) => /^[0-9]+$/.test(entry))
    .filter((entry) => parentOf(entry) === pid)
    .map(Number);
}

function parentOf(entry: string): number | undefined {
  const stat = readOrUndefined(() => readFileSync(`/proc/${entry}/stat`, "latin1"));
  return stat === undefined ? undefined : Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
}

/** The result of `read`, or undefined if its process is gone or not visible to us. */
function readOrUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
