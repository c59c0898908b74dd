import { chmodSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { AuditReader } from "../../src/audit/query.ts";
import { applyRetention } from "../../src/audit/retention.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { auditFolder, request, storePath } from "./folder.ts";

const folder = auditFolder();
const DAY = 86_400_000_000;
const START = 1_763_800_000_000_000;

/** A segment a day, with ten records each. */
function fill(days: number): AuditStore {
  const store = new AuditStore(folder.path, { segmentRecords: 10 });
  for (let i = 0; i < days * 10; i++) {
    store.append(request({ subjects: [storePath(i)], time: START + Math.floor(i / 10) * DAY }));
    if (i % 10 === 9) store.flush();
  }
  return store;
}

function segments(): string[] {
  return readdirSync(folder.path).filter((name) => name.endsWith(".sqlite"));
}

test("what is too old goes, the rest verifies, and a record says so", () => {
  const store = fill(5);
  const old = store.head;
  for (let i = 50; i < 60; i++) store.append(request({ subjects: [storePath(i)], time: START + 5 * DAY }));
  store.flush();
  const retired = applyRetention(store, { maxAgeUs: 2.5 * DAY }, START + 5 * DAY);
  expect(retired).toMatchObject({ segments: 3, records: 30 });
  expect(retired.bytes).toBeGreaterThan(10_000);
  store.close();
  const reader = new AuditReader(folder.path);
  const [newest] = reader.query({ kinds: ["service"] });
  expect(newest).toMatchObject({ op: "retire", detail: { firstSeq: 1, lastSeq: 30, segments: 3 } });
  expect(reader.query({ order: "oldest", limit: 1 })[0]?.seq).toBe(31);
  reader.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, firstSeq: 31, records: 31 });
  // An anchor of what is gone proves nothing of what is left.
  const anchors = [old, { seq: 7, hash: old.hash }];
  expect(verifyAudit(folder.path, { anchors })).toMatchObject({ ok: true, anchors: 1 });
});

test("what is too much goes, oldest first", () => {
  const store = fill(6);
  const one = statSync(join(folder.path, "000001.sqlite")).size;
  const before = segments().length;
  applyRetention(store, { maxBytes: one * 4.5 }, START + 5 * DAY);
  store.close();
  expect(segments().length).toBeLessThan(before);
  expect(segments()).not.toContain("000001.sqlite");
  expect(verifyAudit(folder.path).ok).toBe(true);
});

test("within the limits nothing happens", () => {
  const store = fill(3);
  const before = segments();
  expect(applyRetention(store, {}, START)).toEqual({ segments: 0, records: 0, bytes: 0 });
  expect(segments()).toEqual(before);
  store.close();
});

test("a segment that has aged is sealed, so that it can go in time", () => {
  const store = fill(1);
  const before = store.liveSegment.path;
  applyRetention(store, { maxAgeUs: 8 * DAY }, store.liveSegment.created + 2 * DAY);
  expect(store.liveSegment.path).not.toBe(before);
  store.close();
});

test("old segments that somebody else removed are missed", () => {
  const store = fill(6);
  applyRetention(store, { maxAgeUs: 2.5 * DAY }, START + 5 * DAY);
  store.close();
  rmSync(join(folder.path, "000004.sqlite"));
  expect(verifyAudit(folder.path)).toMatchObject({
    ok: false,
    seq: 1,
    problem: expect.stringContaining("retired"),
  });
});

test("a beginning that was made up is not vouched for", () => {
  const store = fill(6);
  applyRetention(store, { maxAgeUs: 2.5 * DAY }, START + 5 * DAY);
  store.close();
  const path = join(folder.path, "000004.sqlite");
  chmodSync(path, 0o640);
  const database = new DatabaseSync(path);
  database.exec("UPDATE segment SET previous_hash = 'AAAA'");
  database.close();
  expect(verifyAudit(folder.path).ok).toBe(false);
});
