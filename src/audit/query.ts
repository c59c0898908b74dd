/** Finds records: the filters of `nix-broker audit`, over all segments, also while the service writes. */

import { existsSync, statSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { AuditError } from "./error.ts";
import { AUDIT_KINDS, type AuditKind, type StoredRecord, VERDICTS, type Verdict } from "./record.ts";
import { segmentHead } from "./schema.ts";
import { listSegments, openForReading, type SegmentFile } from "./segment.ts";
import { SegmentReader } from "./segment-reader.ts";

export interface AuditFilter {
  readonly kinds?: readonly AuditKind[] | undefined;
  /** Its id, or the beginning of it. */
  readonly sandbox?: string | undefined;
  /** The outer derivation: a path, or the beginning of its base name (hash part). */
  readonly derivation?: string | undefined;
  /** An operation or event by its name, in any case. */
  readonly op?: string | undefined;
  readonly verdict?: Verdict | undefined;
  /** Microseconds since the epoch: at or after, before. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
  /** A subject: a path, or the beginning of its base name (hash part). */
  readonly path?: string | undefined;
  /** Only records after, or before, this place in the chain. */
  readonly afterSeq?: number | undefined;
  readonly beforeSeq?: number | undefined;
  /** How many of the newest, or of the oldest. */
  readonly limit?: number | undefined;
  /** Default: newest first. */
  readonly order?: "newest" | "oldest" | undefined;
  /** Intents that their request's record completes are left out, unless asked for. */
  readonly completedIntents?: boolean | undefined;
}

interface OpenSegment {
  /** Its file's number in the file system, which no other has while this one is open. */
  readonly inode: number | undefined;
  readonly file: SegmentFile;
  readonly reader: SegmentReader;
  readonly firstSeq: number;
}

type Parameter = number | string;

/** A subquery of the numbers of texts, and its parameter. */
type Texts = readonly [sql: string, parameter: string];

/** Conditions of a WHERE clause, joined by AND, and their parameters. */
class Conditions {
  readonly clauses: string[] = [];
  readonly parameters: Parameter[] = [];
  private readonly texts: Texts[] = [];

  add(clause: string, ...parameters: Parameter[]): void {
    this.clauses.push(clause);
    this.parameters.push(...parameters);
  }

  /** A condition on texts, whose parameter each place in it takes. */
  addTexts(texts: Texts, clause: (sql: string) => string): void {
    const [sql, parameter] = texts;
    const whole = clause(sql);
    this.add(whole, ...Array<string>(whole.split("?").length - 1).fill(parameter));
    this.texts.push(texts);
  }

  /**
   * Whether a segment contains the texts at all; most segments do not contain those of one sandbox or path,
   * and need no scan.
   */
  canMatch(database: DatabaseSync): boolean {
    return this.texts.every(
      ([sql, parameter]) => database.prepare(`${sql} LIMIT 1`).get(parameter) !== undefined,
    );
  }
}

function literal(text: string): string {
  return text.replace(/[[*?]/g, "[$&]");
}

/** The texts that a path, or the beginning of a base name, stands for. */
function matchingTexts(path: string): Texts {
  if (path.startsWith("/")) return ["SELECT id FROM text WHERE text = ?", path];
  return ["SELECT id FROM text WHERE text GLOB ?", `*/${literal(path)}*`];
}

function numbersOf<T>(members: readonly T[], chosen: readonly T[]): string {
  return chosen.map((member) => members.indexOf(member) + 1).join(", ");
}

function conditionsOf(filter: AuditFilter): Conditions {
  const where = new Conditions();
  if (filter.kinds !== undefined) where.add(`kind IN (${numbersOf(AUDIT_KINDS, filter.kinds)})`);
  if (filter.verdict !== undefined) where.add(`verdict = ${numbersOf(VERDICTS, [filter.verdict])}`);
  if (filter.since !== undefined) where.add("time >= ?", filter.since);
  if (filter.until !== undefined) where.add("time < ?", filter.until);
  if (filter.afterSeq !== undefined) where.add("seq > ?", filter.afterSeq);
  if (filter.beforeSeq !== undefined) where.add("seq < ?", filter.beforeSeq);
  if (filter.sandbox !== undefined) {
    const texts: Texts = ["SELECT id FROM text WHERE text GLOB ?", `${literal(filter.sandbox)}*`];
    where.addTexts(texts, (sql) => `sandbox IN (${sql})`);
  }
  if (filter.op !== undefined) {
    const texts: Texts = ["SELECT id FROM text WHERE text = ? COLLATE NOCASE", filter.op];
    where.addTexts(texts, (sql) => `op IN (${sql})`);
  }
  if (filter.derivation !== undefined) {
    where.addTexts(matchingTexts(filter.derivation), (sql) => `outer_derivation IN (${sql})`);
  }
  if (filter.path !== undefined) {
    where.addTexts(
      matchingTexts(filter.path),
      (sql) => `(subject IN (${sql}) OR seq IN (SELECT seq FROM more_subject WHERE text IN (${sql})))`,
    );
  }
  return where;
}

/** The audit of a folder, for reading. */
export class AuditReader {
  readonly folder: string;
  private segments: OpenSegment[] = [];

  /** @throws AuditError when there is no audit, or it cannot be read. */
  constructor(folder: string) {
    this.folder = folder;
    this.refresh();
    if (this.segments.length === 0) {
      throw new AuditError(
        "folder",
        `There is no audit in ${folder}: the service has not written one there yet, or keeps its audit elsewhere.`,
      );
    }
  }

  /** The records that pass the filter, at most `limit`. */
  query(filter: AuditFilter = {}): StoredRecord[] {
    return [...this.iterate(filter)];
  }

  /** The same one by one. Nothing is read beyond what is asked for. */
  *iterate(filter: AuditFilter = {}): Generator<StoredRecord, void, undefined> {
    this.refresh();
    const newestFirst = filter.order !== "oldest";
    const segments = newestFirst ? this.segments.toReversed() : [...this.segments];
    const where = conditionsOf(filter);
    let left = filter.limit ?? Number.POSITIVE_INFINITY;
    for (const { reader } of segments) {
      if (left <= 0) return;
      if (!where.canMatch(reader.database)) continue;
      const clause = where.clauses.length === 0 ? "" : `WHERE ${where.clauses.join(" AND ")}`;
      const sql = `SELECT * FROM record ${clause} ORDER BY seq ${newestFirst ? "DESC" : "ASC"}`;
      for (const row of reader.database.prepare(sql).iterate(...where.parameters)) {
        const record = reader.record(row);
        if (record.kind === "intent" && filter.completedIntents !== true && this.isCompleted(record.seq))
          continue;
        yield record;
        left -= 1;
        if (left <= 0) return;
      }
    }
  }

  /**
   * The records that are written from now on, or after `afterSeq`, as they come, until `signal` aborts. Intents are left out
   * unless asked for: whether they will be completed is not known yet.
   */
  async *follow(
    filter: AuditFilter,
    signal: AbortSignal,
    pollMs = 200,
  ): AsyncGenerator<StoredRecord, void, undefined> {
    let after = filter.afterSeq ?? this.lastSeq();
    const kinds = filter.kinds ?? AUDIT_KINDS;
    const shown = filter.completedIntents === true ? kinds : kinds.filter((kind) => kind !== "intent");
    while (!signal.aborted) {
      // Records written while this loop runs are read by the next one.
      const upTo = this.lastSeq();
      // The audit was begun anew, or an older copy was put in its place.
      if (upTo < after) after = 0;
      for (const record of this.iterate({
        ...filter,
        kinds: shown,
        order: "oldest",
        afterSeq: after,
        beforeSeq: upTo + 1,
      })) {
        yield record;
        if (signal.aborted) return;
      }
      after = upTo;
      await sleep(pollMs, undefined, { signal }).catch(() => {});
    }
  }

  /** The place of the newest record; 0 if there is none. */
  lastSeq(): number {
    this.refresh();
    for (const { reader, firstSeq } of this.segments.toReversed()) {
      const row = reader.database.prepare("SELECT max(seq) AS seq FROM record").get();
      if (row?.seq !== null) return Number(row?.seq);
      if (firstSeq > 1) return firstSeq - 1;
    }
    return 0;
  }

  close(): void {
    for (const { reader } of this.segments) reader.database.close();
    this.segments = [];
  }

  /** Opens segments that were begun, and closes those that were removed, since the last time. */
  private refresh(): void {
    const files = listSegments(this.folder);
    const present = new Map(files.map((file) => [file.number, inodeOf(file)]));
    const isPresent = ({ file, inode }: OpenSegment): boolean => present.get(file.number) === inode;
    for (const segment of this.segments) if (!isPresent(segment)) segment.reader.database.close();
    const kept = this.segments.filter(isPresent);
    const known = new Set(kept.map(({ file }) => file.number));
    const opened = files.filter((file) => !known.has(file.number)).flatMap((file) => openSegment(file));
    this.segments = [...kept, ...opened].sort((a, b) => a.file.number - b.file.number);
  }

  /** Whether a request's record names this intent; that record may be in the next segment. */
  private isCompleted(seq: number): boolean {
    return this.segments.some(
      ({ reader }) =>
        reader.database.prepare("SELECT 1 FROM record WHERE intent = ? LIMIT 1").get(seq) !== undefined,
    );
  }
}

function inodeOf({ path }: SegmentFile): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

/** None while the segment is just being created, or if it was retired meanwhile. */
function openSegment(file: SegmentFile): OpenSegment[] {
  try {
    // Before it is opened: if another takes its place in between, that is noticed the next time.
    const inode = inodeOf(file);
    const database = openForReading(file.path);
    if (database === undefined) return [];
    const head = segmentHead(database);
    if (head !== undefined)
      return [{ file, inode, reader: new SegmentReader(database), firstSeq: head.firstSeq }];
    database.close();
    return [];
  } catch (error) {
    if (error instanceof AuditError) throw error;
    if (!existsSync(file.path)) return [];
    throw new AuditError("folder", `Cannot read ${file.path}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}
