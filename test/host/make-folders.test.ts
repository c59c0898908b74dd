import { chmodSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeFolders } from "../../src/host/make-folders.ts";

const top = mkdtempSync(join(tmpdir(), "nix-broker-folders-"));
afterAll(() => rmSync(top, { recursive: true }));

test("folders are made with those above them, and the first that was made is told", () => {
  expect(makeFolders(join(top, "a/b/c"), 0o700)).toBe(join(top, "a"));
  expect(statSync(join(top, "a/b/c")).mode & 0o777).toBe(0o700);
  expect(makeFolders(join(top, "a/b/c"), 0o700)).toBeUndefined();
  expect(makeFolders("/", 0o700)).toBeUndefined();
});

test("a folder that is there is left as it is, also behind a link", () => {
  symlinkSync(join(top, "a"), join(top, "link"));
  chmodSync(join(top, "a"), 0o755);
  expect(makeFolders(join(top, "link"), 0o700)).toBeUndefined();
  expect(makeFolders(join(top, "link/d"), 0o700)).toBe(join(top, "link/d"));
  expect(statSync(join(top, "a")).mode & 0o777).toBe(0o755);
});

test("where there can be none, the system's error is thrown", () => {
  writeFileSync(join(top, "file"), "");
  expect(() => makeFolders(join(top, "file"), 0o700)).toThrow("EEXIST");
  expect(() => makeFolders(join(top, "file/x"), 0o700)).toThrow(/EEXIST|ENOTDIR/);
  // mkdirSync with "recursive" never returned from this one.
  expect(() => makeFolders("/proc/none/deeper", 0o700)).toThrow("ENOENT");
});
