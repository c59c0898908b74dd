/**
 * What the pre-build hook's script maps into a build that opted in, if the hook's program failed: a folder for the daemon's
 * socket without a socket, and settings that have clients look there alone. Made beforehand: the program may have failed
 * because there is no memory or space. All such builds share it, and none can write to it.
 */
import { mkdirSync } from "node:fs";
import type { RootConfig } from "../contract/root-config.ts";
import { writeTrusted } from "../contract/trusted-file.ts";
import { clientRegistry, clientSettings } from "./client-settings.ts";

const README = `There is no daemon in this sandbox: the pre-build hook of nix-broker failed (journalctl -u nix-daemon)
`;

/** @param config of the runtime folder, which exists already */
export function makeNoDaemonFolder(config: RootConfig): void {
  const folder = `${config.runtimeDir}/no-daemon`;
  for (const path of [folder, `${folder}/etc`, `${folder}/socket.d`])
    mkdirSync(path, { recursive: true, mode: 0o755 });
  writeTrusted(`${folder}/etc/nix.conf`, clientSettings, 0o644);
  writeTrusted(`${folder}/etc/registry.json`, clientRegistry, 0o644);
  writeTrusted(`${folder}/socket.d/README`, README, 0o644);
}
