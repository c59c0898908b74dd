import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { letGo, putAside, removeLetGo } from "../../src/root/put-aside.ts";
import { RemoveTreeError, removeTree } from "../../src/root/remove-tree.ts";
import { Turns } from "../../src/root/turns.ts";

const enemy = 31_337;
let folder: string;
const enemies: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "remove-tree-"));
});
afterEach(() => {
  for (const child of enemies.splice(0)) child.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

test("folders, files, symlinks, pipes and odd names go; what symlinks point to stays", async () => {
  const tree = join(folder, "tree");
  const kept = join(folder, "kept");
  mkdirSync(join(tree, "a/b/c"), { recursive: true });
  mkdirSync(kept);
  writeFileSync(join(kept, "file"), "");
  writeFileSync(join(tree, "a/\n"), "");
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0xfe])]), "");
  symlinkSync(kept, join(tree, "a/b/link"));
  symlinkSync("/", join(tree, "root"));
  await removeTree(tree, new Turns());
  expect(readdirSync(folder)).toEqual(["kept"]);
  expect(readdirSync(kept)).toEqual(["file"]);
  await removeTree(tree, new Turns());
});

test("a symlink in the folder's own place is not followed", async () => {
  mkdirSync(join(folder, "kept"));
  symlinkSync(join(folder, "kept"), join(folder, "tree"));
  await expect(removeTree(join(folder, "tree"), new Turns())).rejects.toThrow("ENOTDIR");
  expect(existsSync(join(folder, "kept"))).toBe(true);
});

test("no tree is too deep, nor too wide; others run meanwhile", async () => {
  const tree = join(folder, "tree");
  mkdirSync(join(tree, "x/".repeat(300)), { recursive: true });
  mkdirSync(join(tree, "wide"));
  for (let i = 0; i < 3000; i++) symlinkSync("nowhere", join(tree, "wide", String(i)));
  let others = 0;
  const other = setInterval(() => others++, 0);
  const turns = new Turns();
  await turns.during(() => removeTree(tree, turns));
  clearInterval(other);
  expect(existsSync(tree)).toBe(false);
  expect(others).toBeGreaterThan(1);
});

test("of a tree with more entries than may be removed at once, the rest can be removed later", async () => {
  const tree = join(folder, "tree");
  mkdirSync(join(tree, "below"), { recursive: true });
  for (let i = 0; i < 100; i++) writeFileSync(join(tree, "below", String(i)), "");
  await expect(removeTree(tree, new Turns(), 40)).rejects.toThrow(RemoveTreeError);
  await removeTree(tree, new Turns());
  expect(existsSync(tree)).toBe(false);
});

test("what is let go vanishes from its place at once, and is removed", async () => {
  const tree = join(folder, "tree");
  mkdirSync(join(tree, "below"), { recursive: true });
  for (let i = 0; i < 100; i++) writeFileSync(join(tree, "below", String(i)), "");
  const done = letGo(tree, 50);
  expect(existsSync(tree)).toBe(false);
  await done;
  // It was too much for one time.
  expect(readdirSync(folder)).toHaveLength(1);
  await removeLetGo(folder);
  expect(readdirSync(folder)).toEqual([]);
  await letGo(tree);
});

test("what is put aside vanishes from its place at once, and is removed later", async () => {
  const tree = join(folder, "tree");
  const place = join(folder, "aside");
  mkdirSync(tree);
  for (let i = 0; i < 100; i++) writeFileSync(join(tree, String(i)), "");
  await removeLetGo(place);
  await putAside(tree, place);
  expect(existsSync(tree)).toBe(false);
  const [aside = ""] = readdirSync(place);
  expect(readdirSync(join(place, aside))).toHaveLength(100);
  await removeLetGo(place);
  expect(readdirSync(place)).toEqual([]);
  await putAside(tree, place);
});

test("what cannot be put aside is removed where it is", async () => {
  const tree = join(folder, "tree");
  for (const place of [undefined, "/proc/self/aside"]) {
    mkdirSync(tree);
    writeFileSync(join(tree, "file"), "");
    await putAside(tree, place);
    expect(readdirSync(folder)).toEqual([]);
  }
});

test("an owner that swaps folders for symlinks all the time leads nobody astray", async () => {
  const victim = join(folder, "victim");
  mkdirSync(victim);
  writeFileSync(join(victim, "precious"), "");
  const swap = `
    const fs = require("node:fs");
    process.setgid(${enemy}); process.setuid(${enemy});
    process.stdout.write("ready");
    for (;;) {
      try { fs.mkdirSync("x"); fs.writeFileSync("x/file", ""); } catch {}
      try { fs.renameSync("x", "y" + Math.random()); } catch {}
      try { fs.symlinkSync(${JSON.stringify(victim)}, "x"); } catch {}
      try { fs.unlinkSync("x"); } catch {}
    }`;
  for (let round = 0; round < 5; round++) {
    const tree = join(folder, `tree-${round}`);
    mkdirSync(join(tree, "below"), { recursive: true });
    chownSync(tree, enemy, enemy);
    chownSync(join(tree, "below"), enemy, enemy);
    const child = spawn(process.execPath, ["-e", swap], {
      cwd: join(tree, "below"),
      stdio: ["ignore", "pipe", "ignore"],
    });
    enemies.push(child);
    await once(child.stdout!, "data");
    for (let attempt = 0; existsSync(tree) && attempt < 100; attempt++)
      try {
        await removeTree(tree, new Turns());
      } catch (error) {
        // What it adds between the look and the end makes a try fail; it can add nothing more in the next.
        expect(String(error)).toMatch(/ENOTEMPTY|ENOENT|ENOTDIR/);
      }
    expect(existsSync(tree)).toBe(false);
  }
  expect(readdirSync(victim)).toEqual(["precious"]);
});
