/** Checks of what `nix-broker jail` needs besides the nix-daemon. */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { dirname } from "node:path";
import type { Config } from "../config/config.ts";
import { findBwrap } from "../jail/find-bwrap.ts";
import { JailError } from "../jail/jail-error.ts";
import { troubleHere } from "../jail/trouble.ts";
import { type Finding, ok, type problem } from "./doctor-finding.ts";

const PATIENCE_MS = 10_000;

/** @param bad what is said of something that is not right: not everybody makes jails */
export function checkJail({ audit }: Config, bad: typeof problem): Finding[] {
  return [checkBubblewrap(bad), checkState(dirname(audit.path), bad)];
}

function checkBubblewrap(bad: typeof problem): Finding {
  const topic = "bubblewrap";
  try {
    const bwrap = findBwrap(process.env.PATH ?? "", [process.cwd()]);
    const { status, stderr, error } = spawnSync(
      bwrap,
      ["--unshare-all", "--ro-bind", "/", "/", "/bin/sh", "-c", ":"],
      { encoding: "utf8", timeout: PATIENCE_MS },
    );
    if (status === 0) return ok(topic, `${bwrap} works, so nix-broker jail can make jails`);
    const said = error?.message ?? stderr.trim();
    return bad(
      topic,
      `${bwrap} cannot make a jail: ${said}`,
      troubleHere() ?? "nix-broker jail -- true may tell more",
    );
  } catch (error) {
    if (!(error instanceof JailError)) throw error;
    return bad(topic, "bwrap is not in PATH, and nix-broker jail needs it", "install the package bubblewrap");
  }
}

/** Jails record there what they ask for. */
function checkState(folder: string, bad: typeof problem): Finding {
  let nearest = folder;
  while (!existsSync(nearest)) nearest = dirname(nearest);
  try {
    accessSync(nearest, constants.W_OK | constants.X_OK);
    return ok("state", `the audits of your jails are kept in ${folder}`);
  } catch (error) {
    return bad(
      "state",
      `the audits of jails cannot be kept in ${folder}: ${(error as Error).message}`,
      "make it writable for you, or set XDG_STATE_HOME to a folder that is",
    );
  }
}
