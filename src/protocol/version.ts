/**
 * Versions and features of the worker protocol. A version is `major << 8 | minor` on the wire; the table only
 * uses the minor number, because the major number has been 1 since 2006.
 */

/** Oldest protocol version that is served: 1.21, Nix 2.3. */
export const OLDEST_MINOR = 21;
/** Newest protocol version that is served: 1.38, Nix 2.26 and later. */
export const NEWEST_MINOR = 38;
/** From this minor version on both sides send the features that they have. */
export const FEATURES_SINCE = 38;

/**
 * Features that the table knows how to speak (worker-protocol.hh, Nix 2.34 and its master; the last two are Determinate Nix's).
 * Others are never agreed on: Determinate's `provenance` and `versionedAddToStoreMultiple` give paths one field more.
 */
export const FEATURES = [
  "realisation-with-path-not-hash",
  "delete-dead-specific-referrers",
  "disable-set-options",
  "add-to-store-scanning",
  "addTempRoots",
  "queryPathInfos",
] as const;
export type Feature = (typeof FEATURES)[number];

/** Releases of Nix with which the protocol changed, and its minor version then. */
const RELEASES: readonly (readonly [string, number])[] = [
  ["2.3", 21],
  ["2.4", 32],
  ["2.7", 33],
  ["2.8", 34],
  ["2.15", 35],
  ["2.20", 37],
];

/** The oldest release of Nix that speaks 1.`minor`. */
export function oldestNixSpeaking(minor: number): string {
  return RELEASES.find(([, spoken]) => minor <= spoken)?.[0] ?? "2.24";
}

/** What the two ends of a connection agreed on; a codec is compiled for one of these. */
export interface Dialect {
  readonly minor: number;
  readonly features: ReadonlySet<Feature>;
}

/** `1.34`, or `1.38+feature+feature`: a key for pools and caches, and the text of the audit. */
export function dialectName(dialect: Dialect): string {
  return [`1.${dialect.minor}`, ...[...dialect.features].sort()].join("+");
}

export function versionToWire(minor: number): number {
  return (1 << 8) | minor;
}

/** @returns the minor version, or undefined when the major version is not 1. */
export function versionFromWire(wire: number): number | undefined {
  return Math.floor(wire / 0x100) === 1 ? wire % 0x100 : undefined;
}

/** The features of `offered` that the table knows and `allowed` names. */
export function knownFeatures(offered: Iterable<string>, allowed: Iterable<string> = FEATURES): Set<Feature> {
  const names = new Set(offered);
  const wanted = new Set(allowed);
  return new Set(FEATURES.filter((feature) => names.has(feature) && wanted.has(feature)));
}
