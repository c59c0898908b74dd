/** What looks after the audit while the service runs. */
import { readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, expect, test, vi } from "vitest";
import { parseAnchors } from "../../src/audit/anchor.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { AuditKeeper } from "../../src/service/audit-keeper.ts";
import { auditFolder, request } from "../audit/folder.ts";

const folder = auditFolder();
const MIB = 1024 * 1024;
const quiet = pino({}, { write: () => undefined });

afterEach(() => {
  vi.useRealTimers();
});

test("a flood does not fill the disk until the next hour: max_bytes holds within seconds", async () => {
  vi.useFakeTimers();
  const store = new AuditStore(folder.path);
  const config = { path: folder.path, jsonLines: false, retentionDays: 90, maxBytes: 8 * MIB };
  const keeper = new AuditKeeper(store, config, quiet);
  for (let second = 0; second < 60; second++) {
    // No text is like another, so that each is stored.
    for (let i = 0; i < 100; i++) store.append(request({ reason: `${second} ${i} ${"x".repeat(4000)}` }));
    vi.advanceTimersByTime(1000);
  }
  // Two seconds' worth, and what SQLite keeps beside it.
  vi.advanceTimersByTime(5000);
  const bytes = readdirSync(folder.path).map((name) => statSync(join(folder.path, name)).size);
  expect(bytes.reduce((sum, each) => sum + each, 0)).toBeLessThan(10 * MIB);
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, firstSeq: expect.toSatisfy((seq) => seq > 1) });
  await keeper.stop();
  store.close();
});

test("a limit that one segment does not fit into seals nothing again and again", async () => {
  vi.useFakeTimers();
  const store = new AuditStore(folder.path);
  const config = { path: folder.path, jsonLines: false, retentionDays: 90, maxBytes: 1 };
  const keeper = new AuditKeeper(store, config, quiet);
  store.append(request());
  vi.advanceTimersByTime(60_000);
  expect(readdirSync(folder.path).filter((name) => name.endsWith(".sqlite"))).toEqual(["000001.sqlite"]);
  await keeper.stop();
  store.close();
});

test("G8: a folder that cannot be read for a moment is told, and looked at again", async () => {
  vi.useFakeTimers();
  const store = new AuditStore(folder.path);
  const told: string[] = [];
  const log = pino({}, { write: (line: string) => void told.push(line) });
  const config = { path: folder.path, jsonLines: false, retentionDays: 90, maxBytes: MIB };
  const keeper = new AuditKeeper(store, config, log);
  const aside = `${folder.path}-aside`;
  renameSync(folder.path, aside);
  writeFileSync(folder.path, "");
  vi.advanceTimersByTime(5000);
  expect(told.join("")).toMatch(/Cannot read the audit in .*old records of the audit cannot be removed/);
  rmSync(folder.path);
  renameSync(aside, folder.path);
  told.length = 0;
  vi.advanceTimersByTime(5000);
  expect(told).toEqual([]);
  await keeper.stop();
  store.close();
});

test("a log that is to be short has the anchors all the same", async () => {
  const told: string[] = [];
  const log = pino({ level: "error" }, { write: (line: string) => void told.push(line) });
  const store = new AuditStore(folder.path);
  const config = { path: folder.path, jsonLines: false, retentionDays: 90, maxBytes: 8 * MIB };
  const keeper = new AuditKeeper(store, config, log);
  store.append(request());
  await keeper.stop();
  store.close();
  expect(parseAnchors(told)).toEqual([expect.objectContaining({ seq: 1 })]);
});
