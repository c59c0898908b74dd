/** Durations and sizes as people read them, at the edges where one unit gives way to the next. */
import { expect, test } from "vitest";
import { agoText, durationText, sizeText } from "../../src/audit/figures.ts";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [1536, "1.5 KiB"],
  [99.94 * 1024, "99.9 KiB"],
  [99.96 * 1024, "100 KiB"],
  [1024 ** 2 - 1, "1.0 MiB"],
  [200 * 1024 ** 2, "200 MiB"],
  [3 * 1024 ** 3, "3.0 GiB"],
  [5000 * 1024 ** 5, "5000 PiB"],
])("%d bytes are %s", (bytes, text) => {
  expect(sizeText(bytes)).toBe(text);
});

test.each([
  [0, "0 s"],
  [0.000_000_4, "0 s"],
  [0.000_25, "250 µs"],
  [0.000_999_9, "1 ms"],
  [0.254, "254 ms"],
  [0.9994, "999 ms"],
  [0.9996, "1 s"],
  [4, "4 s"],
  [4.24, "4.2 s"],
  [9.94, "9.9 s"],
  [9.96, "10 s"],
  [59.4, "59 s"],
  [59.7, "1 min"],
  [59.96, "1 min"],
  [61, "1 min 1 s"],
  [119.96, "2 min"],
  [3599.4, "59 min 59 s"],
  [3599.9, "1 h"],
  [7200, "2 h"],
  [86_399.9, "1 d"],
  [90_061, "1 d 1 h"],
])("%d seconds are %s", (seconds, text) => {
  expect(durationText(seconds)).toBe(text);
});

test("a clock that was set back makes nothing begin in the future", () => {
  expect(agoText("2026-01-01T00:00:10Z", Date.parse("2026-01-01T00:00:00Z"))).toBe("0 s");
});
