import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { NixCommandError, NixStoreCommand } from "../../src/root/nix-store-command.ts";
import { processStat } from "../../src/root/process-tree.ts";

let folder: string;
let daemon: ChildProcess;

/** A program, and beside it a nix-store that leaves a mark. */
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-command-"));
  copyFileSync(realpathSync("/bin/sleep"), join(folder, "daemon"));
  writeFileSync(join(folder, "nix-store"), `#!/bin/sh\necho > ${folder}/ran\n`, { mode: 0o755 });
  daemon = spawn(join(folder, "daemon"), ["60"]);
});
afterEach(() => {
  daemon.kill();
  rmSync(folder, { recursive: true, force: true });
});

const config = parseRootConfig("nix_store=nix-store\n", "root.conf");

test("nix-store is the one beside the daemon's own program", () => {
  const { pid, startTime, boot } = processStat(daemon.pid!)!;
  new NixStoreCommand(config, { pid, startTime, boot }).load("");
  expect(existsSync(join(folder, "ran"))).toBe(true);
});

test("a nix-store that hangs is killed, and that is an error", () => {
  const { pid, startTime, boot } = processStat(daemon.pid!)!;
  writeFileSync(join(folder, "nix-store"), "#!/bin/sh\nexec sleep 1000\n");
  const command = new NixStoreCommand(config, { pid, startTime, boot }, 100);
  expect(() => command.load("")).toThrow(/ETIMEDOUT/);
});

test("G4: root runs no program found beside a process whose pid was reused", () => {
  // Without a Nix on this machine there is none to run; with one it does not know the path.
  expect(() => new NixStoreCommand(config, { pid: daemon.pid!, startTime: "1", boot: "0" }).load("")).toThrow(
    NixCommandError,
  );
  expect(existsSync(join(folder, "ran"))).toBe(false);
});
