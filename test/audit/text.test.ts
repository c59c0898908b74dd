import { Writable } from "node:stream";
import fc from "fast-check";
import pino from "pino";
import { expect, test } from "vitest";
import { escapeText, jsonText } from "../../src/audit/escape.ts";
import { buildRecord, outputsOf, sandboxRecord, serviceRecord } from "../../src/audit/events.ts";
import { exportRecords } from "../../src/audit/export.ts";
import { jsonLine, logRecords } from "../../src/audit/json-line.ts";
import { AuditReader } from "../../src/audit/query.ts";
import type { StoredRecord } from "../../src/audit/record.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { formatTime, parseTime } from "../../src/audit/time.ts";
import { auditFolder, OUTER, request, storePath } from "./folder.ts";

const folder = auditFolder();

test("text of clients cannot command a terminal", () => {
  expect(escapeText("\u001b[2J\u001b]0;title\u0007")).toBe("\\x1b[2J\\x1b]0;title\\x07");
  expect(escapeText("a\nb\r\tc")).toBe("a\\nb\\r\\tc");
  expect(escapeText("\u009b31m \u202egnp.exe \u200b \u2066")).toBe(
    "\\x9b31m \\u{202e}gnp.exe \\u{200b} \\u{2066}",
  );
  expect(escapeText("\\x1b")).toBe("\\\\x1b");
  // Each is invisible, or blank: such names would look like others.
  expect(escapeText("a\u034f\u115f\u2800\u3164\ufe0f\u{e0100}b")).toBe(
    "a\\u{34f}\\u{115f}\\u{2800}\\u{3164}\\u{fe0f}\\u{e0100}b",
  );
  expect(escapeText("grüße, 世界 🙂")).toBe("grüße, 世界 🙂");
});

test("no control character is left, and different texts stay different", () => {
  const text = fc.string({ unit: "binary" });
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(escapeText(a)).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u);
      if (a !== b) expect(escapeText(a)).not.toBe(escapeText(b));
    }),
  );
});

test("JSON is safe for terminals and for what reads lines, and means the same", () => {
  const text = "a\u001b[2J\u009b2J\u007f\u202e\u2028\u{e0041}\nb";
  const json = jsonText({ text });
  expect(json).toMatch(/^[ -~]*$/);
  expect(JSON.parse(json)).toEqual({ text });
  expect(jsonText({ text }, 2).split("\n")).toHaveLength(3);
  expect(jsonText({ text: "größer" })).toBe('{"text":"größer"}');
});

test("times as people write them", () => {
  const now = Date.parse("2026-11-22T18:00:00Z");
  expect(parseTime("2h", now)).toBe((now - 7_200_000) * 1000);
  expect(parseTime("1.5 h", now)).toBe((now - 5_400_000) * 1000);
  expect(parseTime("90s", now)).toBe((now - 90_000) * 1000);
  expect(parseTime("1w", now)).toBe((now - 604_800_000) * 1000);
  expect(parseTime("now", now)).toBe(now * 1000);
  expect(parseTime("@1763800000.5")).toBe(1_763_800_000_500_000);
  expect(parseTime("2026-11-22T18:00:00Z")).toBe(now * 1000);
  expect(parseTime("2026-11-22 19:00+01:00")).toBe(now * 1000);
  expect(parseTime("2026-11-22")).toBe(new Date(2026, 10, 22).getTime() * 1000);
  expect(parseTime("today", now)).toBe(new Date(now).setHours(0, 0, 0, 0) * 1000);
  const yesterday = new Date(now);
  yesterday.setDate(yesterday.getDate() - 1);
  expect(parseTime("yesterday", now)).toBe(yesterday.setHours(0, 0, 0, 0) * 1000);
  expect(parseTime("14:30", now)).toBe(new Date(now).setHours(14, 30, 0, 0) * 1000);
  expect(parseTime("06:05:04", now)).toBe(new Date(now).setHours(6, 5, 4, 0) * 1000);
  for (const same of ["-2h", "2 hours ago", "2 hours", "120min", "120 minutes ago", "7200 sec"])
    expect([same, parseTime(same, now)]).toEqual([same, (now - 7_200_000) * 1000]);
  for (const bad of ["", "yesterday-ish", "2x", "--2h", "25:00", "2 months", "2026-13-45", "1", "2026"]) {
    expect(() => parseTime(bad)).toThrow(/is not a time/);
  }
  expect(formatTime(1_763_800_000_000_007)).toBe("2025-11-22T08:26:40.000007Z");
});

