/** What was put into a chroot before the linker was restarted: a restart does not reset the limits of a sandbox. */
import { lstatSync, readdirSync } from "node:fs";
import { owner } from "../contract/trusted-file.ts";
import type { CopyBudget } from "./store-copy.ts";

/**
 * Subtracts what is below a folder from a budget. What the builder created there does not count, and is not
 * descended into.
 * @param folder a path of its bytes; the store of a chroot, or a folder of root's in it
 */
export function takeUsed(folder: Buffer, budget: CopyBudget): void {
  for (const name of readdirSync(folder, "buffer")) {
    const path = Buffer.concat([folder, SLASH, name]);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats?.uid !== owner()) continue;
    budget.entries--;
    // A file with several links belongs to the machine's store.
    if (stats.isFile() && stats.nlink === 1) budget.bytes -= stats.size;
    if (stats.isDirectory()) takeUsed(path, budget);
  }
}

const SLASH = Buffer.from("/");
