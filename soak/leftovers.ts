/** What must be gone once no build runs any more. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { eventually, processesOf, type World } from "./world.ts";

/** Folders of sandboxes, their entries in the hook's index, and their roots. */
export function leftFolders({ lab }: World): string[] {
  const list = (path: string, recursive = false): string[] =>
    readdirSync(lab.daemon.hostPath(path), { recursive, encoding: "utf8" }).map((name) => join(path, name));
  return [
    ...list("/run/nix-broker/sandboxes"),
    ...list("/run/nix-broker/derivations"),
    ...list("/nix/var/nix/gcroots/nix-broker"),
  ];
}

/** All processes but the daemon itself, while neither service nor linker run. */
function leftProcesses(world: World): string[] {
  return processesOf(world)
    .filter(({ pid }) => pid !== world.lab.daemon.pid)
    .map(({ pid, command }) => `${pid} ${command}`);
}

/** Waits until there are none, and counts as a fault what stays. */
export async function noFoldersLeft(world: World): Promise<void> {
  if (await eventually(() => leftFolders(world).length === 0)) return;
  world.tally.fault(`these stay: ${leftFolders(world).join(", ")}`);
}

/** The same for processes. */
export async function noProcessesLeft(world: World): Promise<void> {
  if (await eventually(() => leftProcesses(world).length === 0)) return;
  world.tally.fault(`these processes stay:\n${leftProcesses(world).join("\n")}`);
}
