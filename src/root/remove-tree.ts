/**
 * Removing a folder that an enemy may be changing meanwhile. `rm -r` by path names can be led out of the tree by a symlink
 * that is put in a folder's place at the right moment; here each folder is held by a descriptor, and nothing is followed.
 *
 * The tree is made flat as it goes: what is in a folder is emptied into the topmost one. So a tree of any depth and width takes
 * three descriptors and no memory, and others run meanwhile.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  openSync,
  renameSync,
  rmdirSync,
  unlinkSync,
} from "node:fs";
import { errorCode, owner } from "../contract/trusted-file.ts";
import { namesIn } from "./folder-names.ts";
import type { Turns } from "./turns.ts";

const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** The tree has more entries than may be removed at once. */
export class RemoveTreeError extends Error {
  override name = "RemoveTreeError";
}

/**
 * Removes a folder and all that is in it; one that is not there is fine.
 * @param path whose parent is root's; the folder and what is in it may be anybody's
 * @param most entries that are removed; what is left after that can be removed by another call
 * @throws RemoveTreeError when there are more
 */
export async function removeTree(path: string, turns: Turns, most = Number.POSITIVE_INFINITY): Promise<void> {
  let top: number;
  try {
    top = openSync(path, FOLDER);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  try {
    // Before its owner changes: the service, which may not enter any more, sees by the mode that it is being removed.
    fchmodSync(top, 0o700);
    takeOver(top);
    const flat = new FlatTree(top, path, turns, most);
    // What comes and goes while a folder is read may not be in the reading.
    while (await flat.emptyOnce());
  } finally {
    closeSync(top);
  }
  rmdirSync(path);
}

/** As {@link removeTree}, for what may be a file or a symlink, too. */
export async function removeEntry(path: string, turns: Turns): Promise<void> {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errorCode(error) === "EISDIR") await removeTree(path, turns);
    else if (errorCode(error) !== "ENOENT") throw error;
  }
}

class FlatTree {
  private readonly prefix: string;
  private readonly moved = `.moved-${randomBytes(8).toString("hex")}-`;
  private moves = 0;
  private removed = 0;
  private readonly path: string;
  private readonly turns: Turns;
  private readonly most: number;

  constructor(top: number, path: string, turns: Turns, most: number) {
    this.prefix = inside(top);
    this.path = path;
    this.turns = turns;
    this.most = most;
  }

  /** @returns whether anything was there. */
  async emptyOnce(): Promise<boolean> {
    let any = false;
    for await (const entry of this.entriesOf(this.prefix)) {
      any = true;
      if (unlinked(entry)) continue;
      const folder = openSync(entry, FOLDER);
      try {
        takeOver(folder);
        for await (const below of this.entriesOf(inside(folder)))
          if (!unlinked(below)) renameSync(below, `${this.prefix}${this.moved}${this.moves++}`);
      } finally {
        closeSync(folder);
      }
      removeIfEmpty(entry);
    }
    return any;
  }

  private async *entriesOf(folder: string): AsyncGenerator<Buffer> {
    const prefix = Buffer.from(folder);
    for (const name of namesIn(folder)) {
      if (this.removed++ >= this.most)
        throw new RemoveTreeError(`${this.path} holds more than ${this.most} files and folders`);
      if (this.turns.due) await this.turns.pause();
      yield Buffer.concat([prefix, name]);
    }
  }
}

function inside(folder: number): string {
  return `/proc/self/fd/${folder}/`;
}

/** Its former owner can add nothing more. */
function takeOver(folder: number): void {
  fchownSync(folder, owner(), process.getegid?.() ?? 0);
  fchmodSync(folder, 0o700);
}

/** @returns false for a folder. */
function unlinked(entry: Buffer): boolean {
  try {
    unlinkSync(entry);
    return true;
  } catch (error) {
    if (errorCode(error) === "EISDIR") return false;
    throw error;
  }
}

/** What a reading of a folder missed is found in another round. */
function removeIfEmpty(entry: Buffer): void {
  try {
    rmdirSync(entry);
  } catch (error) {
    if (errorCode(error) !== "ENOTEMPTY") throw error;
  }
}
