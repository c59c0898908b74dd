import { expect, test } from "vitest";
import { recordJson } from "../../src/audit/json-line.ts";
import type { StoredRecord } from "../../src/audit/record.ts";
import { pageRecord } from "../../src/service/web/page-record.ts";

function record(more: Partial<StoredRecord>): StoredRecord {
  return {
    seq: 7,
    time: 1_763_800_000_000_000,
    kind: "request",
    op: "AddToStore",
    hash: "x",
    ...more,
  };
}
const subjects = Array.from({ length: 1000 }, (_, i) => `/nix/store/${"0".repeat(32)}-${i}`);

test("a usual record is told as it is", () => {
  const usual = record({ subjects: subjects.slice(0, 20), detail: { lines: ["a"] } });
  expect(pageRecord(usual)).toEqual(recordJson(usual));
});

test("a long one is cut, and says so", () => {
  const { subjects: told = [], detail } = pageRecord(record({ subjects, detail: { depth: 2 } }));
  expect(told.length).toBeGreaterThan(100);
  expect(told).toEqual(subjects.slice(0, told.length));
  expect(detail).toEqual({ depth: 2, subjectsOmitted: 1000 - told.length });

  const hidden = record({ detail: { hiddenLog: ["x".repeat(60_000)] } });
  expect(pageRecord(hidden).detail).toEqual({
    cut: expect.stringMatching(/^\{"hiddenLog":\["x{8000,8192}$/),
  });
  for (const long of [record({ subjects }), hidden])
    expect(JSON.stringify(pageRecord(long)).length).toBeLessThan(20_000);
});
