import { spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { AuditReader } from "../../src/audit/query.ts";
import { type AuditRecord, boundRecord, type StoredRecord } from "../../src/audit/record.ts";
import { applyRetention } from "../../src/audit/retention.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { auditFolder, OUTER, request, storePath } from "./folder.ts";

const folder = auditFolder();
const NOBODY = 65_534;

function readAll(): StoredRecord[] {
  const reader = new AuditReader(folder.path);
  const records = reader.query({ order: "oldest", completedIntents: true });
  reader.close();
  return records;
}

test("a record comes back as it was, with its place in the chain", () => {
  const store = new AuditStore(folder.path);
  const record = request({
    subjects: [storePath(1), storePath(2), storePath(1)],
    verdict: "deny",
    reason: "not in the view",
    upstreamError: "error: line one\nline two \u001b[31m \u0000 \u00e9\u00ff \u{1f600}",
    detail: { dropped: { "max-jobs": "1" }, list: [1, null, true] },
  });
  store.append(record);
  expect(store.close()).toBe(true);
  const [stored] = readAll();
  expect(stored).toEqual({
    ...record,
    seq: 1,
    count: 1,
    hash: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/),
  });
});

test("any record survives: property", () => {
  const text = fc.string({ unit: "binary", maxLength: 200 });
  const integer = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
  const record: fc.Arbitrary<AuditRecord> = fc.record(
    {
      kind: fc.constantFrom("request", "intent", "build", "sandbox", "service"),
      time: integer,
      op: text,
      sandbox: text,
      outer: text,
      connection: integer,
      uid: integer,
      pid: integer,
      protocol: text,
      verdict: fc.constantFrom("forward", "answer", "deny"),
      reason: text,
      subjects: fc.array(text, { maxLength: 20 }),
      durationUs: integer,
      bytesIn: integer,
      bytesOut: integer,
      upstreamError: text,
      intent: integer,
      detail: fc.dictionary(text, fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<string>),
    },
    { requiredKeys: ["kind", "time", "op"] },
  );
  const store = new AuditStore(folder.path);
  const written: AuditRecord[] = [];
  fc.assert(
    fc.property(record, (one) => {
      store.appendCommitted(one);
      written.push(one);
    }),
    { numRuns: 500 },
  );
  store.close();
  const stored = readAll();
  expect(stored).toHaveLength(written.length);
  for (const [index, one] of written.entries()) {
    // Lone surrogates cannot be stored as text; everything else comes back exactly.
    const expected = JSON.parse(JSON.stringify({ subjects: [], ...one }).toWellFormed());
    expect(JSON.parse(JSON.stringify(stored[index]))).toMatchObject(expected);
  }
  expect(verifyAudit(folder.path).ok).toBe(true);
});

test.each(["op", "sandbox", "outer", "protocol", "reason", "upstreamError"] as const)(
  "a record whose only fault is a long %s is bounded",
  (field) => {
    const long = request({ [field]: "x".repeat(100_000) });
    expect(boundRecord(long)[field]?.length).toBeLessThan(20_000);
  },
);

test.each([
  "time",
  "connection",
  "uid",
  "pid",
  "durationUs",
  "bytesIn",
  "bytesOut",
  "count",
  "intent",
] as const)("a record whose only fault is its %s is made storable", (field) => {
  const { [field]: stored = 0 } = boundRecord(request({ [field]: Number.NaN }));
  expect(stored).toBe(0);
});

