import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { program } from "../../lab/program.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { nixBroker } from "./run-command.ts";

const folder = join(mkdtempSync(join(tmpdir(), "nix-broker-audit-")), "audit");
const source = "/nix/store/00000000000000000000000000000000-source";
const other = "/nix/store/11111111111111111111111111111111-other";

const hour = 3_600_000_000;
const noon = Date.parse("2026-01-02T12:00:00Z") * 1000;

function request(record: Partial<AuditRecord>): AuditRecord {
  return {
    kind: "request",
    time: noon,
    op: "IsValidPath",
    sandbox: "one",
    verdict: "answer",
    subjects: [source],
    durationUs: 1500,
    ...record,
  };
}

beforeAll(() => {
  const store = new AuditStore(folder);
  store.append(request({}));
  store.append(request({ time: noon + hour, op: "AddToStore", verdict: "forward", sandbox: "two" }));
  store.append(
    request({
      time: noon + 2 * hour,
      op: "CollectGarbage",
      verdict: "deny",
      reason: "no \u001b[2J\u200b\u2028authority",
      subjects: [other, source],
    }),
  );
  store.close();
});
afterAll(() => rmSync(join(folder, ".."), { recursive: true }));

function audit(...args: string[]) {
  return nixBroker(["audit", "--store", folder, ...args]);
}
function operations(...args: string[]): string[] {
  return audit("--json", ...args)
    .stdout.split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line).op);
}

test("records are listed oldest first, the newest if there are too many", () => {
  expect(operations()).toEqual(["IsValidPath", "AddToStore", "CollectGarbage"]);
  expect(operations("--limit", "2")).toEqual(["AddToStore", "CollectGarbage"]);
});

test.each([
  [["--verdict", "deny"], ["CollectGarbage"]],
  [["--op", "addtostore"], ["AddToStore"]],
  [
    ["--sandbox", "one"],
    ["IsValidPath", "CollectGarbage"],
  ],
  [["--sandbox", "tw"], ["AddToStore"]],
  [["--sandbox", "t*"], []],
  [["--path", other], ["CollectGarbage"]],
  [["--path", `${other}/bin/tool`], ["CollectGarbage"]],
  [["--path", "1111"], ["CollectGarbage"]],
  [
    ["--since", "2026-01-02T12:30Z"],
    ["AddToStore", "CollectGarbage"],
  ],
  [["--since", "2026-01-02T12:30Z", "--until", "2026-01-02T13:30Z"], ["AddToStore"]],
  [["--kind", "build"], []],
])("%j", (args, expected) => {
  expect(operations(...args)).toEqual(expected);
});

test("a line for people has time, sandbox, operation, verdict, milliseconds, subject and reason", () => {
  const [header, line] = audit("--verdict", "deny").stdout.split("\n");
  expect(header).toMatch(/^TIME +SANDBOX +OPERATION +VERDICT +MS +SUBJECT/);
  expect(line).toMatch(
    /^2026-01-02T14:00:00\.000Z {2}one +CollectGarbage +deny +1\.5 +11111111111111111111111111111111-other \+1 +no /,
  );
});

test("what a client wrote cannot control the terminal", () => {
  const { stdout } = audit();
  expect(stdout).toContain("no \\x1b[2J\\u{200b}\\u{2028}authority");
  expect(stdout).not.toContain("\u001b");
});

test("JSON has whole paths, and times with a zone", () => {
  expect(JSON.parse(audit("--json", "--op", "AddToStore").stdout)).toMatchObject({
    seq: 2,
    time: "2026-01-02T13:00:00.000000Z",
    kind: "request",
    sandbox: "two",
    verdict: "forward",
    subjects: [source],
    durationUs: 1500,
  });
});

test("nothing found is no failure, and is said where it is in nobody's way", () => {
  expect(audit("--since", "2036-01-01")).toEqual({ code: 0, stdout: "", stderr: "No record matches.\n" });
});

test("an operation that is neither known nor recorded is an error, with the nearest name", () => {
  const { code, stdout, stderr } = audit("--op", "IsValidPth");
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain('no operation or event is called "IsValidPth"; did you mean "IsValidPath"?');
  expect(audit("export", "--op", "IsValidPth").code).toBe(2);
  expect(audit("--op", "isvalidpath").code).toBe(0);
});

test("an audit that is not there is named", () => {
  const { code, stderr } = nixBroker(["audit", "--store", join(folder, "none")]);
  expect(code).toBe(2);
  expect(stderr).toContain(`There is no audit in ${join(folder, "none")}`);
  expect(nixBroker(["audit", "verify", "--store", join(folder, "none")]).code).toBe(2);
});

test("--follow goes on with what is recorded from then on, until it is interrupted", async () => {
  const child = spawn(
    process.execPath,
    [program.cli, "audit", "--store", folder, "--json", "--follow", "-n", "1"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async (): Promise<string> => JSON.parse((await lines.next()).value ?? "{}").op;
  expect(await next()).toBe("CollectGarbage");
  const store = new AuditStore(folder);
  store.append(request({ time: noon + 3 * hour, op: "QueryPathInfo" }));
  store.close();
  expect(await next()).toBe("QueryPathInfo");
  child.kill("SIGINT");
  expect((await once(child, "exit"))[0]).toBe(0);
});
