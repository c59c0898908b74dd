/** The process that settles sandboxes for the linker, one after the other, until the linker lets go of it. */
import { loadRootConfig, type RootConfig } from "../contract/root-config.ts";
import { isSandboxId, type SandboxId } from "../contract/runtime-tree.ts";
import { errorText } from "../contract/trusted-file.ts";
import { nixSetting } from "./nix-settings.ts";
import { readDurable, readSandbox } from "./registration.ts";
import { isEnded, isPending } from "./sandbox-end.ts";
import { settle } from "./settle.ts";
import type { SettleAnswer, SettleRequest } from "./settlers.ts";

/** @returns undefined where there is nothing left of the sandbox to settle */
export async function settleById(
  config: RootConfig,
  id: SandboxId,
  keyFiles = nixSetting("secret-key-files"),
): Promise<SettleAnswer | undefined> {
  if (!isSandboxId(id)) throw new Error(`"${id}" is not the id of a sandbox`);
  // Settled since, by a hook that did not wait any longer: with its roots went what it gained, and `ended` tells of it.
  if (isEnded(config, id) && !isPending(config, id)) return undefined;
  const record = readDurable(config, id) ?? readSandbox(config, id);
  return record && settle(config, record, keyFiles);
}

/** Answers the linker's requests; it ends once the linker has ended. */
export function serveLinker(): void {
  process.on("message", async ({ id, keyFiles }: SettleRequest) => {
    let answer: SettleAnswer;
    try {
      const end = await settleById(loadRootConfig(), id, keyFiles);
      answer = end ?? { outcome: "failed", violations: [], error: "" };
    } catch (error) {
      answer = { outcome: "pending", violations: [], error: errorText(error) };
    }
    // A linker that ends meanwhile does not wait for it.
    if (process.connected) process.send?.(answer, () => undefined);
  });
}
