/** The machine's clock is set, while builds run. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parseRootConfig, type RootConfig } from "../../src/contract/root-config.ts";
import { printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { owner } from "../../src/contract/trusted-file.ts";
import { preBuildHook } from "../../src/root/pre-build-hook.ts";
import { SandboxTable } from "../../src/root/sandbox-table.ts";
import { parseDerivation } from "../../src/store/derivation.ts";
import { preBuildCall, recordOf, thisProcess } from "./records.ts";

const service = { uid: owner(), gid: process.getgid?.() ?? 0 };
const base = `${"a".repeat(32)}-outer.drv`;
const drvPath = `/nix/store/${base}`;
let folder: string;
let config: RootConfig;
let settled: string[];
let table: SandboxTable;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-set-clock-"));
  for (const below of ["gcroots/roots", "run/sandboxes", "run/derivations", `store/${base}.chroot`])
    mkdirSync(`${folder}/${below}`, { recursive: true, mode: 0o755 });
  config = parseRootConfig(
    `runtime_dir=${folder}/run\ngcroots_dir=${folder}/gcroots/roots\nstore_real=${folder}/store\nhook_wait_ms=50\nservice_user=${service.uid}:${service.gid}\n`,
    "test",
  );
  settled = [];
  table = new SandboxTable(config, service, async (id) => {
    settled.push(id);
    return { outcome: "registered", violations: [], error: "" };
  });
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

test("G6: of two builds of one derivation by one worker, the one that came later runs, whatever the clock says", async () => {
  const [first, second] = ["f".repeat(32), "s".repeat(32)];
  table.scan();
  for (const [id, created] of [
    [first, 2000],
    [second, 1000],
  ] as const) {
    mkdirSync(`${folder}/run/sandboxes/${id}`, { mode: 0o755 });
    const record = printSandboxRecord(recordOf(id, drvPath, { worker: thisProcess(), created }));
    writeFileSync(`${folder}/run/sandboxes/${id}/sandbox.json`, record, { mode: 0o600 });
    table.scan();
  }
  await table.tend();
  await new Promise((resolve) => setImmediate(resolve));
  expect(settled).toEqual([first]);
});

test("G6: what is due is done when the clock was set back", async () => {
  vi.useFakeTimers({ toFake: ["Date", "performance"] });
  await table.tend();
  vi.setSystemTime(Date.now() - 365 * 24 * 3_600_000);
  vi.advanceTimersByTime(61_000);
  const left = "l".repeat(32);
  writeFileSync(`${folder}/gcroots/roots/${left}.json`, printSandboxRecord(recordOf(left, drvPath)), {
    mode: 0o600,
  });
  await table.tend();
  await new Promise((resolve) => setImmediate(resolve));
  expect(settled).toEqual([left]);
});

test("the pre-build hook waits as long as it says, whatever the clock says", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const output = `/nix/store/${"b".repeat(32)}-outer`;
  const text = `Derive([("out","${output}","","")],[],[],"system","/bin/sh",[],[("out","${output}"),("requiredSystemFeatures","nix-broker")])`;
  const call = preBuildCall(drvPath, () => true);
  expect(await preBuildHook(config, call, async () => parseDerivation(Buffer.from(text)))).toBe("");
  const [id] = readdirSync(`${folder}/run/sandboxes`);
  // Nobody serves it.
  expect(existsSync(`${folder}/run/sandboxes/${id}/socket.d/README`)).toBe(true);
});
