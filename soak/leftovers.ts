/** What must be gone once no build runs any more. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { eventually, processesOf, type World } from "./world.ts";

const folders = [
  "/run/nix-broker/sandboxes",
  "/run/nix-broker/derivations",
  "/nix/var/nix/gcroots/nix-broker",
  "/nix/var/nix/nix-broker-released",
];

/** Folders of sandboxes, their entries in the hook's index, their roots, and those that were released. */
function leftFolders({ lab }: World): string[] {
  return folders.flatMap((path) => {
    const place = lab.daemon.hostPath(path);
    // Some are made when something is put into them.
    const names = existsSync(place) ? readdirSync(place) : [];
    return names.map((name) => join(path, name));
  });
}

/** All processes but the daemon itself, while neither service nor linker run. */
function leftProcesses(world: World): string[] {
  return processesOf(world)
    .filter(({ pid }) => pid !== world.lab.daemon.pid)
    .map(({ pid, command }) => `${pid} ${command}`);
}

/**
 * Waits until there are none, and counts as a fault what stays. Of what was killed, the linker removes a sandbox's folder a minute
 * after the end of its build, and the rest when it looks around, every minute: our patience is several times both together.
 */
export async function noFoldersLeft(world: World): Promise<void> {
  if (await eventually(() => leftFolders(world).length === 0)) return;
  world.tally.fault(`these stay: ${leftFolders(world).join(", ")}`);
}

/** The same for processes. */
export async function noProcessesLeft(world: World): Promise<void> {
  if (await eventually(() => leftProcesses(world).length === 0)) return;
  world.tally.fault(`these processes stay:\n${leftProcesses(world).join("\n")}`);
}
