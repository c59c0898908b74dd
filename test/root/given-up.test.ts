/** Hooks that did not wait for the linker any longer: their own programs have done the work, and the linker's comes late. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { until } from "../../lab/parts.ts";
import { parseRootConfig, type RootConfig } from "../../src/contract/root-config.ts";
import { printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { owner } from "../../src/contract/trusted-file.ts";
import { callOf } from "../../src/root/hook-call.ts";
import { preBuildHook } from "../../src/root/pre-build-hook.ts";
import { settleById } from "../../src/root/settler.ts";
import { parseDerivation } from "../../src/store/derivation.ts";
import { preBuildCall, recordOf } from "./records.ts";

const drvPath = `/nix/store/${"a".repeat(32)}-outer.drv`;
let folder: string;
let config: RootConfig;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-given-up-"));
  config = parseRootConfig(
    `runtime_dir=${folder}/run\ngcroots_dir=${folder}/roots\nupstream_socket=${folder}/none\nhook_wait_ms=0\nservice_user=${owner()}:${process.getgid?.()}\n`,
    "test",
  );
});
afterEach(() => rmSync(folder, { recursive: true }));

test("G6: no sandbox is registered for a hook that has registered its build itself: it would pass for the later build", async () => {
  const output = `/nix/store/${"b".repeat(32)}-outer`;
  const text = `Derive([("out","${output}","","")],[],[],"system","/bin/sh",[],[("out","${output}"),("requiredSystemFeatures","nix-broker")])`;
  let isWaiting = false;
  const call = preBuildCall(drvPath, () => isWaiting);
  const read = async () => parseDerivation(Buffer.from(text));
  await expect(preBuildHook(config, call, read)).rejects.toThrow("no longer waits");
  expect(readdirSync(`${folder}/run/sandboxes`)).toEqual([]);
  expect(readdirSync(`${folder}/roots`)).toEqual([]);
  isWaiting = true;
  expect(await preBuildHook(config, call, read)).toBe("");
  expect(readdirSync(`${folder}/run/sandboxes`)).toHaveLength(1);
});

test("a hook that runs the script or the next hook in its place no longer waits", async () => {
  const go = join(folder, "go");
  const script = `while [ ! -e ${go} ]; do sleep 0.01; done; exec sleep 1000`;
  const child = spawn("bash", ["-c", script], { argv0: "/x/pre-build-hook", stdio: "ignore" });
  try {
    const pid = child.pid ?? 0;
    await until(() => readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("/x/pre-build-hook"));
    const call = callOf(pid, "pre-build-hook");
    expect(call.isWaiting()).toBe(true);
    writeFileSync(go, "");
    await until(() => readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("sleep"));
    expect(call.isWaiting()).toBe(false);
  } finally {
    child.kill("SIGKILL");
  }
});

test("what was settled meanwhile is not settled again: `ended` keeps the references", async () => {
  const id = "s".repeat(32);
  const record = recordOf(id, drvPath, { outputs: { out: `/nix/store/${"b".repeat(32)}-outer` } });
  const sandbox = `${folder}/run/sandboxes/${id}`;
  mkdirSync(sandbox, { recursive: true, mode: 0o755 });
  writeFileSync(`${sandbox}/sandbox.json`, printSandboxRecord(record), { mode: 0o600 });
  const ended = JSON.stringify({ outcome: "registered", references: { a: ["b"] } });
  writeFileSync(`${sandbox}/ended`, ended, { mode: 0o600 });
  expect(await settleById(config, id, "")).toBeUndefined();
  expect(readFileSync(`${sandbox}/ended`, "utf8")).toBe(ended);
});
