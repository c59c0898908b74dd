import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { LinkError } from "../../src/contract/link-error.ts";
import { parseRootConfig, type RootConfig } from "../../src/contract/root-config.ts";
import type { SandboxRecord } from "../../src/contract/sandbox-record.ts";
import { Chroot } from "../../src/root/chroot.ts";
import { LinkedSandbox } from "../../src/root/linked-sandbox.ts";
import { linksAreCheap } from "../../src/root/store-copy.ts";
import { recordOf } from "./records.ts";

const builder = 31_337;
function hash(letter: string) {
  return letter.repeat(32);
}
const drv = `${hash("d")}-outer.drv`;
function valid() {
  return Promise.resolve();
}

let folder: string;
let store: string;
let gcrootsDir: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hostile-"));
  chmodSync(folder, 0o755);
  store = join(folder, "store");
  mkdirSync(store);
  gcrootsDir = join(folder, "gcroots");
  mkdirSync(join(gcrootsDir, `${"a".repeat(32)}.gains`), { recursive: true });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Makes the chroot of a build as Nix does: of 2.26 and later with `root`, before without. */
function makeChroot(layout: "" | "/root" = "/root"): { relative: string; inside: string } {
  const relative = `${drv}.chroot${layout}`;
  const inside = join(store, relative, "nix/store");
  mkdirSync(inside, { recursive: true });
  chmodSync(join(store, `${drv}.chroot`), layout === "" ? 0o750 : 0o700);
  chmodSync(inside, 0o1775);
  chownSync(inside, 0, builder);
  return { relative, inside };
}

/** Makes a store path as Nix leaves it: read-only, time 1. */
function makeStorePath(name: string, content: string | Record<string, string>): string {
  const base = `${hash("s")}-${name}`;
  const path = join(store, base);
  if (typeof content === "string") writeFileSync(path, content, { mode: 0o444 });
  else {
    mkdirSync(path);
    for (const [file, text] of Object.entries(content))
      if (text.startsWith("-> ")) symlinkSync(text.slice(3), join(path, file));
      else writeFileSync(join(path, file), text, { mode: 0o444 });
    for (const file of Object.keys(content)) lutimesSync(join(path, file), 1, 1);
    chmodSync(path, 0o555);
  }
  utimesSync(path, 1, 1);
  return base;
}

function sandbox(
  chroot: string,
  config: Partial<RootConfig> = {},
  worker: SandboxRecord["worker"] = null,
): LinkedSandbox {
  const record = recordOf("a".repeat(32), `/nix/store/${drv}`, { chroot, worker });
  return new LinkedSandbox(
    { ...parseRootConfig("", "test"), storeReal: store, gcrootsDir, ...config },
    record,
  );
}

function opened(chroot: string, config: Partial<RootConfig> = {}): LinkedSandbox {
  const opening = sandbox(chroot, config);
  opening.open(undefined);
  return opening;
}

/**
 * Runs a shell script as the builder: in its store, which it could not reach from above, with nothing but its own user.
 */
function asBuilder(inside: string, script: string): void {
  const user = [`--reuid=${builder}`, `--regid=${builder}`, "--clear-groups"];
  execFileSync("setpriv", [...user, "sh", "-ec", script], { cwd: inside, stdio: "ignore" });
}

