/**
 * Removing a folder that an enemy may be changing meanwhile. `rm -r` by path can be led out of the tree by a
 * symlink that replaces a folder at the right moment; here each folder is held through a descriptor, and no
 * link is followed.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  openSync,
  readdirSync,
  rmdirSync,
  unlinkSync,
} from "node:fs";
import { errorCode, owner } from "../contract/trusted-file.ts";

const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** Deeper trees are not removed: each level holds a descriptor. */
const MAX_DEPTH = 64;

/** The folder has more levels than are removed, or entries appear faster than they are removed. */
export class RemoveTreeError extends Error {
  override name = "RemoveTreeError";
}

/**
 * Removes a folder with everything in it; it may already be gone.
 *
 * @param path its parent must belong to root; the folder and its contents may belong to anybody
 * @throws RemoveTreeError
 */
export function removeTree(path: string): void {
  let folder: number;
  try {
    folder = openSync(path, FOLDER);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  try {
    empty(folder, path, 0);
  } finally {
    closeSync(folder);
  }
  rmdirSync(path);
}

function empty(folder: number, path: string, depth: number): void {
  if (depth > MAX_DEPTH) throw new RemoveTreeError(`${path} holds more than ${MAX_DEPTH} levels of folders`);
  // Its former owner can add nothing more.
  fchownSync(folder, owner(), process.getegid?.() ?? 0);
  fchmodSync(folder, 0o700);
  const prefix = Buffer.from(`/proc/self/fd/${folder}/`);
  for (const name of readdirSync(prefix, "buffer")) {
    const entry = Buffer.concat([prefix, name]);
    let below: number;
    try {
      below = openSync(entry, FOLDER);
    } catch (error) {
      if (!["ELOOP", "ENOTDIR", "ENXIO"].includes(errorCode(error))) throw error;
      unlinkSync(entry);
      continue;
    }
    try {
      empty(below, path, depth + 1);
    } finally {
      closeSync(below);
    }
    rmdirSync(entry);
  }
}
