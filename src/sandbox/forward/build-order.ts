/** The order in which the derivations of a request depend on each other. Pure. */
import type { Pace } from "../../store/slices.ts";
import type { StorePath } from "../../store/store-path.ts";
import type { ApprovedRuns } from "./approve.ts";

/** All that may run, each after its inputs. */
export function inputsFirst(runs: ApprovedRuns): StorePath[] {
  const ordered: StorePath[] = [];
  const visited = new Set<StorePath>();
  for (const root of runs.keys()) {
    // Without recursion: graphs can be deeper than the stack.
    const stack = [{ path: root, inputs: inputsIn(runs, root), next: 0 }];
    if (visited.has(root)) continue;
    visited.add(root);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const input = top.inputs[top.next++];
      if (input === undefined) {
        ordered.push(top.path);
        stack.pop();
      } else if (!visited.has(input)) {
        visited.add(input);
        stack.push({ path: input, inputs: inputsIn(runs, input), next: 0 });
      }
    }
  }
  return ordered;
}

/** Those of its inputs that may run, too; the others are held. */
export function inputsIn(runs: ApprovedRuns, path: StorePath): StorePath[] {
  return (runs.get(path)?.inputs ?? []).filter((input) => runs.has(input));
}

/**
 * Those that have one of our sandboxes while they are built, and that others need, inputs first. Nix
 * registers their outputs before their references are complete, so whatever needs them must not be built
 * until they are (G6).
 */
export function neededWithSandbox(runs: ApprovedRuns): StorePath[] {
  if (![...runs.values()].some(({ optsIn }) => optsIn)) return [];
  const needed = new Set([...runs.keys()].flatMap((path) => inputsIn(runs, path)));
  return inputsFirst(runs).filter((path) => needed.has(path) && runs.get(path)?.optsIn);
}

/** What may run and needs others, by what it needs: for walks from an input up to all that depends on it. */
export type Dependents = ReadonlyMap<StorePath, readonly StorePath[]>;

export async function dependentsIn(runs: ApprovedRuns, pace: Pace): Promise<Dependents> {
  const dependents = new Map<StorePath, StorePath[]>();
  for (const path of runs.keys()) {
    if (pace.due) await pace.pause();
    for (const input of inputsIn(runs, path)) {
      const known = dependents.get(input);
      if (known) known.push(path);
      else dependents.set(input, [path]);
    }
  }
  return dependents;
}

/**
 * Visits a derivation, what needs it, and so on.
 * @param visit whether this is the first visit; from there on up nothing is visited again otherwise
 */
export async function climb(
  dependents: Dependents,
  from: StorePath,
  visit: (path: StorePath) => boolean,
  pace: Pace,
): Promise<void> {
  for (const pending = [from]; pending.length > 0; ) {
    if (pace.due) await pace.pause();
    const path = pending.pop()!;
    if (!visit(path)) continue;
    for (const dependent of dependents.get(path) ?? []) pending.push(dependent);
  }
}
