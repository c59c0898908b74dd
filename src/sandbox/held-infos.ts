/**
 * What upstream told of paths that clients added, for as long as it cannot go stale: the connection that added a path is a
 * temporary root of it while it is open, and what is content-addressed does not change.
 */
import type { PathInfo } from "../policy/view-queries.ts";
import type { StorePath } from "../store/store-path.ts";

/** The connection that added a path. */
export interface Holder {
  readonly destroyed: boolean;
}

interface Held {
  readonly info: PathInfo;
  readonly holder: Holder;
}

/** Of all infos together: one for each and one for each of its references, which are some hundred bytes. */
const MOST_WEIGHT = 50_000;

export class HeldInfos {
  /** The oldest first. */
  private readonly held = new Map<StorePath, Held>();
  private weight = 0;

  add(info: PathInfo, holder: Holder): void {
    const weight = weightOf(info);
    if (info.contentAddress === "" || weight > MOST_WEIGHT) return;
    this.delete(info.path);
    this.held.set(info.path, { info, holder });
    this.weight += weight;
    for (const oldest of this.held.keys()) {
      if (this.weight <= MOST_WEIGHT) return;
      this.delete(oldest);
    }
  }

  get(path: StorePath): PathInfo | undefined {
    const held = this.held.get(path);
    if (!held?.holder.destroyed) return held?.info;
    this.delete(path);
    return undefined;
  }

  private delete(path: StorePath): void {
    const held = this.held.get(path);
    if (!held) return;
    this.held.delete(path);
    this.weight -= weightOf(held.info);
  }
}

function weightOf({ references }: PathInfo): number {
  return 1 + references.length;
}
