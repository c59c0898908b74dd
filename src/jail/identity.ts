/**
 * Which file or folder something is, by any name. Between the look at a folder's path and its mounting somebody who can write
 * to the folder above it, such as another jail, could put a link to another one in its place.
 */
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync, statSync } from "node:fs";

/** Of <fcntl.h>: reads and writes nothing, and waits for nobody. */
const O_PATH = 0o10000000;

/** A file system, and an inode of it. */
export type Identity = string;

function identityOf({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): Identity {
  return `${dev}:${ino}`;
}

/** What a path leads to now, and its real path. @throws the system's error if it leads nowhere */
export function lookAt(path: string): { readonly source: string; readonly identity: Identity } {
  const opened = openSync(path, O_PATH);
  try {
    return {
      source: readlinkSync(`/proc/self/fd/${opened}`),
      identity: identityOf(fstatSync(opened, { bigint: true })),
    };
  } finally {
    closeSync(opened);
  }
}

interface Placed {
  /** Where the jail sees it. */
  readonly target: string;
  readonly identity: Identity;
}

/**
 * Which of the files and folders of a jail is another one than it should be.
 * @param bwrap the process that was started, when all is mounted
 * @throws the system's error when that cannot be found out
 */
export function exchanged<Folder extends Placed>(
  bwrap: number,
  folders: readonly Folder[],
): Folder | undefined {
  const children = readFileSync(`/proc/${bwrap}/task/${bwrap}/children`, "utf8");
  const root = `/proc/${children.trim().split(" ")[0]}/root`;
  return folders.find(({ target, identity }) => {
    const there = statSync(`${root}${target}`, { bigint: true, throwIfNoEntry: false });
    return there === undefined || identityOf(there) !== identity;
  });
}
