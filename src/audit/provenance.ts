/**
 * How an output was built: its outer build, the inner builds requested in its sandbox, the sandboxes that
 * those had themselves, and what was added in each. Derived from the audit's records alone.
 */
import { outputsOf } from "./events.ts";
import type { AuditReader } from "./query.ts";
import type { StoredRecord } from "./record.ts";

/** One build of the tree. */
export interface ProvenanceBuild {
  readonly derivation: string;
  /** Store paths by output name; of outer builds, whose names the audit does not know, by their order. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Microseconds since the epoch. */
  readonly started: number;
  readonly finished: number | undefined;
  /** Undefined while it runs, or when the end was not recorded. */
  readonly ok: boolean | undefined;
  /** Who asked for it in which sandbox; undefined for an outermost build. */
  readonly asker: ProvenanceAsker | undefined;
  /** The position in the chain of the record that describes it. */
  readonly seq: number;
  /** The sandbox that its builder had, if it asked for one. */
  readonly sandbox: ProvenanceSandbox | undefined;
}

export interface ProvenanceAsker {
  readonly sandbox: string;
  readonly uid: number | undefined;
  readonly pid: number | undefined;
}

export interface ProvenanceSandbox {
  readonly id: string;
  readonly profile: string;
  /** Why it ended; undefined while it has not. */
  readonly end: string | undefined;
  /** What clients added to the store, in that order, derivations left out. */
  readonly sources: readonly ProvenanceSource[];
  readonly requests: number;
  readonly denied: number;
  readonly builds: readonly ProvenanceBuild[];
}

export interface ProvenanceSource {
  readonly path: string;
  readonly operation: string;
  readonly time: number;
  readonly uid: number | undefined;
  readonly seq: number;
}

const ADDING = new Set([
  "AddToStore",
  "AddTextToStore",
  "AddToStoreNar",
  "AddMultipleToStore",
  "AddToStoreScanning",
]);
/** Sandboxes are nested no deeper than limits.depth says; a chain that was tampered with may claim anything. */
const DEEPEST = 64;

/**
 * The tree of builds behind a path or a derivation; undefined if no record mentions it. The latest, if there
 * are several.
 */
export function provenance(reader: AuditReader, path: string): ProvenanceBuild | undefined {
  return new Tree(reader).find(path);
}

interface Known {
  readonly begin: StoredRecord;
  end: StoredRecord | undefined;
}

class Tree {
  private readonly reader: AuditReader;
  private readonly sandboxes = new Map<string, Known>();
  private readonly builds: StoredRecord[] = [];
  /**
   * The ids of those in the tree so far: each is in it once. Clients can ask for one build many times at once, and for the
   * build that they run in; the tree would grow without end.
   */
  private readonly placed = new Set<string>();

  constructor(reader: AuditReader) {
    this.reader = reader;
    for (const record of reader.iterate({ kinds: ["sandbox", "build"], order: "oldest" })) {
      const id = record.sandbox ?? "";
      const known = this.sandboxes.get(id);
      if (record.kind === "build") this.builds.push(record);
      else if (record.op === "begin") {
        // After a restart of the service a sandbox begins again.
        if (known === undefined) this.sandboxes.set(id, { begin: record, end: undefined });
      } else if (known !== undefined) known.end = record;
    }
  }

  find(path: string): ProvenanceBuild | undefined {
    const inner = this.builds.findLast(
      (record) => derivationOf(record) === path || [...outputsOf(record).values()].includes(path),
    );
    const outer = [...this.sandboxes.values()].findLast(
      ({ begin }) => begin.outer !== undefined && (begin.outer === path || begin.subjects?.includes(path)),
    );
    // A build with its own sandbox that another build asked for appears in that build's record, with its asker.
    if (inner !== undefined && (outer === undefined || inner.seq > outer.begin.seq))
      return this.inner(inner, 0);
    return outer && this.outer(outer, 0);
  }

