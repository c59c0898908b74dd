import { constants } from "node:buffer";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { formatAnchor, parseAnchor, parseAnchors, readAnchors } from "../../src/audit/anchor.ts";
import { applyRetention } from "../../src/audit/retention.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { type VerifyFailure, verifyAudit } from "../../src/audit/verify.ts";
import { auditFolder, request, storePath } from "./folder.ts";

const folder = auditFolder();

/** 30 records in three segments of ten. */
function fill(from = 0, count = 30): AuditStore {
  const store = new AuditStore(folder.path, { segmentRecords: 10, batchRecords: 5 });
  for (let i = from; i < from + count; i++) {
    store.append(request({ subjects: [storePath(i), storePath(i + 1000)], reason: `reason ${i}` }));
  }
  store.flush();
  return store;
}

/** Does by hand what the store never does. */
function tamper(segment: number, sql: string): void {
  const path = join(folder.path, `00000${segment}.sqlite`);
  chmodSync(path, 0o640);
  // SQLite's own shell lets its tables be written as well.
  const database = new DatabaseSync(path, { defensive: false });
  database.exec(sql);
  database.close();
}

function failure(anchors: ReturnType<typeof readAnchors> = []): VerifyFailure {
  const result = verifyAudit(folder.path, { anchors });
  if (result.ok) throw new Error("It verified.");
  return result;
}

/** Makes each change to one record of an audit that is good again before the next. */
function expectEachSeen(changes: readonly string[]): void {
  fill().close();
  cpSync(folder.path, `${folder.path}.good`, { recursive: true });
  for (const change of changes) {
    tamper(2, `UPDATE record SET ${change} WHERE seq = 15`);
    expect([change, failure()]).toMatchObject([
      change,
      { seq: 15, file: expect.stringContaining("000002.sqlite") },
    ]);
    rmSync(folder.path, { recursive: true });
    cpSync(`${folder.path}.good`, folder.path, { recursive: true });
  }
}

test("an untouched audit verifies, also while it is written", () => {
  const store = fill();
  expect(verifyAudit(folder.path)).toEqual({
    ok: true,
    records: 30,
    firstSeq: 1,
    head: store.head,
    anchors: 0,
  });
  store.close();
  expect(verifyAudit(folder.path, { anchors: [store.head] })).toMatchObject({ ok: true });
});

test("any column that is changed is seen, in its record", () => {
  const changes = [
    "time = time + 1",
    "kind = 5",
    "op = sandbox",
    "verdict = 1",
    "sandbox = NULL",
    "outer_derivation = op",
    "subject = op",
    "more_subjects = NULL",
    "reason = NULL",
    "connection = 99",
    "uid = 0",
    "pid = 1",
    "protocol = op",
    "duration_us = 1",
    "bytes_in = 0",
    "bytes_out = NULL",
    "upstream_error = op",
    "count = 2",
    "intent = 3",
    "detail = '{}'",
    "hash = zeroblob(32)",
    "hash = 'text'",
    "kind = 17",
    "op = 99999",
  ];
  expectEachSeen(changes);
  expect(verifyAudit(folder.path).ok).toBe(true);
});

test("a text that is changed is seen in the first record that has it", () => {
  fill().close();
  tamper(2, "UPDATE text SET text = 'reason 999' WHERE text = 'reason 17'");
  expect(failure()).toMatchObject({ seq: 18 });
});

test("a record removed, reordered, put in between or appended is seen where it is", () => {
  fill().close();
  cpSync(folder.path, `${folder.path}.good`, { recursive: true });
  const cases: [sql: string, segment: number, seq: number][] = [
    ["DELETE FROM record WHERE seq = 15", 2, 15],
    ["DELETE FROM record WHERE seq = 20", 2, 20],
    ["DELETE FROM record WHERE seq = 11", 2, 11],
    [
      "UPDATE record SET seq = -1 WHERE seq = 14; UPDATE record SET seq = 14 WHERE seq = 15; UPDATE record SET seq = 15 WHERE seq = -1",
      2,
      14,
    ],
    ["UPDATE record SET seq = seq + 1 WHERE seq = 20", 2, 20],
    [
      "INSERT INTO record SELECT 31, time, kind, op, verdict, sandbox, outer_derivation, subject, NULL, reason, connection, uid, pid, protocol, duration_us, bytes_in, bytes_out, upstream_error, count, intent, detail, hash FROM record WHERE seq = 30",
      3,
      31,
    ],
    [
      "INSERT INTO record SELECT 10, time, kind, op, verdict, sandbox, outer_derivation, subject, NULL, reason, connection, uid, pid, protocol, duration_us, bytes_in, bytes_out, upstream_error, count, intent, detail, hash FROM record WHERE seq = 30",
      3,
      10,
    ],
  ];
  for (const [sql, segment, seq] of cases) {
    tamper(segment, sql);
    expect([sql, failure().seq]).toEqual([sql, seq]);
    rmSync(folder.path, { recursive: true });
    cpSync(`${folder.path}.good`, folder.path, { recursive: true });
  }
});

