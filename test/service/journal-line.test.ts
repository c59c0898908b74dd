import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { journalLine } from "../../src/service/journal-line.ts";

const line = (fields: object): string => journalLine(`${JSON.stringify({ time: 1, ...fields })}\n`);

test("levels become priorities, and facts follow the message", () => {
  expect(line({ level: 30, msg: "stopped" })).toBe("<6>stopped\n");
  expect(line({ level: 50, msg: "cannot be used yet", upstream: "/run/s.sock", error: 'no "x" there' })).toBe(
    '<3>cannot be used yet: upstream=/run/s.sock error="no \\"x\\" there"\n',
  );
  expect([10, 20, 30, 40, 50, 60].map((level) => line({ level, msg: "m" }).slice(0, 3))).toEqual([
    "<7>",
    "<7>",
    "<6>",
    "<4>",
    "<3>",
    "<2>",
  ]);
  expect(line({ level: 30, msg: "m", uid: 3, tables: ["a", "b"] })).toBe('<6>m: uid=3 tables=["a","b"]\n');
});

test("a value cannot start another line, or another priority", () => {
  const made = line({ level: 40, msg: "m", name: "x\n<0>the machine burns\u202e", list: ["\u2028"] });
  expect(made).toBe('<4>m: name="x\\n<0>the machine burns\\u{202e}" list=["\\u2028"]\n');
});

test("records and anchors stay JSON", () => {
  const anchor = `${JSON.stringify({ level: 30, time: 1, anchor: "7 abc", msg: "the audit's end" })}\n`;
  expect(journalLine(anchor)).toBe(`<6>${anchor}`);
  // Such text comes from clients, and a terminal must not take it for a command.
  const hostile = { level: 30, time: 1, audit: { reason: "\u009b2J\u202e" }, msg: "audit" };
  const made = journalLine(`${JSON.stringify(hostile)}\n`);
  expect(made).toMatch(/^<6>[ -~]*\n$/);
  expect(JSON.parse(made.slice(3))).toEqual(hostile);
});

test("standard error is the journal only if it is the stream that JOURNAL_STREAM names", () => {
  const script = `import { fstatSync } from "node:fs"; import { stderrIsJournal } from "${import.meta.dirname}/../../src/host/journal.ts";
const { dev, ino } = fstatSync(2);
const of = (JOURNAL_STREAM) => stderrIsJournal({ JOURNAL_STREAM });
console.log(of(dev + ":" + ino), of(dev + ":" + (ino + 1)), of("x"), of(undefined));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(stdout).toBe("true false false false\n");
});
