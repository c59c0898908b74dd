import { existsSync, mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LabError, mustRun } from "./command.ts";
import { cacheFolder, markerName, nixPrograms, versionNumber } from "./versions.ts";

const nix = "/usr/bin/nix";

/**
 * Uses the machine's own Nix as the version "host" if no version can be fetched. It has to come from a
 * package of the distribution: each daemon has a /nix of its own, so a Nix that lives there would not be found.
 *
 * @returns whether there is such a Nix
 * @throws LabError if there is one that cannot be used.
 */
export async function installHostVersion(): Promise<boolean> {
  if (!existsSync(nix)) return false;
  if (realpathSync(nix).startsWith("/nix/")) {
    throw new LabError(
      `The machine's own Nix, ${realpathSync(nix)}, is in /nix; the lab needs one from /usr.`,
    );
  }
  const fullVersion = versionNumber((await mustRun([nix, "--version"])).stdout);
  const folder = join(cacheFolder, "host");
  const unfinished = `${folder}.unfinished-${process.pid}`;
  mkdirSync(join(unfinished, "bin"), { recursive: true });
  for (const program of nixPrograms) symlinkSync(`/usr/bin/${program}`, join(unfinished, "bin", program));
  writeFileSync(join(unfinished, markerName), JSON.stringify({ fullVersion }));
  renameSync(unfinished, folder);
  return true;
}
