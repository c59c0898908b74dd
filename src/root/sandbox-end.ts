/** `ended`: the file in a sandbox's folder that says how it ended. */
import { type RootConfig, serviceAccount } from "../contract/root-config.ts";
import { type SandboxId, sandboxPlaces } from "../contract/runtime-tree.ts";
import { errorCode, writeTrusted } from "../contract/trusted-file.ts";
import type { StorePath } from "../store/store-path.ts";

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
