/**
 * What is recorded (docs/audit.md), and the bytes of a record that its hash is made of.
 *
 * There are six kinds, in one chain:
 *
 * - `request`: a client asked for something: what, verdict, why, how long, how much. Written after the reply.
 * - `intent`: a request that changes upstream is about to be forwarded. Committed first, so that nothing changes
 *   upstream that is not recorded (G7). The request's own record follows and names it. An intent that no record names
 *   was interrupted: whether upstream acted on it is not known.
 * - `build`: an inner build that a client asked for, with its outputs.
 * - `fetch`: nix-broker fetched a fixed output itself, with the URLs.
 * - `sandbox`: a sandbox began or ended.
 * - `service`: the broker started, stopped, or did something to the audit itself.
 */

import { hash } from "node:crypto";

/** In the order of their numbers in the database, from 1. */
export const AUDIT_KINDS = ["request", "intent", "build", "sandbox", "service", "fetch"] as const;
export type AuditKind = (typeof AUDIT_KINDS)[number];

/** In the order of their numbers in the database, from 1. */
export const VERDICTS = ["forward", "answer", "deny"] as const;
export type Verdict = (typeof VERDICTS)[number];

export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined };
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** One record, in the form that all kinds share. */
export interface AuditRecord {
  readonly kind: AuditKind;
  /** When it began, in microseconds since the epoch; an integer. */
  readonly time: number;
  /** Of a request or an intent, the operation; of the other kinds, the event ("Build", "begin", "start" …). */
  readonly op: string;
  readonly sandbox?: string | undefined;
  /** The derivation in whose build the client runs. */
  readonly outer?: string | undefined;
  /** The number of the client's connection, unique while the service runs. */
  readonly connection?: number | undefined;
  readonly uid?: number | undefined;
  readonly pid?: number | undefined;
  /** The protocol version of the connection, as "1.38". */
  readonly protocol?: string | undefined;
  readonly verdict?: Verdict | undefined;
  /** The reason for the verdict or the event. */
  readonly reason?: string | undefined;
  /** Store paths, or names where there are none. Of a build: its derivation, then its outputs. */
  readonly subjects?: readonly string[] | undefined;
  /** How many more there are that are not to be listed. */
  readonly moreSubjects?: number | undefined;
  readonly durationUs?: number | undefined;
  /** From and to the client, in bytes. */
  readonly bytesIn?: number | undefined;
  readonly bytesOut?: number | undefined;
  /** Upstream's error text, which the client may not have been told. Absent: upstream did as asked. */
  readonly upstreamError?: string | undefined;
  /** How many equal requests this record stands for; 1 if absent. Durations and bytes are their sums. */
  readonly count?: number | undefined;
  /** The `seq` of the intent that this request completes. */
  readonly intent?: number | undefined;
  readonly detail?: JsonObject | undefined;
}

/** A record as it is in the store. */
export interface StoredRecord extends AuditRecord {
  /** Its place in the chain, from 1. */
  readonly seq: number;
  /** SHA-256 over the previous record's hash and this record, in base64. */
  readonly hash: string;
}

/** The hash that the first record follows. */
export const GENESIS_HASH = Buffer.alloc(32).toString("base64");

/** Longer texts are cut: a record is bounded whatever a client sends. In characters. */
const MAX_TEXT = 4096;
/** Subjects beyond this number are counted, not listed. */
export const MAX_SUBJECTS = 1024;
/**
 * Likewise beyond this many characters in total, or one request could fill the disk a thousand times faster
 * than others.
 */
const MAX_SUBJECTS_TEXT = 128 * 1024;
/** Of a detail as JSON, in characters. */
const MAX_DETAIL = 64 * 1024;