test("nonsense from a client is bounded and never stops the recording", () => {
  const store = new AuditStore(folder.path);
  store.append(request({ reason: "x".repeat(1_000_000), op: "\ud800" }));
  store.append(request({ subjects: Array.from({ length: 5000 }, (_, index) => storePath(index)) }));
  store.append(request({ subjects: Array.from({ length: 1024 }, () => "z".repeat(5000)) }));
  store.append(request({ detail: { big: "y".repeat(1_000_000) } }));
  store.append(request({ durationUs: Number.NaN, bytesIn: 0.75, time: Number.POSITIVE_INFINITY }));
  expect(store.close()).toBe(true);
  const [long, many, large, detail, numbers] = readAll();
  expect(long?.reason?.length).toBeLessThan(5000);
  expect(long?.reason).toContain("(1000000 characters)");
  expect(long?.op).toBe("\ufffd");
  expect(many?.subjects).toHaveLength(1024);
  expect(many?.detail).toEqual({ subjectsOmitted: 5000 - 1024 });
  expect(large?.subjects).toHaveLength(32);
  expect(large?.detail).toEqual({ subjectsOmitted: 1024 - 32 });
  expect(JSON.stringify(detail?.detail).length).toBeLessThan(70_000);
  expect([numbers?.durationUs, numbers?.bytesIn, numbers?.time]).toEqual([undefined, 1, 0]);
  expect(verifyAudit(folder.path).ok).toBe(true);
});

test("what cannot be written is kept within a size too, however few records that are", () => {
  const store = new AuditStore(folder.path, { maxPendingSize: 1_000_000, retryMs: 1_000_000 });
  store.append(request());
  store.flush();
  // As a full disk would: nobody else can write meanwhile.
  const lock = new DatabaseSync(join(folder.path, "000001.sqlite"));
  lock.exec("BEGIN IMMEDIATE");
  const subjects = Array.from({ length: 1000 }, (_, i) => storePath(i));
  for (let i = 0; i < 100; i++) store.append(request({ connection: i, subjects, reason: `${i}` }));
  store.flush();
  expect(store.healthy).toBe(false);
  expect(store.pending).toBeGreaterThan(10);
  expect(store.pending).toBeLessThan(25);
  expect(store.lost).toBe(101 - store.pending);
  lock.exec("ROLLBACK");
  lock.close();
  const { lost } = store;
  expect(store.flush()).toBe(true);
  store.close();
  expect(readAll().find(({ op }) => op === "lost")?.detail).toEqual({ records: lost });
});

test("many large records are written at once, not kept for a batch", () => {
  const store = new AuditStore(folder.path);
  const subjects = Array.from({ length: 1000 }, (_, i) => storePath(i));
  for (let i = 0; i < 40; i++) store.append(request({ connection: i, subjects, reason: `${i}` }));
  expect(store.pending).toBeLessThan(40);
  store.close();
  expect(readAll()).toHaveLength(40);
});

test("files can be read by the group and written by the service only", () => {
  const store = new AuditStore(folder.path);
  store.append(request());
  store.flush();
  expect(lstatSync(folder.path).mode & 0o777).toBe(0o750);
  const names = readdirSync(folder.path);
  expect(names.toSorted()).toEqual(["000001.sqlite", "000001.sqlite-shm", "000001.sqlite-wal"]);
  for (const name of names) expect(statSync(join(folder.path, name)).mode & 0o777).toBe(0o640);
  store.close();
});

