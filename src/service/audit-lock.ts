/** Two services that wrote the same audit would break its chain: the second waits until the first has drained, or gives up. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AuditError } from "../audit/error.ts";
import { makeAuditFolder } from "../audit/segment.ts";
import { FileLock } from "../host/file-lock.ts";
import type { Log } from "./log.ts";

const NAME = "lock";
const RETRY_MS = 50;
/** A service that was only just asked to end may not have said so yet. */
const PATIENCE_SECONDS = 3;
/** How much longer than its grace a service may take to end. */
const MARGIN_SECONDS = 10;

/**
 * @param graceSeconds how long a service that stops may go on with what is in flight
 * @throws AuditError when another service goes on using the audit, or it cannot be used at all
 */
export async function lockAudit(folder: string, graceSeconds: number, log: Log): Promise<FileLock> {
  makeAuditFolder(folder);
  const path = join(folder, NAME);
  const started = performance.now();
  for (let told = false; ; told = true) {
    const lock = takeLock(path);
    if (lock) return lock;
    const holder = FileLock.holder(path);
    const patience = holder?.stopping ? graceSeconds + MARGIN_SECONDS : PATIENCE_SECONDS;
    if (performance.now() - started >= patience * 1000)
      throw new AuditError(
        "folder",
        `Another nix-broker (process ${holder?.pid ?? "unknown"}) uses the audit in ${folder}. ` +
          "Stop it, or give this one its own runtime.dir and runtime.state_dir (and audit.path, if that is set).",
      );
    if (!told) log.info({ audit: folder, process: holder?.pid }, "waiting for another nix-broker to end");
    await sleep(RETRY_MS);
  }
}

function takeLock(path: string): FileLock | undefined {
  try {
    return FileLock.take(path);
  } catch (error) {
    throw new AuditError("folder", `Cannot lock the audit: ${(error as Error).message}.`, { cause: error });
  }
}
