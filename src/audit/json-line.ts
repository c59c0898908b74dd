/**
 * A record as JSON, for `--json`, the export and the service's log: one object a line, names as in
 * `StoredRecord`, absent fields left out. This form is stable: fields may be added, none is renamed or removed.
 */

import { jsonText } from "./escape.ts";
import type { StoredRecord } from "./record.ts";
import { formatTime } from "./time.ts";

/** A record with its time for people. See `StoredRecord` for what each field means. */
export type RecordJson = Omit<StoredRecord, "time" | "subjects" | "count"> & {
  /** ISO 8601, UTC, microseconds. */
  readonly time: string;
  readonly subjects: readonly string[];
  readonly count: number;
};

export function recordJson(record: StoredRecord): RecordJson {
  const { seq, time, kind, op, sandbox, outer, connection, uid, pid, protocol, verdict, reason } = record;
  return {
    seq,
    time: formatTime(time),
    kind,
    op,
    sandbox,
    outer,
    connection,
    uid,
    pid,
    protocol,
    verdict,
    reason,
    subjects: record.subjects ?? [],
    durationUs: record.durationUs,
    bytesIn: record.bytesIn,
    bytesOut: record.bytesOut,
    upstreamError: record.upstreamError,
    count: record.count ?? 1,
    intent: record.intent,
    detail: record.detail,
    hash: record.hash,
  };
}

/** The line without its newline. */
export function jsonLine(record: StoredRecord): string {
  return jsonText(recordJson(record));
}

/** What is needed of pino. */
export interface RecordLog {
  info(fields: object, message: string): void;
}

/** Writes records to the service's log, from which pino's transports can ship them anywhere. */
export function logRecords(log: RecordLog, records: readonly StoredRecord[]): void {
  for (const record of records) log.info({ audit: recordJson(record) }, "audit");
}
