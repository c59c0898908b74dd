/** Writes records into one segment: the chain, the texts, one transaction per batch. */

import { type Stats, statSync } from "node:fs";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { AUDIT_KINDS, type AuditRecord, chainHash, type StoredRecord, VERDICTS } from "./record.ts";
import { type SegmentHead, segmentHead } from "./schema.ts";
import { type StoredText, TextTable } from "./text-table.ts";

/** The end of the chain: what the next record follows. */
export interface ChainHead {
  /** Of the last record; 0 before the first. */
  readonly seq: number;
  /** Its hash, base64. */
  readonly hash: string;
}

const COLUMNS = 22;
/** How often is looked whether the file is still there. Milliseconds. */
const LOOK_MS = 1000;
const NONE: readonly string[] = [];
/** A text that a record does not have. */
const ABSENT = { id: null, json: "null" } as const;
const kindNumber = new Map(AUDIT_KINDS.map((kind, index) => [kind, index + 1]));
const verdictNumber = new Map(VERDICTS.map((verdict, index) => [verdict, index + 1]));

export class SegmentWriter {
  readonly database: DatabaseSync;
  readonly path: string;
  readonly segment: SegmentHead;
  private readonly texts: TextTable;
  private readonly begin: StatementSync;
  private readonly commit: StatementSync;
  private readonly insert: StatementSync;
  private readonly insertSubject: StatementSync;
  private headHash: ChainHead;
  private readonly file: Stats;
  private looked = performance.now();

  /** Takes over a database that is a segment of our format. */
  constructor(database: DatabaseSync, path: string) {
    this.database = database;
    this.path = path;
    const segment = segmentHead(database);
    if (segment === undefined) throw new Error(`${path} is not a segment of an audit.`);
    this.segment = segment;
    this.file = statSync(path);
    this.texts = new TextTable(database);
    this.begin = database.prepare("BEGIN IMMEDIATE");
    this.commit = database.prepare("COMMIT");
    const places = Array.from({ length: COLUMNS }, () => "?").join(", ");
    this.insert = database.prepare(`INSERT INTO record VALUES (${places})`);
    this.insertSubject = database.prepare("INSERT OR IGNORE INTO more_subject VALUES (?, ?)");
    this.headHash = lastRecord(database) ?? { seq: segment.firstSeq - 1, hash: segment.previousHash };
  }

  get head(): ChainHead {
    return this.headHash;
  }

  /** How many records this segment holds. */
  get length(): number {
    return this.headHash.seq - this.segment.firstSeq + 1;
  }

  /**
   * Writes records in one transaction: all of them or none. Calls `onEach` with the head of the chain after
   * each of them.
   * @throws the database's error; Error when its file was removed
   */
  write(records: readonly AuditRecord[], onEach?: (head: ChainHead) => void): void {
    this.requireFile();
    this.begin.run();
    let { seq, hash } = this.headHash;
    try {
      for (const record of records) {
        seq += 1;
        hash = this.insertRecord(record, seq, hash);
        onEach?.({ seq, hash });
      }
      this.commit.run();
    } catch (error) {
      this.texts.rolledBack();
      // After some errors, a full disk among them, SQLite has rolled back by itself.
      if (this.database.isTransaction) this.database.exec("ROLLBACK");
      throw error;
    }
    this.headHash = { seq, hash };
    this.texts.committed();
  }

  /** Syncs what was written. @throws the database's error. */
  settle(): void {
    // A checkpoint syncs the log of writes before it copies from it; readers do not hinder that.
    this.database.exec("PRAGMA wal_checkpoint(PASSIVE)");
  }

  /** Into a file that was removed SQLite goes on writing, and nobody would ever read it. */
  private requireFile(): void {
    if (performance.now() - this.looked < LOOK_MS) return;
    if (!this.isThere())
      throw new Error(
        `${this.path} was removed or replaced; put it back, or restart nix-broker, which begins anew`,
      );
    this.looked = performance.now();
  }

  private isThere(): boolean {
    try {
      const found = statSync(this.path, { throwIfNoEntry: false });
      return found?.ino === this.file.ino && found.dev === this.file.dev;
    } catch {
      // Its folder cannot be entered: what is open can be written.
      return true;
    }
  }

  /** Returns the hash of the record. */
  private insertRecord(record: AuditRecord, seq: number, previousHash: string): string {
    const texts = this.texts;
    const op = texts.get(record.op);
    const sandbox = this.optionalText(record.sandbox);
    const outer = this.optionalText(record.outer);
    const protocol = this.optionalText(record.protocol);
    const reason = this.optionalText(record.reason);
    const upstreamError = this.optionalText(record.upstreamError);
    const subjects = (record.subjects ?? NONE).map((subject) => texts.get(subject));
    const { time, connection = null, uid = null, pid = null, durationUs = null } = record;
    const { bytesIn = null, bytesOut = null, count = 1, intent = null } = record;
    const verdict = record.verdict === undefined ? null : verdictNumber.get(record.verdict)!;
    const detail = record.detail === undefined ? null : JSON.stringify(record.detail);

    // The result of `canonicalText`, built from parts that are JSON already: that halves the time.
    const canonical =
      `[${seq},${time},"${record.kind}",${op.json},${sandbox.json},${outer.json},${connection},${uid},${pid},` +
      `${protocol.json},${verdict === null ? null : `"${record.verdict}"`},${reason.json},` +
      `[${subjects.length === 1 ? subjects[0]!.json : subjects.map((subject) => subject.json).join()}],` +
      `${durationUs},${bytesIn},${bytesOut},${upstreamError.json},${count},${intent},` +
      `${detail === null ? null : JSON.stringify(detail)}]`;
    const hash = chainHash(previousHash, canonical);

    this.insert.run(
      seq,
      time,
      kindNumber.get(record.kind)!,
      op.id,
      verdict,
      sandbox.id,
      outer.id,
      subjects[0]?.id ?? null,
      subjects.length < 2 ? null : JSON.stringify(subjects.slice(1).map((subject) => subject.id)),
      reason.id,
      connection,
      uid,
      pid,
      protocol.id,
      durationUs,
      bytesIn,
      bytesOut,
      upstreamError.id,
      count,
      intent,
      detail,
      Buffer.from(hash, "base64"),
    );
    for (let index = 1; index < subjects.length; index++) this.insertSubject.run(subjects[index]!.id, seq);
    return hash;
  }

  private optionalText(text: string | undefined): StoredText | typeof ABSENT {
    return text === undefined ? ABSENT : this.texts.get(text);
  }
}

/** The head of the chain as a segment has it; undefined when it has no record. */
function lastRecord(database: DatabaseSync): ChainHead | undefined {
  const row = database.prepare("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").get();
  if (row === undefined) return undefined;
  return { seq: Number(row.seq), hash: Buffer.from(row.hash as Uint8Array).toString("base64") };
}

/** Adds the position in the chain to a record that was written. */
export function storedRecord(record: AuditRecord, head: ChainHead): StoredRecord {
  return { ...record, seq: head.seq, hash: head.hash };
}
