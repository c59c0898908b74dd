import { spawnSync } from "node:child_process";
import { chownSync, rmSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { type AuditFilter, AuditReader } from "../../src/audit/query.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { auditFolder, OUTER, request, storePath } from "./folder.ts";

const folder = auditFolder();
const OTHER_OUTER = "/nix/store/11111111111111111111111111111111-other.drv";
const HOUR = 3_600_000_000;
const START = 1_763_800_000_000_000;

/** Three segments with a bit of everything; a record's number is its place. */
function fill(): void {
  const store = new AuditStore(folder.path, { coalesceMs: 1_000_000 });
  const records: AuditRecord[] = [
    { kind: "service", op: "start", time: START },
    { kind: "sandbox", op: "begin", time: START, sandbox: "a", outer: OUTER },
    request({ sandbox: "a", op: "IsValidPath", subjects: [storePath(1)], time: START + HOUR }),
    request({
      sandbox: "b",
      outer: OTHER_OUTER,
      op: "QueryPathInfo",
      subjects: [storePath(2)],
      time: START + 2 * HOUR,
    }),
    request({ sandbox: "a", op: "CollectGarbage", subjects: [], verdict: "deny", time: START + 3 * HOUR }),
    request({
      sandbox: "b",
      outer: OTHER_OUTER,
      op: "BuildPaths",
      verdict: "forward",
      subjects: [storePath(3), storePath(1)],
      time: START + 4 * HOUR,
    }),
    { ...request({ sandbox: "a", op: "AddToStore", subjects: [], time: START + 5 * HOUR }), kind: "intent" },
    request({
      sandbox: "a",
      op: "AddToStore",
      intent: 7,
      verdict: "forward",
      subjects: [storePath(4)],
      time: START + 5 * HOUR,
    }),
    {
      ...request({ sandbox: "a", op: "BuildPaths", subjects: [storePath(5)], time: START + 6 * HOUR }),
      kind: "intent",
    },
    {
      kind: "build",
      op: "Build",
      sandbox: "b",
      outer: OTHER_OUTER,
      time: START + 6 * HOUR,
      subjects: ["/x/y[1]*-a", storePath(6)],
    },
  ];
  for (const [index, record] of records.entries()) {
    store.append(record);
    store.flush();
    if (index === 3 || index === 6) store.rotate();
  }
  store.close();
}

function found(filter: AuditFilter): number[] {
  const reader = new AuditReader(folder.path);
  const seqs = reader.query(filter).map((record) => record.seq);
  reader.close();
  return seqs;
}

test("each filter finds what it should, newest first, over all segments", () => {
  fill();
  // 7 is an intent that 8 completes.
  expect(found({})).toEqual([10, 9, 8, 6, 5, 4, 3, 2, 1]);
  expect(found({ completedIntents: true })).toEqual([10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  expect(found({ order: "oldest", limit: 3 })).toEqual([1, 2, 3]);
  expect(found({ limit: 2 })).toEqual([10, 9]);
  expect(found({ sandbox: "a" })).toEqual([9, 8, 5, 3, 2]);
  expect(found({ sandbox: "nobody" })).toEqual([]);
  expect(found({ derivation: OTHER_OUTER })).toEqual([10, 6, 4]);
  expect(found({ derivation: "0000000000000000" })).toEqual([9, 8, 5, 3, 2]);
  expect(found({ op: "buildpaths" })).toEqual([9, 6]);
  expect(found({ verdict: "deny" })).toEqual([5]);
  expect(found({ kinds: ["sandbox", "service"] })).toEqual([2, 1]);
  expect(found({ kinds: ["intent"] })).toEqual([9]);
  expect(found({ since: START + 4 * HOUR })).toEqual([10, 9, 8, 6]);
  expect(found({ since: START + 2 * HOUR, until: START + 4 * HOUR })).toEqual([5, 4]);
  expect(found({ path: storePath(1) })).toEqual([6, 3]);
  expect(found({ path: storePath(3).slice(11, 43) })).toEqual([6]);
  expect(found({ path: "y[1]*" })).toEqual([10]);
  expect(found({ path: "y1" })).toEqual([]);
  expect(found({ sandbox: "a", verdict: "forward", path: storePath(4), since: START })).toEqual([8]);
  expect(found({ afterSeq: 3, beforeSeq: 6 })).toEqual([5, 4]);
});

test("a text that was not used of late is stored again, and found wherever it stands", () => {
  const store = new AuditStore(folder.path, { coalesceMs: 1_000_000 });
  const ask = (number: number) => store.append(request({ subjects: [storePath(number), "/first"] }));
  ask(1);
  for (let i = 0; i < 20_010; i++) ask(1000 + i);
  ask(1);
  store.close();
  const reader = new AuditReader(folder.path);
  expect(reader.query({ path: storePath(1) }).map(({ seq }) => seq)).toEqual([20_012, 1]);
  expect(reader.query({ path: "/first", limit: 2 }).map(({ seq }) => seq)).toEqual([20_012, 20_011]);
  reader.close();
  expect(verifyAudit(folder.path)).toMatchObject({ ok: true, records: 20_012 });
  const texts = new DatabaseSync(join(folder.path, "000001.sqlite"), { readOnly: true });
  const found = texts.prepare("SELECT count(*) AS count FROM text WHERE text = ?").get(storePath(1));
  expect(found?.count).toBe(2);
  texts.close();
});

test("a filter's text is never more than a text", () => {
  fill();
  expect(found({ sandbox: "a' OR 1=1 --" })).toEqual([]);
  expect(found({ path: "%" })).toEqual([]);
  expect(found({ path: "*" })).toEqual([]);
});

test("following shows each record once, in order, across segments, while they are written", async () => {
  const store = new AuditStore(folder.path);
  store.append(request());
  store.flush();
  const reader = new AuditReader(folder.path);
  const stop = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const record of reader.follow({ verdict: "deny" }, stop.signal, 5)) {
      seen.push(record.subjects![0]!);
      if (seen.length === 60) stop.abort();
    }
  })();
  for (let i = 0; i < 60; i++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    store.append(request({ verdict: "deny", subjects: [storePath(i)] }));
    store.append(request({ subjects: [storePath(i)] }));
    if (i % 20 === 10) {
      store.flush();
      store.rotate();
    }
  }
  await following;
  expect(seen).toEqual(Array.from({ length: 60 }, (_, index) => storePath(index)));
  reader.close();
  store.close();
});

