/** What was put into a chroot before the linker was restarted: a restart does not reset the limits of a sandbox. */
import { lstatSync } from "node:fs";
import { owner } from "../contract/trusted-file.ts";
import { namesIn } from "./folder-names.ts";
import type { CopyBudget } from "./store-copy.ts";
import type { Turns } from "./turns.ts";

/**
 * Subtracts what is below a folder from a budget. What the builder created there does not count, and is not
 * descended into.
 * @param folder a path of its bytes; the store of a chroot, or a folder of root's in it
 */
export async function takeUsed(folder: Buffer, budget: CopyBudget, turns: Turns): Promise<void> {
  const folders: Buffer[] = [];
  for (const name of namesIn(folder)) {
    const path = Buffer.concat([folder, SLASH, name]);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (turns.due) await turns.pause();
    if (stats?.uid !== owner()) continue;
    budget.entries--;
    // A file with several links belongs to the machine's store.
    if (stats.isFile() && stats.nlink === 1) budget.bytes -= stats.size;
    if (stats.isDirectory()) folders.push(path);
  }
  for (const path of folders) await takeUsed(path, budget, turns);
}

const SLASH = Buffer.from("/");
