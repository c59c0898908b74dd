import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { UserDatabase } from "../../src/host/users.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "users-"));
  writeFileSync(
    join(folder, "passwd"),
    `root:x:0:0:root:/root:/bin/sh
nixbld1:x:30001:30000::/var/empty:/sbin/nologin
nixbld2:x:30002:30000::/var/empty:/sbin/nologin
alice:x:1000:1000:Alice,,,:/home/alice:/bin/sh
+::::::
`,
  );
  writeFileSync(
    join(folder, "group"),
    "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2,gone\nstaff:x:50:alice\nempty:x:51:\n",
  );
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

test("users, groups and numbers are resolved", () => {
  const users = new UserDatabase(folder);
  expect(users.userId("alice")).toBe(1000);
  expect(users.userId("77")).toBe(77);
  expect(users.groupId("staff")).toBe(50);
  expect(users.groupMembers("nixbld")).toEqual([30001, 30002]);
  expect(users.groupMembers("empty")).toEqual([]);
  const allowed = users.resolve(["@nixbld", "alice", "4242"]);
  expect(allowed.anyone).toBe(false);
  expect([...allowed.uids]).toEqual([30001, 30002, 1000, 4242]);
});

test("a star is anyone", () => {
  expect(new UserDatabase(folder).resolve(["alice", "*"]).anyone).toBe(true);
});

test("an unknown entry is named", () => {
  const users = new UserDatabase(folder);
  expect(() => users.resolve(["no-such-user-here"])).toThrow(/user "no-such-user-here"/);
  expect(() => users.resolve(["@no-such-group-here"])).toThrow(/group "no-such-group-here"/);
});

test("what the files do not have is asked of getent", () => {
  // The files of the temporary folder do not have "daemon"; this machine does.
  const expected = Number(execFileSync("id", ["-u", "daemon"], { encoding: "utf8" }));
  expect(new UserDatabase(folder).userId("daemon")).toBe(expected);
  expect(new UserDatabase(join(folder, "empty")).groupId("daemon")).toBe(
    Number(execFileSync("id", ["-g", "daemon"], { encoding: "utf8" })),
  );
});

test("a name that looks like an option is only a name", () => {
  expect(new UserDatabase(folder).userId("--service=files")).toBeUndefined();
});
