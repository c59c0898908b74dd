/** How a sandbox ended, written while somebody else removes its folder. */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

let beforeRename = (): void => {};
vi.mock("node:fs", async (original) => {
  const real = await original<typeof fs>();
  return {
    ...real,
    renameSync(from: string, to: string) {
      beforeRename();
      real.renameSync(from, to);
    },
  };
});

// Files before this one, in the same process, may have loaded it with the real file system.
vi.resetModules();
const { parseRootConfig } = await import("../../src/contract/root-config.ts");
const { writeEnd } = await import("../../src/root/sandbox-end.ts");

const id = "s".repeat(32);
const end = {
  format: 1,
  outcome: "registered",
  at: 0,
  references: {},
  violations: [],
  error: "",
} as const;
let folder: string;
beforeEach(() => {
  beforeRename = () => {};
  folder = fs.mkdtempSync(join(tmpdir(), "nix-broker-end-"));
  fs.mkdirSync(join(folder, "sandboxes", id), { recursive: true });
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

function write(): void {
  const lines = `runtime_dir=${folder}\nservice_user=${process.getuid?.()}:${process.getgid?.()}\n`;
  writeEnd(parseRootConfig(lines, "test"), id, end);
}

test("the folder says how its sandbox ended", () => {
  write();
  expect(JSON.parse(fs.readFileSync(join(folder, "sandboxes", id, "ended"), "utf8"))).toEqual(end);
});

test("a folder that is removed meanwhile, as that was said already, is no fault", () => {
  beforeRename = () => fs.rmSync(join(folder, "sandboxes", id), { recursive: true });
  write();
  expect(fs.readdirSync(join(folder, "sandboxes"))).toEqual([]);
});

test("what cannot be written for another reason is one", () => {
  fs.mkdirSync(join(folder, "sandboxes", id, "ended"));
  expect(write).toThrow("EISDIR");
});
