/** Makes folders that are not there yet, or that a reboot, or an administrator's tidiness, took away. */
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/**
 * Makes a folder with those above it. `mkdirSync` with `recursive` does not return where the system says ENOENT although the
 * folder above is there, as it does in /proc.
 *
 * @param mode of all that are made, less the umask
 * @returns the first that was made, if any
 * @throws the system's error
 */
export function makeFolders(folder: string, mode: number): string | undefined {
  if (isFolder(folder)) return undefined;
  const above = dirname(folder);
  const first = above === folder ? undefined : makeFolders(above, mode);
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    // Another process may have been faster.
    if (!isFolder(folder)) throw error;
  }
  return first ?? folder;
}

/**
 * Makes a folder with those above it, if it is below another one; that one is made as well.
 *
 * @param mode of all that are made, whatever the umask
 * @throws the system's error
 */
export function makeFoldersBelow(top: string, folder: string, mode: number): void {
  if (folder !== top && !folder.startsWith(`${top}/`)) return;
  const first = makeFolders(folder, mode);
  if (first === undefined) return;
  for (let made = folder; made.length >= first.length; made = dirname(made)) chmodSync(made, mode);
}
