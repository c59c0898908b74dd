/**
 * Whether anybody waits for the pre-build hook. It outlives a worker that is killed, and then has no nix-daemon among its
 * ancestors any more, as below root's own `nix-build`. Nix has the outputs' locks before it calls the hook: that tells them apart.
 */
import type { StorePath } from "../store/store-path.ts";
import { readLocks } from "./output-locks.ts";
import { ancestors } from "./process-tree.ts";

/**
 * @param pid of the hook's parent
 * @param outputs of the derivation; "" where it does not know them
 * @returns true also where no output is known.
 */
export function hasCaller(pid: number, outputs: readonly (StorePath | "")[]): boolean {
  const known = outputs.filter((path) => path !== "");
  if (known.length === 0) return true;
  for (const ancestor of ancestors(pid)) if (readLocks(ancestor, known) === "held") return true;
  return false;
}