test("records are written in batches, soon, and in order", async () => {
  const batches: number[] = [];
  const store = new AuditStore(folder.path, { onWritten: (records) => batches.push(records.length) });
  for (let i = 0; i < 600; i++) store.append(request({ subjects: [storePath(i)] }));
  expect(store.head.seq).toBe(500);
  expect(store.pending).toBe(100);
  while (store.pending > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(store.head.seq).toBe(600);
  await Promise.resolve();
  expect(batches).toEqual([250, 250, 100]);
  expect(readAll().map((record) => record.subjects?.[0])).toEqual(
    Array.from({ length: 600 }, (_, i) => storePath(i)),
  );
  store.close();
});

test("equal requests become one with a count; different ones, errors and changes do not", () => {
  const store = new AuditStore(folder.path, { coalesceMs: 1_000_000 });
  for (let i = 0; i < 1000; i++) store.append(request());
  for (let i = 0; i < 3; i++) store.append(request({ connection: 2 }));
  for (let i = 0; i < 3; i++) store.append(request({ upstreamError: "failed" }));
  for (let i = 0; i < 3; i++) store.append(request({ intent: 77 }));
  // Two subjects cannot be made to look like one.
  store.append(request({ subjects: ["1:a", "b"] }));
  store.append(request({ subjects: ["1:a1:b"] }));
  store.close();
  const records = readAll();
  const sum = (connection: number) =>
    records
      .filter((record) => record.connection === connection && !record.upstreamError && !record.intent)
      .map((record) => record.count);
  expect(sum(1)).toEqual([1, 999, 1, 1]);
  expect(sum(2)).toEqual([1, 2]);
  const summed = records.find((record) => record.count === 999);
  expect([summed?.durationUs, summed?.bytesIn, summed?.bytesOut]).toEqual([999 * 40, 999 * 100, 999 * 16]);
  expect(records.filter((record) => record.upstreamError)).toHaveLength(3);
  expect(records.filter((record) => record.intent)).toHaveLength(3);
});

test("repeats are swept up in time without anything else being recorded", async () => {
  const store = new AuditStore(folder.path, { coalesceMs: 20 });
  for (let i = 0; i < 10; i++) store.append(request());
  while (store.pending > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(readAll().map((record) => record.count)).toEqual([1, 9]);
  store.close();
});

test("G8: what many connections repeat is swept up a batch at a time", async () => {
  let written = 0;
  const onWritten = ({ length }: readonly StoredRecord[]): void => {
    written += length;
  };
  const store = new AuditStore(folder.path, { coalesceMs: 20, onWritten });
  const subjects = Array.from({ length: 500 }, (_, i) => storePath(i));
  const connections = 40;
  for (let connection = 0; connection < connections; connection++)
    for (const _twice of [1, 2]) store.append(request({ connection, subjects }));
  // The first ones are told of now.
  await Promise.resolve();
  let mostInOneTurn = 0;
  while (written < 2 * connections) {
    const before = written;
    await new Promise((resolve) => setImmediate(resolve));
    mostInOneTurn = Math.max(mostInOneTurn, written - before);
  }
  expect(mostInOneTurn).toBeLessThan(connections / 2);
  expect(store.close()).toBe(true);
});

test("G7: a durable record is committed before the call returns, and after all earlier records", () => {
  const store = new AuditStore(folder.path);
  store.append(request());
  const seq = store.appendCommitted({ ...request({ op: "AddToStore" }), kind: "intent" });
  expect(seq).toBe(2);
  // A second connection sees it: it is on disk, not in memory.
  expect(readAll().map((record) => [record.seq, record.kind])).toEqual([
    [1, "request"],
    [2, "intent"],
  ]);
  store.close();
});

test("the chain goes on after a restart and in new segments", () => {
  for (let round = 0; round < 3; round++) {
    const store = new AuditStore(folder.path, { segmentRecords: 40 });
    for (let i = 0; i < 50; i++) store.append(request({ subjects: [storePath(round * 50 + i)] }));
    expect(store.flush()).toBe(true);
    store.rotate();
    store.close();
  }
  const seqs = readAll().map((record) => record.seq);
  expect(seqs).toEqual(Array.from({ length: 150 }, (_, index) => index + 1));
  const result = verifyAudit(folder.path);
  expect(result).toMatchObject({ ok: true, records: 150 });
  const sealed = statSync(join(folder.path, "000001.sqlite"));
  expect(sealed.mode & 0o777).toBe(0o440);
});

test("a segment that a killed service had only begun is begun again", () => {
  const store = new AuditStore(folder.path);
  store.append(request());
  store.rotate();
  store.flush();
  store.rotate();
  store.close();
  // The file is there, nothing is in it: as after a kill between the two.
  const names = readdirSync(folder.path).filter((name) => name.endsWith(".sqlite"));
  const empty = join(folder.path, `${String(names.length + 1).padStart(6, "0")}.sqlite`);
  new DatabaseSync(empty).close();
  chmodSync(empty, 0o640);
  const again = new AuditStore(folder.path);
  again.append(request({ subjects: [storePath(2)] }));
  again.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 2 });
});

function writeMany(store: AuditStore, count: number): void {
  for (let i = 0; i < count; i++) store.append(request({ subjects: [storePath(i)] }));
  expect(store.flush()).toBe(true);
}

