/** What the policy may ask of a view. A view in memory answers at once; `view = "store"` asks upstream. */
import { type Derivation, outputKind } from "../store/derivation.ts";
import { distinct, type Pace } from "../store/slices.ts";
import type { StorePath } from "../store/store-path.ts";

export type MaybePromise<T> = T | Promise<T>;

/** What a client may learn about a path (G3): nothing about its times or signatures. */
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

/** As PathInfo, with the derivation that made it, if that is known. */
export interface MadePathInfo extends PathInfo {
  readonly deriver: StorePath | "";
}

export interface ViewQueries {
  readonly storeDir: string;
  /** Undefined for a path that is not in the view, whether it exists or not. */
  info(path: StorePath): MaybePromise<PathInfo | undefined>;
  /** As `info`; only where derivers need no hiding. */
  readonly madeInfo?: (path: StorePath) => MaybePromise<MadePathInfo | undefined>;
  /** Whether a path is in the view. */
  has(path: StorePath): MaybePromise<boolean>;
  /** Those of these paths that are in the view. Long lists are for `amongView`. */
  among(paths: readonly StorePath[]): MaybePromise<ReadonlySet<StorePath>>;
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
  /** A derivation, without asking upstream whether it is still there; undefined if that has to be asked to know it. */
  remembered(path: StorePath): Derivation | undefined;
  /** A client will probably ask about these next, each by itself. */
  expect?(paths: readonly StorePath[]): void;
  /** Whether upstream may ask its caches for clients. */
  readonly substitutes?: boolean;
  /**
   * Output names and paths of a derivation of the view; "" for a path that is not known or not in the view.
   * @param question the same object for all that one request asks: what many derivations need is then looked at once
   */
  outputs(path: StorePath, question?: object): Promise<OutputPaths | undefined>;
}

/** Output paths by name. */
export type OutputPaths = ReadonlyMap<string, StorePath | "">;

/** The outputs whose paths are in the derivation itself; "" for the others. */
export function staticOutputs({ outputs }: Derivation): Map<string, StorePath | ""> {
  return new Map(
    [...outputs].map(([name, output]) => {
      const kind = outputKind(output);
      return [name, kind === "input-addressed" || kind === "fixed" ? output.path : ""];
    }),
  );
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

/** How many paths are asked about at once: upstream answers nobody else meanwhile. */
const ASKED_AT_ONCE = 256;

/** Those of these paths that are in the view. */
export async function amongView(
  view: ViewQueries,
  paths: readonly StorePath[],
  pace: Pace,
): Promise<Set<StorePath>> {
  const found = new Set<StorePath>();
  for (let i = 0; i < paths.length; i += ASKED_AT_ONCE) {
    const among = view.among(paths.slice(i, i + ASKED_AT_ONCE));
    for (const path of among instanceof Promise ? await among : among) found.add(path);
    if (i + ASKED_AT_ONCE < paths.length && pace.due) await pace.pause();
  }
  return found;
}

/** @returns the paths, each once. @throws NotInView naming the first that is not */
export async function requireInView(
  view: ViewQueries,
  paths: readonly StorePath[],
  pace: Pace,
): Promise<StorePath[]> {
  const isShort = paths.length <= ASKED_AT_ONCE;
  const all = [...(isShort ? new Set(paths) : await distinct(paths, pace))];
  const among = isShort ? view.among(all) : amongView(view, all, pace);
  const found = among instanceof Promise ? await among : among;
  if (found.size < all.length) for (const path of all) if (!found.has(path)) throw new NotInView(path);
  return all;
}
