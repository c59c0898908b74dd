import type { StorePath } from "../store/store-path.ts";
import { type Limits, limitNames, tighterLimits } from "./limits.ts";
import { meetNames, namesWithin } from "./name-list.ts";
import { patternCovers } from "./url-pattern.ts";

/**
 * Groups of operations that a profile switches on or off: `query` asks about paths, `read` gets the contents of
 * a path over the connection (NarFromPath), `add` brings paths and derivations into the store, `build` builds.
 */
export const operationGroups = ["query", "read", "add", "build"] as const;
export type OperationGroup = (typeof operationGroups)[number];

/**
 * How fixed-output derivations, which have network access when they are built, are treated.
 *
 * - `"deny"`: none.
 * - `"known"`: those whose output is already in the view, so that nothing is built or fetched.
 * - a list of URL patterns (`url-pattern.ts`): what `known` allows, plus those that download a file by http or https:
 *   nix-broker fetches it itself, if the URL matches one. Never empty; that is `"deny"`.
 * - `"allow"`: all.
 */
export type FixedOutputs = "deny" | "known" | "allow" | readonly string[];

/**
 * Where the view of a static socket starts: with nothing, with everything valid, or with the closures of some
 * paths.
 */
export type ViewStart = "empty" | "store" | readonly StorePath[];

/** Features that let a build bypass the broker to reach the daemon or own its chroot. No profile may list them. */
export const forbiddenSystemFeatures = ["recursive-nix", "builder-rpc-v0", "uid-range"] as const;

/** A named policy: plain data, made before the first request and never changed. */
export interface Profile {
  readonly name: string;
  /** One sentence for `nix-broker policy`. */
  readonly summary: string;
  readonly operations: Readonly<Record<OperationGroup, boolean>>;
  readonly fixedOutputs: FixedOutputs;
  /** Whether a fixed-output path that upstream already has enters the view when a client names it. */
  readonly admitFixedOutputs: boolean;
  /** The values of `system` that inner derivations may have. */
  readonly systems: "any" | readonly string[];
  /** The values that inner derivations may have in `requiredSystemFeatures` (`name-list.ts`). */
  readonly requiredSystemFeatures: readonly string[];
  /** The daemon's environment variables that fixed-output derivations may use (`name-list.ts`). */
  readonly impureEnvVars: readonly string[];
  /** Whether fixed-output derivations with an md5 or sha1 hash may be built. */
  readonly weakHashes: boolean;
  /** Whether upstream may fetch from its caches what a client with the view `store` asks for. */
  readonly substitute: boolean;
  /** Whether clients get the log lines of inner builds. With `"none"` a build looks like a cache hit. */
  readonly innerLogs: "lines" | "none";
  /** Whether inner derivations may have floating content-addressed outputs. */
  readonly contentAddressed: boolean;
  /** Where the view of a static socket with this profile starts, unless the socket sets it. */
  readonly view: ViewStart;
  readonly limits: Limits;
}

/** The order of the authority that `fixedOutputs` gives; lists lie between `known` and `allow`. */
function fixedOutputsRank(value: FixedOutputs): number {
  return value === "deny" ? 0 : value === "known" ? 1 : value === "allow" ? 3 : 2;
}

function meetFixedOutputs(a: FixedOutputs, b: FixedOutputs): FixedOutputs {
  if (typeof a === "string" || typeof b === "string") {
    return fixedOutputsRank(a) <= fixedOutputsRank(b) ? a : b;
  }
  const common = new Set([
    ...a.filter((pattern) => b.some((other) => patternCovers(other, pattern))),
    ...b.filter((pattern) => a.some((other) => patternCovers(other, pattern))),
  ]);
  return common.size === 0 ? "known" : [...common];
}

function meetList(a: readonly string[], b: readonly string[]): readonly string[] {
  return a.filter((item) => b.includes(item));
}

function meetSystems(a: Profile["systems"], b: Profile["systems"]): Profile["systems"] {
  return a === "any" ? b : b === "any" ? a : meetList(a, b);
}

function meetViews(a: ViewStart, b: ViewStart): ViewStart {
  if (a === "store") return b;
  if (b === "store") return a;
  if (a === "empty" || b === "empty") return "empty";
  const common = meetList(a, b);
  return common.length === 0 ? "empty" : common;
}

/**
 * The profile that permits what both permit. A sandbox nested in another gets the meet of its own profile and
 * that of the sandbox that asked for it, so that nobody gains rights by having somebody else ask.
 */
export function meet(a: Profile, b: Profile): Profile {
  return {
    name: a.name === b.name ? a.name : `${a.name}+${b.name}`,
    summary:
      a.name === b.name ? a.summary : `What both the profile "${a.name}" and the profile "${b.name}" permit.`,
    operations: Object.fromEntries(
      operationGroups.map((group) => [group, a.operations[group] && b.operations[group]]),
    ) as Record<OperationGroup, boolean>,
    fixedOutputs: meetFixedOutputs(a.fixedOutputs, b.fixedOutputs),
    admitFixedOutputs: a.admitFixedOutputs && b.admitFixedOutputs,
    systems: meetSystems(a.systems, b.systems),
    requiredSystemFeatures: meetNames(a.requiredSystemFeatures, b.requiredSystemFeatures),
    impureEnvVars: meetNames(a.impureEnvVars, b.impureEnvVars),
    weakHashes: a.weakHashes && b.weakHashes,
    substitute: a.substitute && b.substitute,
    innerLogs: a.innerLogs === "none" ? "none" : b.innerLogs,
    contentAddressed: a.contentAddressed && b.contentAddressed,
    view: meetViews(a.view, b.view),
    limits: tighterLimits(a.limits, b.limits),
  };
}

function withinList(a: readonly string[], b: readonly string[]): boolean {
  return a.every((item) => b.includes(item));
}

function withinFixedOutputs(a: FixedOutputs, b: FixedOutputs): boolean {
  return typeof a === "string" || typeof b === "string"
    ? fixedOutputsRank(a) <= fixedOutputsRank(b)
    : a.every((pattern) => b.some((other) => patternCovers(other, pattern)));
}

function withinViews(a: ViewStart, b: ViewStart): boolean {
  return b === "store" || a === "empty" || (a !== "store" && b !== "empty" && withinList(a, b));
}

/** Whether everything that `a` permits is permitted by `b` too. */
export function permitsNoMoreThan(a: Profile, b: Profile): boolean {
  return (
    operationGroups.every((group) => !a.operations[group] || b.operations[group]) &&
    withinFixedOutputs(a.fixedOutputs, b.fixedOutputs) &&
    (!a.admitFixedOutputs || b.admitFixedOutputs) &&
    (b.systems === "any" || (a.systems !== "any" && withinList(a.systems, b.systems))) &&
    namesWithin(a.requiredSystemFeatures, b.requiredSystemFeatures) &&
    namesWithin(a.impureEnvVars, b.impureEnvVars) &&
    (!a.weakHashes || b.weakHashes) &&
    (!a.substitute || b.substitute) &&
    (a.innerLogs === "none" || b.innerLogs === "lines") &&
    (!a.contentAddressed || b.contentAddressed) &&
    withinViews(a.view, b.view) &&
    limitNames.every((name) => a.limits[name] <= b.limits[name])
  );
}