test("a subject hidden from the search, or added to it, is seen", () => {
  fill().close();
  tamper(2, "DELETE FROM more_subject WHERE seq = 13");
  expect(failure()).toMatchObject({ seq: 13, problem: expect.stringContaining("would not be found") });
  tamper(
    2,
    "INSERT INTO more_subject SELECT json_extract(more_subjects, '$[0]'), seq FROM record WHERE seq = 13",
  );
  expect(verifyAudit(folder.path).ok).toBe(true);
  tamper(3, "INSERT INTO more_subject VALUES (1, 25)");
  expect(failure().seq).toBe(25);
});

test("a record hidden from a filter by how a value is stored, its hash still fitting, is seen", () => {
  const changes = [
    "verdict = x'02'",
    "verdict = '0x2'",
    "kind = '0x1'",
    "time = printf('0x%x', time)",
    "sandbox = printf('0x%x', sandbox)",
    "op = printf('0x%x', op)",
    "subject = printf('0x%x', subject)",
    "uid = printf('0x%x', uid)",
    "count = x'01'",
    "more_subjects = CAST(more_subjects AS BLOB)",
  ];
  expectEachSeen(changes);
});

test("tables made anew, or a second number for a text, are seen though every hash fits", () => {
  fill().close();
  cpSync(folder.path, `${folder.path}.good`, { recursive: true });
  const changes: [sql: string, problem: string][] = [
    // A filter finds one number for a text; the record has the other.
    [
      `PRAGMA legacy_alter_table = ON; CREATE TABLE t AS SELECT * FROM text; DROP TABLE text; ALTER TABLE t RENAME TO text;
       INSERT INTO text SELECT 999, text FROM text WHERE text = 'sandbox-one';
       UPDATE record SET sandbox = 999 WHERE seq = 15`,
      "table text",
    ],
    ["CREATE TRIGGER hide AFTER INSERT ON record BEGIN DELETE FROM record WHERE verdict = 3; END", "hide"],
    ["DROP VIEW readable; CREATE VIEW readable AS SELECT * FROM record WHERE verdict <> 3", "view readable"],
    ["DROP INDEX record_intent", "index record_intent"],
    // The same as a table made anew, with what made it left as it was.
    [
      `PRAGMA writable_schema = ON;
       CREATE INDEX fake ON record (intent) WHERE intent = -1;
       UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'fake') WHERE name = 'record_intent';
       DELETE FROM sqlite_schema WHERE name = 'fake'`,
      "does not match",
    ],
  ];
  for (const [sql, problem] of changes) {
    tamper(2, sql);
    expect([sql, failure()]).toMatchObject([
      sql,
      { file: expect.stringContaining("000002.sqlite"), problem: expect.stringContaining(problem) },
    ]);
    rmSync(folder.path, { recursive: true });
    cpSync(`${folder.path}.good`, folder.path, { recursive: true });
  }
  expect(verifyAudit(folder.path).ok).toBe(true);
});

test("a segment removed from the middle, exchanged, or broken is seen", () => {
  fill().close();
  const [first, second] = ["000001.sqlite", "000002.sqlite"].map((name) => join(folder.path, name)) as [
    string,
    string,
  ];
  const bytes = readFileSync(second);
  rmSync(second);
  expect(failure().problem).toBe("Segment 2 is missing.");
  writeFileSync(second, readFileSync(first));
  expect(failure()).toMatchObject({
    file: second,
    problem: expect.stringContaining("segment 1 but has the name of segment 2"),
  });
  writeFileSync(second, bytes.subarray(0, bytes.length / 2));
  expect(failure()).toMatchObject({ file: second });
  writeFileSync(second, "not a database at all");
  expect(failure()).toMatchObject({ file: second });
});

test("an end that was cut off is seen by an anchor only", () => {
  const store = fill();
  const anchor = store.head;
  store.close();
  tamper(3, "DELETE FROM record WHERE seq > 27; DELETE FROM more_subject WHERE seq > 27");
  expect(verifyAudit(folder.path).ok).toBe(true);
  expect(failure([anchor])).toMatchObject({ seq: 28, problem: expect.stringContaining("cut off") });
});

test("yesterday's copy in place of today's, even one that went on, is seen by an anchor", () => {
  fill().close();
  cpSync(folder.path, `${folder.path}.yesterday`, { recursive: true });
  const today = fill(30, 5);
  const anchors = [today.head];
  today.close();
  rmSync(folder.path, { recursive: true });
  cpSync(`${folder.path}.yesterday`, folder.path, { recursive: true });
  expect(failure(anchors)).toMatchObject({ seq: 31, problem: expect.stringContaining("older copy") });
  // The service goes on with the copy, and its chain is whole in itself.
  fill(500, 20).close();
  expect(verifyAudit(folder.path).ok).toBe(true);
  expect(failure(anchors)).toMatchObject({ seq: 35, problem: expect.stringContaining("rewritten") });
});

