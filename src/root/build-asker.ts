/**
 * Who asked for a build: the mark that the broker left among the temporary roots of the daemon's worker. The mark alone proves
 * nothing, since the daemon shows temporary roots to every local user; it counts where the worker serves the broker.
 */
import { type FileHandle, open } from "node:fs/promises";
import { type RootConfig, serviceAccount } from "../contract/root-config.ts";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { errorText } from "../contract/trusted-file.ts";
import { isAskerMark } from "../store/asker-mark.ts";
import type { StorePath } from "../store/store-path.ts";
import { temporaryRootsFolder } from "./nix-state.ts";
import { temporaryRootsNames } from "./temporary-roots.ts";
import { clientOf } from "./worker-client.ts";

const CHUNK = 256 * 1024;
/** More temporary roots are not read, in bytes: those of half a million paths. */
const MAX_ROOTS = 64 * 1024 * 1024;
/** Longer roots are none of ours. */
const LONGEST = 4096;

/**
 * The last mark among the temporary roots of a worker that serves the broker: such a connection belongs to one sandbox.
 * @returns "" when the build was asked for by somebody else than the broker, whatever marks they have.
 * @throws when that cannot be found out: then nobody can say which rights the build may have.
 */
export async function askerOf(config: RootConfig, worker: ProcessIdentity): Promise<StorePath | ""> {
  try {
    const mark = await lastMark(config, worker);
    if (mark === "") return "";
    return clientOf(worker).uid === serviceAccount(config.serviceUser).uid ? mark : "";
  } catch (error) {
    throw new Error(`who asked for this build cannot be found out: ${errorText(error)}`);
  }
}

/** @returns "" where there is none. @throws when that cannot be found out */
export async function lastMark(config: RootConfig, worker: ProcessIdentity): Promise<StorePath | ""> {
  const folder = temporaryRootsFolder(config);
  let found: StorePath | "" = "";
  for (const name of temporaryRootsNames(worker)) {
    const file = await open(`${folder}/${name}`, "r");
    try {
      for await (const root of rootsIn(file)) if (isAskerMark(root, config.storeDir)) found = root;
    } finally {
      await file.close();
    }
  }
  return found;
}

/** The file has one after the other, each with a NUL at its end (`src/libstore/gc.cc` in the Nix tree). */
async function* rootsIn(file: FileHandle): AsyncGenerator<string> {
  const chunk = Buffer.alloc(CHUNK);
  let rest = "";
  for (let read = 0; read <= MAX_ROOTS; ) {
    const { bytesRead } = await file.read(chunk, 0, CHUNK, read);
    if (bytesRead === 0) return;
    read += bytesRead;
    const roots = (rest + chunk.toString("latin1", 0, bytesRead)).split("\0");
    rest = roots.pop() ?? "";
    if (rest.length > LONGEST) rest = "";
    yield* roots;
  }
  throw new Error(`its connection to the nix-daemon has more than ${MAX_ROOTS} bytes of temporary roots`);
}
