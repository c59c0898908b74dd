/**
 * Removes old records, one sealed segment at a time. First a record says that they were removed, and with
 * which hash they ended; `verify` accepts a missing beginning only if such a record vouches for it.
 */

import { statSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { serviceRecord } from "./events.ts";
import { openForReading, removeSegment, type SegmentFile } from "./segment.ts";
import type { AuditStore } from "./store.ts";
import { nowMicroseconds } from "./time.ts";

export interface RetentionLimits {
  /** Records older than that are removed; undefined: never because of their age. */
  readonly maxAgeUs?: number | undefined;
  /** Of all segments together; undefined: never because of their size. */
  readonly maxBytes?: number | undefined;
}

/** What was removed. */
export interface Retired {
  readonly segments: number;
  readonly records: number;
  readonly bytes: number;
}

/**
 * The minimum number of segments into which the limits are divided, so that not much more than necessary is
 * removed at once.
 */
const PARTS = 8;
/** But a segment smaller than this is not sealed because of its size, however little is kept. */
const LEAST_SEGMENT = 1024 * 1024;

interface Sealed {
  readonly file: SegmentFile;
  readonly bytes: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly lastTime: number;
  readonly lastHash: string;
}

function partOf(maxBytes: number): number {
  return Math.max(LEAST_SEGMENT, maxBytes / PARTS);
}

/** Whether size alone leaves `applyRetention` something to do. Cheap: it only looks at the file sizes. */
export function isTooLarge(store: AuditStore, maxBytes: number): boolean {
  const live = sizeOf(store.liveSegment.path);
  const sealed = store.sealedSegments.reduce((sum, { path }) => sum + sizeOf(path), 0);
  return live > partOf(maxBytes) || (sealed > 0 && sealed + live > maxBytes);
}

function sizeOf(path: string): number {
  return ["", "-wal"].reduce(
    (sum, suffix) => sum + (statSync(path + suffix, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}

function lastOf(
  database: DatabaseSync,
): Pick<Sealed, "firstSeq" | "lastSeq" | "lastTime" | "lastHash"> | undefined {
  const last = database.prepare("SELECT seq, time, hash FROM record ORDER BY seq DESC LIMIT 1").get();
  const first = database.prepare("SELECT min(seq) AS seq FROM record").get();
  if (last === undefined || first === undefined) return undefined;
  return {
    firstSeq: Number(first.seq),
    lastSeq: Number(last.seq),
    lastTime: Number(last.time),
    lastHash: Buffer.from(last.hash as Uint8Array).toString("base64"),
  };
}

function describe(file: SegmentFile): Sealed[] {
  const database = openForReading(file.path);
  try {
    const last = database === undefined ? undefined : lastOf(database);
    return last === undefined ? [] : [{ file, bytes: sizeOf(file.path), ...last }];
  } finally {
    database?.close();
  }
}

/**
 * Brings the audit within the limits. The service that writes it calls this regularly. The segment being
 * written is sealed when it has grown or aged to its part of the limits, but is never removed.
 *
 * @throws AuditError when that cannot be recorded; then nothing was removed.
 */
export function applyRetention(
  store: AuditStore,
  limits: RetentionLimits,
  now: number = nowMicroseconds(),
): Retired {
  const { maxAgeUs = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY } = limits;
  const live = store.liveSegment;
  const liveBytes = sizeOf(live.path);
  if (now - live.created > maxAgeUs / PARTS || liveBytes > partOf(maxBytes)) store.rotate();

  const sealed = store.sealedSegments.flatMap(describe);
  let bytes = sealed.reduce((sum, segment) => sum + segment.bytes, 0) + sizeOf(store.liveSegment.path);
  const due: Sealed[] = [];
  for (const segment of sealed) {
    if (bytes <= maxBytes && now - segment.lastTime <= maxAgeUs) break;
    due.push(segment);
    bytes -= segment.bytes;
  }
  const [first, last] = [due[0], due.at(-1)];
  if (first === undefined || last === undefined) return { segments: 0, records: 0, bytes: 0 };

  const records = last.lastSeq - first.firstSeq + 1;
  const detail = {
    firstSeq: first.firstSeq,
    lastSeq: last.lastSeq,
    lastHash: last.lastHash,
    segments: due.length,
  };
  store.appendCommitted(serviceRecord("retire", now, detail, "Beyond the age or the size that is kept."));
  // Without that record, nothing would vouch for the missing beginning.
  store.settle();
  for (const segment of due) removeSegment(segment.file.path);
  return { segments: due.length, records, bytes: due.reduce((sum, segment) => sum + segment.bytes, 0) };
}
