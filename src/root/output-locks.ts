/**
 * The locks of outputs: a daemon's worker holds them from before the pre-build hook until after the post-build hook, or until
 * the build has failed. So they tell that a build is over while its worker goes on with others.
 */
import { lstatSync, readFileSync } from "node:fs";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { type StorePath, storePathBase } from "../store/store-path.ts";

/** Who holds which file's lock, as `pid inode`. */
export type HeldLocks = ReadonlySet<string>;

/** All that are held on this machine. Format: proc_locks(5). */
export function heldLocks(): HeldLocks {
  const held = new Set<string>();
  let text = "";
  try {
    text = readFileSync("/proc/locks", "latin1");
  } catch {
    // Some containers have no such file: then nothing is known of any lock.
  }
  for (const line of text.split("\n")) {
    // The device is left out: for some file systems it is another one than stat tells.
    const match = /^[0-9]+: [A-Z]+ +[A-Z]+ +WRITE +([0-9]+) [0-9a-f]+:[0-9a-f]+:([0-9]+) /.exec(line);
    if (match) held.add(`${match[1]} ${match[2]}`);
  }
  return held;
}

/** @param storeReal where the store's files are; the lock of an output is the file `<output>.lock` beside it */
export function holdsOne(
  held: HeldLocks,
  { pid }: ProcessIdentity,
  outputs: Iterable<StorePath>,
  storeReal: string,
): boolean {
  for (const output of outputs) {
    const lock = lstatSync(`${storeReal}/${storePathBase(output)}.lock`, { throwIfNoEntry: false });
    if (lock && held.has(`${pid} ${lock.ino}`)) return true;
  }
  return false;
}
