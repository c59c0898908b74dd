/** What the live page is served from. */
import { expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { RecentRecords, upTo } from "../../src/service/web/recent-records.ts";
import { request } from "../audit/folder.ts";

function records(from: number, count: number, text = ""): StoredRecord[] {
  return Array.from({ length: count }, (_, i) => ({ ...request({ reason: text }), seq: from + i, hash: "" }));
}
function places(found: Iterable<StoredRecord> | undefined): number[] | undefined {
  return found === undefined ? undefined : [...found].map(({ seq }) => seq);
}

test("those after a place come in order; a place that is no longer known is told", () => {
  const recent = new RecentRecords();
  expect(recent.after(0)).toBeUndefined();
  recent.push(records(11, 5));
  expect(places(recent.after(10))).toEqual([11, 12, 13, 14, 15]);
  expect(places(recent.after(13))).toEqual([14, 15]);
  expect(places(recent.after(15))).toEqual([]);
  expect(recent.after(9)).toBeUndefined();
});

test("the newest are kept, by number", () => {
  const recent = new RecentRecords();
  for (let at = 1; at <= 100_000; at += 100) recent.push(records(at, 100));
  expect(recent.after(50_000)).toBeUndefined();
  expect(places(recent.after(99_000))).toHaveLength(1000);
});

test("large ones are kept by their size: fewer of them", () => {
  const recent = new RecentRecords();
  for (let at = 1; at <= 1000; at++) recent.push(records(at, 1, "x".repeat(100_000)));
  expect(recent.after(600)).toBeUndefined();
  expect(places(recent.after(900))).toHaveLength(100);
});

test("a message is bounded by its size, but never without progress", () => {
  expect(upTo(records(1, 100), 10, 1_000_000)).toHaveLength(10);
  expect(upTo(records(1, 100, "x".repeat(1000)), 1000, 10_000)).toHaveLength(7);
  expect(upTo(records(1, 2, "x".repeat(1000)), 1000, 10)).toHaveLength(1);
});
