/**
 * What a build gained: the paths that were made visible in its sandbox. The service creates a root for each, and could
 * remove it again; so root creates its own, in a folder of its own, for everything that it links. Both count.
 */
import { symlinkSync } from "node:fs";
import { LinkError } from "../contract/link-error.ts";
import type { RootConfig } from "../contract/root-config.ts";
import { type SandboxId, sandboxPlaces } from "../contract/runtime-tree.ts";
import { errorCode } from "../contract/trusted-file.ts";
import { isStoreBase, type StorePath, storePathBase } from "../store/store-path.ts";
import { namesIn } from "./folder-names.ts";
import type { Turns } from "./turns.ts";

/** The linker links no more paths into a sandbox, and no more of the service's roots are considered. */
const MAX_GAINS = 100_000;

/** Root's own list of one sandbox. */
export class Gains {
  private readonly folder: string;
  private count = 0;

  /** The folder is made as the sandbox is registered, and goes as it is settled. */
  constructor(config: RootConfig, id: SandboxId) {
    this.folder = sandboxPlaces(config, id).gains;
  }

  /** Counts what the list of a linker before this one has. */
  async countKnown(turns: Turns): Promise<void> {
    for (const _name of namesIn(this.folder)) {
      this.count++;
      if (turns.due) await turns.pause();
    }
  }

  /** @throws LinkError `limit` */
  add(path: StorePath): void {
    if (this.count >= MAX_GAINS)
      throw new LinkError("limit", `a sandbox cannot gain more than ${MAX_GAINS} paths`);
    try {
      symlinkSync(path, `${this.folder}/${storePathBase(path)}`);
      this.count++;
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
    }
  }
}

/** What a sandbox gained, according to root and the service. The paths may be invalid, or not exist at all. */
export function gainsOf(config: RootConfig, id: SandboxId): StorePath[] {
  const { gains, roots } = sandboxPlaces(config, id);
  const names = new Set<string>();
  for (const folder of [gains, roots])
    for (const name of firstNamesIn(folder)) if (isStoreBase(name)) names.add(name);
  return [...names].map((name) => `${config.storeDir}/${name}`);
}

/** The first names in a folder; none if there is no folder. */
function* firstNamesIn(folder: string): Generator<string> {
  let count = 0;
  try {
    for (const name of namesIn(folder)) {
      if (count++ >= MAX_GAINS) return;
      yield name.toString("latin1");
    }
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
