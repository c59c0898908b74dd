/** Makes folders that a reboot, or an administrator's tidiness, took away. */
import { chmodSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";

/**
 * Makes a folder with those above it, if it is below another one; that one is made as well.
 *
 * @param mode of all that are made, whatever the umask
 * @throws the system's error
 */
export function makeFoldersBelow(top: string, folder: string, mode: number): void {
  if (folder !== top && !folder.startsWith(`${top}/`)) return;
  const first = mkdirSync(folder, { recursive: true, mode });
  if (first === undefined) return;
  for (let made = folder; made.length >= first.length; made = dirname(made)) chmodSync(made, mode);
}