const stored: StoredRecord = { ...request({ reason: "two\nlines\u2028" }), seq: 7, hash: "h" };

test("a record is one JSON line with stable names", () => {
  const line = jsonLine(stored);
  expect(line).not.toContain("\n");
  expect(JSON.parse(line)).toEqual({
    seq: 7,
    time: "2025-11-22T08:26:40.000000Z",
    kind: "request",
    op: "IsValidPath",
    sandbox: "sandbox-one",
    outer: OUTER,
    connection: 1,
    uid: 30001,
    pid: 4242,
    protocol: "1.38",
    verdict: "answer",
    reason: "two\nlines\u2028",
    subjects: [storePath(1)],
    durationUs: 40,
    bytesIn: 100,
    bytesOut: 16,
    count: 1,
    hash: "h",
  });
});

test("pino gets every record", () => {
  const lines: string[] = [];
  logRecords(pino({}, { write: (line: string) => void lines.push(line) }), [stored, { ...stored, seq: 8 }]);
  expect(lines.map((line) => JSON.parse(line).audit.seq)).toEqual([7, 8]);
});

test("an export has all records, oldest first, to a stream that is slow", async () => {
  const store = new AuditStore(folder.path, { segmentRecords: 700 });
  for (let i = 0; i < 2000; i++) store.append(request({ subjects: [storePath(i)] }));
  store.close();
  let text = "";
  const slow = new Writable({
    highWaterMark: 1024,
    write(chunk, _encoding, done) {
      text += String(chunk);
      setImmediate(done);
    },
  });
  const reader = new AuditReader(folder.path);
  expect(await exportRecords(reader, {}, slow)).toBe(2000);
  reader.close();
  const seqs = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).seq);
  expect(seqs).toEqual(Array.from({ length: 2000 }, (_, index) => index + 1));
});

test("builds, sandboxes and the service's events are found again by what they are about", () => {
  const store = new AuditStore(folder.path);
  const asker = { sandbox: "one", outer: OUTER, connection: 3, uid: 30001 };
  const outputs = new Map([
    ["out", storePath(1)],
    ["dev", storePath(2)],
  ]);
  store.append(serviceRecord("start", 1, { version: "0.1.0", configuration: "abc" }));
  store.append(
    sandboxRecord("begin", {
      time: 2,
      sandbox: "one",
      outer: OUTER,
      outputs,
      detail: { profile: "build", depth: 1 },
    }),
  );
  store.append(
    buildRecord(asker, { time: 3, durationUs: 10, derivation: `${storePath(9)}.drv`, outputs, intent: 5 }),
  );
  store.append(
    buildRecord(asker, {
      time: 4,
      durationUs: 10,
      derivation: `${storePath(8)}.drv`,
      outputs: new Map(),
      error: "hash mismatch",
    }),
  );
  store.append(
    sandboxRecord("end", { time: 5, sandbox: "one", outer: OUTER, reason: "the outer build ended" }),
  );
  store.close();
  const reader = new AuditReader(folder.path);
  const [build] = reader.query({ path: storePath(2), kinds: ["build"] });
  expect(build).toMatchObject({
    op: "Build",
    outer: OUTER,
    sandbox: "one",
    detail: { derivation: `${storePath(9)}.drv` },
  });
  expect(outputsOf(build!)).toEqual(outputs);
  const [begin] = reader.query({ path: storePath(2), kinds: ["sandbox"] });
  expect(begin).toMatchObject({ op: "begin", detail: { profile: "build", depth: 1 } });
  expect(outputsOf(begin!)).toEqual(outputs);
  const [failed] = reader.query({ path: `${storePath(8)}.drv` });
  expect(failed?.upstreamError).toBe("hash mismatch");
  expect(reader.query({ kinds: ["sandbox"] }).map((record) => [record.op, record.reason])).toEqual([
    ["end", "the outer build ended"],
    ["begin", undefined],
  ]);
  expect(reader.query({ op: "start" })[0]?.detail).toEqual({ version: "0.1.0", configuration: "abc" });
  reader.close();
});
