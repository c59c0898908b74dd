/** Where a worker's temporary roots are: in `temproots/<pid>`, and in Nix 2.35.0 in `temproots/temproots-<pid>-<number>`. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import type { ProcessIdentity } from "../../src/contract/sandbox-record.ts";
import { lastMark } from "../../src/root/build-asker.ts";
import { processStat } from "../../src/root/process-tree.ts";
import { askerMark } from "../../src/store/asker-mark.ts";

const mark = askerMark("/nix/store", Buffer.alloc(10, 1));
const earlier = askerMark("/nix/store", Buffer.alloc(10, 2));
const other = `/nix/store/${"1".repeat(32)}-other`;

let state: string;
let worker: ChildProcess;
let identity: ProcessIdentity;

/** A process that has a file in `temproots` open, as a worker of the daemon has. */
beforeEach(async () => {
  state = mkdtempSync(join(tmpdir(), "temporary-roots-"));
  mkdirSync(join(state, "temproots"));
  const file = openSync(join(state, "temproots", "open"), "w");
  worker = spawn("sleep", ["1000"], { stdio: ["ignore", "ignore", "ignore", file] });
  closeSync(file);
  await once(worker, "spawn");
  identity = processStat(worker.pid!)!;
});
afterEach(() => {
  worker.kill("SIGKILL");
  rmSync(state, { recursive: true });
});

function find() {
  const config = parseRootConfig(`gcroots_dir=${state}/gcroots/nix-broker\n`, "test");
  return lastMark(config, identity);
}

test.each([
  ["<pid>", () => `${worker.pid}`],
  ["temproots-<pid>-<number>, as Nix 2.35.0 has it", () => `temproots-${worker.pid}-3735928559`],
])("a worker's mark is found in %s", async (_, name) => {
  const path = join(state, "temproots", name());
  renameSync(join(state, "temproots", "open"), path);
  writeFileSync(path, `${other}\0${mark}\0${other}\0`);
  expect(await find()).toBe(mark);
});

test("G8: what an earlier process of the same pid has left does not count", async () => {
  const path = join(state, "temproots", `temproots-${worker.pid}-2`);
  renameSync(join(state, "temproots", "open"), path);
  writeFileSync(path, `${other}\0`);
  for (const name of [`${worker.pid}`, `temproots-${worker.pid}-1`, `temproots-${worker.pid}-3`])
    writeFileSync(join(state, "temproots", name), `${earlier}\0`);
  expect(await find()).toBe("");
});

test("a worker without a file of temporary roots is reported", async () => {
  await expect(find()).rejects.toThrow(`process ${worker.pid} has no file of temporary roots open`);
});
