/**
 * Removes what nobody needs any more: the durable record of a sandbox is made first of all and removed last, so what has the id of
 * one without a record was made too late. A hook makes it that outlives its worker, and goes on while the linker settles that build.
 */
import { lstatSync, rmdirSync, rmSync } from "node:fs";
import type { RootConfig } from "../contract/root-config.ts";
import {
  derivationIndex,
  derivationsFolder,
  isSandboxId,
  type SandboxId,
  sandboxesFolder,
  sandboxPlaces,
} from "../contract/runtime-tree.ts";
import { namesOf } from "./folder-names.ts";
import { releasedFolder } from "./nix-state.ts";
import { letGo, putAside } from "./put-aside.ts";

/** A sandbox's own folder is not touched: it outlives the record until the service has let go of it. */
export async function removeLeftBehind(config: RootConfig): Promise<void> {
  removeEntriesOfIndex(config);
  for (const name of namesOf(sandboxesFolder(config)))
    if (name.startsWith(".") && isLeftBehind(config, name.slice(1)))
      await letGo(`${sandboxesFolder(config)}/${name}`);
  for (const name of namesOf(config.gcrootsDir))
    if (isLeftBehind(config, name.replace(/\.gains$/, "")))
      await putAside(`${config.gcrootsDir}/${name}`, releasedFolder(config));
}

/** An entry goes with its sandbox's folder, and not before. */
function removeEntriesOfIndex(config: RootConfig): void {
  for (const derivationBase of namesOf(derivationsFolder(config))) {
    const index = derivationIndex(config, derivationBase);
    const ids = namesOf(index);
    const left = ids.filter((id) => isLeftBehind(config, id) && !exists(sandboxPlaces(config, id).folder));
    for (const id of left) rmSync(`${index}/${id}`, { force: true });
    if (left.length === ids.length) removeIfEmpty(index);
  }
}

function removeIfEmpty(index: string): void {
  try {
    rmdirSync(index);
  } catch {
    // A hook has registered another sandbox of that derivation.
  }
}

/** @param id of something that was there: its record, if it is missing now, was there before and has been removed. */
function isLeftBehind(config: RootConfig, id: SandboxId): boolean {
  return isSandboxId(id) && !exists(sandboxPlaces(config, id).durable);
}

/** @throws errors of the operating system that do not show whether it is there */
function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
