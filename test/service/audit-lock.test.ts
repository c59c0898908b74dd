/** Which service writes an audit, where two are started on the same folder. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockAudit } from "../../src/service/audit-lock.ts";

const log = pino({ enabled: false });
let folder: string;
let holder: ChildProcess;

/** Another process that holds the lock, says that it stops if told so, and lives until it is killed. */
async function hold(path: string): Promise<ChildProcess> {
  const module = new URL("../../src/host/file-lock.ts", import.meta.url);
  const script = `import(${JSON.stringify(String(module))}).then(({ FileLock }) => {
    const lock = FileLock.take(${JSON.stringify(path)});
    process.on("SIGTERM", () => { lock.announceStop(); console.log("stopping"); });
    setInterval(() => undefined, 1000);
    console.log("held");
  })`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return child;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-lock-"));
  holder = await hold(join(folder, "lock"));
});
afterEach(() => {
  holder.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

test("while another service runs, it is named in the error", async () => {
  await expect(lockAudit(folder, 1000, log)).rejects.toThrow(
    `Another nix-broker (process ${holder.pid}) uses the audit in ${folder}. Stop it, or give this one`,
  );
});

test("one that stops is waited for, for as long as it may take", async () => {
  const told = once(holder.stdout!, "data");
  holder.kill("SIGTERM");
  await told;
  let waited = true;
  const locking = lockAudit(folder, 1000, log).finally(() => {
    waited = false;
  });
  // Longer than one that runs is waited for.
  await new Promise((resolve) => setTimeout(resolve, 4000));
  expect(waited).toBe(true);
  holder.kill("SIGKILL");
  (await locking).release();
});

test("one that is killed leaves no lock, and a lock that was released can be taken", async () => {
  holder.kill("SIGKILL");
  (await lockAudit(folder, 0, log)).release();
  (await lockAudit(folder, 0, log)).release();
});
