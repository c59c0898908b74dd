/**
 * The locks of outputs: a daemon's worker holds them from before the pre-build hook until after the
 * post-build hook, or until the build has failed. So they show that a build is over while its worker
 * continues with others.
 *
 * The worker itself is asked, by the files that it has open. `/proc/locks` must not be used: it is not a
 * snapshot, and anyone who takes and drops locks meanwhile makes a reading miss others. A file that a process
 * keeps open is in every listing of its descriptors, whatever anybody else does.
 */
import { opendirSync, readlinkSync } from "node:fs";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { errorCode } from "../contract/trusted-file.ts";
import { type StorePath, storePathBase } from "../store/store-path.ts";

/**
 * `held`: the worker holds one of them, or waits for it. `unknown`: this cannot be determined, and nothing
 * follows from it.
 */
export type LockReading = "held" | "free" | "unknown";

/** A worker that has more files open is not read to the end: the linker's loop waits meanwhile. */
const MAX_OPEN_FILES = 10_000;

/** The lock of an output is the file `<output>.lock` beside it; Nix removes it before releasing it. */
const LOCK_FILE = /\/([^/]+)\.lock(?: \(deleted\))?$/;

/**
 * Whether a worker has the lock of one of the outputs open. Names are compared: the store may be mounted
 * elsewhere for the worker, and none of its other open files has such a name.
 */
export function readLocks({ pid }: ProcessIdentity, outputs: Iterable<StorePath>): LockReading {
  const wanted = new Set<string>();
  for (const output of outputs) wanted.add(storePathBase(output));
  if (wanted.size === 0) return "free";
  try {
    const folder = `/proc/${pid}/fd`;
    const descriptors = opendirSync(folder);
    try {
      for (let count = 0; count < MAX_OPEN_FILES; count++) {
        const entry = descriptors.readSync();
        if (!entry) return "free";
        if (wanted.has(lockedBy(`${folder}/${entry.name}`))) return "held";
      }
      return "unknown";
    } finally {
      descriptors.closeSync();
    }
  } catch {
    return "unknown";
  }
}

/** @returns the file name of the path whose lock the open file is, or "". */
function lockedBy(descriptor: string): string {
  try {
    return LOCK_FILE.exec(readlinkSync(descriptor))?.[1] ?? "";
  } catch (error) {
    // Closed since it was listed.
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}
