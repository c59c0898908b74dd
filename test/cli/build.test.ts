import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildAll, foreignParts } from "../../scripts/build.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "nix-broker-build-"));
const dist = join(folder, "dist");

const packages = ["nix-broker_1.0.0_arm64.deb", "nix-broker-1.0.0-linux-arm64.tar.zst"];

beforeAll(async () => {
  mkdirSync(dist);
  for (const name of ["old.js", ...packages]) writeFileSync(join(dist, name), "");
  await buildAll(dist);
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("what was built before is replaced, but packages for other machines stay", () => {
  const there = readdirSync(dist);
  expect(there).toEqual(expect.arrayContaining(packages));
  expect(there).not.toContain("old.js");
});

function run(program: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(join(dist, program), args, {
    encoding: "utf8",
    env: { ...process.env, NIX_BROKER_NODE: process.execPath, NIX_BROKER_CONFIG: "/dev/null" },
  });
  return { code: status, stdout, stderr };
}

test("the bundled commands work, also through a symlink", () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(run("nix-broker", "--version")).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  expect(run("nix-broker", "check-config")).toMatchObject({ code: 0, stdout: "/dev/null is fine.\n" });
  expect(run("nix-broker", "policy", "explain", "AddToStore")).toMatchObject({ code: 0, stderr: "" });
  symlinkSync(join(dist, "nix-broker"), join(folder, "linked"));
  expect(run("../linked", "--version").stdout).toBe(`${version}\n`);
});

/** This Node, taken for an older one, and every older one that this machine has. */
function oldNodes(): string[] {
  writeFileSync(
    join(folder, "old.cjs"),
    'Object.defineProperty(process.versions, "node", { value: "22.9.0" });',
  );
  const made = join(folder, "old-node");
  writeFileSync(made, `#!/bin/sh\nexec ${process.execPath} --require ${folder}/old.cjs "$@"\n`);
  chmodSync(made, 0o755);
  const found = (process.env.PATH ?? "")
    .split(":")
    .map((path) => join(path, "node"))
    .filter(
      (node) =>
        existsSync(node) &&
        spawnSync(node, ["-p", "+process.versions.node.split('.')[0] < 24"]).stdout.includes("true"),
    );
  return [made, ...found];
}

test("an older Node is named, with exit code 2", () => {
  for (const node of oldNodes()) {
    for (const program of ["nix-broker", "nix-broker-root"]) {
      for (const args of [["--version"], ["serve"], ["linker"], []]) {
        const { status, stdout, stderr } = spawnSync(join(dist, program), args, {
          encoding: "utf8",
          env: { ...process.env, NIX_BROKER_NODE: node },
        });
        expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
        expect(stderr).toMatch(
          /^nix-broker: this needs Node 24 or later, but \S+ is Node \d+\.\d+\.\d+\. Put [^\n]+\n$/,
        );
      }
    }
  }
});

test("a checkout's own Node is used, though PATH has an older one", () => {
  const [old = ""] = oldNodes();
  const path = join(folder, "old-path");
  mkdirSync(path, { recursive: true });
  symlinkSync(old, join(path, "node"));
  const { NIX_BROKER_NODE: _, ...env } = process.env;
  for (const [program, status] of [
    ["nix-broker", 0],
    ["nix-broker-root", 2],
  ] as const) {
    const ended = spawnSync(join(dist, program), ["--help"], {
      encoding: "utf8",
      env: { ...env, PATH: `${path}:${env.PATH}` },
    });
    expect(ended).toMatchObject({ status, stderr: expect.not.stringContaining("this needs Node") });
  }
});

test("each command's code is a chunk of its own: the entry holds none", () => {
  const entry = readFileSync(join(dist, "main.js"), "utf8");
  for (const name of ["serve", "stdio", "audit", "policy", "check-config"]) {
    expect(readdirSync(join(dist, "chunks")).some((chunk) => chunk.startsWith(`${name}-`))).toBe(true);
  }
  expect(entry.length).toBeLessThan(10_000);
});

test("hooks and linker go to the root programs, which hold no npm package", () => {
  expect(run("nix-broker-root")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("usage: nix-broker-root"),
  });
  const bundle = readFileSync(join(dist, "root.js"), "utf8");
  expect(bundle).not.toContain("createRequire");
  expect(
    readdirSync(dist)
      .filter((name) => name.includes("-hook"))
      .sort(),
  ).toEqual(["post-build-hook", "post-build-hook.sh", "pre-build-hook", "pre-build-hook.sh"]);
});

test("a package in a bundle is noticed, bundled or not", async () => {
  const partsOf = async (source: string, external: string[]) => {
    const { metafile } = await build({
      stdin: { contents: source, resolveDir: root, sourcefile: "src/root/x.ts" },
      absWorkingDir: root,
      bundle: true,
      platform: "node",
      format: "esm",
      metafile: true,
      write: false,
      external,
    });
    return foreignParts(metafile);
  };
  expect(await partsOf('import "node:fs"; import "./src/store/base32.ts";', [])).toEqual([]);
  expect(await partsOf('import "smol-toml";', ["smol-toml"])).toEqual(["smol-toml"]);
  expect((await partsOf('import { parse } from "smol-toml"; parse("");', [])).join()).toContain(
    "node_modules/smol-toml",
  );
});
