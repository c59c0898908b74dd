/** What the linker takes for left over when it starts. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { type ProcessIdentity, printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { processStat } from "../../src/root/process-tree.ts";
import { SandboxTable } from "../../src/root/sandbox-table.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-leftovers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Leaves the durable record that a hook makes first of all; the sandbox's folder comes last. */
function leaveRecord(id: string, worker: ProcessIdentity): void {
  const record = {
    format: 1,
    id,
    kind: "ok",
    reason: "",
    origin: "hook",
    drvPath: `/nix/store/${"a".repeat(32)}-outer.drv`,
    storeDir: "/nix/store",
    outputs: {},
    chroot: `${"a".repeat(32)}-outer.drv.chroot`,
    worker,
    asker: "",
    created: 0,
  } as const;
  writeFileSync(`${folder}/roots/${id}.json`, printSandboxRecord(record), { mode: 0o600 });
}

test("G6: a build that is just being registered is not considered over", async () => {
  const here = processStat(process.pid);
  if (!here) throw new Error("/proc does not know this process");
  mkdirSync(`${folder}/roots`, { mode: 0o755 });
  mkdirSync(`${folder}/run/sandboxes`, { recursive: true, mode: 0o755 });
  const { pid, startTime, boot } = here;
  leaveRecord("l".repeat(32), { pid, startTime, boot });
  leaveRecord("d".repeat(32), { pid, startTime: `${startTime}0`, boot });
  // As many ticks after another start of the machine.
  leaveRecord("b".repeat(32), { pid, startTime, boot: "0" });
  const config = parseRootConfig(`runtime_dir=${folder}/run\ngcroots_dir=${folder}/roots\n`, "test");
  const settled: string[] = [];
  const table = new SandboxTable(config, { uid: 0, gid: 0 }, async (id) => {
    settled.push(id);
  });
  table.scan();
  await table.tend(Date.now());
  // All that was to be settled has been by then: settling here is no more than noting it.
  await new Promise((resolve) => setImmediate(resolve));
  expect(settled.sort()).toEqual(["b".repeat(32), "d".repeat(32)]);
});

test("a folder that a linker before this one did not remove to its end goes", async () => {
  const config = parseRootConfig(`runtime_dir=${folder}/run\ngcroots_dir=${folder}/roots\n`, "test");
  const sandboxes = `${folder}/run/sandboxes`;
  mkdirSync(`${sandboxes}/${"h".repeat(32)}`, { recursive: true });
  writeFileSync(`${sandboxes}/${"h".repeat(32)}/ended`, "{}");
  mkdirSync(`${sandboxes}/.${"m".repeat(32)}`);
  new SandboxTable(config, { uid: 0, gid: 0 }, () => Promise.resolve()).scan();
  // That is one that a hook is making.
  await expect.poll(() => readdirSync(sandboxes)).toEqual([`.${"m".repeat(32)}`]);
});

test("a record that a killed hook was writing goes; one that is being written stays", async () => {
  const writing = `.${"w".repeat(32)}.json.${process.pid}`;
  // No process has that pid: it is above the kernel's limit.
  const killed = `.${"k".repeat(32)}.json.4194305`;
  for (const name of [writing, killed]) writeFileSync(`${folder}/roots/${name}`, "{", { mode: 0o600 });
  const config = parseRootConfig(`runtime_dir=${folder}/run\ngcroots_dir=${folder}/roots\n`, "test");
  await new SandboxTable(config, { uid: 0, gid: 0 }, () => Promise.resolve()).tend(Date.now());
  const left = readdirSync(`${folder}/roots`);
  expect(left).toContain(writing);
  expect(left).not.toContain(killed);
});