test("following from a place catches up without gaps or doubles", async () => {
  fill();
  const reader = new AuditReader(folder.path);
  const stop = new AbortController();
  const seen: number[] = [];
  for await (const record of reader.follow({ afterSeq: 4 }, stop.signal, 5)) {
    seen.push(record.seq);
    if (record.seq === 10) stop.abort();
  }
  expect(seen).toEqual([5, 6, 8, 10]);
  reader.close();
});

test("following goes on in an audit that was begun anew, from its first record", async () => {
  fill();
  const reader = new AuditReader(folder.path);
  const stop = new AbortController();
  const following = reader.follow({}, stop.signal, 5);
  const next = following.next();
  rmSync(folder.path, { recursive: true });
  const store = new AuditStore(folder.path);
  store.append(request({ reason: "anew" }));
  store.flush();
  expect((await next).value).toMatchObject({ seq: 1, reason: "anew" });
  stop.abort();
  reader.close();
  store.close();
});

test("a member of the group can read, while the service runs and after it stopped", () => {
  const GROUP = 4711;
  const script = `
import { AuditReader } from ${JSON.stringify(join(import.meta.dirname, "../../src/audit/query.ts"))};
process.setgroups([]); process.setgid(${GROUP}); process.setuid(65534);
try { console.log(new AuditReader(process.argv[1]).query({}).length); } catch (error) { console.log(error.message); }`;
  const count = (): string =>
    spawnSync(process.execPath, ["--input-type=module", "-e", script, folder.path], {
      encoding: "utf8",
    }).stdout.trim();
  const store = new AuditStore(folder.path);
  store.append(request());
  store.rotate();
  store.append(request());
  store.flush();
  expect(statSync(folder.path).uid).toBe(process.getuid?.());
  expect(count()).toMatch(/EACCES/);
  chownSync(join(folder.path, ".."), -1, GROUP);
  chmodParent();
  for (const name of ["", "000001.sqlite", "000001.sqlite-wal", "000001.sqlite-shm"]) {
    chownSync(join(folder.path, name), -1, GROUP);
  }
  expect(count()).toBe("2");
  store.close();
  expect(count()).toBe("2");
});

test("no audit at all is a clear error", () => {
  expect(() => new AuditReader(join(folder.path, "nowhere"))).toThrow(/There is no audit in/);
});

function chmodParent(): void {
  spawnSync("chmod", ["750", join(folder.path, "..")]);
}

test("a segment that is retired between listing and opening is not missed", () => {
  fill();
  // Listed, but not to be opened.
  symlinkSync(join(folder.path, "gone"), join(folder.path, "000000.sqlite"));
  const reader = new AuditReader(folder.path);
  expect(reader.query({ limit: 1 })).toHaveLength(1);
  reader.close();
});
