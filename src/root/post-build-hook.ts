/**
 * `post-build-hook`, called as root by nix-daemon after each successful build: settles the sandboxes of the build. As with the
 * pre-build hook, by the linker or by a program of its own.
 */
import type { RootConfig } from "../contract/root-config.ts";
import type { SandboxRecord } from "../contract/sandbox-record.ts";
import { errorText } from "../contract/trusted-file.ts";
import { isStorePath, storePathBase } from "../store/store-path.ts";
import type { HookCall } from "./hook-call.ts";
import { readSandbox, sandboxesOf } from "./registration.ts";
import { isEnded, isPending, type SandboxEnd } from "./sandbox-end.ts";

/** What is to be said to whoever asked for the build. */
export interface PostBuild {
  readonly messages: readonly string[];
  /** Whether all is done that was to be done. */
  readonly isDone: boolean;
}

/** Never throws: a failing hook would end other people's builds. */
export async function postBuildHook(
  config: RootConfig,
  { environment }: HookCall,
  settle: (record: SandboxRecord) => Promise<Pick<SandboxEnd, "outcome" | "violations" | "error">>,
): Promise<PostBuild> {
  const { DRV_PATH: drvPath = "" } = environment;
  const messages: string[] = [];
  if (!isStorePath(drvPath, config.storeDir)) return { messages, isDone: true };
  let isDone = true;
  for (const id of sandboxesOf(config, storePathBase(drvPath))) {
    try {
      const record = readSandbox(config, id);
      // Nix runs the hook twice for some kinds of derivation.
      if (record?.drvPath !== drvPath || (isEnded(config, id) && !isPending(config, id))) continue;
      const end = await settle(record);
      for (const violation of end.violations) messages.push(`WARNING: ${violation} (${drvPath})`);
      if (end.outcome !== "pending") continue;
      isDone = false;
      messages.push(
        `the references of ${drvPath} are not registered yet, and will be tried again: ${end.error}`,
      );
    } catch (error) {
      isDone = false;
      messages.push(`sandbox ${id} of ${drvPath}: ${errorText(error)}`);
    }
  }
  return { messages, isDone };
}
