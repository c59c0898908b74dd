/** What the policy may ask of a view. A view in memory answers at once; `view = "store"` asks upstream. */
import type { ReplyOf } from "../protocol/operations.ts";
import type { Derivation } from "../store/derivation.ts";
import { type Pace, paced } from "../store/slices.ts";
import type { StorePath } from "../store/store-path.ts";

export type MaybePromise<T> = T | Promise<T>;

/** What a client may learn about a path (G3): nothing about its deriver, times or signatures. */
export interface PathInfo {
  readonly path: StorePath;
  /** SHA-256 of the NAR in base 16. */
  readonly narHash: string;
  /** Bytes. */
  readonly narSize: number;
  readonly references: readonly StorePath[];
  /** Empty if the path is not content-addressed. */
  readonly contentAddress: string;
}

export interface ViewQueries {
  readonly storeDir: string;
  /** Undefined for a path that is not in the view, whether it exists or not. */
  info(path: StorePath): MaybePromise<PathInfo | undefined>;
  all(): MaybePromise<readonly StorePath[]>;
  byHashPart(hashPart: string): MaybePromise<StorePath | undefined>;
  referrers(path: StorePath): MaybePromise<readonly StorePath[]>;
  /** Derivations of the view that have this output. */
  derivers(path: StorePath): MaybePromise<readonly StorePath[]>;
  /**
   * A derivation of the view; undefined for any other path.
   *
   * @throws DerivationError for a file that is not a derivation.
   */
  derivation(path: StorePath): Promise<Derivation | undefined>;
  /** What is missing for such a request, where upstream is to say so; otherwise `missing.ts` computes it. */
  readonly missing?:
    | ((targets: readonly string[], minor: number) => Promise<ReplyOf<"QueryMissing">>)
    | undefined;
  /** Output names and paths of a derivation of the view; "" for a path that is not known or not in the view. */
  outputs(path: StorePath): Promise<ReadonlyMap<string, StorePath | ""> | undefined>;
}

/**
 * The only error for a path that is not in the view, whether it exists or not: Nix's own message for a path
 * that does not (G1). It depends on the request alone.
 */
export class NotInView extends Error {
  override name = "NotInView";
  constructor(path: string) {
    super(`path '${path}' is not valid`);
  }
}

/** @throws NotInView */
export async function infoInView(path: StorePath, view: ViewQueries): Promise<PathInfo> {
  const info = await view.info(path);
  if (!info) throw new NotInView(path);
  return info;
}

/** @returns the paths, each once. @throws NotInView naming the first that is not */
export async function requireInView(
  view: ViewQueries,
  paths: Iterable<StorePath>,
  pace: Pace,
): Promise<StorePath[]> {
  const distinct = new Set<StorePath>();
  for await (const path of paced(paths, pace)) {
    if (distinct.has(path)) continue;
    await infoInView(path, view);
    distinct.add(path);
  }
  return [...distinct];
}
