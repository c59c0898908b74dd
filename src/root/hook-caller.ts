/**
 * Whether a process belongs to a build of these outputs that runs now. The pre-build hook outlives a worker that is killed, and
 * then has no nix-daemon among its ancestors any more, as below root's own `nix-build`; and who is no builder can mount a chroot
 * that is not theirs. Nix has the outputs' locks from before it calls the hook until after the build: that tells them apart.
 */
import type { StorePath } from "../store/store-path.ts";
import { readLocks } from "./output-locks.ts";
import { ancestors, isRoots } from "./process-tree.ts";

/**
 * @param pid of the hook's parent, or of a builder's process
 * @param outputs of the derivation; "" where it does not know them
 * @returns true also where no output is known.
 */
export function hasCaller(pid: number, outputs: readonly (StorePath | "")[]): boolean {
  const known = outputs.filter((path) => path !== "");
  if (known.length === 0) return true;
  // A builder can give its own files the names of others' locks.
  for (const ancestor of ancestors(pid))
    if (isRoots(ancestor.pid) && readLocks(ancestor, known) === "held") return true;
  return false;
}
