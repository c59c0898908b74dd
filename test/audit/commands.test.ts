/** The commands on an audit: verify, export, and the audits of single connections beside the service's. */
import { chmodSync, mkdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { formatAnchor } from "../../src/audit/anchor.ts";
import { auditFolders, connectionFolder } from "../../src/audit/folders.ts";
import { claimConnection, removeOldConnections } from "../../src/audit/old-connections.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { nixBroker } from "../cli/run-command.ts";
import { auditFolder, request, storePath } from "./folder.ts";

const folder = auditFolder();

function fill(path: string, ...subjects: number[]): string {
  const store = new AuditStore(path);
  for (const subject of subjects)
    store.append(request({ subjects: [storePath(subject)], time: 1_763_800_000_000_000 + subject }));
  store.flush();
  const anchor = formatAnchor(store.head);
  store.close();
  return anchor;
}

function audit(command: string, ...args: string[]) {
  return nixBroker(["audit", command, "--store", folder.path, ...args]);
}
function subjectsOf(lines: string): string[] {
  return lines
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).subjects[0]);
}

test("verify says that all is whole, and with which head", () => {
  const anchor = fill(folder.path, 1, 2, 3);
  const { code, stdout } = audit("verify");
  expect(code).toBe(0);
  expect(stdout).toContain("complete: 3 records");
  expect(stdout).toContain(`head: ${anchor}`);
  expect(JSON.parse(audit("verify", "--json").stdout)).toMatchObject({
    ok: true,
    records: 3,
    folder: folder.path,
  });
});

test("verify names the first record that was changed, and exits with 1", () => {
  fill(folder.path, 1, 2, 3);
  const file = join(folder.path, "000001.sqlite");
  const database = new DatabaseSync(file);
  database.exec("UPDATE record SET uid = 0 WHERE seq = 2");
  database.close();
  const { code, stderr, stdout } = audit("verify");
  expect(code).toBe(1);
  expect(stderr).toContain("Record 2 does not match its hash");
  expect(stderr).toContain(file);
  expect(stdout).toBe("");
});

test("verify sees by the service's log that the end is missing, or everything", () => {
  const log = join(folder.path, "..", "log");
  const anchor = fill(folder.path, 1, 2, 3);
  writeFileSync(log, `{"msg":"listening"}\n${JSON.stringify({ anchor, msg: "the audit's end" })}\n`);
  expect(audit("verify", "--anchors", log)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("matches 1 anchor"),
  });
  chmodSync(join(folder.path, "000001.sqlite"), 0o640);
  const database = new DatabaseSync(join(folder.path, "000001.sqlite"));
  database.exec("DELETE FROM record WHERE seq = 3");
  database.close();
  expect(audit("verify", "--anchors", log)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("record 3"),
  });
  const gone = nixBroker(["audit", "verify", "--store", join(folder.path, "gone"), "--anchors", log]);
  expect(gone).toMatchObject({ code: 1, stderr: expect.stringContaining("There is no audit") });
  // Emptied, with an audit of a single connection left beside it.
  fill(connectionFolder(folder.path, "one"), 1);
  rmSync(join(folder.path, "000001.sqlite"));
  expect(audit("verify", "--anchors", log)).toMatchObject({
    code: 1,
    stdout: expect.stringContaining("complete: 1 records"),
    stderr: expect.stringContaining(`There is no audit in ${folder.path}`),
  });
});

test("an export has every record that matches as a line", () => {
  fill(folder.path, 1, 2, 3);
  expect(subjectsOf(audit("export").stdout)).toEqual([storePath(1), storePath(2), storePath(3)]);
  expect(subjectsOf(audit("export", "--path", storePath(2)).stdout)).toEqual([storePath(2)]);
});

test("audits of single connections are listed, verified and exported with the service's", () => {
  fill(folder.path, 1, 4);
  fill(connectionFolder(folder.path, "a"), 3);
  fill(connectionFolder(folder.path, "b"), 2);
  const listed = nixBroker(["audit", "--store", folder.path, "--json"]).stdout;
  expect(subjectsOf(listed)).toEqual([1, 2, 3, 4].map(storePath));
  expect(audit("verify").stdout.match(/complete: /g)).toHaveLength(3);
  expect(subjectsOf(audit("export").stdout)).toEqual([1, 4, 3, 2].map(storePath));
});

test("audits of single connections are removed when they are old", () => {
  fill(folder.path, 1);
  for (const id of ["idle", "new", "old"]) fill(connectionFolder(folder.path, id), 2);
  // Of a connection that is open all the time, and asks for nothing.
  claimConnection(connectionFolder(folder.path, "idle"));
  for (const id of ["idle", "old"]) {
    const old = connectionFolder(folder.path, id);
    utimesSync(join(old, "000001.sqlite"), 1000, 1000);
    utimesSync(old, 1000, 1000);
  }
  removeOldConnections(folder.path, Date.now() - 1000_000);
  writeFileSync(connectionFolder(folder.path, "README"), "What somebody should know of these.");
  const left = ["idle", "new"].map((id) => connectionFolder(folder.path, id));
  expect(auditFolders(folder.path)).toEqual([folder.path, ...left]);
  mkdirSync(join(folder.path, "..", "none"));
  expect(auditFolders(join(folder.path, "..", "none"))).toEqual([]);
});
