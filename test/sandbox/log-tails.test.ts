import { expect, test } from "vitest";
import { toWireText } from "../../src/protocol/wire.ts";
import { LogTails } from "../../src/sandbox/forward/log-tails.ts";

const path = (name: string) => `/nix/store/${"0".repeat(32)}-${name}.drv`;

test("a build that logged nothing adds nothing", () => {
  const tails = new LogTails();
  tails.add(path("a"), "a line");
  expect(tails.textOf(path("b"))).toBe("");
  expect(tails.textOf(undefined)).toBe("");
});

test("the lines of each build are its own", () => {
  const tails = new LogTails();
  tails.add(path("a"), "one");
  tails.add(path("b"), "another's");
  tails.add(path("a"), toWireText("grün"));
  expect(tails.textOf(path("a"))).toBe("\nlog:\n> one\n> grün");
});

test("of many lines the last 25 are told, and how many there were", () => {
  const tails = new LogTails();
  for (let line = 1; line <= 30; line++) tails.add(path("a"), `line ${line}`);
  const text = tails.textOf(path("a"));
  expect(text).toContain("last 25 of 30 log lines:\n> line 6\n");
  expect(text).toMatch(/> line 30$/);
});

test("G8: what is kept is bounded, however long the lines are and however many builds there are", () => {
  const tails = new LogTails();
  const long = "x".repeat(100_000);
  for (let build = 0; build < 100; build++)
    for (let line = 0; line < 30; line++) tails.add(path(`b${build}`), long);
  const texts = Array.from({ length: 100 }, (_, build) => tails.textOf(path(`b${build}`)));
  expect(texts.join("").length).toBeLessThan(300 * 1024);
  expect(texts[99]).not.toBe("");
  expect(texts[0]).toBe("");
});
