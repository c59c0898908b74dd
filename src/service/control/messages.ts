/**
 * What commands ask the running service, and what it answers. `nix-broker status --json` and `sandboxes --json` print
 * the answers as they are, so their form is stable: fields may be added, but are never renamed or removed.
 */
import type { LimitName } from "../../policy/limits.ts";
import type { Verdict } from "../../policy/rules.ts";

/** Each request with its data and its answer. */
export interface ControlRequests {
  status: { readonly asks: Record<string, never>; readonly answer: StatusReport };
  sandboxes: { readonly asks: Record<string, never>; readonly answer: readonly SandboxSummary[] };
  /** `id` may be the beginning of an id, if only one sandbox has it, or the name of a jail. */
  sandbox: { readonly asks: { readonly id: string }; readonly answer: SandboxDetails };
  /** Ends a jail of the configuration; a new one begins at its socket. */
  endJail: { readonly asks: { readonly name: string }; readonly answer: Record<string, never> };
}

export type ControlRequestName = keyof ControlRequests;

export const controlRequestNames = [
  "status",
  "sandboxes",
  "sandbox",
  "endJail",
] as const satisfies ControlRequestName[];

export interface StatusReport {
  readonly service: {
    readonly version: string;
    readonly pid: number;
    readonly uid: number;
    /** ISO 8601. */
    readonly startedAt: string;
    readonly uptimeSeconds: number;
    /** The configuration file, null if there is none. */
    readonly configFile: string | null;
    /** Why the configuration was not taken up at the last reload, so that the one before is in force; null if it was. */
    readonly reloadError: string | null;
  };
  readonly upstream: {
    /** Its socket, or the command that reaches it. */
    readonly at: string;
    /** Why it cannot be used now; null while it can. */
    readonly error: string | null;
    /** `1.34`; null before it was reached. */
    readonly protocol: string | null;
    /** Older daemons do not tell. */
    readonly nixVersion: string | null;
  };
  readonly pool: { readonly idle: number; readonly size: number };
  readonly sandboxes: { readonly builds: number; readonly static: number };
  /** The static sockets of the configuration. */
  readonly sockets: readonly SocketState[];
  readonly connections: number;
  /** What requests hold of `runtime.memory`, in bytes, and how many wait for some. */
  readonly memory: { readonly held: number; readonly size: number; readonly waiting: number };
  /** Since the service started. */
  readonly requests: Readonly<Record<Verdict, number>>;
  readonly innerBuilds: { readonly running: number; readonly succeeded: number; readonly failed: number };
  readonly audit: {
    readonly folder: string;
    /** Why nothing can be recorded, and so nothing changed upstream; null while all is well. */
    readonly error: string | null;
    readonly records: number;
    readonly pending: number;
    readonly lagSeconds: number;
    readonly lost: number;
  };
  readonly linker: LinkerReport;
  /** How often each limit was hit since the start; limits that were not hit are absent. */
  readonly limitsHit: Readonly<Partial<Record<LimitName, number>>>;
}

/** A static socket. */
export interface SocketState {
  readonly path: string;
  readonly profile: string;
  /** Why nobody can connect; null while clients are served. */
  readonly error: string | null;
}

export interface LinkerReport {
  /** Why builds that opt in cannot be served; null if they can. */
  readonly error: string | null;
  /** Whether this broker serves builds; without them, nothing needs a linker. */
  readonly needed: boolean;
  /** Null when it does not answer. */
  readonly sandboxes: number | null;
  readonly queued: number | null;
  readonly linked: number | null;
  /** Requests of this service that wait for it. */
  readonly waiting: number;
}

export interface SandboxSummary {
  readonly id: string;
  /** The outer build; null for a static socket. */
  readonly derivation: string | null;
  /** The static socket; null for a build. */
  readonly socket: string | null;
  /** The name of the jail of the configuration that it is; null for others. */
  readonly jail: string | null;
  readonly profile: string;
  /** The sandbox that asked for this build; null for an outermost one. */
  readonly parent: string | null;
  readonly depth: number;
  /** The build user; null before it connected, and for a static socket. */
  readonly uid: number | null;
  readonly connections: number;
  /** Of the whole family: nested sandboxes share their quotas. */
  readonly builds: { readonly running: number; readonly total: number };
  readonly viewPaths: number;
  /** Of the whole family. */
  readonly bytesAdded: number;
  /** ISO 8601. */
  readonly since: string;
  /** When its lifetime is over, ISO 8601; null for none. */
  readonly endsAt: string | null;
  /** How much it may use of what is above; null for as much as it likes. */
  readonly limits: {
    readonly concurrentBuilds: number | null;
    readonly builds: number | null;
    readonly bytesAdded: number | null;
  };
  /** Why its requests are refused; null while they are not. */
  readonly refused: string | null;
}

/** A list that may be too long to send whole. */
export interface PathList {
  readonly total: number;
  /** The first of them, sorted. */
  readonly paths: readonly string[];
}

export interface SandboxDetails extends SandboxSummary {
  /** What its view held at the start; null for view "store", which holds everything. */
  readonly viewStart: PathList | null;
  readonly gained: PathList;
  /** The latest ones that ended, oldest first. */
  readonly innerBuilds: readonly InnerBuild[];
}

export interface InnerBuild {
  readonly derivation: string;
  readonly ok: boolean;
  /** Ten at most. */
  readonly outputs: Readonly<Record<string, string>>;
  readonly seconds: number;
  /** ISO 8601. */
  readonly endedAt: string;
}
