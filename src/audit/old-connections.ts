/** How long the audits of single connections are kept: until they are old, and nobody uses them any more. */
import { rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { FileLock } from "../host/file-lock.ts";
import { connectionFolders } from "./folders.ts";
import { listSegments } from "./segment.ts";

const LOCK = "lock";

/** Keeps such an audit from being removed while this process lives, however long nothing is recorded. */
export function claimConnection(folder: string): void {
  FileLock.take(join(folder, LOCK));
}

/**
 * Removes audits of single connections that were last written before a time, and that we may remove.
 * @param before milliseconds since the epoch
 */
export function removeOldConnections(folder: string, before: number): void {
  for (const each of connectionFolders(folder)) {
    try {
      const files = listSegments(each).flatMap(({ path }) => [path, `${path}-wal`]);
      const times = files.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
      if (Math.max(statSync(each).mtimeMs, ...times) < before) removeUnused(each);
    } catch {
      // It belongs to somebody else, or was just removed.
    }
  }
}

function removeUnused(folder: string): void {
  const lock = FileLock.take(join(folder, LOCK));
  if (lock === undefined) return;
  try {
    rmSync(folder, { recursive: true });
  } finally {
    lock.release();
  }
}
