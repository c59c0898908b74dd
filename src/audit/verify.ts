/**
 * Proves that the audit is complete: follows the chain through all segments, and names the first record that
 * does not match.
 *
 * This shows that no record was changed, removed, moved or inserted. Only anchors (see anchor.ts) can show
 * that none was cut off at the end, and that the whole was not replaced by an older copy.
 */

import type { DatabaseSync } from "node:sqlite";
import { AuditError } from "./error.ts";
import { AUDIT_KINDS, chainHash, type StoredRecord } from "./record.ts";
import { foreignDefinition, type SegmentHead, segmentHead } from "./schema.ts";
import { listSegments, openForReading, type SegmentFile } from "./segment.ts";
import { SegmentReader } from "./segment-reader.ts";
import type { ChainHead } from "./segment-writer.ts";

export interface VerifyOptions {
  /** Heads of the chain that are known from elsewhere. */
  readonly anchors?: readonly ChainHead[];
  /** Called regularly with the number of records checked so far. */
  readonly onProgress?: (records: number) => void;
}

/** The first thing that does not match. */
export interface VerifyFailure {
  readonly ok: false;
  /** The file it is in; undefined when there is none. */
  readonly file: string | undefined;
  /** The record it is about; undefined when it is about a whole file. */
  readonly seq: number | undefined;
  /** A sentence. */
  readonly problem: string;
}

export interface VerifySuccess {
  readonly ok: true;
  /** How many records were checked; older ones may have been retired. */
  readonly records: number;
  readonly firstSeq: number;
  readonly head: ChainHead;
  /** How many of the anchors were for records that exist here. Older ones prove nothing. */
  readonly anchors: number;
}

export type VerifyResult = VerifySuccess | VerifyFailure;

const PROGRESS_EVERY = 50_000;
const SERVICE_KIND = AUDIT_KINDS.indexOf("service") + 1;

class Misfit extends Error {
  readonly file: string | undefined;
  readonly seq: number | undefined;

  constructor(file: string | undefined, seq: number | undefined, problem: string) {
    super(problem);
    this.file = file;
    this.seq = seq;
  }
}

class Verification {
  private readonly anchors: ReadonlyMap<number, Set<string>>;
  private readonly onProgress: VerifyOptions["onProgress"];
  private head: ChainHead | undefined;
  private number: number | undefined;
  private firstSeq = 1;
  private records = 0;
  private anchorsMet = 0;
  /** What the first segment follows. */
  private start: ChainHead | undefined;
  /** Whether a record says that everything up to there was retired, or also what follows: that was interrupted then. */
  private startIsVouchedFor = false;

  constructor(options: VerifyOptions) {
    const anchors = new Map<number, Set<string>>();
    for (const { seq, hash } of options.anchors ?? [])
      anchors.set(seq, (anchors.get(seq) ?? new Set()).add(hash));
    this.anchors = anchors;
    this.onProgress = options.onProgress;
  }

  segment(file: SegmentFile): void {
    let database: DatabaseSync | undefined;
    try {
      database = openForReading(file.path);
      if (database === undefined) return;
      checkDefinitions(file.path, database);
      this.begin(file, database);
      this.walk(file.path, new SegmentReader(database));
      this.checkSubjects(file.path, database);
      checkIndexes(file.path, database);
    } catch (error) {
      if (error instanceof Misfit || (error instanceof AuditError && error.code === "format")) throw error;
      throw new Misfit(
        file.path,
        this.nextSeq,
        `The file cannot be read further: ${(error as Error).message}.`,
      );
    } finally {
      database?.close();
    }
  }

  finish(folder: string): VerifySuccess {
    const head = this.head;
    if (head === undefined) throw new Misfit(undefined, undefined, `There is no audit in ${folder}.`);
    let last = 0;
    // Together they may be more than a function can take.
    for (const seq of this.anchors.keys()) last = Math.max(last, seq);
    if (last > head.seq) {
      throw new Misfit(
        undefined,
        head.seq + 1,
        `The audit ends with record ${head.seq}, but an anchor names record ${last}: the end was cut off, or the audit was replaced by an older copy.`,
      );
    }
    if (this.firstSeq > 1 && !this.startIsVouchedFor) {
      const problem = `Records before ${this.firstSeq} are missing, and no record says that they were retired.`;
      throw new Misfit(undefined, 1, problem);
    }
    return { ok: true, records: this.records, firstSeq: this.firstSeq, head, anchors: this.anchorsMet };
  }

  private get nextSeq(): number | undefined {
    return this.head === undefined ? undefined : this.head.seq + 1;
  }

  private begin(file: SegmentFile, database: DatabaseSync): void {
    const segment = segmentHead(database);
    if (segment === undefined)
      throw new Misfit(file.path, undefined, "The file does not state where in the chain it begins.");
    if (segment.number !== file.number) {
      throw new Misfit(
        file.path,
        undefined,
        `The file contains segment ${segment.number} but has the name of segment ${file.number}.`,
      );
    }
    if (this.number === undefined || this.head === undefined) {
      this.firstSeq = segment.firstSeq;
      this.head = { seq: segment.firstSeq - 1, hash: segment.previousHash };
      this.start = this.head;
      this.checkAnchor(file.path, this.head);
    } else {
      this.checkContinues(file, segment, this.number, this.head);
    }
    this.number = file.number;
  }

