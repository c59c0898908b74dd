/** The machine's store as the linker can write to it. */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { errorCode, errorText } from "../contract/trusted-file.ts";

/** @returns undefined when entries can be made in the store's folder, else why not. */
export function storeProblem(storeReal: string): string | undefined {
  try {
    accessSync(storeReal, constants.W_OK);
    return undefined;
  } catch (error) {
    return errorCode(error) === "EROFS"
      ? `${storeReal} is mounted read-only: give the linker a mount namespace of its own and --remount-store`
      : `${storeReal}: ${errorText(error)}`;
  }
}

/**
 * Mounts the store writable for this process, as nix-daemon does for itself if it is a read-only bind mount
 * (NixOS). The caller must have its own mount namespace, or the store becomes writable for everybody.
 */
export function remountStore(storeReal: string): void {
  if (storeProblem(storeReal) !== undefined)
    spawnSync("mount", ["-o", "remount,bind,rw", storeReal], { stdio: "inherit" });
}