describe.each(["", "/root"] as const)("in a chroot of the form <drv>.chroot%s", (layout) => {
  test("G5: a folder appears whole, as it is in the store, and the builder cannot change it", async () => {
    const { relative, inside } = makeChroot(layout);
    const base = makeStorePath("tree", { file: "text", "odd\nname é": "x", link: "-> ../else/where" });
    mkdirSync(join(store, base, "below"));
    writeFileSync(join(store, base, "below/run"), "#!/bin/sh\n", { mode: 0o555 });
    chmodSync(join(store, base, "below"), 0o555);
    await opened(relative).link(`/nix/store/${base}`, valid);

    const copy = join(inside, base);
    expect(readdirSync(copy).sort()).toEqual(["below", "file", "link", "odd\nname é"]);
    expect(readlinkSync(join(copy, "link"))).toBe("../else/where");
    expect(lstatSync(join(copy, "file")).ino).toBe(lstatSync(join(store, base, "file")).ino);
    for (const name of ["", "file", "link", "below"])
      expect(lstatSync(join(copy, name))).toMatchObject({ uid: 0, mtimeMs: 1000 });
    expect(lstatSync(copy).mode & 0o7777).toBe(0o555);
    expect(lstatSync(join(copy, "below/run")).mode & 0o7777).toBe(0o555);
    asBuilder(inside, `cat ${base}/file`);
    for (const attempt of ["rm -r $1", "echo x > $1/file", "mv $1 $1-2", "chmod u+w $1", "touch $1/new"])
      expect(() => asBuilder(inside, attempt.replaceAll("$1", base)), attempt).toThrow();
    expect(readFileSync(join(copy, "file"), "utf8")).toBe("text");
  });

  test("files and symlinks are store paths too", async () => {
    const { relative, inside } = makeChroot(layout);
    const file = makeStorePath("file", "text");
    const link = `${hash("l")}-link`;
    symlinkSync("/nix/store/nowhere", join(store, link));
    const target = opened(relative);
    await target.link(`/nix/store/${file}`, valid);
    await target.link(`/nix/store/${link}`, valid);
    expect(lstatSync(join(inside, file)).ino).toBe(lstatSync(join(store, file)).ino);
    expect(readlinkSync(join(inside, link))).toBe("/nix/store/nowhere");
  });

  test("nothing is left in the staging folder, and the builder cannot enter it", async () => {
    const { relative } = makeChroot(layout);
    const staging = join(store, `${drv}.chroot/.nix-broker`);
    const target = opened(relative);
    for (const content of ["text", { file: "text" }])
      await target.link(`/nix/store/${makeStorePath(typeof content, content)}`, valid);
    expect(readdirSync(staging)).toEqual([]);
    expect(lstatSync(staging)).toMatchObject({ uid: 0, mode: 0o40700 });
  });
});

describe("linking again", () => {
  test("changes nothing, also after a restart of the linker", async () => {
    const { relative, inside } = makeChroot();
    const bases = [makeStorePath("tree", { file: "text" }), makeStorePath("file", "text")];
    for (const _start of ["first", "second"]) {
      const target = opened(relative);
      for (const base of [...bases, ...bases]) await target.link(`/nix/store/${base}`, valid);
    }
    expect(readdirSync(inside).sort()).toEqual(bases.sort());
  });

  test("accepts what Nix put there for an input: folders to mount on, links of files", async () => {
    const { relative, inside } = makeChroot();
    const tree = makeStorePath("tree", { file: "text" });
    const file = makeStorePath("file", "text");
    mkdirSync(join(inside, tree));
    linkSync(join(store, file), join(inside, file));
    const target = opened(relative);
    for (const base of [tree, file]) await target.link(`/nix/store/${base}`, valid);
    expect(readdirSync(join(inside, tree))).toEqual([]);
  });
});

describe("entries that the builder made in the way", () => {
  test.each([
    ["a file", "echo evil > $1"],
    ["an empty file", ": > $1"],
    ["an empty folder", "mkdir $1"],
    ["a folder with something in it", "mkdir $1; echo evil > $1/file"],
    ["a symlink out of the chroot", "ln -s /etc $1"],
    ["a symlink to nowhere", "ln -s /nowhere $1"],
    ["a pipe", "mkfifo $1"],
  ])("%s: the error says so, and it is not touched", async (_, script) => {
    const { relative, inside } = makeChroot();
    const target = opened(relative);
    for (const base of [makeStorePath("tree", { file: "text" }), makeStorePath("file", "text")]) {
      asBuilder(inside, script.replaceAll("$1", base));
      const before = lstatSync(join(inside, base));
      await expect(target.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "occupied" });
      expect(lstatSync(join(inside, base))).toMatchObject({ ino: before.ino, uid: builder });
    }
    expect(readdirSync(join(store, `${drv}.chroot/.nix-broker`))).toEqual([]);
    expect(existsSync("/etc/file")).toBe(false);
  });

  test("made between the look and the rename: a full folder stays, an empty one is replaced", async () => {
    const { relative, inside } = makeChroot();
    const target = opened(relative);
    const base = makeStorePath("tree", { file: "text" });
    let calls = 0;
    const late = (script: string) => async () => {
      if (++calls % 2 === 0) asBuilder(inside, script.replaceAll("$1", base));
    };
    const full = target.link(`/nix/store/${base}`, late("mkdir $1; echo evil > $1/file"));
    await expect(full).rejects.toMatchObject({ code: "occupied" });
    expect(readFileSync(join(inside, base, "file"), "utf8")).toBe("evil\n");
    rmSync(join(inside, base), { recursive: true });
    await target.link(`/nix/store/${base}`, late("mkdir $1"));
    expect(readFileSync(join(inside, base, "file"), "utf8")).toBe("text");
  });

  test("a file of root's with other contents is not taken for ours, one with the same is", async () => {
    const { relative, inside } = makeChroot();
    const base = makeStorePath("file", "text");
    // As the builder could by a hard link, where the kernel lets it (fs.protected_hardlinks = 0).
    linkSync(join(store, makeStorePath("other", "evil")), join(inside, base));
    const target = opened(relative);
    await expect(target.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "occupied" });
    rmSync(join(inside, base));
    writeFileSync(join(inside, base), "text", { mode: 0o444 });
    await target.link(`/nix/store/${base}`, valid);
  });
});