  private checkContinues(file: SegmentFile, segment: SegmentHead, before: number, head: ChainHead): void {
    if (segment.number !== before + 1) {
      throw new Misfit(file.path, this.nextSeq, `Segment ${before + 1} is missing.`);
    }
    if (segment.firstSeq !== head.seq + 1 || segment.previousHash !== head.hash) {
      throw new Misfit(
        file.path,
        this.nextSeq,
        `It continues after record ${segment.firstSeq - 1}, but segment ${before} ends with record ${head.seq}, or with another hash.`,
      );
    }
  }

  private walk(path: string, reader: SegmentReader): void {
    let head = this.head!;
    for (const row of reader.database.prepare("SELECT * FROM record ORDER BY seq").iterate()) {
      const seq = Number(row.seq);
      const expected = head.seq + 1;
      if (seq !== expected) {
        const problem =
          seq < expected
            ? `Record ${seq} belongs before the beginning of its segment.`
            : `Record ${expected} is missing.`;
        throw new Misfit(path, Math.min(seq, expected), problem);
      }
      const hash = chainHash(head.hash, canonicalOf(reader, row, path, seq));
      if (!(row.hash instanceof Uint8Array) || Buffer.from(row.hash).toString("base64") !== hash) {
        throw new Misfit(
          path,
          seq,
          `Record ${seq} does not match its hash: it was changed, or the record before it was replaced.`,
        );
      }
      head = { seq, hash };
      this.head = head;
      this.checkAnchor(path, head);
      this.records += 1;
      if (row.kind === SERVICE_KIND) this.checkRetired(reader.record(row));
      if (this.records % PROGRESS_EVERY === 0) this.onProgress?.(this.records);
    }
  }

  private checkRetired(record: StoredRecord): void {
    if (record.op !== "retire") return;
    const { firstSeq, lastSeq, lastHash } = record.detail ?? {};
    const { seq, hash } = this.start ?? { seq: 0, hash: "" };
    if (typeof firstSeq !== "number" || typeof lastSeq !== "number") return;
    if (lastSeq === seq ? lastHash === hash : firstSeq <= seq && seq < lastSeq) this.startIsVouchedFor = true;
  }

  private checkAnchor(path: string, head: ChainHead): void {
    const hashes = this.anchors.get(head.seq);
    if (hashes === undefined) return;
    if (hashes.size === 1 && hashes.has(head.hash)) {
      this.anchorsMet += 1;
      return;
    }
    throw new Misfit(
      path,
      head.seq,
      `Record ${head.seq} is not the one that an anchor names: the audit was rewritten.`,
    );
  }

  /** The table for finding records by their further subjects contains exactly what the records say. */
  private checkSubjects(path: string, database: DatabaseSync): void {
    const wrong = database
      .prepare(
        `WITH said AS (SELECT DISTINCT json_each.value AS text, record.seq AS seq
                       FROM record, json_each(record.more_subjects) WHERE record.more_subjects IS NOT NULL)
         SELECT seq FROM (SELECT text, seq FROM said EXCEPT SELECT text, seq FROM more_subject)
         UNION ALL
         SELECT seq FROM (SELECT text, seq FROM more_subject EXCEPT SELECT text, seq FROM said)
         ORDER BY seq LIMIT 1`,
      )
      .get();
    if (wrong === undefined) return;
    throw new Misfit(
      path,
      Number(wrong.seq),
      `Record ${String(wrong.seq)} would not be found by all of its subjects, or would be found by others.`,
    );
  }
}

/**
 * Even if all records exist, they could be hidden from queries: by a view in place of a table, or by an
 * additional index.
 */
function checkDefinitions(path: string, database: DatabaseSync): void {
  const foreign = foreignDefinition(database);
  if (foreign === undefined) return;
  const problem = `The ${foreign} differs from what nix-broker creates: it was added, removed or changed.`;
  throw new Misfit(path, undefined, problem);
}

/** Nor by an index that leaves some out. */
function checkIndexes(path: string, database: DatabaseSync): void {
  const said = String(database.prepare("PRAGMA integrity_check(1)").get()?.integrity_check);
  if (said === "ok") return;
  throw new Misfit(path, undefined, `An index or a page of the file does not match its tables: ${said}.`);
}

function canonicalOf(
  reader: SegmentReader,
  row: Parameters<SegmentReader["canonicalText"]>[0],
  path: string,
  seq: number,
): string {
  try {
    return reader.canonicalText(row);
  } catch (error) {
    throw new Misfit(path, seq, `Record ${seq} cannot be read: ${(error as Error).message}.`);
  }
}

/**
 * Checks the audit in a folder, also while the service writes to it, and removes old segments.
 * @throws AuditError when it is of a later version or its folder may not be read.
 */
export function verifyAudit(folder: string, options: VerifyOptions = {}): VerifyResult {
  for (;;) {
    const files = listSegments(folder);
    const result = verifySegments(folder, files, options);
    if (result.ok || !beginsLater(listSegments(folder), files)) return result;
    // Some were retired before they were read: what is left is judged anew.
  }
}

function beginsLater([now]: readonly SegmentFile[], [before]: readonly SegmentFile[]): boolean {
  return now !== undefined && before !== undefined && now.number > before.number;
}

function verifySegments(folder: string, files: readonly SegmentFile[], options: VerifyOptions): VerifyResult {
  const verification = new Verification(options);
  try {
    for (const file of files) verification.segment(file);
    return verification.finish(folder);
  } catch (error) {
    if (!(error instanceof Misfit)) throw error;
    return { ok: false, file: error.file, seq: error.seq, problem: error.message };
  }
}