  private inner(record: StoredRecord, depth: number): ProvenanceBuild {
    const derivation = derivationOf(record);
    const finished = record.time + (record.durationUs ?? 0);
    const own = [...this.sandboxes.values()].findLast(
      ({ begin }) =>
        begin.outer === derivation &&
        !this.placed.has(begin.sandbox ?? "") &&
        begin.time <= finished &&
        begin.time >= record.time - SLACK_US,
    );
    return {
      derivation,
      outputs: Object.fromEntries(outputsOf(record)),
      started: record.time,
      finished,
      ok: record.upstreamError === undefined,
      asker: askerOf(record),
      seq: record.seq,
      sandbox: own && this.sandbox(own, depth + 1),
    };
  }

  /** A build that no request named: an outermost one, or a dependency of a requested one. */
  private outer({ begin, end }: Known, depth: number): ProvenanceBuild {
    return {
      derivation: begin.outer ?? "",
      outputs: Object.fromEntries(outputsOf(begin)),
      started: begin.time,
      finished: end?.time,
      ok: end === undefined ? undefined : !/\bfailed\b/.test(end.reason ?? ""),
      asker: undefined,
      seq: begin.seq,
      sandbox: this.sandbox({ begin, end }, depth + 1),
    };
  }

  private sandbox({ begin, end }: Known, depth: number): ProvenanceSandbox | undefined {
    if (depth > DEEPEST) return undefined;
    const id = begin.sandbox ?? "";
    this.placed.add(id);
    const builds = this.builds
      .filter(({ sandbox }) => sandbox === id)
      .map((record) => this.inner(record, depth));
    for (const known of this.sandboxes.values())
      if (known.begin.detail?.parent === id && !this.placed.has(known.begin.sandbox ?? ""))
        builds.push(this.outer(known, depth));
    return {
      id,
      profile: String(begin.detail?.profile ?? ""),
      end: end?.reason?.replace(/^this sandbox has ended: /, ""),
      ...this.requestsOf(begin, end),
      builds: builds.sort((a, b) => a.started - b.started),
    };
  }

  private requestsOf(
    begin: StoredRecord,
    end: StoredRecord | undefined,
  ): Pick<ProvenanceSandbox, "sources" | "requests" | "denied"> {
    const sources: ProvenanceSource[] = [];
    const known = new Set<string>();
    let requests = 0;
    let denied = 0;
    // A tree has many sandboxes, and each was a small part of the time that the audit tells of.
    const lifetime = {
      afterSeq: begin.seq,
      beforeSeq: end === undefined ? undefined : end.seq + LATE_RECORDS,
    };
    const filter = { ...lifetime, sandbox: begin.sandbox, kinds: ["request"], order: "oldest" } as const;
    for (const record of this.reader.iterate(filter)) {
      requests += record.count ?? 1;
      if (record.verdict === "deny") denied += record.count ?? 1;
      if (!ADDING.has(record.op) || record.verdict !== "forward" || record.upstreamError !== undefined)
        continue;
      for (const path of addedBy(record))
        if (!path.endsWith(".drv") && !known.has(path)) {
          known.add(path);
          sources.push({ path, operation: record.op, time: record.time, uid: record.uid, seq: record.seq });
        }
    }
    return { sources, requests, denied };
  }
}

/** What was under way when a sandbox ended is recorded soon after that; in how many records' time, at most. */
const LATE_RECORDS = 100_000;

/** The hook makes a build's sandbox after the build was asked for; clocks of records are those of one machine. */
const SLACK_US = 1_000_000;

function derivationOf(record: StoredRecord): string {
  const derivation = record.detail?.derivation;
  return typeof derivation === "string" ? derivation : (record.subjects?.[0] ?? "");
}

function askerOf({ sandbox = "", uid, pid }: StoredRecord): ProvenanceAsker {
  return { sandbox, uid, pid };
}

/** The store paths that a request added; the name alone where the request was not answered. */
function addedBy({ detail, subjects = [] }: StoredRecord): readonly string[] {
  if (typeof detail?.path === "string") return [detail.path];
  if (Array.isArray(detail?.paths)) return detail.paths.filter((path) => typeof path === "string");
  return subjects.filter((subject) => subject.startsWith("/"));
}

/** Every build of a tree, itself first, with how deep it is nested. */
export function* walk(
  build: ProvenanceBuild,
  depth = 0,
): Generator<readonly [ProvenanceBuild, number], void> {
  yield [build, depth];
  for (const inner of build.sandbox?.builds ?? []) yield* walk(inner, depth + 1);
}
