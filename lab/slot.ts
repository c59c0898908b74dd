import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { LabError, mustRun } from "./command.ts";
import { withLock } from "./lock.ts";
import { killProcessesWithMountsOf, processStartTime } from "./processes.ts";

/** A numbered folder that belongs to one daemon (or one client's scratch root) of this process. */
export interface Slot {
  /** Unique among all live slots of the machine; uids of build users follow from it. */
  readonly number: number;
  /** The folder, on disk. */
  readonly folder: string;
  /** A folder on tmpfs. */
  readonly memoryFolder: string;
}

/** Short, because a Unix socket's path has to fit into 108 bytes. */
const baseName = `nix-broker-lab-${process.getuid?.() ?? 0}`;
const base = `/tmp/${baseName}`;
const memoryBase = `/dev/shm/${baseName}`;

/** A place, empty on disk, on which private mount namespaces may put the root of a client. */
export const clientMountPoint = `${base}/client`;

function slotOf(number: number): Slot {
  return { number, folder: `${base}/${number}`, memoryFolder: `${memoryBase}/${number}` };
}

/** Outside the folder, so that it is there before and after it. Holds pid and start time of the owner. */
function ownerFile(number: number): string {
  return `${base}/${number}.owner.json`;
}

/** Takes the first free slot, after clearing those of dead processes. */
export function takeSlot(): Promise<Slot> {
  return withLock(`${base}/lock`, async () => {
    checkOwner();
    await clearStaleSlots();
    let number = 0;
    while (existsSync(ownerFile(number))) number++;
    const slot = slotOf(number);
    const owner = { pid: process.pid, started: processStartTime(process.pid) };
    writeFileSync(ownerFile(number), JSON.stringify(owner));
    mkdirSync(slot.folder, { mode: 0o755 });
    mkdirSync(slot.memoryFolder, { recursive: true, mode: 0o755 });
    return slot;
  });
}

/** The names in /tmp can be guessed: anything that another user has put there is not used. */
function checkOwner(): void {
  for (const folder of [base, memoryBase]) {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    const status = lstatSync(folder);
    if (status.isDirectory() && status.uid === process.getuid?.()) continue;
    throw new LabError(`${folder} is not a folder of this user. Remove it.`);
  }
}

/** What the mounts of a slot have in the root field of mountinfo, for `processesWithMountsOf`. */
export function slotMarker(number: number): string {
  return `/${baseName}/${number}/`;
}

/** Ends all processes of a slot, and removes its folders. */
export async function releaseSlot(slot: Slot): Promise<void> {
  await killProcessesWithMountsOf(slotMarker(slot.number));
  for (const folder of [slot.memoryFolder, slot.folder]) {
    if (!existsSync(folder)) continue;
    // Without root, the store's read-only folders have to be made writable before they can be emptied.
    if (process.getuid?.() !== 0) await mustRun(["chmod", "-R", "u+w", folder]);
    await mustRun(["rm", "-rf", "--one-file-system", folder], { timeoutMs: 600_000 });
  }
  rmSync(ownerFile(slot.number), { force: true });
}

async function clearStaleSlots(): Promise<void> {
  for (const entry of readdirSync(base)) {
    const number = /^([0-9]+)\.owner\.json$/.exec(entry)?.[1];
    if (number !== undefined && !hasLiveOwner(`${base}/${entry}`)) await releaseSlot(slotOf(Number(number)));
  }
}

function hasLiveOwner(file: string): boolean {
  try {
    const owner: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (typeof owner !== "object" || owner === null || !("pid" in owner) || !("started" in owner))
      return false;
    return typeof owner.pid === "number" && processStartTime(owner.pid) === owner.started;
  } catch {
    // Half written by a process that was killed, or just released.
    return false;
  }
}