test("what was written is copied to the database in a thread, and the log of writes begins anew", async () => {
  const store = new AuditStore(folder.path);
  const path = join(folder.path, "000001.sqlite");
  writeMany(store, 600);
  const logSize = (): number => statSync(`${path}-wal`).size;
  await vi.waitFor(() => expect(statSync(path).size).toBeGreaterThan(100_000), 20_000);
  let more = 0;
  // It may be copying the last of it still.
  await vi.waitFor(() => {
    const before = logSize();
    writeMany(store, 10);
    more += 10;
    expect(logSize()).toBe(before);
  }, 20_000);
  store.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 600 + more });
});

test("a segment that is finished while it is being copied is sealed afterwards", async () => {
  const store = new AuditStore(folder.path);
  const path = join(folder.path, "000001.sqlite");
  writeMany(store, 600);
  store.rotate();
  await vi.waitFor(() => expect(statSync(path).mode & 0o777).toBe(0o440), 20_000);
  expect(existsSync(`${path}-wal`)).toBe(false);
  store.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 600 });
});

test("a segment that retention removes while it is being copied is not missed, nor does it come back", async () => {
  const store = new AuditStore(folder.path);
  writeMany(store, 600);
  expect(applyRetention(store, { maxAgeUs: 0 })).toMatchObject({ segments: 1, records: 600 });
  // Whatever was to be done with it is done when the next one is sealed.
  writeMany(store, 600);
  store.rotate();
  await vi.waitFor(
    () => expect(statSync(join(folder.path, "000002.sqlite")).mode & 0o777).toBe(0o440),
    20_000,
  );
  expect(readdirSync(folder.path).filter((name) => name.startsWith("000001"))).toEqual([]);
  store.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 601 });
});

/** Does something as the service's user would, who owns the audit; as oneself where the tests do not run as root. */
function asNobody(act: () => void): void {
  const root = process.getuid?.() === 0;
  for (const name of root ? [dirname(folder.path), folder.path, ...readdirSync(folder.path)] : [])
    chownSync(resolve(folder.path, name), NOBODY, NOBODY);
  if (root) process.seteuid?.(NOBODY);
  try {
    act();
  } finally {
    if (root) process.seteuid?.(0);
  }
}

test("a segment that is finished while somebody reads it is sealed by the next start, also where the service is not root", () => {
  const store = new AuditStore(folder.path);
  const path = join(folder.path, "000001.sqlite");
  writeMany(store, 1);
  const reader = new DatabaseSync(path, { readOnly: true });
  reader.exec("BEGIN; SELECT * FROM record");
  store.rotate();
  store.close();
  reader.close();
  expect(existsSync(`${path}-wal`)).toBe(true);
  // As earlier versions left it.
  chmodSync(path, 0o440);
  asNobody(() => new AuditStore(folder.path).close());
  expect(existsSync(`${path}-wal`)).toBe(false);
  expect(statSync(path).mode & 0o777).toBe(0o440);
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 1 });
});

test("a store of a later version is left alone", () => {
  const store = new AuditStore(folder.path);
  store.close();
  const database = new DatabaseSync(join(folder.path, "000001.sqlite"));
  database.exec("PRAGMA user_version = 99");
  database.close();
  expect(() => new AuditStore(folder.path)).toThrow(/format 99/);
  expect(() => new AuditReader(folder.path)).toThrow(/format 99/);
});

test("two services on one store: the second to write is refused, the chain stays whole", () => {
  const one = new AuditStore(folder.path);
  const two = new AuditStore(folder.path);
  one.append(request());
  expect(one.flush()).toBe(true);
  two.append(request());
  expect(two.flush()).toBe(false);
  expect(() => two.appendCommitted(request())).toThrow(/Cannot write the audit/);
  two.close();
  one.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 1 });
});

test("a folder that cannot be made is a clear error", () => {
  writeFileSync(folder.path, "in the way");
  expect(() => new AuditStore(join(folder.path, "audit"))).toThrow(/Cannot keep the audit in/);
});