describe("a builder that owns parts of its chroot (uid-range)", () => {
  const parts = ["", "/root", "/root/nix", "/root/nix/store"];

  test.each(parts)("a symlink in place of <drv>.chroot%s is not followed", (part) => {
    makeChroot();
    const victim = join(folder, "victim");
    mkdirSync(join(victim, "root/nix/store"), { recursive: true });
    const replaced = join(store, `${drv}.chroot${part}`);
    renameSync(replaced, `${replaced}-away`);
    symlinkSync(join(victim, part), replaced);
    expect(() => sandbox(`${drv}.chroot/root`).open(undefined)).toThrow("not a folder");
    expect(readdirSync(join(victim, "root/nix/store"))).toEqual([]);
    expect(readdirSync(victim)).toEqual(["root"]);
  });

  test.each(parts)("<drv>.chroot%s that belongs to the builder is refused", (part) => {
    makeChroot();
    chownSync(join(store, `${drv}.chroot${part}`), builder, builder);
    expect(() => sandbox(`${drv}.chroot/root`).open(undefined)).toThrow(`belongs to user ${builder}`);
  });

  test("a store folder that is not sticky is refused", () => {
    const { relative, inside } = makeChroot();
    chmodSync(inside, 0o775);
    expect(() => sandbox(relative).open(undefined)).toThrow("is writable by others");
  });

  test("the chroot that was opened stays the one that is written to, whatever is renamed later", async () => {
    const { relative } = makeChroot();
    const target = opened(relative);
    const base = makeStorePath("file", "text");
    const nix = join(store, relative, "nix");
    const victim = join(folder, "victim");
    mkdirSync(join(victim, "store"), { recursive: true });
    renameSync(nix, `${nix}-away`);
    symlinkSync(victim, nix);
    await target.link(`/nix/store/${base}`, valid);
    expect(readdirSync(join(victim, "store"))).toEqual([]);
    expect(readdirSync(`${nix}-away/store`)).toEqual([base]);
  });

  test("another chroot in the place of the one that was known is refused", () => {
    const { relative } = makeChroot();
    const { identity } = new Chroot(store, relative, "/nix/store");
    renameSync(join(store, `${drv}.chroot`), join(store, "away"));
    makeChroot();
    expect(() => sandbox(relative).open(identity)).toThrow("another build has taken the place");
  });

  test("G8: a sandbox whose build was killed does not disturb the next build of the same derivation", async () => {
    const { relative } = makeChroot();
    const { identity } = new Chroot(store, relative, "/nix/store");
    renameSync(join(store, `${drv}.chroot`), join(store, "away"));
    const { inside } = makeChroot();
    const next = opened(relative);
    expect(() => sandbox(relative).open(identity)).toThrow("another build has taken the place");
    const killed = { pid: process.pid, startTime: "0", boot: "another" };
    expect(() => sandbox(relative, {}, killed).open(undefined)).toThrow("its build is over");
    const base = makeStorePath("file", "text");
    await next.link(`/nix/store/${base}`, valid);
    expect(readdirSync(inside)).toEqual([base]);
  });
});

