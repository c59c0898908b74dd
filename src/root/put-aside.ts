/**
 * Removes folders in two steps. They first vanish from their place by a rename, so that nobody sees them half removed; emptying
 * them may take long if their owner wants it to, and what is left after a limit is removed by the linker later.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, renameSync } from "node:fs";
import { basename, dirname } from "node:path";
import { errorCode } from "../contract/trusted-file.ts";
import { namesOf } from "./folder-names.ts";
import { RemoveTreeError, removeTree } from "./remove-tree.ts";
import { Turns } from "./turns.ts";

const PREFIX = ".let-go-";
/** How many entries are removed at once; the rest is left to the linker. */
const MOST = 20_000;

/**
 * Moves a folder, which may belong to anybody, to a place of root's, where the linker removes it: whoever waits for it to
 * vanish does not wait for each of its entries. It does not have to exist.
 * @param place on the same file system; where it is not, or there is none, the folder is removed now
 */
export async function putAside(path: string, place: string | undefined): Promise<void> {
  if (place !== undefined) {
    try {
      makeFolder(place);
      renameSync(path, asideOf(path, place));
      return;
    } catch {
      // It is another mount or read-only, or the folder does not exist: the other way copes with each.
    }
  }
  await letGo(path);
}

/** Removes a folder, which may belong to anybody, from one of root's. It does not have to exist. */
export async function letGo(path: string, most = MOST): Promise<void> {
  const aside = asideOf(path, dirname(path));
  try {
    renameSync(path, aside);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  const turns = new Turns();
  try {
    await turns.during(() => removeTree(aside, turns, most));
  } catch (error) {
    if (!(error instanceof RemoveTreeError)) complain(error);
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // The linker and a hook may both be making it.
    if (errorCode(error) !== "EEXIST") throw error;
  }
}

function asideOf(path: string, place: string): string {
  return `${place}/${PREFIX}${basename(path)}-${randomBytes(8).toString("hex")}`;
}

/** Removes folders that were put aside, and what is left of those that were let go. @param folder does not have to exist */
export async function removeLetGo(folder: string): Promise<void> {
  for (const name of namesOf(folder)) {
    if (!name.startsWith(PREFIX)) continue;
    const turns = new Turns();
    await turns.during(() => removeTree(`${folder}/${name}`, turns)).catch(complain);
  }
}

function complain(error: unknown): void {
  // The linker and a hook may both be removing it.
  if (errorCode(error) === "ENOENT") return;
  process.stderr.write(`nix-broker: cannot remove a folder yet: ${String(error)}\n`);
}
