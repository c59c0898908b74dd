import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CheckpointThread } from "../../src/audit/checkpoint-thread.ts";
import { auditFolder } from "./folder.ts";

const folder = auditFolder();
const thread = new CheckpointThread();

beforeEach(() => {
  mkdirSync(folder.path);
});

afterEach(() => {
  thread.close();
});

function written(): { path: string; database: DatabaseSync } {
  const path = join(folder.path, "000001.sqlite");
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)");
  database.prepare("INSERT INTO t VALUES (?)").run("x".repeat(100_000));
  return { path, database };
}

test("a database is checkpointed while another connection has it open", async () => {
  const { path, database } = written();
  expect(statSync(path).size).toBeLessThan(100_000);
  thread.start(path);
  await thread.busy;
  expect(statSync(path).size).toBeGreaterThan(100_000);
  database.close();
});

test("a segment that was removed is not made again, and the next is checkpointed", async () => {
  const gone = join(folder.path, "000007.sqlite");
  thread.start(gone);
  await thread.busy;
  expect(existsSync(gone)).toBe(false);
  const { path, database } = written();
  thread.start(path);
  await thread.busy;
  expect(statSync(path).size).toBeGreaterThan(100_000);
  database.close();
});

test("where no thread can be had, nothing waits for one", () => {
  const refused = new CheckpointThread(() => {
    throw new Error("no more threads");
  });
  refused.start(join(folder.path, "000001.sqlite"));
  expect(refused.busy).toBeUndefined();
});
