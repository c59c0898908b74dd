/** What is registered for a build that its pre-build hook was called for, for tests without a daemon. */
import type { ProcessIdentity, SandboxRecord } from "../../src/contract/sandbox-record.ts";
import type { HookCall } from "../../src/root/hook-call.ts";
import { processStat } from "../../src/root/process-tree.ts";
import { type StorePath, storePathBase } from "../../src/store/store-path.ts";

/** The record of a build that got a sandbox. Its worker ended long ago, unless another one is given. */
export function recordOf(id: string, drvPath: StorePath, fields: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    format: 1,
    id,
    kind: "ok",
    reason: "",
    origin: "hook",
    drvPath,
    storeDir: "/nix/store",
    outputs: {},
    chroot: `${storePathBase(drvPath)}.chroot`,
    worker: { pid: 1, startTime: "1", boot: "0" },
    asker: "",
    created: 0,
    ...fields,
  };
}

/** This process as a worker. */
export function thisProcess(): ProcessIdentity {
  const stat = processStat(process.pid);
  if (!stat) throw new Error("/proc does not know this process");
  const { pid, startTime, boot } = stat;
  return { pid, startTime, boot };
}

/** A call of the pre-build hook by this process, without a chroot. */
export function preBuildCall(drvPath: StorePath, isWaiting: () => boolean): HookCall {
  return {
    args: [drvPath],
    environment: {},
    parent: process.pid,
    setting: () => "",
    warn: () => undefined,
    isWaiting,
  };
}
