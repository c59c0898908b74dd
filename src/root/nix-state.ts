/** Nix's own state folder, `/nix/var/nix` by default, and what root's programs use in it beside the roots. */
import type { RootConfig } from "../contract/root-config.ts";

/** @returns undefined where `gcroots_dir` is not in the folder `gcroots` of such a folder. */
function nixState({ gcrootsDir }: RootConfig): string | undefined {
  const end = gcrootsDir.lastIndexOf("/gcroots/");
  return end < 0 ? undefined : gcrootsDir.slice(0, end);
}

/** @throws Error where that cannot be known */
export function temporaryRootsFolder(config: RootConfig): string {
  const state = nixState(config);
  if (state === undefined)
    throw new Error(`gcroots_dir, ${config.gcrootsDir}, is not in the folder "gcroots" of Nix's state`);
  return `${state}/temproots`;
}

/**
 * Where released roots wait to be removed: on the same file system as the roots, and no longer among them. Undefined
 * where there is no such place.
 */
export function releasedFolder(config: RootConfig): string | undefined {
  const state = nixState(config);
  return state === undefined ? undefined : `${state}/nix-broker-released`;
}
