/**
 * Where audits are. The service keeps its own in one folder; each `nix-broker stdio` keeps one beside it, since only one
 * process at a time can continue a chain.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { listSegments } from "./segment.ts";

/** The folder of the audits of single connections. */
function connectionsFolder(folder: string): string {
  return `${folder}-stdio`;
}

/** Where a process that serves one connection keeps its audit. */
export function connectionFolder(folder: string, id: string): string {
  return join(connectionsFolder(folder), id);
}

/** The service's folder, if there is an audit in it, and those of single connections. */
export function auditFolders(folder: string): string[] {
  return [folder, ...connectionFolders(folder)].filter((each) => listSegments(each).length > 0);
}

/** Those of single connections, by their names. */
export function connectionFolders(folder: string): string[] {
  const parent = connectionsFolder(folder);
  try {
    // Not what somebody put beside them, such as a note.
    return readdirSync(parent, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(parent, name))
      .sort();
  } catch {
    // There are none, or they are not ours.
    return [];
  }
}
