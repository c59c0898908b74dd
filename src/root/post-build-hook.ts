/** `post-build-hook`, called as root by nix-daemon after each successful build: settles the sandboxes of the build. */
import { existsSync } from "node:fs";
import type { RootConfig } from "../contract/root-config.ts";
import { sandboxPlaces } from "../contract/runtime-tree.ts";
import { errorText } from "../contract/trusted-file.ts";
import { isStorePath, storePathBase } from "../store/store-path.ts";
import { readSandbox, sandboxesOf } from "./registration.ts";
import { settle } from "./settle.ts";

/**
 * Never throws: a failing hook would end other people's builds. Errors go to stderr, which Nix shows to
 * whoever asked for the build.
 * @param drvPath the derivation that was built, as given by Nix (`DRV_PATH`)
 */
export async function postBuildHook(config: RootConfig, drvPath: string): Promise<void> {
  if (!isStorePath(drvPath, config.storeDir)) return;
  for (const id of sandboxesOf(config, storePathBase(drvPath))) {
    try {
      const record = readSandbox(config, id);
      // Nix runs the hook twice for some kinds of derivation.
      if (record?.drvPath !== drvPath || existsSync(sandboxPlaces(config, id).ended)) continue;
      const end = await settle(config, record);
      for (const violation of end.violations) complain(`WARNING: ${violation} (${drvPath})`);
      if (end.outcome === "pending")
        complain(
          `the references of ${drvPath} are not registered yet, and will be tried again: ${end.error}`,
        );
    } catch (error) {
      complain(`sandbox ${id} of ${drvPath}: ${errorText(error)}`);
    }
  }
}

function complain(message: string): void {
  process.stderr.write(`nix-broker: ${message}\n`);
}
