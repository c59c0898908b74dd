/**
 * The limits of a profile. One table holds each limit's key, unit, default and meaning, so that the type, the
 * configuration file, its documentation and the error that names a limit cannot drift apart.
 */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

/** What a limit counts. Sizes and times may be written with a unit in a configuration file. */
export type LimitUnit = "bytes" | "seconds" | "count" | "count a minute";

/** One row of {@link limitTable}. */
export interface LimitRow {
  /** The key under `[limits]` and `[profiles.NAME.limits]`. */
  readonly key: string;
  readonly unit: LimitUnit;
  readonly default: number;
  /** Whether `"unlimited"` may be written. Limits that protect the service's memory never may. */
  readonly unlimited: boolean;
  /** What is limited, and what happens beyond that. */
  readonly summary: string;
}

function bounded(key: string, unit: LimitUnit, value: number, summary: string): LimitRow {
  return {
    key,
    unit,
    default: value,
    unlimited: false,
    summary,
  };
}

function optional(key: string, unit: LimitUnit, value: number, summary: string): LimitRow {
  return {
    key,
    unit,
    default: value,
    unlimited: true,
    summary,
  };
}

export const limitTable = {
  textBytes: bounded(
    "text_bytes",
    "bytes",
    16 * MiB,
    "The longest derivation or text that a client may add. These are held in memory, because they are judged before upstream sees them.",
  ),
  requestBytes: bounded(
    "request_bytes",
    "bytes",
    32 * MiB,
    "The longest request, not counting bulk bodies. A longer one ends the connection.",
  ),
  bodyBytes: optional(
    "body_bytes",
    "bytes",
    16 * GiB,
    "The longest bulk body (the contents of a path being added) of one request. Bodies are streamed, never held in memory.",
  ),
  bytesAdded: optional(
    "bytes_added",
    "bytes",
    64 * GiB,
    "How much a sandbox may add to the store in total. Beyond that, requests that add are denied.",
  ),
  viewPaths: bounded(
    "view_paths",
    "count",
    1_000_000,
    "How many paths the view of a sandbox may hold. Beyond that, requests that would make it grow are denied.",
  ),
  connections: bounded(
    "connections",
    "count",
    64,
    "How many connections a sandbox may have at once. Further ones are closed with an error.",
  ),
  concurrentBuilds: bounded(
    "concurrent_builds",
    "count",
    32,
    "How many build requests of a sandbox may be in progress at once. Further ones are denied.",
  ),
  buildTargets: bounded(
    "build_targets",
    "count",
    10_000,
    "How many paths and outputs one build request may name. One that names more is denied.",
  ),
  builds: optional(
    "builds",
    "count",
    100_000,
    "How many build requests a sandbox may make in total. Further ones are denied.",
  ),
  buildRate: optional(
    "build_rate",
    "count a minute",
    6_000,
    "How many build requests a sandbox may make within a minute. Further ones are denied.",
  ),
  depth: bounded(
    "depth",
    "count",
    4,
    "How deep sandboxes may be nested: the sandbox of an outer build has depth 1, that of an inner build that opts in has depth 2.",
  ),
  buildTimeout: optional(
    "build_timeout",
    "seconds",
    24 * 3600,
    "How long one inner build may take. A client may ask for less, not for more.",
  ),
  silentTimeout: optional(
    "silent_timeout",
    "seconds",
    Number.POSITIVE_INFINITY,
    "How long an inner build may go without printing anything. A client may ask for less, not for more.",
  ),
  gcRoots: bounded(
    "gc_roots",
    "count",
    10_000,
    "How many roots of the garbage collector a jail may have made (`nix-broker jail`, `[jails.NAME]`): results that are kept until it ends, and links. Beyond that, requests that need one are denied.",
  ),
  requestDeadline: bounded(
    "request_deadline",
    "seconds",
    600,
    "How long upstream may make no progress on a forwarded request other than a build, or on the broker's own requests. Then the client gets an error.",
  ),
  idle: optional(
    "idle",
    "seconds",
    Number.POSITIVE_INFINITY,
    "How long a connection may stay open without a request. Then it is closed.",
  ),
  auditRows: optional(
    "audit_rows",
    "count",
    10_000_000,
    "How many audit records a sandbox may cause. Repeated requests share a record; one that names many paths counts as several. Beyond that, every request is denied.",
  ),
  logBytes: bounded(
    "log_bytes",
    "bytes",
    1 * MiB,
    "How much log output is kept for a client that does not read it. Beyond that, lines are dropped and counted.",
  ),
} as const satisfies Record<string, LimitRow>;

export type LimitName = keyof typeof limitTable;

/** The limits in force. `Infinity` is "unlimited". Units: see {@link limitTable}. */
export type Limits = { readonly [name in LimitName]: number };

export const limitNames = Object.keys(limitTable) as readonly LimitName[];

function mapLimits(value: (name: LimitName) => number): Limits {
  return Object.fromEntries(limitNames.map((name) => [name, value(name)])) as Limits;
}

/** The limits of a profile that does not set any. */
export const defaultLimits: Limits = mapLimits((name) => limitTable[name].default);

/** For each limit the tighter of two. */
export function tighterLimits(a: Limits, b: Partial<Limits>): Limits {
  return mapLimits((name) => Math.min(a[name], b[name] ?? Number.POSITIVE_INFINITY));
}
