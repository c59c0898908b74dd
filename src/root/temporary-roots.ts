/** Which file in `temproots` of Nix's state has the temporary roots of a daemon's worker. */
import { opendirSync, readlinkSync } from "node:fs";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { errorCode } from "../contract/trusted-file.ts";

/** A worker has few files open, besides the locks of the outputs that it builds. */
const MAX_OPEN_FILES = 10_000;

/**
 * The names of the files that a worker has open for its temporary roots: its pid, and in Nix 2.35.0 `temproots-<pid>-<number>`.
 * The worker holds them open for as long as it lives; a name alone could belong to an earlier process of the same pid, which
 * was killed, and whose roots nobody has removed yet.
 * @throws when the worker is gone, or has none.
 */
export function temporaryRootsNames({ pid }: ProcessIdentity): string[] {
  const ofWorker = new RegExp(`/temproots/(${pid}|temproots-${pid}-[0-9]+)$`);
  const names = new Set<string>();
  const folder = `/proc/${pid}/fd`;
  const descriptors = opendirSync(folder);
  try {
    for (let count = 0; ; count++) {
      const entry = descriptors.readSync();
      if (!entry) break;
      if (count === MAX_OPEN_FILES)
        throw new Error(`the nix-daemon's process ${pid} has more than ${MAX_OPEN_FILES} files open`);
      const [, name] = ofWorker.exec(target(`${folder}/${entry.name}`)) ?? [];
      if (name !== undefined) names.add(name);
    }
  } finally {
    descriptors.closeSync();
  }
  if (names.size === 0)
    throw new Error(`the nix-daemon's process ${pid} has no file of temporary roots open`);
  return [...names];
}

function target(descriptor: string): string {
  try {
    return readlinkSync(descriptor);
  } catch (error) {
    // Closed since it was listed.
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}
