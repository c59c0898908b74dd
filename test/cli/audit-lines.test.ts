/** Records as lines for a terminal: their colours, and what they say of failures. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { recordLine } from "../../src/cli/audit-lines.ts";

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