test("kill -9 in the middle of a load, again and again: all that was promised is there, once, and verifies", async () => {
  const script = `
import { AuditStore } from ${JSON.stringify(join(import.meta.dirname, "../../src/audit/store.ts"))};
const store = new AuditStore(process.argv[1], { segmentRecords: 500 });
const round = process.argv[2];
for (let i = 0; ; i++) {
  const base = { time: Date.now() * 1000, sandbox: "s", outer: ${JSON.stringify(OUTER)}, connection: 1 };
  for (let k = 0; k < 7; k++) store.append({ ...base, kind: "request", op: "IsValidPath", subjects: [round + "/" + i + "/" + k] });
  const seq = store.appendCommitted({ ...base, kind: "intent", op: "AddToStore", subjects: [round + "/" + i] });
  // A client would get its answer now.
  process.stdout.write(seq + " " + round + "/" + i + "\\n");
  store.append({ ...base, kind: "request", op: "AddToStore", intent: seq, subjects: [round + "/" + i] });
  if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}`;
  const promised = new Map<number, string>();
  for (let round = 0; round < 12; round++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, folder.path, String(round)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const target = promised.size + 30 + round * 17;
    for await (const line of createInterface(child.stdout)) {
      const [seq, subject] = line.split(" ");
      if (subject === undefined) continue;
      promised.set(Number(seq), subject);
      if (promised.size === target) child.kill("SIGKILL");
    }
  }
  const result = verifyAudit(folder.path);
  expect(result.ok).toBe(true);
  const intents = readAll().filter((record) => record.kind === "intent");
  const bySeq = new Map(intents.map((record) => [record.seq, record.subjects?.[0]]));
  for (const [seq, subject] of promised) expect(bySeq.get(seq)).toBe(subject);
  expect(new Set(intents.map((record) => record.subjects?.[0])).size).toBe(intents.length);
});

test("G7: nothing is recorded in a file that was removed: that is a failure, until it is back", () => {
  vi.useFakeTimers();
  try {
    const store = new AuditStore(folder.path);
    store.appendCommitted(request());
    const aside = `${folder.path}-aside`;
    renameSync(folder.path, aside);
    vi.advanceTimersByTime(1000);
    expect(() => store.appendCommitted(request())).toThrow(/000001.sqlite was removed or replaced/);
    expect(store.healthy).toBe(false);
    mkdirSync(folder.path);
    writeFileSync(`${folder.path}/000001.sqlite`, "");
    vi.advanceTimersByTime(5000);
    expect(() => store.appendCommitted(request())).toThrow(/was removed or replaced/);
    rmSync(folder.path, { recursive: true });
    renameSync(aside, folder.path);
    vi.advanceTimersByTime(1000);
    expect(store.healthy).toBe(true);
    store.appendCommitted(request());
    expect(store.close()).toBe(true);
    expect(readAll().map(({ kind, op }) => (kind === "service" ? op : kind))).toEqual([
      "request",
      "unwritable",
      "request",
    ]);
    expect(verifyAudit(folder.path)).toMatchObject({ ok: true });
  } finally {
    vi.useRealTimers();
  }
});

test("no segment follows one that is not on the disk", () => {
  const store = new AuditStore(folder.path);
  store.append(request());
  store.flush();
  const { path } = store.liveSegment;
  const log = `${path}-wal`;
  renameSync(log, `${log}.aside`);
  // It cannot be opened to be synced.
  symlinkSync(log, log);
  expect(() => store.rotate()).toThrow(/ELOOP/);
  expect(store.liveSegment.path).toBe(path);
  rmSync(log);
  renameSync(`${log}.aside`, log);
  store.rotate();
  expect(store.liveSegment.path).not.toBe(path);
  store.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 1 });
});

test("a clock that is set back or forth does not change how long a record has waited", () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const store = new AuditStore(folder.path, { batchMs: 1_000_000 });
    store.append(request());
    vi.setSystemTime(Date.now() - 3_600_000);
    expect(store.lagMs).toBeGreaterThanOrEqual(0);
    vi.setSystemTime(Date.now() + 7_200_000);
    expect(store.lagMs).toBeLessThan(3_600_000);
    store.close();
  } finally {
    vi.useRealTimers();
  }
});
