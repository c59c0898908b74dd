/** Reads one segment: rows of numbers back into records. */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import {
  AUDIT_KINDS,
  type AuditRecord,
  canonicalText,
  type JsonObject,
  type StoredRecord,
  VERDICTS,
} from "./record.ts";

/** The maximum of remembered texts, and of their characters; beyond it, all are forgotten and looked up again. */
const MAX_REMEMBERED = 50_000;
const MAX_REMEMBERED_SIZE = 8 * 1024 * 1024;

/** A row of the table `record` as SQLite gives it. */
export type RecordRow = Record<string, null | number | bigint | string | Uint8Array>;

/** A row that is not a valid record; only tampering or a broken disk can cause one. */
export class MalformedRowError extends Error {
  override readonly name = "MalformedRowError";
}

/** Any other way to write the same number, such as '0x1', would escape a filter. */
function numberAt(row: RecordRow, column: string): number {
  const value = row[column];
  if (typeof value !== "number") throw new MalformedRowError(`its ${column} is not stored as a number`);
  return value;
}

function optionalNumber(row: RecordRow, column: string): number | undefined {
  return row[column] === null ? undefined : numberAt(row, column);
}

function optionalString(row: RecordRow, column: string): string | null {
  const value = row[column];
  if (value === null || typeof value === "string") return value;
  throw new MalformedRowError(`its ${column} is not stored as text`);
}

function memberAt<T>(members: readonly T[], row: RecordRow, column: string): T {
  const member = members[numberAt(row, column) - 1];
  if (member === undefined)
    throw new MalformedRowError(`its ${column} is ${String(row[column])}, which is not a valid value`);
  return member;
}

export class SegmentReader {
  readonly database: DatabaseSync;
  private readonly text: StatementSync;
  private readonly texts = new Map<number, string>();
  private size = 0;

  constructor(database: DatabaseSync) {
    this.database = database;
    this.text = database.prepare("SELECT text FROM text WHERE id = ?");
  }

  /** @throws MalformedRowError when the row is not a valid record. */
  record(row: RecordRow): StoredRecord {
    const detail = optionalString(row, "detail");
    return {
      seq: Number(row.seq),
      ...this.fields(row),
      ...(detail === null ? {} : { detail: parseDetail(detail) }),
      hash: Buffer.from(row.hash as Uint8Array).toString("base64"),
    };
  }

  /**
   * The canonical text of a row, which its hash is made of.
   * @throws MalformedRowError when the row is not a valid record.
   */
  canonicalText(row: RecordRow): string {
    return canonicalText(Number(row.seq), this.fields(row), optionalString(row, "detail"));
  }

  /** The numbers of a row's subjects after the first. */
  moreSubjects(row: RecordRow): number[] {
    const json = optionalString(row, "more_subjects");
    if (json === null) return [];
    let ids: unknown;
    try {
      ids = JSON.parse(json);
    } catch {
      ids = undefined;
    }
    if (!Array.isArray(ids) || !ids.every((id) => typeof id === "number")) {
      throw new MalformedRowError("its list of subjects cannot be read");
    }
    return ids;
  }

  private fields(row: RecordRow): AuditRecord {
    return {
      time: numberAt(row, "time"),
      kind: memberAt(AUDIT_KINDS, row, "kind"),
      op: this.textOf(numberAt(row, "op")),
      sandbox: this.optionalText(row, "sandbox"),
      outer: this.optionalText(row, "outer_derivation"),
      connection: optionalNumber(row, "connection"),
      uid: optionalNumber(row, "uid"),
      pid: optionalNumber(row, "pid"),
      protocol: this.optionalText(row, "protocol"),
      verdict: row.verdict === null ? undefined : memberAt(VERDICTS, row, "verdict"),
      reason: this.optionalText(row, "reason"),
      subjects: this.subjects(row),
      durationUs: optionalNumber(row, "duration_us"),
      bytesIn: optionalNumber(row, "bytes_in"),
      bytesOut: optionalNumber(row, "bytes_out"),
      upstreamError: this.optionalText(row, "upstream_error"),
      count: numberAt(row, "count"),
      intent: optionalNumber(row, "intent"),
    };
  }

  private subjects(row: RecordRow): string[] {
    const subject = optionalNumber(row, "subject");
    if (subject === undefined) return [];
    const ids = [subject, ...this.moreSubjects(row)];
    return ids.map((id) => this.textOf(id));
  }

  private optionalText(row: RecordRow, column: string): string | undefined {
    const id = optionalNumber(row, column);
    return id === undefined ? undefined : this.textOf(id);
  }

  private textOf(id: number): string {
    const known = this.texts.get(id);
    if (known !== undefined) return known;
    const row = this.text.get(id);
    if (row === undefined) throw new MalformedRowError(`text ${id}, which it refers to, is missing`);
    if (this.texts.size >= MAX_REMEMBERED || this.size >= MAX_REMEMBERED_SIZE) {
      this.texts.clear();
      this.size = 0;
    }
    const text = String(row.text);
    this.size += text.length;
    this.texts.set(id, text);
    return text;
  }
}

function parseDetail(json: string): JsonObject {
  try {
    return JSON.parse(json) as JsonObject;
  } catch {
    throw new MalformedRowError("its detail is not JSON");
  }
}
