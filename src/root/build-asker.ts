/** Who asked for a build: the mark that the broker left among the temporary roots of the daemon's worker. */
import { closeSync, openSync, readSync } from "node:fs";
import type { RootConfig } from "../contract/root-config.ts";
import { errorText } from "../contract/trusted-file.ts";
import { isAskerMark } from "../store/asker-mark.ts";
import type { StorePath } from "../store/store-path.ts";

const CHUNK = 256 * 1024;
/** Longer roots are not ours. */
const LONGEST = 4096;

/**
 * The last mark among the temporary roots of a worker: a connection belongs to one sandbox, and nobody else can write to the file.
 * @param pid of the worker
 * @returns "" when somebody other than the broker asked for the build.
 * @throws when that cannot be determined: then it is unknown which rights the build may have.
 */
export function askerOf(config: RootConfig, pid: number): StorePath | "" {
  const path = `${temporaryRootsFolder(config)}/${pid}`;
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    throw new Error(`who asked for this build cannot be found out: ${errorText(error)}`);
  }
  try {
    let found: StorePath | "" = "";
    for (const root of rootsIn(descriptor)) if (isAskerMark(root, config.storeDir)) found = root;
    return found;
  } finally {
    closeSync(descriptor);
  }
}

/** Beside the permanent roots, in Nix's state folder. */
function temporaryRootsFolder({ gcrootsDir }: RootConfig): string {
  const end = gcrootsDir.lastIndexOf("/gcroots/");
  if (end < 0) throw new Error(`gcroots_dir, ${gcrootsDir}, is not in the folder "gcroots" of Nix's state`);
  return `${gcrootsDir.slice(0, end)}/temproots`;
}

/** The file has one after the other, each with a NUL at its end (`src/libstore/gc.cc` in the Nix tree). */
function* rootsIn(descriptor: number): Generator<string> {
  const chunk = Buffer.alloc(CHUNK);
  let rest = "";
  for (;;) {
    const length = readSync(descriptor, chunk);
    if (length === 0) return;
    const roots = (rest + chunk.toString("latin1", 0, length)).split("\0");
    rest = roots.pop() ?? "";
    if (rest.length > LONGEST) rest = "";
    yield* roots;
  }
}
