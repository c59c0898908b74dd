import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LabError, mustRun } from "./command.ts";
import { withLock } from "./lock.ts";
import { linkClients } from "./unpack.ts";
import {
  cacheFolder,
  markerName,
  namedFolder,
  nearestVersion,
  nixPrograms,
  versionNumber,
} from "./versions.ts";

/**
 * Makes the Nix in `$NIX_BROKER_LAB_NIX` one of the lab's versions: programs that start it from wherever the folder is
 * mounted, and a place for them among the others. Does nothing if none is named.
 *
 * @throws LabError if there is no Nix in the folder that can be started
 */
export async function prepareNamedNix(): Promise<void> {
  const folder = namedFolder;
  if (folder === undefined) return;
  if (!existsSync(join(folder, "root/usr/bin/nix")))
    throw new LabError(
      `NIX_BROKER_LAB_NIX: there is no ${folder}/root/usr/bin/nix; "root" must be the root of a system with Nix in /usr`,
    );
  await withLock(join(cacheFolder, "lock"), async () => {
    if (!existsSync(join(folder, "bin"))) linkClients(folder, nixPrograms);
    const { stdout } = await mustRun([join(folder, "bin", "nix"), "--version"], { env: { HOME: folder } });
    const fullVersion = versionNumber(stdout);
    mkdirSync(join(cacheFolder, nearestVersion(fullVersion)), { recursive: true });
    writeFileSync(join(folder, markerName), JSON.stringify({ fullVersion }));
    process.stderr.write(
      `lab: Nix ${fullVersion} of ${folder} is tested as ${nearestVersion(fullVersion)}\n`,
    );
  });
}
