/** What an output mentions, wherever in it that stands. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { mentionedPaths } from "../../src/root/output-scan.ts";

/** Files are read in pieces of so many bytes. */
const CHUNK = 1 << 20;
function hashOf(letter: string) {
  return letter.repeat(32);
}
function pathOf(letter: string) {
  return `/nix/store/${hashOf(letter)}-gained`;
}
const out = `/nix/store/${"0".repeat(32)}-out`;
let store: string;
beforeEach(() => {
  store = mkdtempSync(join(tmpdir(), "nix-broker-scan-"));
});
afterEach(() => rmSync(store, { recursive: true, force: true }));
function inOutput(name: string) {
  return `${store}/${"0".repeat(32)}-out${name}`;
}
function mentioned() {
  return mentionedPaths(store, out, ["a", "b", "c", "d"].map(pathOf)).sort();
}

test.each([1, 16, 31, 32])(
  "G6: a hash that is split between two pieces of a file is found, %d characters in the first",
  (first) => {
    const contents = Buffer.alloc(CHUNK + 100, ".");
    contents.write(hashOf("a"), CHUNK - first);
    writeFileSync(inOutput(""), contents);
    expect(mentioned()).toEqual([pathOf("a")]);
  },
);

test("G6: names of files and folders and targets of symlinks are scanned", () => {
  mkdirSync(inOutput(`/${hashOf("a")}-folder`), { recursive: true });
  writeFileSync(inOutput(`/x${hashOf("b")}`), "");
  symlinkSync(`/elsewhere/${hashOf("c")}-x`, inOutput("/link"));
  expect(mentioned()).toEqual(["a", "b", "c"].map(pathOf));
});

test("what stands in two files, or in a name and a file, is no hash", () => {
  mkdirSync(inOutput(""));
  writeFileSync(inOutput("/1"), hashOf("a").slice(16));
  writeFileSync(inOutput("/2"), hashOf("a").slice(16));
  writeFileSync(inOutput(`/3${hashOf("b").slice(16)}`), hashOf("b").slice(16));
  expect(mentioned()).toEqual([]);
});
