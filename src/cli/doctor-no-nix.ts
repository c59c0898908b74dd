/** Whether there is a Nix on this machine at all: without one, its defaults are nobody's settings. */
import { lstatSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { type Finding, ok, problem } from "./doctor-finding.ts";
import type { NixSettings } from "./doctor-nix-settings.ts";

/** @returns undefined if there is a Nix, or may be one that this user cannot see */
export function checkNoNix({ upstream }: Config, settings: NixSettings): Finding | undefined {
  if (settings.present || mayExist(upstream.socket)) return undefined;
  const missing = `no program nix in PATH, no ${settings.file}, no socket ${upstream.socket}`;
  if (upstream.command)
    return ok("Nix", `there is none on this machine (${missing}), and upstream.command is used`);
  return problem(
    "Nix",
    `there is none on this machine: ${missing}; what depends on it was not checked`,
    "install Nix for all users (--daemon), or set upstream.socket or upstream.command",
  );
}

function mayExist(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code !== "ENOENT" && code !== "ENOTDIR";
  }
}