function clip(text: string): string {
  const bounded = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${text.length} characters)` : text;
  // A lone surrogate would come back from the database as something else, and the hash would not match.
  return bounded.isWellFormed() ? bounded : bounded.toWellFormed();
}

const TEXTS = ["op", "sandbox", "outer", "protocol", "reason", "upstreamError"] as const;
const NUMBERS = [
  "time",
  "connection",
  "uid",
  "pid",
  "durationUs",
  "bytesIn",
  "bytesOut",
  "count",
  "intent",
] as const;

/**
 * The record with every part bounded and storable, whatever a client sent. A record that already is gets
 * returned unchanged.
 */
export function boundRecord(record: AuditRecord): AuditRecord {
  const subjects = record.subjects ?? [];
  const listed = listedSubjects(subjects);
  const omitted = subjects.length - listed + (record.moreSubjects ?? 0);
  const detail = boundDetail(omitted > 0 ? { ...record.detail, subjectsOmitted: omitted } : record.detail);
  if (detail === record.detail && subjects.every(isBounded) && hasBoundedFields(record)) return record;
  const bounded: Record<string, unknown> = { ...record };
  for (const field of TEXTS) {
    const text = record[field];
    if (text !== undefined) bounded[field] = clip(text);
  }
  for (const field of NUMBERS) {
    const value = record[field];
    if (!isStorable(value)) bounded[field] = Number.isFinite(value) ? storable(value!) : undefined;
  }
  if (bounded.time === undefined) bounded.time = 0;
  bounded.subjects = subjects.slice(0, listed).map(clip);
  delete bounded.moreSubjects;
  bounded.detail = detail;
  return bounded as unknown as AuditRecord;
}

/** Roughly what a record takes besides its texts. */
const FIXED_SIZE = 256;
/** Likewise each value of a detail, as JSON: more than its quotes and the comma, or than a number has digits. */
const VALUE_SIZE = 24;
/** As JSON: a control character, which is six. */
const LONGEST_CHARACTER = 6;

/**
 * Roughly how large a record is in memory and in the store: the characters of its texts, plus what it takes
 * without any.
 */
export function recordSize(record: AuditRecord): number {
  let size = FIXED_SIZE + (record.reason?.length ?? 0) + (record.upstreamError?.length ?? 0);
  for (const subject of record.subjects ?? []) size += subject.length;
  return size + lengthWithin(record.detail);
}

/** Roughly the characters in a value. */
function lengthWithin(value: JsonValue | undefined): number {
  if (typeof value === "string") return value.length + VALUE_SIZE;
  let length = VALUE_SIZE;
  if (typeof value === "object" && value !== null)
    for (const [name, part] of Object.entries(value)) length += name.length + lengthWithin(part);
  return length;
}

/** How many subjects, from the first, are listed. */
function listedSubjects(subjects: readonly string[]): number {
  let length = 0;
  let listed = 0;
  for (const subject of subjects) {
    length += Math.min(subject.length, MAX_TEXT);
    if (listed === MAX_SUBJECTS || length > MAX_SUBJECTS_TEXT) break;
    listed++;
  }
  return listed;
}

/** By name: going over `TEXTS` and `NUMBERS` takes several times as long, and every record is looked at. */
function hasBoundedFields(record: AuditRecord): boolean {
  return (
    isBounded(record.op) &&
    isBounded(record.sandbox) &&
    isBounded(record.outer) &&
    isBounded(record.protocol) &&
    isBounded(record.reason) &&
    isBounded(record.upstreamError) &&
    isStorable(record.time) &&
    isStorable(record.connection) &&
    isStorable(record.uid) &&
    isStorable(record.pid) &&
    isStorable(record.durationUs) &&
    isStorable(record.bytesIn) &&
    isStorable(record.bytesOut) &&
    isStorable(record.count) &&
    isStorable(record.intent)
  );
}

function isBounded(text: string | undefined): boolean {
  return text === undefined || (text.length <= MAX_TEXT && text.isWellFormed());
}

function isStorable(value: number | undefined): boolean {
  return value === undefined || Number.isSafeInteger(value);
}

function storable(value: number): number {
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Math.round(value)));
}

function boundDetail(detail: JsonObject | undefined): JsonObject | undefined {
  if (detail === undefined || lengthWithin(detail) * LONGEST_CHARACTER <= MAX_DETAIL) return detail;
  // It writes lone surrogates as escapes, so that its output is well-formed.
  const json = JSON.stringify(detail);
  return json.length > MAX_DETAIL ? { cut: json.slice(0, MAX_DETAIL).toWellFormed() } : detail;
}

/**
 * The canonical text of a record: a JSON array of its fields in this fixed order, null for what is absent, the
 * detail as JSON text within it. Format 1 (see schema.ts).
 */
export function canonicalText(seq: number, record: AuditRecord, detail: string | null): string {
  return JSON.stringify([
    seq,
    record.time,
    record.kind,
    record.op,
    record.sandbox ?? null,
    record.outer ?? null,
    record.connection ?? null,
    record.uid ?? null,
    record.pid ?? null,
    record.protocol ?? null,
    record.verdict ?? null,
    record.reason ?? null,
    record.subjects ?? [],
    record.durationUs ?? null,
    record.bytesIn ?? null,
    record.bytesOut ?? null,
    record.upstreamError ?? null,
    record.count ?? 1,
    record.intent ?? null,
    detail,
  ]);
}

/** The hash of a record in base64: SHA-256 over the previous one's hash, as base64, and the canonical text. */
export function chainHash(previous: string, canonical: string): string {
  return hash("sha256", previous + canonical, "base64");
}
