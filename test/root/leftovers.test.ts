/** What the linker takes for left over when it starts. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { type ProcessIdentity, printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { SandboxTable } from "../../src/root/sandbox-table.ts";
import type { Settle } from "../../src/root/settlers.ts";
import { recordOf, thisProcess } from "./records.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-leftovers-"));
  mkdirSync(`${folder}/gcroots/roots`, { recursive: true, mode: 0o755 });
  for (const below of ["sandboxes", "derivations"])
    mkdirSync(`${folder}/run/${below}`, { recursive: true, mode: 0o755 });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const registered = { outcome: "registered", violations: [], error: "" } as const;

function newTable(settle: Settle = async () => registered): SandboxTable {
  const text = `runtime_dir=${folder}/run\ngcroots_dir=${folder}/gcroots/roots\nstore_real=${folder}/store\n`;
  return new SandboxTable(parseRootConfig(text, "test"), { uid: 0, gid: 0 }, settle);
}

const derivation = `${"a".repeat(32)}-outer.drv`;
const drvPath = `/nix/store/${derivation}`;

/** Leaves the durable record that a hook makes first of all; the sandbox's folder comes last. */
function leaveRecord(id: string, worker: ProcessIdentity): void {
  writeFileSync(`${folder}/gcroots/roots/${id}.json`, printSandboxRecord(recordOf(id, drvPath, { worker })), {
    mode: 0o600,
  });
}

test("G6: a build that is just being registered is not considered over", async () => {
  const { pid, startTime, boot } = thisProcess();
  leaveRecord("l".repeat(32), { pid, startTime, boot });
  leaveRecord("d".repeat(32), { pid, startTime: `${startTime}0`, boot });
  // As many ticks after another start of the machine.
  leaveRecord("b".repeat(32), { pid, startTime, boot: "0" });
  const settled: string[] = [];
  const table = newTable(async (id) => {
    settled.push(id);
    return registered;
  });
  table.scan();
  await table.tend();
  // All that was to be settled has been by then: settling here is no more than noting it.
  await new Promise((resolve) => setImmediate(resolve));
  expect(settled.sort()).toEqual(["b".repeat(32), "d".repeat(32)]);
});

test("what is left over is settled once at a time, however long that takes", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  try {
    leaveRecord("l".repeat(32), { ...thisProcess(), boot: "0" });
    const settled: string[] = [];
    let finish = (): void => {};
    const first = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const table = newTable(async (id) => {
      settled.push(id);
      await first;
      return registered;
    });
    for (let look = 0; look < 3; look++) {
      await table.tend();
      vi.advanceTimersByTime(61_000);
    }
    finish();
    await new Promise((resolve) => setImmediate(resolve));
    expect(settled).toEqual(["l".repeat(32)]);
  } finally {
    vi.useRealTimers();
  }
});

test("a folder that a linker before this one did not remove to its end goes", async () => {
  const sandboxes = `${folder}/run/sandboxes`;
  mkdirSync(`${sandboxes}/${"h".repeat(32)}`, { recursive: true });
  writeFileSync(`${sandboxes}/${"h".repeat(32)}/ended`, "{}");
  mkdirSync(`${sandboxes}/.${"m".repeat(32)}`);
  newTable().scan();
  // That is one that a hook is making.
  await expect.poll(() => readdirSync(sandboxes)).toEqual([`.${"m".repeat(32)}`]);
});

test("a record that a killed hook was writing goes; one that is being written stays", async () => {
  const writing = `.${"w".repeat(32)}.json.${process.pid}`;
  // No process has that pid: it is above the kernel's limit.
  const killed = `.${"k".repeat(32)}.json.4194305`;
  for (const name of [writing, killed])
    writeFileSync(`${folder}/gcroots/roots/${name}`, "{", { mode: 0o600 });
  await newTable().tend();
  const left = readdirSync(`${folder}/gcroots/roots`);
  expect(left).toContain(writing);
  expect(left).not.toContain(killed);
});

test("G6: a linker that starts between the release of the roots and the note of the end makes no roots anew", () => {
  const id = "s".repeat(32);
  mkdirSync(`${folder}/run/sandboxes/${id}`, { mode: 0o755 });
  const record = printSandboxRecord(recordOf(id, drvPath, { worker: thisProcess() }));
  writeFileSync(`${folder}/run/sandboxes/${id}/sandbox.json`, record, { mode: 0o600 });
  // As Nix makes it: what lacks is the sandbox's, not the build's.
  mkdirSync(`${folder}/store/${derivation}.chroot/nix/store`, { recursive: true });
  chmodSync(`${folder}/store/${derivation}.chroot/nix/store`, 0o1775);
  const table = newTable();
  table.scan();
  expect(readdirSync(`${folder}/gcroots/roots`)).toEqual([]);
  expect(table.find(id)?.problem).toBe("its build is over");
  table.close();
});

test("G6: what has no durable record is removed; while there is one, all of it stays", async () => {
  const [kept, left] = ["k".repeat(32), "l".repeat(32)];
  leaveRecord(kept, thisProcess());
  mkdirSync(`${folder}/run/derivations/${derivation}`);
  for (const id of [kept, left]) {
    for (const name of [id, `${id}.gains`]) {
      mkdirSync(`${folder}/gcroots/roots/${name}`);
      symlinkSync("/nix/store/x", `${folder}/gcroots/roots/${name}/x`);
    }
    mkdirSync(`${folder}/run/sandboxes/.${id}`);
    writeFileSync(`${folder}/run/derivations/${derivation}/${id}`, "");
  }
  // Its roots are released, and its build may be asked about until its folder goes.
  const settled = "e".repeat(32);
  mkdirSync(`${folder}/run/sandboxes/${settled}`);
  writeFileSync(`${folder}/run/derivations/${derivation}/${settled}`, "");
  await newTable().tend();
  await expect.poll(() => readdirSync(`${folder}/nix-broker-released`)).toEqual([]);
  expect(readdirSync(`${folder}/gcroots/roots`).sort()).toEqual([kept, `${kept}.gains`, `${kept}.json`]);
  expect(readdirSync(`${folder}/gcroots/roots/${kept}.gains`)).toEqual(["x"]);
  expect(readdirSync(`${folder}/run/sandboxes`).sort()).toEqual([`.${kept}`, settled]);
  expect(readdirSync(`${folder}/run/derivations/${derivation}`).sort()).toEqual([settled, kept].sort());
});