test("anchors are read from lines of their own, or out of the service's log", () => {
  const store = fill();
  const file = `${folder.path}.anchors`;
  const first = formatAnchor(store.head);
  store.append(request());
  store.flush();
  const second = formatAnchor(store.head);
  store.close();
  const logged = { level: 30, anchor: second, msg: "the audit's end" };
  writeFileSync(file, `# of root\n\n${first} 2026-11-22\n${second}\n`);
  const listed = readAnchors(file);
  expect(listed.map(({ seq }) => seq)).toEqual([30, 31]);
  expect(verifyAudit(folder.path, { anchors: listed }).ok).toBe(true);
  writeFileSync(
    file,
    `Started nix-broker.service - Nix broker.\n${JSON.stringify(logged)}\n{"msg":"listening"}\n{"msg":"cut of`,
  );
  expect(readAnchors(file)).toEqual([{ seq: 31, hash: second.split(" ")[1] }]);
  expect(() => parseAnchor("12 short")).toThrow(/not the head of an audit/);
  expect(() => parseAnchors(["12 short"])).toThrow(/not the head of an audit/);
  expect(() => parseAnchors(['{"anchor":"12 short"}'])).toThrow(/not the head of an audit/);
  expect(() => readAnchors(`${file}.none`)).toThrow(/Cannot read the anchors/);
  // As of a journal that one may not read.
  writeFileSync(file, "-- No entries --\n");
  expect(() => readAnchors(file)).toThrow(/contains no anchor/);
});

test("what a client wrote into a record is no anchor, where the journal cut the record's line", () => {
  const store = fill();
  const anchor = formatAnchor(store.head);
  store.close();
  const forged = `${"9".repeat(40)} ${"A".repeat(43)}=`;
  const log = [
    `{"level":30,"audit":{"seq":1,"subjects":["${"x".repeat(100)}`,
    `${forged} "],"hash":"1"},"msg":"audit"}`,
    '0c0h4x4c-source"],"hash":"1"},"msg":"audit"}',
    JSON.stringify({ level: 30, anchor, msg: "the audit's end" }),
    // Of Node, when there is no memory left.
    " 1: 0xb7a940 node::Abort() [node]",
  ];
  expect(verifyAudit(folder.path, { anchors: parseAnchors(log) })).toMatchObject({ ok: true, anchors: 1 });
});

test("an audit that was begun anew is seen, however many anchors name what is gone", () => {
  fill().close();
  const anchors = Array.from({ length: 200_000 }, (_, seq) => ({ seq: seq + 31, hash: "A".repeat(44) }));
  expect(failure(anchors)).toMatchObject({ seq: 31, problem: expect.stringContaining("record 200030") });
});

test("a log that is longer than a string can be is read for its anchors", () => {
  const file = `${folder.path}.log`;
  const anchor = { seq: 7, hash: `${"A".repeat(43)}=` };
  // Sparse, so that it takes no room.
  writeFileSync(file, "");
  truncateSync(file, constants.MAX_STRING_LENGTH);
  appendFileSync(file, `\n{"anchor":"${formatAnchor(anchor)}"}\n`);
  expect(readAnchors(file)).toEqual([anchor]);
});

test("what is retired while it is verified was not cut off", () => {
  const store = new AuditStore(folder.path);
  const append = (count: number): void => {
    for (let i = 0; i < count; i++) store.append(request({ reason: `reason ${i % 100}`, connection: i }));
    store.flush();
    store.rotate();
  };
  append(50_000);
  append(10);
  append(10);
  let retired = 0;
  // Called in the first segment.
  const onProgress = (): void => {
    retired ||= applyRetention(store, { maxBytes: 1 }).segments;
  };
  expect(verifyAudit(folder.path, { onProgress })).toMatchObject({ ok: true, firstSeq: 50_021 });
  expect(retired).toBe(3);
  store.close();
});

test("a removal that was interrupted is vouched for", () => {
  const store = fill();
  store.rotate();
  const aside = `${folder.path}.aside`;
  cpSync(folder.path, aside, { recursive: true });
  applyRetention(store, { maxBytes: 1 });
  store.close();
  // The second and third of three were still there when the process ended.
  for (const name of ["000002.sqlite", "000003.sqlite"]) cpSync(join(aside, name), join(folder.path, name));
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, firstSeq: 11 });
  rmSync(join(folder.path, "000002.sqlite"));
  rmSync(join(folder.path, "000003.sqlite"));
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, firstSeq: 31 });
});

test("no audit is not a whole one", () => {
  expect(failure()).toMatchObject({ seq: undefined, problem: expect.stringContaining("There is no audit") });
});
