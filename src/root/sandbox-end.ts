/** `ended`: the file in a sandbox's folder that says how it ended. */
import { existsSync, statSync } from "node:fs";
import { type RootConfig, serviceAccount } from "../contract/root-config.ts";
import { type SandboxId, sandboxPlaces } from "../contract/runtime-tree.ts";
import { isObject } from "../contract/sandbox-record.ts";
import { errorCode, readTrusted, writeTrusted } from "../contract/trusted-file.ts";
import type { StorePath } from "../store/store-path.ts";

/** The longest of a pending sandbox. Bytes. */
const MAX_PENDING = 64 * 1024;

export interface SandboxEnd {
  readonly format: 1;
  readonly outcome: "registered" | "failed" | "pending";
  /** Milliseconds since 1970. */
  readonly at: number;
  /** The gained paths that each output mentions, all of them among its references now. */
  readonly references: Readonly<Record<StorePath, readonly StorePath[]>>;
  /** Checks of the derivation that the added references break. */
  readonly violations: readonly string[];
  /** Why registering failed; "" if it did not. */
  readonly error: string;
}

export function isEnded(config: RootConfig, id: SandboxId): boolean {
  return existsSync(sandboxPlaces(config, id).ended);
}

/** Whether the build is over, but its references are not registered: until they are, the folder tells this to the service. */
export function isPending(config: RootConfig, id: SandboxId): boolean {
  const { ended } = sandboxPlaces(config, id);
  // A longer one lists registered references.
  if ((statSync(ended, { throwIfNoEntry: false })?.size ?? 0) > MAX_PENDING) return false;
  const text = readTrusted(ended, MAX_PENDING);
  const value: unknown = text === undefined ? undefined : JSON.parse(text);
  return isObject(value) && value.outcome === "pending";
}

/**
 * Writes it, if there is a folder: a reboot may have removed it, or another process that settled the same sandbox at the same
 * time, for a linker that was killed meanwhile, has said how it ended and the service has let go of it.
 */
export function writeEnd(config: RootConfig, id: SandboxId, end: SandboxEnd): void {
  const { gid } = serviceAccount(config.serviceUser);
  try {
    writeTrusted(sandboxPlaces(config, id).ended, `${JSON.stringify(end)}\n`, 0o640, gid);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
