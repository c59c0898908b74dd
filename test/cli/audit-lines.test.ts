/** Records as lines for a terminal: their colours, and what they say of failures. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { headerLine, recordLine } from "../../src/cli/audit-lines.ts";

const bad = `/nix/store/${"1".repeat(32)}-bad.drv`;
const terminal = { columns: 400 };

function record(more: Partial<StoredRecord>): StoredRecord {
  return {
    seq: 7,
    time: 1_763_800_000_000_000,
    kind: "request",
    op: "BuildPathsWithResults",
    verdict: "forward",
    subjects: [`${bad}!out`],
    hash: "x",
    ...more,
  };
}

beforeEach(() => {
  vi.stubEnv("NO_COLOR", "");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

test("results that say failure are in the colour of a failure, and each is told", () => {
  const failures = [
    { path: `${bad}!out`, reason: "build of 'bad' failed", upstreamError: "exit\ncode 7" },
    { path: `${bad}!dev`, reason: "build of 'bad' failed" },
  ];
  const line = recordLine(record({ detail: { failures } }), terminal);
  expect(line).toBe(recordLine(record({ detail: { failures }, upstreamError: "exit\ncode 7" }), terminal));
  expect(line.startsWith("\u001b[33m")).toBe(true);
  expect(line).toContain("-bad.drv!out: exit\\ncode 7");
  expect(line).toContain("-bad.drv!dev: build of 'bad' failed");
});

test("a request that failed as a whole has that colour too, a denial another, a success none", () => {
  const coloured = (more: Partial<StoredRecord>) => recordLine(record(more), terminal).slice(0, 5);
  expect(coloured({ upstreamError: "no such path" })).toBe("\u001b[33m");
  expect(coloured({ verdict: "deny", reason: "no", upstreamError: "no such path" })).toBe("\u001b[31m");
  expect(coloured({ detail: { failures: [] } })).toBe("2025-");
  expect(recordLine(record({ upstreamError: "no such path" })).startsWith("2025-")).toBe(true);
});

const denied = record({
  op: "AddPermRoot",
  verdict: "deny",
  sandbox: "abcdefghijklmnop",
  durationUs: 1234,
  subjects: [bad, bad],
  reason: "permanent roots are not for sandboxes: the link would keep what it names for good",
});

test.each([40, 58, 80, 100, 137])("at %d columns nothing is cut, and no line is longer", (columns) => {
  vi.stubEnv("NO_COLOR", "1");
  const lines = recordLine(denied, { columns }).split("\n");
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
  const words = lines.join(" ").replaceAll(/\s+/g, " ");
  expect(words).toContain(denied.reason);
  expect(lines.map((line) => line.trim()).join("")).toContain(`${"1".repeat(32)}-bad.drv`);
  expect(lines[0]).toContain("AddPermRoot");
  expect(words).toContain("deny");
});

test("on a narrow terminal path and reason have lines of their own, below what is known of the request", () => {
  vi.stubEnv("NO_COLOR", "1");
  expect(recordLine(denied, { columns: 80 })).toBe(
    [
      "2025-11-22T08:26:40Z  AddPermRoot                 deny         1.2  abcdefghijkl",
      `  ${"1".repeat(32)}-bad.drv +1`,
      "  permanent roots are not for sandboxes: the link would keep what it names for",
      "  good",
    ].join("\n"),
  );
  expect(headerLine({ columns: 80 })).toBe(
    "TIME                  OPERATION                   VERDICT       MS  SANDBOX\n  SUBJECT\n  REASON",
  );
});

test("on a wide terminal they continue in their own column; a terminal without a width counts as 80 columns", () => {
  vi.stubEnv("NO_COLOR", "1");
  const [first, second = ""] = recordLine(denied, { columns: 150 }).split("\n");
  expect(first).toMatch(
    /^2025-11-22T08:26:40.000Z {2}abcdefghijkl {2}AddPermRoot .* deny .* 1{32}-bad\.drv \+1 {2}permanent/,
  );
  expect(second).toMatch(/^ {86}\S/);
  expect(recordLine(denied, { columns: 0 })).toBe(recordLine(denied, { columns: 80 }));
});

test("what does not go to a terminal is one line", () => {
  expect(recordLine(denied)).not.toContain("\n");
  expect(headerLine()).toMatch(/^TIME .* SUBJECT {2}REASON$/);
});
