/** Which bwrap makes the jail. */
import { accessSync, constants } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { isThrough } from "./folders.ts";
import { JailError } from "./jail-error.ts";

/**
 * @param path the user's PATH
 * @param writable folders that jails can write to: an earlier one may have left a bwrap of its own there, or a link to one that
 *   it has built in the store, and direnv and npm put folders of a project into PATH
 * @throws JailError if there is none
 */
export function findBwrap(path: string, writable: readonly string[]): string {
  for (const folder of path.split(delimiter)) {
    if (!isAbsolute(folder)) continue;
    try {
      const file = join(folder, "bwrap");
      accessSync(file, constants.X_OK);
      if (!isThrough(file, writable)) return file;
    } catch {
      // The next folder may have it.
    }
  }
  throw new JailError(
    "bwrap is not in PATH; install bubblewrap (the package has this name on Debian, Ubuntu, Fedora, Arch and in nixpkgs). One in a folder that the jail can write to is not used",
  );
}
