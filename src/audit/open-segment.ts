/** The segment that the audit continues in. */
import type { DatabaseSync } from "node:sqlite";
import { GENESIS_HASH } from "./record.ts";
import { createSegment, SEGMENT_FORMAT, segmentFormat } from "./schema.ts";
import {
  formatError,
  listSegments,
  openForWriting,
  removeSegment,
  type SegmentFile,
  sealSegment,
  segmentPath,
} from "./segment.ts";
import { type ChainHead, SegmentWriter } from "./segment-writer.ts";
import { nowMicroseconds } from "./time.ts";

/** The last one of a folder, or the first. @throws the system's or the database's error, AuditError for a later format */
export function openLast(folder: string): SegmentWriter {
  const segments = listSegments(folder);
  const last = segments.at(-1);
  if (last === undefined) return openNext(folder, 1, { seq: 0, hash: GENESIS_HASH });
  const database = openForWriting(last.path);
  const format = segmentFormat(database);
  if (format > SEGMENT_FORMAT) {
    database.close();
    throw formatError(last.path, format);
  }
  if (format === 0) return reopenInterrupted(folder, database, last, segments.at(-2));
  return new SegmentWriter(database, last.path);
}

/** The service ended while creating this segment: it is empty. */
function reopenInterrupted(
  folder: string,
  database: DatabaseSync,
  empty: SegmentFile,
  before: SegmentFile | undefined,
): SegmentWriter {
  database.close();
  removeSegment(empty.path);
  if (before === undefined) return openNext(folder, empty.number, { seq: 0, hash: GENESIS_HASH });
  // It was not sealed yet, or only just now.
  const previous = openForWriting(before.path);
  try {
    return openNext(folder, empty.number, new SegmentWriter(previous, before.path).head);
  } finally {
    sealSegment(previous, before.path);
  }
}

/** A new one, after that with the given head. @throws the system's or the database's error */
export function openNext(folder: string, number: number, head: ChainHead): SegmentWriter {
  const path = segmentPath(folder, number);
  const database = openForWriting(path);
  try {
    createSegment(database, {
      number,
      firstSeq: head.seq + 1,
      previousHash: head.hash,
      created: nowMicroseconds(),
    });
    return new SegmentWriter(database, path);
  } catch (error) {
    database.close();
    throw error;
  }
}
