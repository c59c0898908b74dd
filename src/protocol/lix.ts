/** Telling Lix, the relative of Nix, by what its daemon says in the greeting, which never names it. */

/** The version of the protocol that Lix says for good (lix/libstore/worker-protocol.hh in its tree). */
const SPOKEN = 35;
/** Releases of Lix are numbered from here on, far above the last Nix that speaks 1.35 (2.19). */
const FIRST: Release = [2, 90];
/** From here on Lix runs the pre-build hook, and throws away what it prints. */
const HOOK_UNHEARD: Release = [2, 93];

type Release = readonly [number, number];

/** What Lix is upstream; undefined for anything else. */
export interface Lix {
  readonly version: string;
  /** Whether a pre-build hook can map anything into builds. */
  readonly hearsHook: boolean;
}

/** @param minor of the protocol that upstream offers */
export function lixBehind(minor: number, nixVersion: string | undefined): Lix | undefined {
  const [, major = "", release = ""] = /^([0-9]{1,6})\.([0-9]{1,6})/.exec(nixVersion ?? "") ?? [];
  if (nixVersion === undefined || major === "" || minor !== SPOKEN) return undefined;
  const own: Release = [Number(major), Number(release)];
  return isBefore(own, FIRST) ? undefined : { version: nixVersion, hearsHook: isBefore(own, HOOK_UNHEARD) };
}

function isBefore([major, release]: Release, [otherMajor, otherRelease]: Release): boolean {
  return major < otherMajor || (major === otherMajor && release < otherRelease);
}
