/** What a quota counts in a time. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { defaultLimits } from "../../src/policy/limits.ts";
import { Quota } from "../../src/sandbox/quota.ts";

const HOUR_MS = 3_600_000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("a clock that is set back lengthens neither a minute of builds nor a second of rejected clients", () => {
  const quota = new Quota({ ...defaultLimits, buildRate: 1 }, () => undefined);
  vi.advanceTimersByTime(HOUR_MS);
  quota.startBuild()();
  expect(() => quota.startBuild()).toThrow("build requests within a minute");
  while (quota.recordsRefusal());
  vi.setSystemTime(Date.now() - HOUR_MS);
  vi.advanceTimersByTime(60_000);
  expect(() => quota.startBuild()()).not.toThrow();
  expect(quota.recordsRefusal()).toBe(true);
});
