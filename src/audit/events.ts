/** Records of the kinds other than requests: which fact goes where. */

import type { AuditRecord, JsonObject } from "./record.ts";

/** Who asked, as far as known. */
export interface Asker {
  readonly sandbox: string;
  readonly outer?: string | undefined;
  readonly connection?: number | undefined;
  readonly uid?: number | undefined;
  readonly pid?: number | undefined;
  readonly protocol?: string | undefined;
}

export interface BuildFacts {
  readonly time: number;
  readonly durationUs: number;
  /** The inner derivation. */
  readonly derivation: string;
  /** Store paths by output name; empty after a failure. */
  readonly outputs: ReadonlyMap<string, string>;
  /** Upstream's error when the build failed, log lines of fixed-output derivations included. */
  readonly error?: string | undefined;
  /** The intent of the request that asked for it. */
  readonly intent?: number | undefined;
}

/** An inner build and its result. */
export function buildRecord(asker: Asker, build: BuildFacts): AuditRecord {
  return {
    ...asker,
    kind: "build",
    op: "Build",
    time: build.time,
    durationUs: build.durationUs,
    subjects: [build.derivation, ...build.outputs.values()],
    upstreamError: build.error,
    detail: {
      derivation: build.derivation,
      outputs: Object.fromEntries(build.outputs),
      request: build.intent,
    },
  };
}

export interface FetchFacts {
  readonly time: number;
  readonly durationUs: number;
  /** The inner derivation whose output it is. */
  readonly derivation: string;
  readonly output: string;
  /** Where it came from and what that redirected to; all that were tried if it failed. */
  readonly urls: readonly string[];
  readonly bytes: number;
  /** Why it failed. */
  readonly reason?: string | undefined;
  /** The intent of the request that needs it. */
  readonly intent?: number | undefined;
}

/** A fixed output that nix-broker fetched itself, or tried to. */
export function fetchRecord(asker: Asker, fetch: FetchFacts): AuditRecord {
  const { time, durationUs, derivation, output, urls, bytes, reason, intent } = fetch;
  return {
    ...asker,
    kind: "fetch",
    op: "Fetch",
    time,
    durationUs,
    reason,
    subjects: [derivation, output, ...urls],
    detail: { derivation, output, urls, bytes, request: intent },
  };
}

export interface SandboxFacts {
  readonly time: number;
  readonly sandbox: string;
  readonly outer?: string | undefined;
  readonly uid?: number | undefined;
  readonly reason?: string | undefined;
  /** Of a beginning: the store paths of the outer outputs that are known, by output name. */
  readonly outputs?: ReadonlyMap<string, string> | undefined;
  /** Profile, parent sandbox, depth, where the view started; at the end counts and sums. */
  readonly detail?: JsonObject | undefined;
}

/** A sandbox began or ended, with the reason. */
export function sandboxRecord(event: "begin" | "end", facts: SandboxFacts): AuditRecord {
  const outputs = facts.outputs ?? new Map<string, string>();
  return {
    kind: "sandbox",
    op: event,
    time: facts.time,
    sandbox: facts.sandbox,
    outer: facts.outer,
    uid: facts.uid,
    reason: facts.reason,
    subjects: [...outputs.values()],
    detail: outputs.size > 0 ? { ...facts.detail, outputs: Object.fromEntries(outputs) } : facts.detail,
  };
}

/**
 * The service's own events. `unwritable`: from then until this record, nothing could be recorded. `lost`: records
 * could be neither written nor kept. `retire`: old segments were removed.
 */
export const SERVICE_EVENTS = ["start", "reload", "stop", "unwritable", "lost", "retire"] as const;
export type ServiceEvent = (typeof SERVICE_EVENTS)[number];

/** Something that the service did; for `start` and `reload`, version and configuration hash belong into the detail. */
export function serviceRecord(
  event: ServiceEvent,
  time: number,
  detail: JsonObject,
  reason?: string,
): AuditRecord {
  return { kind: "service", op: event, time, reason, detail };
}

/** The outputs by name that a build, or a sandbox of one that begins, is recorded with; empty for other records. */
export function outputsOf(record: AuditRecord): Map<string, string> {
  const outputs = record.kind === "build" || record.kind === "sandbox" ? record.detail?.outputs : undefined;
  if (typeof outputs !== "object" || outputs === null || Array.isArray(outputs)) return new Map();
  return new Map(
    Object.entries(outputs).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}