describe("what the store must not hold", () => {
  test.each([
    ["a file that can be written", (path: string) => chmodSync(path, 0o644)],
    ["a set-uid file", (path: string) => chmodSync(path, 0o4555)],
    ["a file of another user", (path: string) => chownSync(path, builder, 0)],
  ])("%s is not linked", async (_, spoil) => {
    const { relative, inside } = makeChroot();
    const base = makeStorePath("tree", { file: "text" });
    spoil(join(store, base, "file"));
    const done = opened(relative).link(`/nix/store/${base}`, valid);
    await expect(done).rejects.toMatchObject({ code: "unsafe-path" });
    expect(readdirSync(inside)).toEqual([]);
  });

  test("a pipe, and a path that is not there", async () => {
    const { relative, inside } = makeChroot();
    const base = makeStorePath("tree", {});
    execFileSync("mkfifo", [join(store, base, "pipe")]);
    const target = opened(relative);
    await expect(target.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "unsafe-path" });
    const missing = target.link(`/nix/store/${hash("m")}-missing`, valid);
    await expect(missing).rejects.toMatchObject({ code: "invalid-path" });
    expect(readdirSync(inside)).toEqual([]);
  });
});

describe("bounds", () => {
  test("of entries, of bytes, of the queue", async () => {
    const { relative, inside } = makeChroot();
    const base = makeStorePath("tree", { a: "1", b: "2", c: "3" });
    const few = opened(relative, { maxEntries: 3 });
    await expect(few.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "limit" });
    expect(readdirSync(inside)).toEqual([]);

    const queue = opened(relative, { maxQueue: 2 });
    const results = await Promise.allSettled([1, 2, 3].map(() => queue.link(`/nix/store/${base}`, valid)));
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected"]);
  });

  test("of entries: also of what a linker before this one made, but not the builder", async () => {
    const { relative, inside } = makeChroot();
    const tree = makeStorePath("tree", { a: "1", b: "2" });
    const first = sandbox(relative);
    const identity = first.open(undefined);
    await first.link(`/nix/store/${tree}`, valid);
    await first.close("the linker stops");
    asBuilder(inside, "mkdir own; touch own/1 own/2 own/3");
    const file = makeStorePath("file", "text");
    for (const [maxEntries, code] of [
      [3, "limit"],
      [4, undefined],
    ] as const) {
      const next = sandbox(relative, { maxEntries });
      next.open(identity);
      const refused = await next.link(`/nix/store/${file}`, valid).catch((error: LinkError) => error.code);
      expect(refused).toBe(code);
      await next.close("the linker stops");
    }
  });

  test("a path that becomes invalid during the copy never appears", async () => {
    const { relative, inside } = makeChroot();
    const base = makeStorePath("tree", { a: "1" });
    let calls = 0;
    const collected = async () => {
      if (++calls === 2) throw new Error("collected");
    };
    const done = opened(relative).link(`/nix/store/${base}`, collected);
    await expect(done).rejects.toMatchObject({ code: "io", message: expect.stringContaining("collected") });
    expect(readdirSync(inside)).toEqual([]);
    expect(readdirSync(join(store, `${drv}.chroot/.nix-broker`))).toEqual([]);
  });

  test("20 000 files in one path: all there, and a small path of another sandbox overtakes it", async () => {
    const { relative, inside } = makeChroot();
    const base = `${hash("s")}-many`;
    mkdirSync(join(store, base));
    for (let i = 0; i < 20_000; i++) writeFileSync(join(store, base, `file-${i}`), "", { mode: 0o444 });
    chmodSync(join(store, base), 0o555);
    const small = makeStorePath("small", "text");
    const order: string[] = [];
    const other = join(store, `${hash("f")}-other.drv.chroot/root/nix/store`);
    mkdirSync(other, { recursive: true });
    chmodSync(other, 0o1775);
    await Promise.all([
      opened(relative)
        .link(`/nix/store/${base}`, valid)
        .then(() => order.push("many")),
      opened(`${hash("f")}-other.drv.chroot/root`)
        .link(`/nix/store/${small}`, valid)
        .then(() => order.push("small")),
    ]);
    expect(order).toEqual(["small", "many"]);
    expect(readdirSync(join(inside, base)).length).toBe(20_000);
  });

  test("a chroot that vanishes half-way, and one that vanished before", async () => {
    const { relative } = makeChroot();
    const base = makeStorePath("tree", { a: "1", b: "2" });
    const target = opened(relative);
    const vanish = async () => rmSync(join(store, `${drv}.chroot`), { recursive: true, force: true });
    await expect(target.link(`/nix/store/${base}`, vanish)).rejects.toMatchObject({ code: "gone" });
    await expect(target.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "gone" });
    expect(target.livesIn(relative)).toBe(false);
  });
});

