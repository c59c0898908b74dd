/**
 * Removing a folder that an enemy may be changing meanwhile. `rm -r` by path names can be led out of the tree by a symlink
 * that is put in a folder's place at the right moment; here each folder is held by a descriptor, and nothing is followed.
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

/** The folder holds more levels than are removed, or entries come faster than they go. */
export class RemoveTreeError extends Error {
  override name = "RemoveTreeError";
}

/**
 * Removes a folder and all that is in it; one that is not there is fine.
 * @param path whose parent is root's; the folder and what is in it may be anybody's
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
  // Whoever owned it can add nothing more.
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
