/**
 * The database of one segment of the audit.
 *
 * Rows are narrow: texts are stored apart, in `text`, and a record holds their numbers. A million records are
 * scanned in less than 0.1 s, so no filter needs an index, and indexes would make recording slow, because
 * their pages are spread over the whole file. An index to keep texts unique took half of the time, so a text
 * that was not used recently is stored again, under another number.
 *
 * The format of a segment never changes, or its hashes would no longer match. A later version of the broker
 * that needs another format gives it the next number, seals the existing segment and begins a new one.
 */

import { DatabaseSync } from "node:sqlite";

/** `PRAGMA user_version` of the segments that this version writes. */
export const SEGMENT_FORMAT = 1;

const CREATE = `
CREATE TABLE segment (
  number INTEGER PRIMARY KEY,    -- from 1, also the file's name
  first_seq INTEGER NOT NULL,    -- of its first record
  previous_hash TEXT NOT NULL,   -- of the record before that, base64
  created INTEGER NOT NULL       -- microseconds since the epoch
);
CREATE TABLE text (
  id INTEGER PRIMARY KEY,
  text TEXT NOT NULL
);
CREATE TABLE record (
  seq INTEGER PRIMARY KEY,       -- place in the chain, no gaps
  time INTEGER NOT NULL,         -- microseconds since the epoch
  kind INTEGER NOT NULL,         -- 1 request, 2 intent, 3 build, 4 sandbox, 5 service, 6 fetch
  op INTEGER NOT NULL,           -- text
  verdict INTEGER,               -- 1 forward, 2 answer, 3 deny
  sandbox INTEGER,               -- text
  outer_derivation INTEGER,      -- text
  subject INTEGER,               -- text, the first subject
  more_subjects TEXT,            -- JSON array of texts, the others
  reason INTEGER,                -- text
  connection INTEGER,
  uid INTEGER,
  pid INTEGER,
  protocol INTEGER,              -- text
  duration_us INTEGER,
  bytes_in INTEGER,
  bytes_out INTEGER,
  upstream_error INTEGER,        -- text
  count INTEGER NOT NULL,
  intent INTEGER,                -- seq of the intent that this request completes
  detail TEXT,                   -- JSON
  hash BLOB NOT NULL             -- SHA-256 over the previous hash and the canonical text of this record
);
CREATE INDEX record_intent ON record (intent) WHERE intent IS NOT NULL;
CREATE TABLE more_subject (      -- finds records by a subject that is not the first
  text INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (text, seq)
) WITHOUT ROWID;
-- For people with the sqlite3 command; the broker does not use it.
CREATE VIEW readable AS SELECT
  seq,
  strftime('%Y-%m-%d %H:%M:%f', time / 1000000.0, 'unixepoch') AS time,
  CASE kind WHEN 1 THEN 'request' WHEN 2 THEN 'intent' WHEN 3 THEN 'build' WHEN 4 THEN 'sandbox' WHEN 6 THEN 'fetch' ELSE 'service' END AS kind,
  (SELECT text FROM text WHERE id = op) AS op,
  CASE verdict WHEN 1 THEN 'forward' WHEN 2 THEN 'answer' WHEN 3 THEN 'deny' END AS verdict,
  (SELECT text FROM text WHERE id = sandbox) AS sandbox,
  (SELECT text FROM text WHERE id = outer_derivation) AS outer_derivation,
  (SELECT text FROM text WHERE id = subject) AS subject,
  (SELECT text FROM text WHERE id = reason) AS reason,
  connection, uid, pid, duration_us, bytes_in, bytes_out,
  (SELECT text FROM text WHERE id = upstream_error) AS upstream_error,
  count, intent, detail
FROM record;
`;

/** The single row of `segment`. */
export interface SegmentHead {
  readonly number: number;
  readonly firstSeq: number;
  readonly previousHash: string;
  readonly created: number;
}

/** Makes an empty database a segment, in one transaction. */
export function createSegment(database: DatabaseSync, head: SegmentHead): void {
  database.exec(`BEGIN IMMEDIATE; ${CREATE} PRAGMA user_version = ${SEGMENT_FORMAT};`);
  database
    .prepare("INSERT INTO segment VALUES (?, ?, ?, ?)")
    .run(head.number, head.firstSeq, head.previousHash, head.created);
  database.exec("COMMIT");
}

/** The format number of a database; 0 when it is empty, because its creation was interrupted. */
export function segmentFormat(database: DatabaseSync): number {
  return Number(database.prepare("PRAGMA user_version").get()?.user_version);
}

/** Reads the single row of `segment`; undefined if it does not exist. */
export function segmentHead(database: DatabaseSync): SegmentHead | undefined {
  const row = database.prepare("SELECT number, first_seq, previous_hash, created FROM segment").get();
  if (row === undefined) return undefined;
  return {
    number: Number(row.number),
    firstSeq: Number(row.first_seq),
    previousHash: String(row.previous_hash),
    created: Number(row.created),
  };
}

/** The statements that created each table, index and view of a database, by kind and name, without comments. */
function definitions(database: DatabaseSync): Map<string, string> {
  const rows = database.prepare("SELECT type, name, sql FROM sqlite_schema").all();
  return new Map(
    rows.map(({ type, name, sql }) => {
      // Comments and line breaks may differ in another version of this file.
      const text = String(sql).replace(/--.*$/gm, "").replace(/\s+/g, " ");
      return [`${String(type)} ${String(name)}`, text];
    }),
  );
}

/** What in a segment, such as "table text", differs from what `createSegment` creates; undefined if nothing does. */
export function foreignDefinition(database: DatabaseSync): string | undefined {
  const pattern = new DatabaseSync(":memory:");
  try {
    createSegment(pattern, { number: 1, firstSeq: 1, previousHash: "", created: 0 });
    const expected = definitions(pattern);
    const found = definitions(database);
    return [...new Set([...expected.keys(), ...found.keys()])].find(
      (name) => expected.get(name) !== found.get(name),
    );
  } finally {
    pattern.close();
  }
}