describe("where files cannot be linked, they are copied", () => {
  const mounted = (options: readonly string[], mountPoint: string, work: () => Promise<void>) => async () => {
    mkdirSync(mountPoint, { recursive: true });
    execFileSync("mount", [...options, mountPoint]);
    try {
      await work();
    } finally {
      execFileSync("umount", ["-l", mountPoint]);
    }
  };

  test("EMLINK: a file with as many links as ext4 takes", async () => {
    const image = join(folder, "ext4.img");
    execFileSync("truncate", ["-s", "64M", image]);
    execFileSync("mkfs.ext4", ["-q", image]);
    await mounted(["-o", "loop", image], store, async () => {
      const base = makeStorePath("tree", { file: "text" });
      mkdirSync(join(store, "links"));
      for (let i = 1; i < 65_000; i++) linkSync(join(store, base, "file"), join(store, "links", String(i)));
      const { relative, inside } = makeChroot();
      const target = opened(relative);
      await target.link(`/nix/store/${base}`, valid);
      const copy = lstatSync(join(inside, base, "file"));
      expect(copy).toMatchObject({ nlink: 1, uid: 0, mtimeMs: 1000, mode: 0o100444 });
      expect(readFileSync(join(inside, base, "file"), "utf8")).toBe("text");
      await target.close("done");
      const bounded = opened(relative, { maxBytes: 3 });
      rmSync(join(inside, base), { recursive: true });
      await expect(bounded.link(`/nix/store/${base}`, valid)).rejects.toMatchObject({ code: "limit" });
    })();
  });

  test("EMLINK: a store path that is one file, with one link left", async () => {
    const image = join(folder, "ext4.img");
    execFileSync("truncate", ["-s", "64M", image]);
    execFileSync("mkfs.ext4", ["-q", image]);
    await mounted(["-o", "loop", image], store, async () => {
      const base = makeStorePath("single", "text");
      mkdirSync(join(store, "links"));
      for (let i = 1; i < 64_999; i++) linkSync(join(store, base), join(store, "links", String(i)));
      const { relative, inside } = makeChroot();
      const target = opened(relative);
      await target.link(`/nix/store/${base}`, valid);
      expect(lstatSync(join(inside, base))).toMatchObject({ nlink: 1, mtimeMs: 1000, mode: 0o100444 });
      expect(readFileSync(join(inside, base), "utf8")).toBe("text");
      await target.close("done");
    })();
  });

  test("overlayfs: the store's upper layer stays empty", async () => {
    const layer = (name: string) => join(folder, name);
    for (const name of ["lower", "upper", "work"]) mkdirSync(layer(name));
    const real = store;
    store = layer("lower");
    const base = makeStorePath("tree", { file: "text" });
    store = real;
    const layers = `lowerdir=${layer("lower")},upperdir=${layer("upper")},workdir=${layer("work")}`;
    await mounted(["-t", "overlay", "overlay", "-o", layers], store, async () => {
      expect(linksAreCheap(store)).toBe(false);
      const { relative, inside } = makeChroot();
      const target = opened(relative);
      await target.link(`/nix/store/${base}`, valid);
      expect(readFileSync(join(inside, base, "file"), "utf8")).toBe("text");
      expect(lstatSync(join(inside, base, "file"))).toMatchObject({ uid: 0, mtimeMs: 1000 });
      expect(readdirSync(layer("upper"))).toEqual([`${drv}.chroot`]);
      await target.close("done");
    })();
  });
});
