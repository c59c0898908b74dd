/**
 * Removes folders in two steps. They first vanish from their place by a rename, so that nobody sees them half removed; emptying
 * them may take long if their owner wants it to, and what is left after a limit is removed by the linker later.
 */
import { randomBytes } from "node:crypto";
import { readdirSync, renameSync } from "node:fs";
import { basename, dirname } from "node:path";
import { errorCode } from "../contract/trusted-file.ts";
import { RemoveTreeError, removeTree } from "./remove-tree.ts";
import { Turns } from "./turns.ts";

const PREFIX = ".let-go-";
/** How many entries are removed at once; the rest is left to the linker. */
const MOST = 20_000;

/** Removes a folder, which may belong to anybody, from one of root's. It does not have to exist. */
export async function letGo(path: string, most = MOST): Promise<void> {
  const aside = `${dirname(path)}/${PREFIX}${basename(path)}-${randomBytes(8).toString("hex")}`;
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

/** Removes what is left of folders that were let go. */
export async function removeLetGo(folder: string): Promise<void> {
  for (const name of readdirSync(folder)) {
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
